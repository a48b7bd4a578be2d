"""Where refinement begins: from what the networks say, and from elsewhere if that convinces nobody.

A refinement from a start beyond its reach ends in a wrong optimum, and its similarities say so: they are far below
those of a right pose. Then the whole spine is looked for elsewhere, a level up or down too, and levels that convince
put their neighbours in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform
from radgs.registration.consensus import consensus
from radgs.registration.refine import Refined, move_as_one_body, refine
from radgs.registration.scene import Scene
from radgs.registration.search import search

_TORN_MM = 15.0  # between what two neighbours make of one of them: more than any joint gives
_ENOUGH = 0.75  # of the levels convince: the spine is where it should be
_PLACES = 4  # that are looked at more closely
_ROUNDS = 3  # a convincing level puts its neighbour in place, and that one the next


def refine_from_hypotheses(
    scene: Scene,
    start: Mapping[str, RigidTransform],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
) -> tuple[Refined, Refined]:
    """Refine from the levels' consensus as one body and from each level's own pose; from elsewhere if need be.

    Args:
        scene: the X-rays and the vertebrae that may be seen in them.
        start: world_from_ct, of the levels that count.
        points: by level, ``[n, 3]`` LPS mm.
        settings: of the refinement.

    Returns:
        By level, the result that agrees best with the X-rays, and the second best.

    Raises:
        GeometryError: no vertebra is visible.
    """
    counted = {level: points[level] for level in start}
    body, _ = consensus(start, counted)
    own = {level: start[nearest_level(level, start, scene)] for level in scene.parts}
    results = [
        refine(scene, dict.fromkeys(scene.parts, body), settings),
        refine(scene, own, settings, as_one_body=False),
    ]
    _place_neighbours(scene, results, counted, settings)
    if len(convincing(results, counted, settings)) < _ENOUGH * len(start):
        places = []
        for place in search(scene, body, _PLACES):
            with suppress(GeometryError):  # nothing would be seen there
                places.append(move_as_one_body(scene, place, settings))
        if places:
            likeliest, _ = min(places, key=lambda place: place[1])
            results.append(refine(scene, dict.fromkeys(scene.parts, likeliest), settings))
            _place_neighbours(scene, results, counted, settings)
    return best_two(results, list(start))


def _place_neighbours(
    scene: Scene,
    results: list[Refined],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
) -> None:
    """Add refinements in which levels that convince put the others in place, as long as more do."""
    before: Set[str] = set()
    for _ in range(_ROUNDS):
        sure = convincing(results, points, settings)
        if sure <= before or sure == set(points):
            return
        best, _ = best_two(results, list(points))
        placed = {level: best.world_from_ct[nearest_level(level, sure, scene)] for level in scene.parts}
        results.append(refine(scene, placed, settings, as_one_body=False))
        before = sure


def convincing(
    results: list[Refined], points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings
) -> Set[str]:
    """The levels that agree with every X-ray at the best of their poses, and are not torn from better ones.

    Args:
        results: of refinements.
        points: ``[n, 3]`` LPS mm of the levels that count.
        settings: of the refinement.
    """
    levels = cranio_caudal(points)
    best, _ = best_two(results, levels)
    views = max(len(v) for v in best.similarity.values())
    kept: list[str] = []
    for level in sorted(levels, key=best.objective, reverse=True):
        by_view, pose = best.similarity[level], best.world_from_ct[level]
        torn = [
            np.linalg.norm(pose.apply(points[level]) - best.world_from_ct[k].apply(points[level]), axis=-1).mean()
            > _TORN_MM * abs(levels.index(k) - levels.index(level))
            for k in kept
        ]
        agrees = len(by_view) == views and min(by_view.values(), default=0) >= settings.convincing_similarity
        if agrees and not any(torn):
            kept.append(level)
    return set(kept)


def nearest_level(level: str, others: Iterable[str], scene: Scene) -> str:
    """The one of ``others`` whose vertebra lies nearest to ``level``'s in the CT; itself, if it is among them."""
    return min(others, key=lambda k: float((scene.parts[k].centre - scene.parts[level].centre).norm()))


def best_two(results: list[Refined], levels: list[str]) -> tuple[Refined, Refined]:
    """By level, the result that agrees best with the X-rays, and the next."""
    order = {k: sorted(results, key=lambda r: -r.objective(k)) for k in levels}

    def merge(rank: int) -> Refined:
        choice = {k: ranked[rank] for k, ranked in order.items()}
        return Refined(
            {k: r.world_from_ct[k] for k, r in choice.items()},
            {k: r.similarity[k] for k, r in choice.items()},
            {k: r.covariance[k] for k, r in choice.items() if k in r.covariance},
        )

    return merge(0), merge(1)
