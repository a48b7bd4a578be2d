"""Poses of any program, judged like ours: tables of poses in, errors by method out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from radgs.anatomy import read_audit
from radgs.config import Config
from radgs.errors import GeometryError, RadgsError
from radgs.evaluation.poses import capture_range, success_rate, summarize, target_registration_error
from radgs.evaluation.protocol import EvaluatedShot, fixed_points, why_excluded
from radgs.geometry import Camera, RigidTransform
from radgs.images import atomic_path, read_cameras, read_transforms, read_volume, write_json

OURS = "radgs"
_WHO = ("method", "patient", "shot", "level")
_MATRIX = tuple(f"m{row}{column}" for row in range(3) for column in range(4))
_VECTOR = ("rx_rad", "ry_rad", "rz_rad", "tx_mm", "ty_mm", "tz_mm")
_OPTIONAL = ("run", "start_mtre_mm", "seconds")
_Case = tuple[str, str, str]  # patient, shot, level


@dataclass(frozen=True)
class Pose:
    """A line of a table of poses.

    Attributes:
        method: who found it.
        case: patient, shot, level.
        world_from_ct: the pose; None: the method found none.
        run: tells several starts of a case from each other.
        start_mtre_mm: how far off the method began.
        seconds: it took.
    """

    method: str
    case: _Case
    world_from_ct: RigidTransform | None
    run: str = ""
    start_mtre_mm: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class JudgedPose:
    """A row of ``poses.csv``; None is an empty cell. ``excluded`` as in :class:`radgs.evaluation.protocol.Row`."""

    method: str
    patient: str
    shot: str
    level: str
    run: str
    start_mtre_mm: float | None
    mtre_mm: float | None
    seconds: float | None
    excluded: str | None


@dataclass(frozen=True)
class _Target:
    truth: RigidTransform
    points: NDArray[np.float64]
    cut: bool
    cameras: Mapping[str, Camera]


def read_poses(path: str | Path) -> list[Pose]:
    """Read a table of poses (CSV).

    Columns ``method, patient, shot, level``, and the pose as ``m00 m01 m02 m03 m10 ... m23`` (the first three rows
    of the 4 x 4 world_from_ct, mm) or as ``rx_rad ry_rad rz_rad tx_mm ty_mm tz_mm`` (its rotation vector and
    translation). Optional: ``run``, ``start_mtre_mm``, ``seconds``. A line whose pose is empty says that the method
    found none.

    Raises:
        RadgsError: the file, its columns or a number is not as above.
        GeometryError: a pose is not rigid.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise RadgsError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise RadgsError(f"{path}: cannot be read as CSV ({' '.join(str(error).split())})") from None
    names = [str(c).strip() for c in table.columns]
    table.columns = pd.Index(names)
    form = next((form for form in (_MATRIX, _VECTOR) if set(form) <= set(names)), None)
    unknown = [c for c in names if c not in (*_WHO, *(form or ()), *_OPTIONAL)]
    if form is None or unknown or not set(_WHO) <= set(names):
        raise RadgsError(
            f"{path}: its columns must be {', '.join(_WHO)} and either {_MATRIX[0]} to {_MATRIX[-1]} or "
            f"{', '.join(_VECTOR)}; it may have {', '.join(_OPTIONAL)}"
            + (f"; {', '.join(unknown)} is none of them" if unknown and form else "")
        )
    if table.empty:
        raise RadgsError(f"{path}: has no line below its columns' names")
    return [_pose(f"{path}, line {i}", row, form) for i, row in enumerate(table.to_dict("records"), start=2)]


def _pose(where: str, row: Mapping[Any, str], form: Sequence[str]) -> Pose:
    cells = {str(name): cell.strip() for name, cell in row.items()}
    if not all(cells[name] for name in _WHO):
        raise RadgsError(f"{where}: {', '.join(name for name in _WHO if not cells[name])} is empty")
    numbers = [_number(where, name, cells[name]) for name in form]
    pose = None
    if any(number is not None for number in numbers):
        try:
            pose = _transform(np.array(numbers, dtype=np.float64))
        except GeometryError as error:
            raise GeometryError(f"{where}: {error}") from None
    start, seconds = (_number(where, name, cells.get(name, "")) for name in ("start_mtre_mm", "seconds"))
    case = (cells["patient"], cells["shot"], cells["level"])
    return Pose(cells["method"], case, pose, cells.get("run", ""), start, seconds)


