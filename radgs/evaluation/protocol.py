"""Registrations against the truth: one row each, and the aggregate. The only place that opens truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radgs.anatomy import LEVELS
from radgs.config import Config
from radgs.errors import AnatomyError, GeometryError, RadgsError
from radgs.evaluation.poses import (
    success_rate,
    summarize,
    target_points,
    target_registration_error,
    wilson_interval,
)
from radgs.evaluation.volumes import VolumeMetrics, average_metrics, compare_volumes
from radgs.geometry import Camera, RigidTransform, patient_axes
from radgs.images import (
    Volume,
    atomic_path,
    read_cameras,
    read_json,
    read_transforms,
    read_volume,
    resample_like,
    write_json,
)

# A registration that is off by more is wrong; one that is wrong and accepted is a false accept.
_WRONG_MM = 2.0
_SEEN = 0.5  # the share of a vertebra's points that an image must hold to show it
_RECONSTRUCTIONS = {
    "xray_only": "reconstruction_xray_only.nii.gz",
    "ct_assisted": "reconstruction_ct_assisted.nii.gz",
}


@dataclass(frozen=True)
class EvaluatedShot:
    """Where one shot's results and truth lie.

    Attributes:
        patient: id.
        shot: id.
        folder: ``results/patients/{patient}/{shot}``.
        truth: JSON of ``world_from_ct`` per level, see :func:`radgs.images.read_transforms`.
        vertebrae: the patient's label map.
        ct: the patient's CT; its crops lie beside it, in ``crops/{level}_excess.nii.gz``.
        levels: those to be registered in this patient.
    """

    patient: str
    shot: str
    folder: Path
    truth: Path
    vertebrae: Path
    ct: Path
    levels: Sequence[str]


@dataclass(frozen=True)
class Row:
    """One registration in ``registrations.csv``; None is an empty cell.

    Attributes:
        patient: id.
        shot: id.
        level: name.
        unregistered_mtre_mm: of the CT put with the centroid of its target levels at the world's origin, in the
            patient's nominal axes.
        start_mtre_mm: of the detected centre in the nominal axes.
        regm_mtre_mm: after RegM.
        mtre_mm: of the final pose; None if the level has none, which counts as a failure.
        verdict: ``accepted``, ``review`` or ``rejected``; a level without any result is ``rejected``.
        probability: of mTRE < 2 mm, as judged without truth.
        seconds: it took.
        labels: ``ok``, ``suspect`` or ``cut``: what the audit says of the vertebra's label; None: no result.
        excluded: why the row is no registration: ``cut``, the CT does not hold the whole vertebra, or ``outside``, at
            its true pose less than two images show half of it; None: it is one. A row with a pose always is.
    """

    patient: str
    shot: str
    level: str
    unregistered_mtre_mm: float
    start_mtre_mm: float | None = None
    regm_mtre_mm: float | None = None
    mtre_mm: float | None = None
    verdict: str = "rejected"
    probability: float | None = None
    seconds: float | None = None
    labels: str | None = None
    excluded: str | None = None


def evaluate_registrations(
    shots: Sequence[EvaluatedShot], csv: str | Path, summary: str | Path, config: Config
) -> None:
    """Measure every registration that has a truth and write ``registrations.csv`` and ``summary.json``.

    Every level of a shot's ``levels`` with a truth is a row, found or not; so is any other level with a truth and a
    result. Both files are written or neither. The keys of the summary are those of :func:`summary_of`; without any
    shot, as with a real patient, the table is empty and the summary says ``{"n": 0}``.

    Raises:
        RadgsError: a file is missing or not what it should be, or there is nothing to evaluate.
        AnatomyError: a level with a truth is not in the label map.
    """
    rows: list[Row] = []
    reconstructions: dict[str, list[VolumeMetrics]] = {kind: [] for kind in _RECONSTRUCTIONS}
    for shot in shots:
        truth, labels = read_transforms(shot.truth), read_volume(shot.vertebrae)
        points = fixed_points(shot, labels, truth, config)
        cameras = read_cameras(Path(shot.folder) / "cameras.json")
        unregistered = _unregistered(shot, labels, cameras)
        for level, fixed in points.items():
            row = _row(shot, level, truth[level], fixed, unregistered)
            if row.mtre_mm is None:
                why = why_excluded(row.labels == "cut", truth[level].apply(fixed), cameras)
                row = replace(row, excluded=why)
            rows.append(row)
            for kind, metrics in _reconstructions(shot, level, truth[level]).items():
                reconstructions[kind].append(metrics)
    if shots and not rows:
        raise RadgsError("nothing to evaluate: no shot has a truth for a level that was asked for")
    table = pd.DataFrame([asdict(row) for row in rows], columns=[f.name for f in fields(Row)])
    content: dict[str, Any] = {"n": 0}
    if rows:
        content = summary_of(table) | {kind: average_metrics(found) for kind, found in reconstructions.items()}
    with atomic_path(csv) as part:
        table.to_csv(part, index=False, float_format="%.6g")
        write_json(summary, content)


def summary_of(table: pd.DataFrame) -> dict[str, Any]:
    """The aggregate of a table with the columns of :class:`Row`.

    Returns:
        ``n``, the registrations: all rows but those ``excluded``, which ``not_registered`` ``{cut, outside}`` counts
        and nothing else does; ``unregistered_mtre_mm``, ``start_mtre_mm``, ``regm_mtre_mm``, ``mtre_mm`` and, of the
        accepted, ``accepted_mtre_mm``, each ``{n, median, mean, sd, p95}`` over those that have a pose; over **all**
        ``n``, ``{value, low, high}`` with 95 % Wilson intervals: ``success_2mm``, ``success_1mm``,
        ``better_than_start_regm``; ``accepted`` ``{count, fraction}``; ``false_accepts``, the number accepted
        without an mTRE below 2 mm; ``seconds_per_registration``, the mean. With no registration, ``n`` and
        ``not_registered`` alone.
    """
    excluded = {why: int((table["excluded"] == why).sum()) for why in ("cut", "outside")}
    table = table[table["excluded"].isna()]
    if table.empty:
        return {"n": 0, "not_registered": excluded}
    steps = ["unregistered_mtre_mm", "start_mtre_mm", "regm_mtre_mm", "mtre_mm"]
    mtre = {step: table[step].to_numpy(dtype=np.float64, na_value=np.nan) for step in steps}
    final, accepted = mtre["mtre_mm"], (table["verdict"] == "accepted").to_numpy()
    seconds = summarize(table["seconds"].to_numpy(dtype=np.float64, na_value=np.nan))
    return {
        "n": len(table),
        "not_registered": excluded,
        **{step: summarize(errors) for step, errors in mtre.items()},
        "accepted_mtre_mm": summarize(final[accepted]),
        "success_2mm": success_rate(final, _WRONG_MM),
        "success_1mm": success_rate(final, 1.0),
        "accepted": {"count": int(accepted.sum()), "fraction": float(accepted.mean())},
        "false_accepts": int((accepted & ~(final < _WRONG_MM)).sum()),
        "better_than_start_regm": wilson_interval(
            int((mtre["regm_mtre_mm"] < mtre["start_mtre_mm"]).sum()), len(table)
        ),
        "seconds_per_registration": seconds["mean"],
    }


def fixed_points(
    shot: EvaluatedShot, labels: Volume, truth: Mapping[str, RigidTransform], config: Config
) -> dict[str, NDArray[np.float64]]:
    """By level that is to be judged, the points at which it is: those asked for, and any with a result.

    Raises:
        AnatomyError: a level with a truth is not in the label map.
    """
    with_result = {path.parent.name for path in Path(shot.folder).glob("*/verdict.json")}
    points = {}
    for level in (name for name in truth if name in shot.levels or name in with_result):
        try:
            points[level] = target_points(_mask(labels, level), config.evaluation.points)
        except AnatomyError:
            raise AnatomyError(f"{shot.vertebrae}: {level} is not in it, but {shot.truth} has its pose") from None
    return points


def _mask(labels: Volume, level: str) -> Volume:
    if level not in LEVELS:
        raise AnatomyError(f"{level} is not the name of a vertebra")
    return labels.with_array(labels.array == LEVELS[level])


def _unregistered(shot: EvaluatedShot, labels: Volume, cameras: Mapping[str, Camera]) -> RigidTransform:
    """``world_from_ct`` before anything is known: all target levels' centroid at the origin, nominal axes."""
    wanted = np.isin(labels.array, [LEVELS[level] for level in shot.levels])
    if not wanted.any():
        raise AnatomyError(f"{shot.vertebrae}: holds none of the levels {', '.join(shot.levels)}")
    centroid = labels.points(np.argwhere(wanted)[:, ::-1].mean(axis=0))
    axes = patient_axes(cameras)
    return RigidTransform.from_rotation_translation(axes, -axes @ centroid)


