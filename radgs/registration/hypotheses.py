"""Where refinement begins: from what the networks say, and from elsewhere if that convinces nobody.

A refinement from a start beyond its reach ends in a wrong optimum, and its similarities say so: they are far below
those of a right pose. Then the whole spine is looked for elsewhere, a level up or down too, and levels that convince
put their neighbours in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform
from radgs.registration.attempts import (
    Attempt,
    Found,
    best_of,
    consistent,
    convinces,
    convincing,
    origin_of,
    worst_similarity,
)
from radgs.registration.consensus import consensus
from radgs.registration.refine import refine
from radgs.registration.scene import Scene
from radgs.registration.search import FAR_TURNS, NEAR_TURNS, search_joint, search_spine

_PLACES = 2  # of the spine that are refined
_LOST = 0.25  # nats a pixel, all views together: where no level's pose holds more, the spine may be turned far
_ROUNDS = 3  # in which levels put the others in place, twice each
_LEAST_GAIN, _MOST_IDLE = 0.05, 2  # of what all levels say together: the best poses are as good as they get
_NOTHING = 0.05  # is a similarity by chance
_SHARES = 0.5, 0.8  # of the similarity of the level that agrees most, in one round and the next
SOMEWHAT = 0.6  # of what convinces is not nothing


def refine_from_hypotheses(
    scene: Scene,
    start: Mapping[str, RigidTransform],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
    laid: Mapping[str, RigidTransform] | None = None,
) -> Found:
    """Refine from the levels' consensus as one body and from each level's own pose; from elsewhere if need be.

    Args:
        scene: the X-rays and the vertebrae that may be seen in them.
        start: world_from_ct, of the levels that count.
        points: by level, ``[n, 3]`` LPS mm.
        settings: of the refinement.
        laid: world_from_ct of levels as somebody else found them, tried if not all levels convince.

    Returns:
        By level, the result that agrees best with the X-rays, and the best that began elsewhere.

    Raises:
        GeometryError: no vertebra is visible.
    """
    counted = {level: points[level] for level in start}
    body, _ = consensus(start, counted)
    own = {level: start[nearest_level(level, start, scene)] for level in scene.parts}
    attempts = [
        Attempt(refine(scene, dict.fromkeys(scene.parts, body), settings), dict.fromkeys(start, 0)),
        Attempt(refine(scene, own, settings, as_one_body=False), dict.fromkeys(start, 1)),
    ]
    if laid and len(convincing(best_of(attempts, counted), counted, settings)) < len(counted):
        own = {level: laid[nearest_level(level, laid, scene)] for level in scene.parts}
        with suppress(GeometryError):  # nothing would be seen there
            attempts.append(Attempt(refine(scene, own, settings, as_one_body=False), dict.fromkeys(start, 2)))
    place_neighbours(scene, attempts, counted, settings)
    for turns in (NEAR_TURNS, FAR_TURNS):
        found = best_of(attempts, counted)
        is_lost = max(found.best.objective(level) for level in start) < _LOST
        if convinces(found, counted, settings) or (turns is FAR_TURNS and not is_lost):
            break
        for motion in search_spine(scene, dict.fromkeys(scene.parts, body), turns, _PLACES):
            with suppress(GeometryError):  # nothing would be seen there
                result = refine(scene, dict.fromkeys(scene.parts, motion @ body), settings)
                attempts.append(Attempt(result, dict.fromkeys(start, len(attempts))))
        place_neighbours(scene, attempts, counted, settings)
    return best_of(attempts, counted)


def place_neighbours(
    scene: Scene,
    attempts: list[Attempt],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
) -> None:
    """Add refinements in which levels that agree with the X-rays put the others in place, until all convince.

    In turn, those that agree somewhat keep the best of their poses, and only those that convince: a level that is put
    in place beside a wrong one agrees less than it will when that one is right. Where noise leaves little to agree
    with, a share of what the level has that agrees most is enough.
    """
    idle = 0
    for strictness, share in zip((SOMEWHAT, 1.0) * _ROUNDS, _SHARES * _ROUNDS, strict=True):
        found = best_of(attempts, points)
        most = max(worst_similarity(found.best, level) for level in points)
        sure = convincing(found, points, settings)
        least = min(strictness * settings.convincing_similarity, max(share * most, _NOTHING))
        kept = consistent(found, points, settings, least)
        if len(sure) == len(points) or idle == _MOST_IDLE:
            return
        idle += 1
        if not kept:
            continue
        placed = _placed(scene, {level: found.best.world_from_ct[level] for level in kept})
        origin = {k: found.origin[k] if k in kept else origin_of(k, placed[k], attempts, points[k]) for k in points}
        with suppress(GeometryError):  # nothing would be seen there
            attempts.append(Attempt(refine(scene, placed, settings, as_one_body=False), origin, placed))
        better = best_of(attempts, points).best
        before = sum(found.best.objective(k) for k in points)
        gain = sum(better.objective(k) for k in points) - before
        if gain > _LEAST_GAIN * before:
            idle = 0


def _placed(scene: Scene, sure: Mapping[str, RigidTransform]) -> dict[str, RigidTransform]:
    """Poses of all levels: the sure ones, and joint by joint those next to them, looked for where they should be."""
    placed = dict(sure)
    while rest := [level for level in scene.parts if level not in placed]:
        _, level, beside = min((_apart(a, b, scene), a, b) for a in rest for b in placed)
        placed[level] = search_joint(scene, level, placed[beside])
    return placed


def nearest_level(level: str, others: Iterable[str], scene: Scene) -> str:
    """The one of ``others`` whose vertebra lies nearest to ``level``'s in the CT; itself, if it is among them."""
    return min(others, key=lambda other: _apart(level, other, scene))


def _apart(level: str, other: str, scene: Scene) -> float:
    """In the CT, mm."""
    return float((scene.parts[other].centre - scene.parts[level].centre).norm())
