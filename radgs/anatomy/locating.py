"""Boxes of several views to points in the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from radgs.anatomy.boxes import Box
from radgs.anatomy.levels import LEVELS
from radgs.config import Config
from radgs.geometry import Camera, triangulate

_SMALLEST_BOX_PX = 3.0


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
        odd = {
            v: s
            for v, s in sizes.items()
            if min(s) < _SMALLEST_BOX_PX or max(s) > max(cameras[v].width, cameras[v].height)
        }
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


def _centre_inside(camera: Camera, box: Box) -> bool:
    u, v = box.centre
    return bool(0 <= u <= camera.width - 1 and 0 <= v <= camera.height - 1)
