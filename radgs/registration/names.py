"""Whether the levels bear the right names: the CT one level up or down, refined, has to agree clearly less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import cranio_caudal
from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform
from radgs.registration.consensus import consensus
from radgs.registration.hypotheses import convincing
from radgs.registration.refine import Refined, refine
from radgs.registration.scene import Scene


def remaining_doubts(
    scene: Scene,
    found: Refined,
    levels: Mapping[str, Mapping[str, Any]],
    points: Mapping[str, NDArray[np.float64]],
    settings: RefinementSettings,
) -> dict[str, list[str]]:
    """By level, why it is not certain: without doubts of its name, if it convinces where it was found and names stand.

    Args:
        scene: the X-rays and the CT.
        found: poses of the levels, and how they agree.
        levels: by level, ``doubts`` and those of them that are of its name, ``name_doubts``.
        points: ``[n, 3]`` LPS mm of each.
        settings: of the refinement.
    """
    of_names = {level: set(entry.get("name_doubts", ())) for level, entry in levels.items()}
    sure = {k for k in convincing(found, {k: points[k] for k in levels}, settings) if of_names[k]}
    dispelled = sure if sure and names_stand(scene, found, settings) else set()
    return {
        level: [why for why in entry.get("doubts", ()) if level not in dispelled or why not in of_names[level]]
        for level, entry in levels.items()
    }


def names_stand(scene: Scene, found: Refined, settings: RefinementSettings) -> bool:
    """Whether the X-rays agree clearly better with the levels as they are named than with names one off.

    Args:
        scene: the X-rays and the CT.
        found: poses of the levels that count, and how they agree.
        settings: how much better it has to be.
    """
    poses, levels = found.world_from_ct, list(found.world_from_ct)
    body, _ = consensus(poses, {level: scene.parts[level].corners.numpy() for level in levels})
    centres = np.stack([scene.parts[level].centre.numpy() for level in cranio_caudal(scene.parts)])
    if len(centres) < 2:
        return False
    spacing = np.diff(centres, axis=0).mean(axis=0)
    here = _agreement(found, levels)
    for way in (spacing, -spacing):
        start = body @ RigidTransform.from_rotation_translation(np.eye(3), way)
        try:
            there = refine(scene, dict.fromkeys(scene.parts, start), settings)
        except GeometryError:  # nothing would be seen there
            continue
        if here - _agreement(there, levels) < settings.certain_names:
            return False
    return True


def _agreement(found: Refined, levels: Iterable[str]) -> float:
    """Mean over levels of the similarity of the view that agrees least."""
    return float(np.mean([min(found.similarity[level].values(), default=0.0) for level in levels]))
