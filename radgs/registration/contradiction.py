"""Whether the views show the patient in one place: by how much two images contradict each other.

Two views share one direction across the rays of both (the spine's, in AP and LA). Where a vertebra lies along it is in
both images, so a patient who has moved between them, or a calibration that is off, shows there. Along the rays of one
view only the other tells where the patient is, and a motion there looks like another pose: nothing can show it. Where
the rays are nearly parallel, both views tell of everything across them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform
from radgs.registration.cameras import CameraCorrections
from radgs.registration.hypotheses import nearest_level
from radgs.registration.refine import Comparison, minimise, soft_tissue
from radgs.registration.scene import Scene

_FIRST_STEPS = 2  # at the coarsest blur; one more at each that follows
_FREE = {"camera_prior_deg": 0.5, "camera_prior_mm": 5.0}
_PRIOR_WEIGHT = 0.02
_PARALLEL = 0.2  # the sine of an angle between rays


def contradiction_mm(scene: Scene, found: Mapping[str, RigidTransform], settings: RefinementSettings) -> float | None:
    """By how much one view's camera has to move against another's for both to show the vertebrae in one place.

    Poses are refined a little further, at the blurs of the first stages, together with the cameras, which a prior
    hardly holds (its own, not ``refinement.camera_prior_*``: the cameras that count are the calibrated ones); what
    counts is the shift of a camera against another's, at the middle of the vertebrae, in the directions that both see.

    Args:
        scene: X-rays and vertebrae.
        found: by level, world_from_ct, refined with the cameras as they are calibrated; other vertebrae that may be
            seen begin at the nearest one's.
        settings: of that refinement.

    Returns:
        mm, the largest of all pairs of views; None where there are no two, or a vertebra goes out of sight.
    """
    if len(scene.views) < 2:
        return None
    stages = settings.one_body_stages or settings.articulated_stages
    weight = settings.prior_weight or _PRIOR_WEIGHT
    free = settings.model_copy(update={**_FREE, "prior_weight": weight})
    poses = {level: found[nearest_level(level, found, scene)].tensor() for level in scene.parts}
    seen = soft_tissue(scene, poses, moves=True)
    cameras: CameraCorrections | None = CameraCorrections.none(scene, poses, free)
    try:
        for steps, (sigma_px, _) in enumerate(stages, start=_FIRST_STEPS):
            compared = Comparison.at(sigma_px, seen, free, joints_let_go=True)
            poses, cameras, _ = minimise(compared, poses, steps, together=False, cameras=cameras)
    except GeometryError:
        return None
    assert cameras is not None
    middle = cameras.middle.numpy()
    shifts = (cameras.amount[:, 3:] * cameras.spread[3:]).numpy()
    rays = [_ray(view.camera.source, middle) for view in scene.views.values()]
    pairs = combinations(range(len(rays)), 2)
    return max(across_both(shifts[a] - shifts[b], rays[a], rays[b]) for a, b in pairs)


def across_both(shift: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Length of the part of a shift ``[3]`` that is across both rays (unit vectors ``[3]``)."""
    shared = np.cross(a, b)
    sine = float(np.linalg.norm(shared))
    if sine > _PARALLEL:
        return float(abs(shift @ shared) / sine)
    return float(np.linalg.norm(shift - (shift @ a) * a))


def _ray(source: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    return (middle - source) / np.linalg.norm(middle - source)
