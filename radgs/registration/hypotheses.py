"""Where refinement begins: from what the networks say, and from elsewhere if that convinces nobody.

A refinement from a start beyond its reach ends in a wrong optimum, and its similarities say so: they are far below
those of a right pose. Then the whole spine is looked for elsewhere, a level up or down too, and levels that convince
put their neighbours in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform
from radgs.registration.consensus import consensus
from radgs.registration.refine import Refined, move_as_one_body, refine
from radgs.registration.scene import Scene
from radgs.registration.search import ONE_JOINT, WHOLE_SPINE, search

_TORN_MM = 15.0  # between what two neighbours make of one of them: more than any joint gives
_ENOUGH = 0.75  # of the levels
_PLACES = 4  # that are looked at more closely
_ROUNDS = 3  # in which levels put the others in place, twice each
_LEAST_GAIN, _MOST_IDLE = 0.1, 2  # of all levels' similarities together: the best poses are as good as they get
SOMEWHAT = 0.6  # of what convinces is not nothing


@dataclass(frozen=True)
class Attempt:
    """A refinement, and by level a number of where its start came from: results of one origin confirm nothing."""

    result: Refined
    origin: Mapping[str, int]


def refine_from_hypotheses(
    scene: Scene,
    start: Mapping[str, RigidTransform],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
    laid: Mapping[str, RigidTransform] | None = None,
) -> tuple[Refined, Refined]:
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
    if laid and len(convincing(best_two(attempts, list(start))[0], counted, settings)) < len(counted):
        own = {level: laid[nearest_level(level, laid, scene)] for level in scene.parts}
        with suppress(GeometryError):  # nothing would be seen there
            attempts.append(Attempt(refine(scene, own, settings, as_one_body=False), dict.fromkeys(start, 2)))
    place_neighbours(scene, attempts, counted, settings)
    best, _ = best_two(attempts, list(start))
    if not convinces(best, counted, settings):
        places = []
        for motion in search(scene, dict.fromkeys(scene.parts, body), WHOLE_SPINE, _PLACES):
            with suppress(GeometryError):  # nothing would be seen there
                places.append(move_as_one_body(scene, motion @ body, settings))
        if places:
            likeliest, _ = min(places, key=lambda place: place[1])
            result = refine(scene, dict.fromkeys(scene.parts, likeliest), settings)
            attempts.append(Attempt(result, dict.fromkeys(start, len(attempts))))
            place_neighbours(scene, attempts, counted, settings)
    return best_two(attempts, list(start))


def place_neighbours(
    scene: Scene,
    attempts: list[Attempt],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
) -> None:
    """Add refinements in which levels that agree with the X-rays put the others in place, until all convince.

    In turn, those that agree somewhat keep the best of their poses, and only those that convince: a level that is put
    in place beside a wrong one agrees less than it will when that one is right.
    """
    idle = 0
    for least in (SOMEWHAT * settings.convincing_similarity, settings.convincing_similarity) * _ROUNDS:
        best, _ = best_two(attempts, list(points))
        sure, kept = convincing(best, points, settings), _consistent(best, points, least)
        if len(sure) == len(points) or idle == _MOST_IDLE:
            return
        if not kept:
            idle += 1
            continue
        placed = _placed(scene, {level: best.world_from_ct[level] for level in kept})
        origin = {k: _ranked(attempts, k)[0].origin[k] if k in kept - sure else len(attempts) for k in points}
        attempts.append(Attempt(refine(scene, placed, settings, as_one_body=False), origin))
        better, _ = best_two(attempts, list(points))
        gain = sum(better.objective(k) - best.objective(k) for k in points)
        idle = idle + 1 if gain < _LEAST_GAIN else 0


def _placed(scene: Scene, sure: Mapping[str, RigidTransform]) -> dict[str, RigidTransform]:
    """Poses of all levels: the sure ones, and joint by joint those next to them, looked for where they should be."""
    placed = dict(sure)
    while rest := [level for level in scene.parts if level not in placed]:
        _, level, beside = min((_apart(a, b, scene), a, b) for a in rest for b in placed)
        pose = placed[beside]
        placed[level] = search(scene, {level: pose}, ONE_JOINT)[0] @ pose
    return placed


def convinces(best: Refined, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings) -> bool:
    """Whether enough levels convince: the spine is where it should be."""
    return len(convincing(best, points, settings)) >= _ENOUGH * len(points)


def convincing(best: Refined, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings) -> Set[str]:
    """The levels that agree with every X-ray, and are not torn from those that agree more.

    Args:
        best: poses and how they agree.
        points: ``[n, 3]`` LPS mm of the levels that count.
        settings: of the refinement.
    """
    return _consistent(best, points, settings.convincing_similarity)


def _consistent(best: Refined, points: Mapping[str, NDArray[np.float64]], least: float) -> Set[str]:
    """The levels that agree at least so much with every X-ray, and are not torn from those that agree more."""
    levels = cranio_caudal(points)
    views = max(len(v) for v in best.similarity.values())
    kept: list[str] = []
    for level in sorted(levels, key=best.objective, reverse=True):
        by_view, pose = best.similarity[level], best.world_from_ct[level]
        torn = [
            np.linalg.norm(pose.apply(points[level]) - best.world_from_ct[k].apply(points[level]), axis=-1).mean()
            > _TORN_MM * abs(levels.index(k) - levels.index(level))
            for k in kept
        ]
        agrees = len(by_view) == views and min(by_view.values(), default=0) >= least
        if agrees and not any(torn):
            kept.append(level)
    return set(kept)


def nearest_level(level: str, others: Iterable[str], scene: Scene) -> str:
    """The one of ``others`` whose vertebra lies nearest to ``level``'s in the CT; itself, if it is among them."""
    return min(others, key=lambda other: _apart(level, other, scene))


def _apart(level: str, other: str, scene: Scene) -> float:
    """In the CT, mm."""
    return float((scene.parts[other].centre - scene.parts[level].centre).norm())


def best_two(attempts: list[Attempt], levels: list[str]) -> tuple[Refined, Refined]:
    """By level, the result that agrees best with the X-rays, and the best of another origin (if there is one)."""
    first = {k: _ranked(attempts, k)[0] for k in levels}
    others = {k: [a for a in attempts if a.origin[k] != first[k].origin[k]] or attempts for k in levels}
    return _merged({k: first[k].result for k in levels}), _merged({k: _ranked(others[k], k)[0].result for k in levels})


def _ranked(attempts: list[Attempt], level: str) -> list[Attempt]:
    return sorted(attempts, key=lambda attempt: -attempt.result.objective(level))


def _merged(choice: Mapping[str, Refined]) -> Refined:
    return Refined(
        {k: r.world_from_ct[k] for k, r in choice.items()},
        {k: r.similarity[k] for k, r in choice.items()},
        {k: r.covariance[k] for k, r in choice.items() if k in r.covariance},
        {k: r.views_apart[k] for k, r in choice.items() if k in r.views_apart},
        {k: r.cameras[k] for k, r in choice.items() if k in r.cameras},
    )
