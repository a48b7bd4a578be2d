"""Who finds the levels in the X-rays, and where that puts them in the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from radgs.anatomy.levels import LEVELS
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.geometry import Camera, triangulate
from radgs.images import read_cameras, read_json, write_json

_SMALLEST_BOX_PX = 3.0


@dataclass(frozen=True)
class Box:
    """A level found in one view: pixel edges (u0, v0, u1, v1) and a score from 0 to 1."""

    edges: tuple[float, float, float, float]
    score: float

    @property
    def centre(self) -> np.ndarray:
        """``[2]`` (u, v), pixels."""
        u0, v0, u1, v1 = self.edges
        return np.array([(u0 + u1) / 2, (v0 + v1) / 2])


class LevelDetector(Protocol):
    """Anything that finds vertebrae in X-rays."""

    def detect(self) -> dict[str, dict[str, Box]]:
        """Boxes by view and level."""
        ...


class ProvidedBoxes:
    """Boxes that the user brings: ``{"views": {"AP": {"L1": {"box": [u0, v0, u1, v1], "score": 1.0}}}}``."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def detect(self) -> dict[str, dict[str, Box]]:
        """Read and check the boxes.

        Raises:
            AnatomyError: not such a file, an unknown level, or edges that make no box.
        """
        content = read_json(self.path)
        views = content.get("views") if isinstance(content, dict) else None
        if not isinstance(views, dict) or not views:
            raise AnatomyError(f'{self.path}: expected {{"views": {{"AP": {{"L1": {{"box": [u0, v0, u1, v1]}}}}}}}}')
        for view, found in views.items():
            if not isinstance(found, dict):
                raise AnatomyError(f"{self.path}: view {view}: expected boxes by level, got {found!r}")
        return {view: {lv: self._box(view, lv, entry) for lv, entry in found.items()} for view, found in views.items()}

    def _box(self, view: str, level: str, entry: Any) -> Box:
        if level not in LEVELS:
            raise AnatomyError(f"{self.path}: view {view}: {level!r} is no vertebra")
        try:
            u0, v0, u1, v1 = (float(x) for x in entry["box"])
            score = float(entry.get("score", 1.0))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise AnatomyError(f"{self.path}: view {view}, {level}: needs box [u0, v0, u1, v1] in pixels") from None
        if not (np.isfinite([u0, v0, u1, v1]).all() and u1 > u0 and v1 > v0 and 0 <= score <= 1):
            raise AnatomyError(f"{self.path}: view {view}, {level}: {[u0, v0, u1, v1]} with score {score} is no box")
        return Box((u0, v0, u1, v1), score)


def locate(
    cameras: Mapping[str, Camera], boxes: Mapping[str, Mapping[str, Box]], config: Config
) -> tuple[dict[str, Any], dict[str, str]]:
    """Triangulate the levels' box centres.

    Returns:
        per level its views, centre (world, mm) and epipolar residual (mm); and, for the others, why not.
    """
    located: dict[str, Any] = {}
    not_seen: dict[str, str] = {}
    for level in [name for name in LEVELS if any(name in found for found in boxes.values())]:
        views = {v: found[level] for v, found in boxes.items() if level in found and v in cameras}
        inside = {v: b for v, b in views.items() if _centre_inside(cameras[v], b)}
        sizes = {v: [round(b.edges[2] - b.edges[0], 3), round(b.edges[3] - b.edges[1], 3)] for v, b in inside.items()}
        odd = {v: s for v, s in sizes.items() if min(s) < _SMALLEST_BOX_PX or max(s) > max(_size(cameras[v]))}
        if odd:
            not_seen[level] = f"boxes of {odd} pixels are no vertebrae"
            continue
        if len(inside) < 2:
            not_seen[level] = f"its centre is in the image of {len(inside)} view(s), two are needed"
            continue
        found_at = triangulate([cameras[v] for v in inside], [b.centre for b in inside.values()])
        if found_at.residual_mm > config.detection.max_residual_mm:
            not_seen[level] = (
                f"its boxes do not meet: the rays pass {found_at.residual_mm:.1f} mm from each other "
                f"(at most {config.detection.max_residual_mm:g})"
            )
            continue
        located[level] = {
            "views": {v: {"box": list(b.edges), "score": b.score} for v, b in inside.items()},
            "centre_mm": found_at.point.tolist(),
            "residual_mm": found_at.residual_mm,
        }
    return located, not_seen


def _size(camera: Camera) -> tuple[int, int]:
    return camera.width, camera.height


def _centre_inside(camera: Camera, box: Box) -> bool:
    u, v = box.centre
    return bool(0 <= u <= camera.width - 1 and 0 <= v <= camera.height - 1)


def detect(cameras: str | Path, boxes: str | Path, target: str | Path, config: Config) -> None:
    """Find the levels with the configured backend, triangulate them and write ``levels.json``.

    Raises:
        AnatomyError: no level is seen in two views.
    """
    geometry = read_cameras(cameras)
    detector: LevelDetector = {"provided": ProvidedBoxes}[config.detection.backend](boxes)
    located, not_seen = locate(geometry, detector.detect(), config)
    if not located:
        reasons = "; ".join(f"{level}: {why}" for level, why in not_seen.items())
        raise AnatomyError(f"{boxes}: no vertebra is seen in two views ({reasons or 'no boxes'})")
    write_json(target, {"levels": located, "not_seen": not_seen})


def read_levels(path: str | Path) -> dict[str, dict[str, Any]]:
    """The located levels of a ``levels.json``.

    Raises:
        AnatomyError: not such a file.
    """
    content = read_json(path)
    levels = content.get("levels") if isinstance(content, dict) else None
    if not isinstance(levels, dict) or not all(isinstance(v, dict) and "centre_mm" in v for v in levels.values()):
        raise AnatomyError(f"{path}: not the levels.json of rule detect; delete it and run again")
    return levels
