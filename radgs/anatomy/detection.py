"""Where the levels found in the X-rays are in the world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radgs.anatomy.boxes import ProvidedBoxes
from radgs.anatomy.levels import LEVELS
from radgs.anatomy.locating import locate
from radgs.anatomy.segmentation import read_labelled_ct
from radgs.anatomy.tissue import split_tissue
from radgs.anatomy.trained import TrainedDetector
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.images import Xray, read_cameras, read_json, read_xrays, write_json


def detect_provided(
    cameras: str | Path, boxes: str | Path, images: Mapping[str, str], target: str | Path, config: Config
) -> None:
    """Read the user's boxes, triangulate them and write ``levels.json``.

    Args:
        cameras: ``cameras.json`` of the prepared shot.
        boxes: see :class:`ProvidedBoxes`.
        images: by view, the image file that the user named.
        target: ``levels.json``.
        config: ``detection``.

    Raises:
        AnatomyError: boxes that cannot be used, or no level is seen in two views.
    """
    geometry = read_cameras(cameras)
    sizes = {view: (camera.width, camera.height) for view, camera in geometry.items()}
    located, not_seen = locate(geometry, ProvidedBoxes(boxes, images, sizes).detect().boxes, config)
    _write_levels({level: entry | {"doubts": []} for level, entry in located.items()}, not_seen, target)


def detect_trained(
    xrays: str | Path,
    cameras: str | Path,
    ct: str | Path,
    vertebrae: str | Path,
    weights_folder: str | Path,
    target: str | Path,
    config: Config,
) -> None:
    """Find the levels with the patient's trained detector, lay the CT on them and write ``levels.json``.

    Args:
        xrays: line integrals of the prepared shot.
        cameras: its ``cameras.json``.
        ct: HU; what a vertebra looks like.
        vertebrae: its labels, whose distances tell one naming from another.
        weights_folder: of the detector.
        target: ``levels.json``.
        config: ``detection``.

    Raises:
        RadgsError: a file that cannot be used, or no level is seen in two views.
    """
    detector = TrainedDetector(weights_folder, split_tissue(*read_labelled_ct(ct, vertebrae)), config)
    find_levels(detector, read_xrays(xrays, cameras), target)


def find_levels(detector: TrainedDetector, xrays: Mapping[str, Xray], target: str | Path) -> None:
    """As :func:`detect_trained`, with a patient's detector at hand: the CT is read and taken apart once for all shots.

    Raises:
        AnatomyError: no level is seen in two views.
    """
    _write_levels(*detector.locate(xrays), target)


def place_given(cameras: str | Path, centres: str | Path, target: str | Path) -> None:
    """Take the user's word for where the levels' centres are and write ``levels.json``.

    As near as the networks were trained for (``simulation.centre_jitter_mm``) is near enough.

    Args:
        cameras: ``cameras.json`` of the prepared shot.
        centres: JSON, ``{"L1": [x, y, z]}``, world, mm.
        target: ``levels.json``.

    Raises:
        AnatomyError: not such a file, or a centre that fewer than two views see.
    """
    views, given = read_cameras(cameras), read_json(centres)
    if not isinstance(given, dict) or not given:
        raise AnatomyError(f'{centres}: expected the levels\' centres in the world, mm: {{"L1": [x, y, z], ...}}')
    located = {}
    for level, centre in given.items():
        try:
            point = np.array(centre, dtype=np.float64)
        except (TypeError, ValueError):
            point = np.empty(0)
        if level not in LEVELS or point.shape != (3,) or not np.isfinite(point).all():
            raise AnatomyError(f"{centres}: {level}: {centre} is not a vertebra with its centre [x, y, z] in mm")
        seen = [name for name, camera in views.items() if camera.sees(point)]
        if len(seen) < 2:
            raise AnatomyError(f"{centres}: {level} at {point.tolist()} is in the image of {len(seen)} view(s) only")
        located[level] = {"views": {}, "centre_mm": point.tolist(), "residual_mm": 0.0, "doubts": []}
    write_json(target, {"levels": located, "not_seen": {}})


def _write_levels(located: dict[str, Any], not_seen: dict[str, str], target: str | Path) -> None:
    if not located:
        reasons = "; ".join(f"{level}: {why}" for level, why in not_seen.items())
        raise AnatomyError(f"{target}: no vertebra is seen in two views ({reasons or 'no boxes'})")
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
