"""What is known of a result without knowing the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from radgs.anatomy import cranio_caudal
from radgs.geometry import RigidTransform
from radgs.images import Xray
from radgs.registration.attempts import Found
from radgs.registration.scene import Part

_UNKNOWN_MM = 10.0
_SAME_MM, _ELSEWHERE_MM = 1.0, 5.0  # between results of independent starts


@dataclass(frozen=True)
class Evidence:
    """Of one vertebra's pose.

    Attributes:
        similarity: mean over views of the gradient correlation, -1 to 1.
        worst_similarity: of the view that agrees least.
        disagreement_mm: mean distance of the vertebra's points between the results of independent starts.
        moved_mm: mean distance between the networks' pose and the refined one.
        residual_mm: epipolar residual of the detection.
        visible: least fraction of the vertebra's points that lie where an image was measured.
        less_similar: by how much its ``worst_similarity`` is below the highest of the shot's levels.
        views_apart_mm: between what single views would make of it, see `single_views`.
        spread_mm: root mean square error that its covariance expects.
        joint_mm: the largest gap to a neighbour's pose, in the joint between them, against the CT.
        joint_deg: the largest turn against a neighbour's.
        laid_mm: mean distance between where the detector laid the CT's vertebra and the refined pose; ``moved_mm`` if
            none did.
        contradiction_mm: between the views of the shot, see `radgs.registration.contradiction`; the same for all its
            levels.
    """

    similarity: float
    worst_similarity: float
    disagreement_mm: float
    moved_mm: float
    residual_mm: float
    visible: float
    less_similar: float = 0.0
    views_apart_mm: float = 0.0
    spread_mm: float = 0.0
    joint_mm: float = 0.0
    joint_deg: float = 0.0
    laid_mm: float = 0.0
    contradiction_mm: float = 0.0

    def features(self) -> dict[str, float]:
        """The numbers that the probability is computed from.

        How similar right poses are differs from one patient and dose to the next; these mean the same for all. Starts
        that end closer than about a millimetre share the X-rays' noise, so how much closer says little, and from some
        millimetres on they are simply elsewhere. A gap to a neighbour, and another place than the detector's, may be
        right: they count a little.
        """
        return {
            "log_disagreement": math.log(min(self.disagreement_mm, _ELSEWHERE_MM) + _SAME_MM),
            "log_spread": math.log(self.spread_mm + 0.05),
            "log_joint": math.log(self.joint_mm + 1.0),
            "log_laid": math.log(self.laid_mm + 1.0),
        }


def gather(
    attempts: Found,
    networks: Mapping[str, RigidTransform],
    laid: Mapping[str, RigidTransform],
    residuals_mm: Mapping[str, float],
    xrays: Mapping[str, Xray],
    parts: Mapping[str, Part],
    points: Mapping[str, NDArray[np.float64]],
    contradiction_mm: float | None = None,
) -> dict[str, Evidence]:
    """The evidence of every level that has a pose.

    Args:
        attempts: the result, and the best from elsewhere.
        networks: world_from_ct that the networks said; of these levels.
        laid: world_from_ct that the detector said.
        residuals_mm: of the detection.
        xrays: the views.
        parts: where the levels lie in the CT.
        points: by level, ``[n, 3]`` LPS mm.
        contradiction_mm: between the views; None is not known.
    """
    chosen = attempts.best
    worst = {
        level: min(chosen.similarity[level].values()) if len(chosen.similarity[level]) == len(xrays) else -1.0
        for level in networks
    }
    joints = _joints({level: chosen.world_from_ct[level] for level in networks}, parts)
    found = {}
    for level, estimated in networks.items():
        pose, own = chosen.world_from_ct[level], points[level]
        similar, covariance = chosen.similarity[level], chosen.covariance.get(level)
        gap, turn = joints.get(level, (0.0, 0.0))
        apart = attempts.apart(level, own)
        found[level] = Evidence(
            similarity=float(np.mean(list(similar.values()))) if similar else -1.0,
            worst_similarity=worst[level],
            disagreement_mm=_UNKNOWN_MM if apart is None else apart,
            moved_mm=_apart(pose, estimated, own),
            residual_mm=float(residuals_mm[level]),
            visible=float(min(xray.shows(pose.apply(own)).mean() for xray in xrays.values())),
            less_similar=max(worst.values()) - worst[level],
            views_apart_mm=chosen.views_apart.get(level, _UNKNOWN_MM),
            spread_mm=covariance.rms_mm(pose.apply(own)) if covariance else _UNKNOWN_MM,
            joint_mm=gap,
            joint_deg=turn,
            laid_mm=_apart(pose, laid.get(level, estimated), own),
            contradiction_mm=_UNKNOWN_MM if contradiction_mm is None else contradiction_mm,
        )
    return found


def _apart(a: RigidTransform, b: RigidTransform, points: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(a.apply(points) - b.apply(points), axis=-1).mean())


def _joints(poses: Mapping[str, RigidTransform], parts: Mapping[str, Part]) -> dict[str, tuple[float, float]]:
    """By level, the largest gap (mm) and turn (degrees) at the joints with its neighbours, against the CT."""
    found: dict[str, tuple[float, float]] = {}
    order = cranio_caudal(parts)
    for upper, lower in pairwise(order):
        if upper not in poses or lower not in poses:
            continue
        joint = (parts[upper].centre + parts[lower].centre).numpy() / 2
        gap = float(np.linalg.norm(poses[upper].apply(joint) - poses[lower].apply(joint)))
        turn = Rotation.from_matrix(poses[upper].rotation.T @ poses[lower].rotation).magnitude()
        for level in (upper, lower):
            before = found.get(level, (0.0, 0.0))
            found[level] = (max(before[0], gap), max(before[1], float(np.rad2deg(turn))))
    return found