def why_excluded(cut: bool, points: NDArray[np.float64], cameras: Mapping[str, Camera]) -> str | None:
    """Why a vertebra without a pose is no failure, told from audit and truth alone.

    A detector that misses a vertebra which two images show has failed.

    Args:
        cut: whether the CT's border cuts the vertebra.
        points: of the vertebra where it truly is, ``[n, 3]`` world, mm.
        cameras: of the shot.
    """
    if cut:
        return "cut"
    shown = [camera.sees(points).mean() >= _SEEN for camera in cameras.values()]
    return None if sum(shown) >= 2 else "outside"


def _row(
    shot: EvaluatedShot,
    level: str,
    truth: RigidTransform,
    points: NDArray[np.float64],
    unregistered: RigidTransform,
) -> Row:
    def mtre(pose: RigidTransform | None) -> float | None:
        return None if pose is None else target_registration_error(pose, truth, points)

    who: dict[str, Any] = {"patient": shot.patient, "shot": shot.shot, "level": level}
    who["unregistered_mtre_mm"] = mtre(unregistered)
    folder = Path(shot.folder) / level
    if not (folder / "verdict.json").is_file():
        return Row(**who)
    verdict = read_json(folder / "verdict.json")
    judged = {key: verdict.get(key) for key in ("verdict", "probability", "labels")}
    if judged["verdict"] not in ("accepted", "review", "rejected"):
        raise RadgsError(f"{folder / 'verdict.json'}: verdict must be accepted, review or rejected, got {judged}")
    if not (folder / "world_from_ct.json").is_file():
        return Row(**who, **judged)
    content = read_json(folder / "world_from_ct.json")
    steps = _poses(folder / "world_from_ct.json", content.get("steps", {}))
    return Row(
        **who,
        **judged,
        start_mtre_mm=mtre(steps.get("detected")),
        regm_mtre_mm=mtre(steps.get("regm")),
        mtre_mm=mtre(read_transforms(folder / "world_from_ct.json").get(level)),
        seconds=content.get("seconds"),
    )


