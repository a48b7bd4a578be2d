"""A shot to poses: reconstruct, register in 3D, refine on the X-rays, judge."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from radgs.anatomy import LevelAudit, SpineTissue, VertebraCrop
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.gaussians import RadiativeGaussians
from radgs.geometry import RigidTransform
from radgs.images import Xray
from radgs.models import RecM, RegM
from radgs.registration.contradiction import contradiction_mm
from radgs.registration.covariance import PoseCovariance
from radgs.registration.evidence import gather
from radgs.registration.hypotheses import refine_from_hypotheses
from radgs.registration.initialize import Estimate, estimate
from radgs.registration.judge import Verdict, judge
from radgs.registration.names import settle_names
from radgs.registration.scene import Scene
from radgs.registration.soft_tissue import SoftTissue
from radgs.registration.view import View

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

    @cached_property
    def soft(self) -> SoftTissue:
        """The CT without vertebrae, made once for all shots."""
        return SoftTissue.of(self.tissue)


@dataclass(frozen=True)
class Registration:
    """One vertebra's result: pose after each step, covariance if it can be told, verdict, share of the time.

    ``cameras`` are the corrections by view (see :class:`radgs.registration.Refined`).
    """

    level: str
    estimate: Estimate
    refined: RigidTransform
    covariance: PoseCovariance | None
    cameras: Mapping[str, RigidTransform]
    verdict: Verdict
    seconds: float


def register(
    patient: Patient,
    xrays: Mapping[str, Xray],
    levels: Mapping[str, Mapping[str, Any]],
    recm: RecM | Mapping[str, RecM],
    regm: RegM | Mapping[str, RegM],
    verdict_model: dict[str, Any],
    config: Config,
) -> dict[str, Registration]:
    """Register the located levels of one shot.

    Args:
        patient: the CT's side.
        xrays: the views.
        levels: by level, ``centre_mm`` (world), ``residual_mm``, ``name_doubts`` (why its name is not certain) and
            ``world_from_ct`` if a detector has laid the CT on the X-rays: as in ``levels.json``.
        recm: reconstruction network, or one for each level.
        regm: registration network, or one for each level.
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
    views = {name: View.from_xray(x, middle, config.refinement.pixel_mm) for name, x in xrays.items()}
    scene = Scene(views, patient.tissue, patient.soft)
    start = {level: found.regm for level, found in estimates.items()}
    laid = laid_poses(levels, scene.parts)
    found = refine_from_hypotheses(scene, start, points, config.refinement, laid)
    located = {level: levels[level] for level in start}
    found, doubts = settle_names(scene, found, located, points, config.refinement, laid)
    contradiction = contradiction_mm(scene, found.best.world_from_ct, config.refinement)
    seconds = (time.perf_counter() - began) / len(centres)
    residuals = {level: levels[level]["residual_mm"] for level in start}
    evidence = gather(found, start, laid, residuals, xrays, scene.parts, points, contradiction)
    results = {}
    for level, estimated in estimates.items():
        label_doubts = patient.audit[level].reasons
        verdict = judge(evidence[level], config.judgement, verdict_model, label_doubts, doubts[level])
        chosen = found.best
        pose, covariance = chosen.world_from_ct[level], chosen.covariance.get(level)
        cameras = chosen.cameras.get(level, {})
        results[level] = Registration(level, estimated, pose, covariance, cameras, verdict, seconds)
    return results


def laid_poses(levels: Mapping[str, Mapping[str, Any]], drawn: Container[str]) -> dict[str, RigidTransform]:
    """world_from_ct of the located levels that a detector has laid on the X-rays and that can be drawn."""
    matrices = {level: v["world_from_ct"] for level, v in levels.items() if level in drawn and "world_from_ct" in v}
    return {level: RigidTransform(np.array(matrix)) for level, matrix in matrices.items()}
