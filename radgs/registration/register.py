"""A shot to poses: detect, reconstruct, register in 3D, refine on the X-rays, judge, write."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from radgs.anatomy import (
    LEVELS,
    LevelAudit,
    SpineTissue,
    VertebraCrop,
    neighbours,
    read_audit,
    read_crop,
    read_labelled_ct,
    read_levels,
    split_tissue,
)
from radgs.config import Config
from radgs.errors import AnatomyError, ConfigError
from radgs.gaussians import RadiativeGaussians, read_ply, write_ply
from radgs.geometry import RigidTransform
from radgs.images import (
    Volume,
    Xray,
    atomic_path,
    read_json,
    read_xrays,
    resample_like,
    write_json,
    write_transforms,
    write_volume,
)
from radgs.models import RecM, RegM, load_recm, load_regm
from radgs.registration.attention import write_attention
from radgs.registration.consensus import consensus
from radgs.registration.initialize import Estimate, estimate
from radgs.registration.judge import Evidence, Verdict, judge, read_model
from radgs.registration.refine import Refined, refine
from radgs.registration.scene import Scene, View

_POINTS = 300


@dataclass(frozen=True)
class Patient:
    """What is known of a patient before the X-rays.

    Attributes:
        tissue: the CT in parts, the levels to be registered and their neighbours.
        audit: by level, what is known of its label.
        crops: by level; none of a level that the CT's border cuts.
        anchors: by level, Gaussians fitted to the crop, vertebra frame.
    """

    tissue: SpineTissue
    audit: Mapping[str, LevelAudit]
    crops: dict[str, VertebraCrop]
    anchors: dict[str, RadiativeGaussians]


@dataclass(frozen=True)
class Registration:
    """One vertebra's result: the pose after each step, the verdict, the share of time."""

    level: str
    estimate: Estimate
    refined: RigidTransform
    verdict: Verdict
    seconds: float


def _mean_distance(a: RigidTransform, b: RigidTransform, points: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(a.apply(points) - b.apply(points), axis=-1).mean())


def register(
    patient: Patient,
    xrays: Mapping[str, Xray],
    levels: Mapping[str, Mapping[str, Any]],
    recm: RecM,
    regm: RegM,
    verdict_model: dict[str, Any],
    config: Config,
) -> dict[str, Registration]:
    """Register the located levels of one shot.

    Args:
        patient: the CT's side.
        xrays: the views.
        levels: by level, ``centre_mm`` (world), ``residual_mm`` and ``doubts`` of its name, as in ``levels.json``.
        recm: reconstruction network.
        regm: registration network.
        verdict_model: of :func:`radgs.registration.judge.read_model`.
        config: settings.

    Raises:
        AnatomyError: none of the located levels is among the patient's crops.
    """
    began = time.perf_counter()
    centres = {k: np.asarray(v["centre_mm"], dtype=np.float64) for k, v in levels.items() if k in patient.crops}
    if not centres:
        raise AnatomyError(f"none of the located levels {sorted(levels)} has a crop ({sorted(patient.crops)})")
    points = {level: crop.points(_POINTS) for level, crop in patient.crops.items()}
    estimates = estimate(xrays, centres, patient.crops, patient.anchors, recm, regm, config)
    middle = np.mean(list(centres.values()), axis=0)
    scene = Scene(
        {name: View.from_xray(x, middle, config.refinement.pixel_mm) for name, x in xrays.items()}, patient.tissue
    )
    chosen, other = _refine_from_two_starts(scene, estimates, points, config)
    seconds = (time.perf_counter() - began) / len(centres)
    results = {}
    for level, found in estimates.items():
        pose = chosen.world_from_ct[level]
        views = chosen.similarity[level]
        seen = [x.camera.sees(pose.apply(points[level])).mean() for x in xrays.values()]
        evidence = Evidence(
            similarity=float(np.mean(list(views.values()))) if views else -1.0,
            worst_similarity=min(views.values()) if len(views) == len(xrays) else -1.0,
            disagreement_mm=_mean_distance(pose, other.world_from_ct[level], points[level]),
            moved_mm=_mean_distance(pose, found.regm, points[level]),
            residual_mm=float(levels[level]["residual_mm"]),
            visible=float(min(seen)),
        )
        verdict = judge(
            evidence, config.judgement, verdict_model, patient.audit[level].reasons, levels[level].get("doubts", ())
        )
        results[level] = Registration(level, found, pose, verdict, seconds)
    return results


def _refine_from_two_starts(
    scene: Scene, estimates: Mapping[str, Estimate], points: Mapping[str, NDArray[np.float64]], config: Config
) -> tuple[Refined, Refined]:
    """Refine from the levels' consensus as one body, and from each level's own network pose; the better first."""
    rigid, _ = consensus({k: e.regm for k, e in estimates.items()}, points)
    body = dict.fromkeys(scene.parts, rigid)
    own = {level: estimates[nearest_level(level, estimates, scene)].regm for level in scene.parts}
    settings = config.refinement
    results = [refine(scene, body, settings), refine(scene, own, settings, as_one_body=False)]
    return _best_of_each(results, list(estimates))


def nearest_level(level: str, others: Iterable[str], scene: Scene) -> str:
    """The one of ``others`` whose vertebra lies nearest to ``level``'s in the CT; itself, if it is among them."""
    return min(others, key=lambda k: float((scene.parts[k].centre - scene.parts[level].centre).norm()))