def _poses(path: Path, steps: dict[str, Any]) -> dict[str, RigidTransform]:
    try:
        return {step: RigidTransform(np.array(matrix, float)) for step, matrix in steps.items()}
    except (GeometryError, ValueError, TypeError) as error:
        raise GeometryError(f"{path}: steps: {error}") from None


def _reconstructions(shot: EvaluatedShot, level: str, truth: RigidTransform) -> dict[str, VolumeMetrics]:
    """What the level's reconstructions are worth, against the CT's excess put where the truth says."""
    found = {}
    for kind, name in _RECONSTRUCTIONS.items():
        path = Path(shot.folder) / level / name
        if path.is_file():
            reconstruction = read_volume(path)
            excess = read_volume(Path(shot.ct).parent / "crops" / f"{level}_excess.nii.gz")
            found[kind] = compare_volumes(reconstruction, averaged_over_voxels(excess, reconstruction, truth))
    return found


def averaged_over_voxels(excess: Volume, grid: Volume, world_from_ct: RigidTransform) -> Volume:
    """The mean of a CT's excess over each voxel of a grid in the world.

    A network's grid is several times coarser than the CT: values at the centres of its voxels would miss or hit thin
    cortical bone by chance.
    """
    n = max(1, math.ceil(grid.spacing.max() / excess.spacing.min() - 0.01))
    within = np.diag([1 / n, 1 / n, 1 / n, 1.0])
    within[:3, 3] = (1 / n - 1) / 2  # the first of n parts of voxel 0
    d, h, w = grid.array.shape
    fine = Volume(np.zeros((n * d, n * h, n * w), np.float32), grid.lps_from_index @ within)
    values = resample_like(excess, fine, volume_from_grid=world_from_ct.inverse().matrix).array
    return grid.with_array(values.reshape(d, n, h, n, w, n).mean(axis=(1, 3, 5), dtype=np.float32))
