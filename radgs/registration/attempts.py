"""Refinements from several starts: which one agrees best with the X-rays, what confirms it, and what is settled."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.geometry import RigidTransform
from radgs.registration.refine import Refined

_TORN_MM = 15.0  # between what two neighbours make of one of them: more than any joint gives
_SAME_MM = 1.0  # starts so near each other are one
_ENOUGH = 0.75  # of the levels


@dataclass(frozen=True)
class Attempt:
    """A refinement, and by level a number of where its start came from: results of one origin confirm nothing.

    ``start`` is world_from_ct by level, of levels for which another attempt may begin at the same place.
    """

    result: Refined
    origin: Mapping[str, int]
    start: Mapping[str, RigidTransform] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What several attempts came to.

    Attributes:
        best: by level, what agrees best with the X-rays.
        other: by level, the best that began elsewhere; none of levels where nothing did.
        origin: of the best, by level, see `Attempt`.
    """

    best: Refined
    other: Refined
    origin: Mapping[str, int] = field(default_factory=dict)

    def apart(self, level: str, points: NDArray[np.float64]) -> float | None:
        """Mean distance (mm) of ``points`` (``[n, 3]`` LPS mm) between both; None if nothing began elsewhere."""
        there = self.other.world_from_ct.get(level)
        if there is None:
            return None
        return float(np.linalg.norm(self.best.world_from_ct[level].apply(points) - there.apply(points), axis=-1).mean())


def best_of(attempts: list[Attempt], points: Mapping[str, NDArray[np.float64]]) -> Found:
    """By level, the result that agrees best with the X-rays, and the best of another origin (if there is one).

    The levels that agree most choose first. The others take the best result that is not torn from those, if they have
    one: in noise, what agrees most may be a wrong place.

    Args:
        attempts: at least one.
        points: by level, ``[n, 3]`` LPS mm.
    """
    by_level = {level: _ranked(attempts, level) for level in points}
    first: dict[str, Attempt] = {}
    for level in sorted(points, key=lambda k: -by_level[k][0].result.objective(k)):
        chosen = {k: attempt.result.world_from_ct[k] for k, attempt in first.items()}
        whole = (a for a in by_level[level] if not _torn(level, a.result.world_from_ct[level], chosen, points))
        first[level] = next(whole, by_level[level][0])
    others = {k: [a for a in by_level[k] if a.origin[k] != first[k].origin[k]] for k in points}
    return Found(
        merged({k: first[k].result for k in points}),
        merged({k: others[k][0].result for k in points if others[k]}),
        {k: first[k].origin[k] for k in points},
    )


def origin_of(level: str, start: RigidTransform, attempts: list[Attempt], points: NDArray[np.float64]) -> int:
    """The origin of an earlier attempt that began where this one does; else a new one.

    Args:
        level: its name.
        start: world_from_ct.
        attempts: the earlier ones.
        points: ``[n, 3]`` LPS mm.
    """
    own = start.apply(points)
    for attempt in attempts:
        there = attempt.start.get(level)
        if there is not None and np.linalg.norm(own - there.apply(points), axis=-1).mean() < _SAME_MM:
            return attempt.origin[level]
    return len(attempts)


def _ranked(attempts: list[Attempt], level: str) -> list[Attempt]:
    return sorted(attempts, key=lambda attempt: -attempt.result.objective(level))


def merged(choice: Mapping[str, Refined]) -> Refined:
    """By level, what its result says of it."""
    return Refined(
        {k: r.world_from_ct[k] for k, r in choice.items()},
        {k: r.similarity[k] for k, r in choice.items()},
        {k: r.covariance[k] for k, r in choice.items() if k in r.covariance},
        {k: r.views_apart[k] for k, r in choice.items() if k in r.views_apart},
        {k: r.cameras[k] for k, r in choice.items() if k in r.cameras},
    )


def convinces(found: Found, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings) -> bool:
    """Whether enough levels convince: the spine is where it should be."""
    return len(convincing(found, points, settings)) >= _ENOUGH * len(points)


def convincing(found: Found, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings) -> Set[str]:
    """The levels that agree with every X-ray or are confirmed, and are not torn from those that agree more.

    Args:
        found: poses and how they agree.
        points: ``[n, 3]`` LPS mm of the levels that count.
        settings: of the refinement.
    """
    return consistent(found, points, settings, settings.convincing_similarity)


def consistent(
    found: Found, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings, least: float
) -> Set[str]:
    """The levels that agree at least so much with every X-ray or are confirmed, not torn from those that agree more.

    Similarities of right poses differ between patients and doses; how far starts and views are apart does not. One
    level off, starts may end together as well, but the covariance is larger: being confirmed counts for levels with a
    small one, and for all where at least half are certain in one way or the other.
    """
    confirmed = {level for level in points if _confirmed(found, level, points[level], settings)}
    certain = {k for k in points if worst_similarity(found.best, k) >= least} | firm(found, points, settings)
    counted = certain | confirmed if 2 * len(certain) >= len(points) else certain
    return not_torn(found.best, counted, points)


def firm(found: Found, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings) -> Set[str]:
    """The levels that starts and views confirm, and whose covariance is small: one level off hardly has such."""
    return {
        level
        for level in points
        if _confirmed(found, level, points[level], settings)
        and _spread_mm(found.best, level, points[level]) <= settings.confirmed_spread_mm
    }


def _confirmed(found: Found, level: str, points: NDArray[np.float64], settings: RefinementSettings) -> bool:
    """Whether a start from elsewhere ended at the same pose, and each view alone would leave it there."""
    apart, views = found.apart(level, points), found.best.views_apart.get(level)
    if apart is None or views is None or worst_similarity(found.best, level) < settings.confirmed_similarity:
        return False
    return apart <= settings.confirmed_mm and views <= settings.confirmed_views_mm


def worst_similarity(best: Refined, level: str) -> float:
    """Similarity of the view that agrees least; -1 if not all views show the level."""
    views = max(len(v) for v in best.similarity.values())
    by_view = best.similarity[level]
    return min(by_view.values(), default=-1.0) if len(by_view) == views else -1.0


def _spread_mm(best: Refined, level: str, points: NDArray[np.float64]) -> float:
    covariance = best.covariance.get(level)
    return covariance.rms_mm(best.world_from_ct[level].apply(points)) if covariance else np.inf


def not_torn(best: Refined, counted: Set[str], points: Mapping[str, NDArray[np.float64]]) -> Set[str]:
    """The levels among ``counted`` that lie, against those that agree more, no further off than joints allow."""
    kept: dict[str, RigidTransform] = {}
    for level in sorted(counted, key=best.objective, reverse=True):
        pose = best.world_from_ct[level]
        if not _torn(level, pose, kept, points):
            kept[level] = pose
    return set(kept)


def _torn(
    level: str,
    pose: RigidTransform,
    others: Mapping[str, RigidTransform],
    points: Mapping[str, NDArray[np.float64]],
) -> bool:
    """Whether a level's pose is further from what any of the others makes of it than joints allow."""
    levels = cranio_caudal(points)
    own = pose.apply(points[level])
    return any(
        np.linalg.norm(own - there.apply(points[level]), axis=-1).mean()
        > _TORN_MM * abs(levels.index(k) - levels.index(level))
        for k, there in others.items()
    )
