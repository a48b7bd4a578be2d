"""Whether the levels bear the right names: the CT is also refined one level up and one level down."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform
from radgs.registration.attempts import Attempt, Found, best_of, convinces, firm, merged, not_torn
from radgs.registration.consensus import consensus
from radgs.registration.hypotheses import SOMEWHAT, nearest_level, place_neighbours
from radgs.registration.name_lead import lead_over_other_names
from radgs.registration.refine import Refined, refine
from radgs.registration.scene import Scene

_LEAST_INFORMATION = 0.1  # nats a pixel, mean over levels and views: less is soon chance
_MOVES = 2  # levels that a spine may be off


def settle_names(
    scene: Scene,
    found: Found,
    levels: Mapping[str, Mapping[str, Any]],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
    laid: Mapping[str, RigidTransform] | None = None,
) -> tuple[Found, dict[str, list[str]]]:
    """Where names are doubted, or poses do not convince: what refinement says of names one level off.

    If all levels hold more information in these, and agree at least somewhat, they are the result, and names one level
    off from there are tried: in noise nothing agrees, and which name agrees least is chance. If all that was tried
    holds far less than the result, the spine bears the right names, and so does each level that is not torn from those
    that agree more. How well it is placed is not asked here.

    Args:
        scene: the X-rays and the CT.
        found: the best poses of the levels and the second best, and how they agree.
        levels: by level, ``name_doubts``: why its name is not certain.
        points: ``[n, 3]`` LPS mm of each.
        settings: of the refinement.
        laid: world_from_ct of levels as the detector laid the CT's vertebrae on the X-rays.

    Returns:
        The best and the other, and by level the doubts of its name that remain.
    """
    counted = {level: points[level] for level in levels}
    doubts = {level: list(entry.get("name_doubts", ())) for level, entry in levels.items()}
    if convinces(found, counted, settings) and not any(doubts.values()):
        return found, doubts
    if _clearly_named(scene, found, counted, settings):
        return found, _without_doubts(doubts, found, counted)
    tried, laid = 0.0, laid or {}
    for _ in range(_MOVES + 1):
        others, same, moved = _other_names(scene, found.best, laid, settings)
        ours, theirs = _information(found.best, counted), _information(others[0].result, counted) if others else 0.0
        least = SOMEWHAT * settings.convincing_similarity
        if theirs <= ours or _agreement(others[0].result, counted) < least:
            break
        place_neighbours(scene, others, counted, settings)
        found, tried, laid = best_of(others, counted), max(tried, ours), moved
    least = settings.certain_names * max(tried, theirs)
    if ours < max(least, _LEAST_INFORMATION * len(counted) * len(scene.views)) or len(scene.parts) < 2:
        return found, doubts
    return _compared(found, same, counted, _spacing(scene)), _without_doubts(doubts, found, counted)


def _compared(
    found: Found, same: list[Refined], points: Mapping[str, NDArray[np.float64]], spacing: NDArray[np.float64]
) -> Found:
    """Names that are certainly wrong say nothing of a pose: it is compared with what other starts made of these."""
    half = float(np.linalg.norm(spacing)) / 2
    kept = {level: found.other for level in points if (found.apart(level, points[level]) or 0.0) < half}
    kept = {level: other for level, other in kept.items() if level in other.world_from_ct}
    again = dict.fromkeys(points, same[0]) if same else {}
    return replace(found, other=merged(again | kept))


def _without_doubts(
    doubts: Mapping[str, list[str]], found: Found, points: Mapping[str, NDArray[np.float64]]
) -> dict[str, list[str]]:
    """The doubts of torn levels alone."""
    whole = not_torn(found.best, points.keys(), points)
    return {level: [] if level in whole else why for level, why in doubts.items()}


def _clearly_named(
    scene: Scene, found: Found, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings
) -> bool:
    """Whether nothing has to be refined to see it: the spine convinces, half of it is firm, and it fits best here."""
    if not convinces(found, points, settings) or 2 * len(firm(found, points, settings)) < len(points):
        return False
    best = found.best.world_from_ct
    all_levels = {level: best[nearest_level(level, best, scene)] for level in scene.parts}
    return len(all_levels) > 1 and lead_over_other_names(scene, all_levels) >= settings.clear_names


def _other_names(
    scene: Scene, found: Refined, laid: Mapping[str, RigidTransform], settings: RefinementSettings
) -> tuple[list[Attempt], list[Refined], Mapping[str, RigidTransform]]:
    """Refinements with names one level off, up or down, whichever holds more information; the best first.

    Each way begins as one body, and from the detector's bent spine, in which each level takes its neighbour's place.
    What ends where ``found`` is, because the detector was a level off, is no other name: it comes second, by itself.
    Third is the detector's spine with those other names: tried again, a start would confirm its own result.
    """
    order = cranio_caudal(scene.parts)
    centres = {level: scene.parts[level].centre.numpy() for level in order}
    if len(order) < 2:
        return [], [], laid
    corners = {level: scene.parts[level].corners.numpy() for level in found.world_from_ct}
    body, _ = consensus(found.world_from_ct, corners)
    spacing = _spacing(scene)
    ways: list[tuple[list[Attempt], dict[str, RigidTransform]]] = []
    same: list[Refined] = []
    for way, by in ((spacing, 1), (-spacing, -1)):
        starts = [(dict.fromkeys(scene.parts, body @ _shift(way)), True)]
        taken = {
            level: laid[other] @ _shift(centres[other] - centres[level])
            for level, other in zip(order[max(-by, 0) :], order[max(by, 0) :], strict=False)
            if other in laid
        }
        if taken:
            starts.append(({level: taken[nearest_level(level, taken, scene)] for level in scene.parts}, False))
        ended = []
        for start, as_one_body in starts:
            with suppress(GeometryError):  # nothing would be seen there
                ended.append(refine(scene, start, settings, as_one_body=as_one_body))
        ended.sort(key=lambda one: -_information(one, found.world_from_ct))
        elsewhere = [_moved_mm(found, one, centres) > float(np.linalg.norm(spacing)) / 2 for one in ended]
        same += [one for one, moved in zip(ended, elsewhere, strict=True) if not moved]
        others = [one for one, moved in zip(ended, elsewhere, strict=True) if moved]
        ways.append(([Attempt(one, dict.fromkeys(found.world_from_ct, i)) for i, one in enumerate(others)], taken))
    same.sort(key=lambda one: -_information(one, found.world_from_ct))
    attempts, moved = max(ways, key=lambda w: _information(w[0][0].result, found.world_from_ct) if w[0] else 0.0)
    return attempts, same, moved


def _spacing(scene: Scene) -> NDArray[np.float64]:
    """From one level to the next, on average, CT, mm."""
    centres = [scene.parts[level].centre.numpy() for level in cranio_caudal(scene.parts)]
    return np.diff(np.stack(centres), axis=0).mean(axis=0)


def _moved_mm(found: Refined, other: Refined, centres: Mapping[str, NDArray[np.float64]]) -> float:
    """Mean over levels of the distance between their middles."""
    poses = found.world_from_ct
    return float(
        np.mean([np.linalg.norm(poses[k].apply(centres[k]) - other.world_from_ct[k].apply(centres[k])) for k in poses])
    )


def _shift(by: NDArray[np.float64]) -> RigidTransform:
    return RigidTransform.from_rotation_translation(np.eye(3), by)


def _information(found: Refined, levels: Collection[str]) -> float:
    """Of all levels in all views: a dark view, in which every name agrees by chance, says little for any."""
    return sum(found.objective(level) for level in levels)


def _agreement(found: Refined, levels: Collection[str]) -> float:
    """Mean over levels of the similarity of the view that agrees least."""
    return float(np.mean([min(found.similarity[level].values(), default=0.0) for level in levels]))
