"""From what a detector says of each view to one consistent spine.

A detector names every vertebra on its own and may name two alike, leave one out, or be one level off. Both views
together, the order from head to foot and the distances in the patient's own CT leave few ways to label them; the best
one is found by dynamic programming over levels (Viterbi), and how much worse the best entirely different one is says
how far to trust it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from radgs.anatomy.boxes import Box
from radgs.errors import AnatomyError
from radgs.geometry import Camera, frontal_and_lateral, patient_axes, triangulate_pairs

_FLOOR = 1e-3  # a detector's score never counts for less
_LEAST_SCORE = 0.05  # geometric mean over both views at which naming a vertebra is as good as leaving it out
_RESIDUAL_MM = 4.0  # standard deviation of the distance between the rays of one vertebra
_LARGEST_RESIDUAL_MM = 15.0
_SPACING_MM, _SPACING_RATIO = 3.0, 0.08  # standard deviation of a distance: bending, slipping, boxes
_LEAST_DESCENT = 0.5  # cosine between the step to the next vertebra and the patient's axis
_SKIPPED = 1.0  # what leaving out a level between two named ones costs


@dataclass(frozen=True)
class Candidate:
    """Something that looks like a vertebra in one view: pixel edges (u0, v0, u1, v1), and a score for each level."""

    edges: tuple[float, float, float, float]
    scores: Float[np.ndarray, " L"]

    @property
    def centre(self) -> NDArray[np.float64]:
        """``[2]`` (u, v), pixels."""
        u0, v0, u1, v1 = self.edges
        return np.array([(u0 + u1) / 2, (v0 + v1) / 2])


@dataclass(frozen=True)
class Decoded:
    """A consistent labelling.

    Attributes:
        boxes: by view and level; scores are the detector's.
        margins: by level, how much better (log-odds) the labelling is than the best one without this naming.
        shift_margin: how much better it is, a named level, than the best one that shares no naming with it; low when
            the whole spine could be one level off.
    """

    boxes: dict[str, dict[str, Box]]
    margins: dict[str, float]
    shift_margin: float


def decode(
    cameras: Mapping[str, Camera],
    candidates: Mapping[str, Sequence[Candidate]],
    levels: Sequence[str],
    centres: Mapping[str, NDArray[np.float64]],
) -> Decoded:
    """The most plausible naming of both views' candidates.

    Args:
        cameras: by view; the frontal view and the one most across it are decoded.
        candidates: by view; their scores are in the order of ``levels``.
        levels: what the detector knows, from head to foot.
        centres: by level, ``[3]`` in the CT, mm.

    Raises:
        AnatomyError: scores that are not one a level.
        GeometryError: no frontal view.
    """
    views = frontal_and_lateral(cameras)
    frontal, lateral = (list(candidates[view]) for view in views)
    if any(c.scores.shape != (len(levels),) for c in [*frontal, *lateral]):
        raise AnatomyError(f"candidates need one score for each of {len(levels)} levels")
    pairs = _pairs(cameras[views[0]], cameras[views[1]], frontal, lateral)
    if not len(pairs.points) or not levels:
        return Decoded({view: {} for view in views}, {}, 0.0)
    unary = _unary(pairs, frontal, lateral)
    steps = _Steps(pairs, [centres[level] for level in levels], -patient_axes(cameras)[:, 2])
    best, path = _viterbi(unary, steps)
    margins, everything = {}, unary.copy()
    for row, pair in path.items():
        same = (pairs.frontal == pairs.frontal[pair]) | (pairs.lateral == pairs.lateral[pair])
        without = unary.copy()
        without[row, same] = everything[row, same] = -np.inf
        margins[levels[row]] = best - _viterbi(without, steps)[0]
    other = _viterbi(everything, steps)[0]
    boxes: dict[str, dict[str, Box]] = {view: {} for view in views}
    for row, pair in path.items():
        for view, found, which in zip(views, (frontal, lateral), (pairs.frontal, pairs.lateral), strict=True):
            chosen = found[which[pair]]
            boxes[view][levels[row]] = Box(chosen.edges, float(chosen.scores[row]))
    return Decoded(boxes, margins, (best - other) / max(len(path), 1))


@dataclass(frozen=True)
class _Pairs:
    """Candidates of both views that can be one vertebra: their numbers, point ``[P, 3]`` (world, mm) and residual."""

    frontal: NDArray[np.int64]
    lateral: NDArray[np.int64]
    points: NDArray[np.float64]
    residuals: NDArray[np.float64]


def _pairs(
    frontal_camera: Camera, lateral_camera: Camera, frontal: Sequence[Candidate], lateral: Sequence[Candidate]
) -> _Pairs:
    if not frontal or not lateral:
        none = np.empty(0, dtype=np.int64)
        return _Pairs(none, none, np.empty((0, 3)), np.empty(0))
    points, residuals = triangulate_pairs(
        frontal_camera, lateral_camera, [a.centre for a in frontal], [b.centre for b in lateral]
    )
    i, j = np.nonzero(residuals <= _LARGEST_RESIDUAL_MM)
    return _Pairs(i, j, points[i, j], residuals[i, j])


def _unary(pairs: _Pairs, frontal: Sequence[Candidate], lateral: Sequence[Candidate]) -> NDArray[np.float64]:
    """``[L, P]``: what naming a pair with a level adds."""
    a = np.log(np.maximum([frontal[i].scores for i in pairs.frontal], _FLOOR))
    b = np.log(np.maximum([lateral[j].scores for j in pairs.lateral], _FLOOR))
    geometric = -0.5 * (pairs.residuals / _RESIDUAL_MM) ** 2
    return ((a + b - 2 * np.log(_LEAST_SCORE)) + geometric[:, None]).T


class _Steps:
    """What going from a pair named with one level to a pair named with a lower one adds."""

    def __init__(self, pairs: _Pairs, centres: Sequence[NDArray[np.float64]], down: NDArray[np.float64]) -> None:
        step = pairs.points[None] - pairs.points[:, None]
        self.distance = np.linalg.norm(step, axis=-1)
        descends = step @ down > _LEAST_DESCENT * self.distance
        shared = (pairs.frontal[:, None] == pairs.frontal) | (pairs.lateral[:, None] == pairs.lateral)
        self.forbidden = ~descends | shared
        self.between = cache(self._between)
        self.spacing = np.linalg.norm(_differences(centres), axis=-1)

    def _between(self, upper: int, lower: int) -> NDArray[np.float64]:
        """``[P, P]``, from rows to columns."""
        expected = self.spacing[upper, lower]
        sigma = _SPACING_MM + _SPACING_RATIO * expected
        score = -0.5 * ((self.distance - expected) / sigma) ** 2 - _SKIPPED * (lower - upper - 1)
        return np.where(self.forbidden, -np.inf, score)


def _differences(centres: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    stacked = np.stack(centres)
    return stacked[None] - stacked[:, None]


def _viterbi(unary: NDArray[np.float64], steps: _Steps) -> tuple[float, dict[int, int]]:
    """The best sum, and its pair by level row; nothing named is worth 0."""
    count, width = unary.shape
    score, previous = unary.copy(), np.full((count, width, 2), -1)
    for row in range(count):
        for upper in range(row):
            total = score[upper][:, None] + steps.between(upper, row)
            source = total.argmax(axis=0)
            gain = unary[row] + total[source, np.arange(width)]
            better = gain > score[row]
            score[row][better] = gain[better]
            previous[row][better] = np.stack([np.full(width, upper), source], axis=1)[better]
    row, pair = divmod(int(score.argmax()), width)
    if score[row, pair] <= 0:
        return 0.0, {}
    best, path = float(score[row, pair]), {}
    while row >= 0:
        path[row] = pair
        row, pair = previous[row, pair].tolist()
    return best, dict(sorted(path.items()))