def _best_of_each(results: list[Refined], levels: list[str]) -> tuple[Refined, Refined]:
    """By level, the result that agrees better with the X-rays, and the other one."""
    first, second = results
    best = {k: first if first.objective(k) >= second.objective(k) else second for k in levels}
    rest = {k: second if best[k] is first else first for k in levels}

    def merge(choice: dict[str, Refined]) -> Refined:
        return Refined(
            {k: r.world_from_ct[k] for k, r in choice.items()}, {k: r.similarity[k] for k, r in choice.items()}
        )

    return merge(best), merge(rest)


def _world_volume(array: NDArray[np.float32], found: Estimate) -> Volume:
    """A volume on the estimate's grid, placed in the world."""
    frame = np.diag([*[found.grid.spacing_mm] * 3, 1.0])
    frame[:3, 3] = found.grid.origin
    return Volume(array, found.world_from_crop.matrix @ frame)


def write_registration(folder: Path, result: Registration, crop: VertebraCrop) -> None:
    """Write one level's files (DESIGN section 4) into ``folder``."""
    found, ct_from_world = result.estimate, result.refined.inverse()
    steps = {"detected": found.detected, "regm": found.regm, "refined": result.refined}
    write_transforms(
        folder / "world_from_ct.json",
        {result.level: result.refined},
        steps={name: pose.matrix.tolist() for name, pose in steps.items()},
        seconds=result.seconds,
    )
    itk = sitk.AffineTransform(3)
    itk.SetMatrix(ct_from_world.rotation.ravel().tolist())
    itk.SetTranslation(ct_from_world.translation.tolist())
    with atomic_path(folder / "ct_from_world.tfm") as part:
        sitk.WriteTransform(itk, str(part))
    write_ply(folder / "gaussians.ply", found.gaussians.moved(found.world_from_crop.tensor().float()))
    for kind, volume in found.reconstructions.items():
        write_volume(folder / f"reconstruction_{kind}.nii.gz", _world_volume(volume.numpy(), found))
    grid = _world_volume(next(iter(found.reconstructions.values())).numpy(), found)
    registered = resample_like(crop.excess, grid, volume_from_grid=ct_from_world.matrix)
    write_volume(folder / "registered_ct.nii.gz", registered)
    write_attention(folder / "attention.h5", found.attention)
    write_json(folder / "verdict.json", result.verdict.to_json())


def read_patient(
    ct: str | Path,
    vertebrae: str | Path,
    audit: str | Path,
    crops: Mapping[str, str | Path],
    masks: Mapping[str, str | Path],
    anchors: Mapping[str, str | Path],
    config: Config,
) -> Patient:
    """Read a patient's CT, audit, crops and anchors (by level); cut levels are drawn but not to be registered.

    Raises:
        AnatomyError: the CT's border cuts every level, or the audit does not know one.
    """
    volume, labels = read_labelled_ct(ct, vertebrae)
    audited = read_audit(audit)
    unknown = sorted(set(crops) - set(audited))
    if unknown:
        raise AnatomyError(f"{audit}: says nothing of {', '.join(unknown)}")
    whole = [level for level in crops if audited[level].status != "cut"]
    if not whole:
        raise AnatomyError(f"{audit}: the border of the CT cuts every level that is to be registered")
    everything = split_tissue(volume, labels)
    drawn = {n for level in whole for n in neighbours(level, config.refinement.neighbours, set(everything.excess))}
    tissue = SpineTissue(
        everything.soft,
        {k: v for k, v in everything.excess.items() if k in drawn},
        {k: v for k, v in everything.masks.items() if k in drawn},
    )
    read = {level: read_crop(crops[level], masks[level], level) for level in whole}
    return Patient(tissue, audited, read, {level: read_ply(anchors[level]) for level in whole})


def register_shot(
    ct: str | Path,
    vertebrae: str | Path,
    audit: str | Path,
    crops: Mapping[str, str | Path],
    masks: Mapping[str, str | Path],
    anchors: Mapping[str, str | Path],
    xrays: str | Path,
    cameras: str | Path,
    levels: str | Path,
    models_folder: str | Path,
    output_folder: str | Path,
    config: Config,
) -> None:
    """Register every located level of a shot and write its results; others are ``rejected`` with the reason.

    Raises:
        RadgsError: a file cannot be used, or no level can be registered.
    """
    output, absent = Path(output_folder), read_json(levels)["not_seen"]
    for level in LEVELS:  # a pose of an earlier run must not survive, nor a level that is no longer asked for
        shutil.rmtree(output / level, ignore_errors=True)
    patient = read_patient(ct, vertebrae, audit, crops, masks, anchors, config)
    located = read_levels(levels)
    networks = load_recm(models_folder), load_regm(models_folder)
    for network in networks:
        if network.settings != config.network or network.crop_mm != config.crop.size_mm:
            raise ConfigError(
                f"{Path(models_folder) / 'card.json'}: weights of another network or crop than the config's"
            )
    results = register(patient, read_xrays(xrays, cameras), located, *networks, read_model(), config)
    for level, result in results.items():
        write_registration(output / level, result, patient.crops[level])
    for level in crops:
        if level not in results:
            label = patient.audit[level]
            why = f"not located in the X-rays: {absent.get(level, 'no box was given')}"
            if label.status == "cut":
                why = f"not registered: {'; '.join(label.reasons)}"
            write_json(output / level / "verdict.json", Verdict.not_registered(why, label.status).to_json())
    write_json(
        output / "registrations.json",
        {"registered": sorted(results), "not_registered": sorted(set(crops) - set(results))},
    )