def _number(where: str, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        raise RadgsError(f"{where}: {name} is {cell!r}, not a number") from None
    return number if np.isfinite(number) else None


def _transform(numbers: NDArray[np.float64]) -> RigidTransform:
    """None among the numbers has become NaN, which no rigid transform holds."""
    if len(numbers) == len(_MATRIX):
        return RigidTransform(np.vstack([numbers.reshape(3, 4), [0, 0, 0, 1]]))
    if not np.isfinite(numbers).all():
        raise GeometryError("some of the pose's six numbers are missing")
    return RigidTransform.from_rotation_translation(Rotation.from_rotvec(numbers[:3]).as_matrix(), numbers[3:])


def evaluate_poses(
    tables: Sequence[str | Path], shots: Sequence[EvaluatedShot], csv: str | Path, summary: str | Path, config: Config
) -> dict[str, Any]:
    """Judge tables of poses, and our own of the same shots if there are any, against the truth.

    Every level of the shots that has a truth is a target of every method: one for which a method has no line counts as
    one for which it found no pose.

    Args:
        tables: see :func:`read_poses`.
        shots: with their truth.
        csv: output, a row a pose, see :class:`JudgedPose`.
        summary: output, what is returned.
        config: ``evaluation``.

    Returns:
        ``{"methods": {method: ...}}``, each as :func:`summary_of_method` says.

    Raises:
        RadgsError: a file cannot be used, a pose has no truth, or two lines are of one run; nothing is written.
    """
    targets = {case: target for shot in shots for case, target in _targets(shot, config).items()}
    if not targets:
        raise RadgsError("nothing to evaluate: no shot has a truth for a level that was asked for")
    poses = [pose for table in tables for pose in _checked(table, read_poses(table), targets)]
    poses += [pose for shot in shots for pose in _ours(shot, targets)]
    methods = list(dict.fromkeys(pose.method for pose in poses))
    have = {(pose.method, pose.case) for pose in poses}
    poses += [Pose(m, case, None) for m in methods for case in targets if (m, case) not in have]
    rows = pd.DataFrame(
        [asdict(_judged(pose, targets[pose.case])) for pose in poses], columns=[f.name for f in fields(JudgedPose)]
    )
    content = {"methods": {method: summary_of_method(rows[rows["method"] == method]) for method in methods}}
    with atomic_path(csv) as part:
        rows.to_csv(part, index=False, float_format="%.6g")
        write_json(summary, content)
    return content


def _targets(shot: EvaluatedShot, config: Config) -> dict[_Case, _Target]:
    truth, labels = read_transforms(shot.truth), read_volume(shot.vertebrae)
    cameras = read_cameras(Path(shot.folder) / "cameras.json")
    audit = read_audit(Path(shot.vertebrae).with_name("vertebrae.json"))
    return {
        (shot.patient, shot.shot, level): _Target(
            truth[level], points, level in audit and audit[level].status == "cut", cameras
        )
        for level, points in fixed_points(shot, labels, truth, config).items()
    }


def _checked(path: str | Path, poses: list[Pose], targets: Mapping[_Case, _Target]) -> list[Pose]:
    seen = set()
    for line, pose in enumerate(poses, start=2):
        where, who = f"{path}, line {line}", " ".join(pose.case)
        if pose.case not in targets:
            raise RadgsError(f"{where}: {who} has no truth; take the line out or name its truth in the sheet")
        if pose.method == OURS:
            raise RadgsError(f"{where}: {OURS} is the name of our own poses, read from the results; use another")
        if (pose.method, pose.case, pose.run) in seen:
            raise RadgsError(f"{where}: {pose.method} has {who} twice; tell runs apart in the column run")
        seen.add((pose.method, pose.case, pose.run))
    return poses


def _ours(shot: EvaluatedShot, targets: Mapping[_Case, _Target]) -> list[Pose]:
    found = []
    for case in (case for case in targets if case[:2] == (shot.patient, shot.shot)):
        file = Path(shot.folder) / case[2] / "world_from_ct.json"
        if file.is_file():
            found.append(Pose(OURS, case, read_transforms(file).get(case[2])))
    return found


def _judged(pose: Pose, target: _Target) -> JudgedPose:
    mtre, excluded = None, None
    if pose.world_from_ct is None:
        excluded = why_excluded(target.cut, target.truth.apply(target.points), target.cameras)
    else:
        mtre = target_registration_error(pose.world_from_ct, target.truth, target.points)
    return JudgedPose(pose.method, *pose.case, pose.run, pose.start_mtre_mm, mtre, pose.seconds, excluded)


def summary_of_method(rows: pd.DataFrame) -> dict[str, Any]:
    """The aggregate of one method's rows of ``poses.csv``.

    Returns:
        ``n``, all rows but those excluded; ``without_pose`` of them, which are failures; ``mtre_mm``, ``start_mtre_mm``
        and ``seconds`` ``{n, median, mean, sd, p95}`` of those that have one; ``success_2mm`` and ``success_1mm``
        ``{value, low, high}`` with 95 % Wilson intervals, over all ``n``; ``capture_range`` ``{mm, ended_by}`` at 2 mm,
        if every row says where it began. With ``n = 0`` nothing else.
    """
    rows = rows[rows["excluded"].isna()]
    if rows.empty:
        return {"n": 0}
    mtre, start, seconds = (
        rows[c].to_numpy(dtype=np.float64, na_value=np.nan) for c in ("mtre_mm", "start_mtre_mm", "seconds")
    )
    found: dict[str, Any] = {
        "n": len(rows),
        "without_pose": int(np.isnan(mtre).sum()),
        "start_mtre_mm": summarize(start),
        "mtre_mm": summarize(mtre),
        "success_2mm": success_rate(mtre, 2.0),
        "success_1mm": success_rate(mtre, 1.0),
        "seconds": summarize(seconds),
    }
    if np.isfinite(start).all():
        found["capture_range"] = asdict(capture_range(start, mtre < 2.0))
    return found
