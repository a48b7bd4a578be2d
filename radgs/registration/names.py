"""Whether the levels bear the right names: the CT is also refined one level up and one level down."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform
from radgs.registration.attempts import Attempt, Found, best_of, convinces, convincing, firm
from radgs.registration.consensus import consensus
from radgs.registration.hypotheses import SOMEWHAT, nearest_level, place_neighbours
from radgs.registration.refine import Refined, refine
from radgs.registration.scene import Scene
from radgs.registration.search import lead_over_other_names


def settle_names(
    scene: Scene,
    found: Found,
    levels: Mapping[str, Mapping[str, Any]],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
    laid: Mapping[str, RigidTransform] | None = None,
) -> tuple[Found, dict[str, list[str]]]:
    """Where names are doubted, or poses do not convince: what refinement says of names one level off.

    If all levels hold more information in these, and agree at least somewhat, they are the result, and what was found
    before is the second best: in noise nothing agrees, and which name agrees least is chance. If they agree clearly
    less, levels that convince are what they are called.

    Args:
        scene: the X-rays and the CT.
        found: the best poses of the levels and the second best, and how they agree.
        levels: by level, ``doubts`` and those of them that are of its name, ``name_doubts``.
        points: ``[n, 3]`` LPS mm of each.
        settings: of the refinement.
        laid: world_from_ct of levels as the detector laid the CT's vertebrae on the X-rays.

    Returns:
        The best and the other, and by level the doubts that remain.
    """
    counted = {level: points[level] for level in levels}
    doubts = {level: list(entry.get("doubts", ())) for level, entry in levels.items()}
    of_names = {level: set(entry.get("name_doubts", ())) for level, entry in levels.items()}
    best = found.best
    if convinces(found, counted, settings) and not any(of_names.values()):
        return found, doubts
    if _clearly_named(scene, found, counted, settings):
        for level in convincing(found, counted, settings):
            doubts[level] = [why for why in doubts[level] if why not in of_names[level]]
        return found, doubts
    other = _best_of_other_names(scene, best, laid or {}, settings)
    agreement = _agreement(other, counted) if other else 0.0
    lead = _agreement(best, counted) - agreement
    better = other is not None and _information(other, counted) > _information(best, counted)
    if other and better and agreement >= SOMEWHAT * settings.convincing_similarity:
        attempts = [Attempt(other, dict.fromkeys(counted, 0))]
        place_neighbours(scene, attempts, counted, settings)
        return Found(best_of(attempts, counted).best, best), doubts
    if lead >= settings.certain_names:
        for level in convincing(found, counted, settings):
            doubts[level] = [why for why in doubts[level] if why not in of_names[level]]
    return found, doubts


def _clearly_named(
    scene: Scene, found: Found, points: Mapping[str, NDArray[np.float64]], settings: RefinementSettings
) -> bool:
    """Whether nothing has to be refined to see it: the spine convinces, half of it is firm, and it fits best here."""
    if not convinces(found, points, settings) or 2 * len(firm(found, points, settings)) < len(points):
        return False
    best = found.best.world_from_ct
    all_levels = {level: best[nearest_level(level, best, scene)] for level in scene.parts}
    return len(all_levels) > 1 and lead_over_other_names(scene, all_levels) >= settings.clear_names


def _best_of_other_names(
    scene: Scene, found: Refined, laid: Mapping[str, RigidTransform], settings: RefinementSettings
) -> Refined | None:
    """The refinement with names one level off that holds most information; None if nothing would be seen.

    Each way begins as one body, and from the detector's bent spine, in which each level takes its neighbour's place.
    """
    order = cranio_caudal(scene.parts)
    centres = {level: scene.parts[level].centre.numpy() for level in order}
    if len(order) < 2:
        return None
    corners = {level: scene.parts[level].corners.numpy() for level in found.world_from_ct}
    body, _ = consensus(found.world_from_ct, corners)
    spacing = np.diff(np.stack(list(centres.values())), axis=0).mean(axis=0)
    tried = []
    for way, by in ((spacing, 1), (-spacing, -1)):
        starts = [(dict.fromkeys(scene.parts, body @ _shift(way)), True)]
        taken = {
            level: laid[other] @ _shift(centres[other] - centres[level])
            for level, other in zip(order[max(-by, 0) :], order[max(by, 0) :], strict=False)
            if other in laid
        }
        if taken:
            starts.append(({level: taken[nearest_level(level, taken, scene)] for level in scene.parts}, False))
        for start, as_one_body in starts:
            with suppress(GeometryError):  # nothing would be seen there
                tried.append(refine(scene, start, settings, as_one_body=as_one_body))
    return max(tried, key=lambda one: _information(one, found.world_from_ct), default=None)


def _shift(by: NDArray[np.float64]) -> RigidTransform:
    return RigidTransform.from_rotation_translation(np.eye(3), by)


def _information(found: Refined, levels: Collection[str]) -> float:
    """Of all levels in all views: a dark view, in which every name agrees by chance, says little for any."""
    return sum(found.objective(level) for level in levels)


def _agreement(found: Refined, levels: Collection[str]) -> float:
    """Mean over levels of the similarity of the view that agrees least."""
    return float(np.mean([min(found.similarity[level].values(), default=0.0) for level in levels]))
