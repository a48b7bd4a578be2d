"""Where refinement begins: from what the networks say, and from elsewhere if that convinces nobody.

A refinement from a start beyond its reach ends in a wrong optimum, and its similarities say so: they are far below
those of a right pose. Then the whole spine is looked for elsewhere, a level up or down too, and levels that convince
put their neighbours in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import numpy as np
from numpy.typing import NDArray

from radgs.config import RefinementSettings
from radgs.geometry import RigidTransform
from radgs.registration.consensus import consensus
from radgs.registration.refine import Refined, move_as_one_body, refine
from radgs.registration.scene import Scene
from radgs.registration.search import search

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
    body, _ = consensus(start, {level: points[level] for level in start})
    own = {level: start[nearest_level(level, start, scene)] for level in scene.parts}
    results = [
        refine(scene, dict.fromkeys(scene.parts, body), settings),
        refine(scene, own, settings, as_one_body=False),
    ]
    if len(convincing(results, start, settings)) < len(start) / 2:
        places = [move_as_one_body(scene, place, settings) for place in search(scene, body, _PLACES)]
        likeliest, _ = min(places, key=lambda place: place[1])
        results.append(refine(scene, dict.fromkeys(scene.parts, likeliest), settings))
    sure: Set[str] = set()
    for _ in range(_ROUNDS):
        before, sure = sure, convincing(results, start, settings)
        if sure <= before or sure == set(start):
            break
        best, _ = best_two(results, list(start))
        placed = {level: best.world_from_ct[nearest_level(level, sure, scene)] for level in scene.parts}
        results.append(refine(scene, placed, settings, as_one_body=False))
    return best_two(results, list(start))


def convincing(results: list[Refined], levels: Iterable[str], settings: RefinementSettings) -> Set[str]:
    """The levels that agree with every X-ray at the best of their poses."""
    best, _ = best_two(results, list(levels))
    views = max(len(v) for v in best.similarity.values())
    return {
        level
        for level, by_view in best.similarity.items()
        if len(by_view) == views and min(by_view.values(), default=0) >= settings.convincing_similarity
    }


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
