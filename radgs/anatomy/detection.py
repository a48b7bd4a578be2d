"""Where the levels found in the X-rays are in the world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radgs.anatomy.boxes import Box, Detections, LevelDetector, ProvidedBoxes
from radgs.anatomy.decoding import decode
from radgs.anatomy.doubts import border_doubts, naming_doubts
from radgs.anatomy.levels import LEVELS, cranio_caudal
from radgs.anatomy.placing import place_spine
from radgs.anatomy.tissue import middle
from radgs.config import Config, YoloSettings
from radgs.errors import AnatomyError
from radgs.geometry import Camera, patient_axes, triangulate
from radgs.images import Xray, read_cameras, read_json, read_volume, read_xrays, write_json

_SMALLEST_BOX_PX = 3.0
_MOST_OFF_MM = 10.0
_FEWEST_FOR_PLACING = 3
_REACH_LEVELS = 2  # so far from one that was found is a level placed that was not


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


class TrainedDetector:
    """The YOLO network of a patient, decoded with the patient's CT.

    Args:
        xrays: the views.
        weights_folder: of :func:`radgs.training.train_detector`.
        centres: by level, ``[3]`` in the CT, mm.
        settings: which names are certain.
    """

    def __init__(
        self,
        xrays: Mapping[str, Xray],
        weights_folder: str | Path,
        centres: Mapping[str, np.ndarray],
        settings: YoloSettings,
    ) -> None:
        self.xrays, self.folder, self.centres, self.settings = xrays, weights_folder, centres, settings

    def detect(self) -> Detections:
        """Find, name, and doubt.

        Raises:
            RadgsError: no usable weights, or levels that the CT does not have.
        """
        from radgs.anatomy.yolo import Detector

        detector = Detector(self.folder)
        unknown = [level for level in detector.levels if level not in self.centres]
        if unknown:
            raise AnatomyError(f"{self.folder}: knows {', '.join(unknown)}, which the CT's labels do not have")
        cameras = {view: xray.camera for view, xray in self.xrays.items()}
        candidates = {view: detector.candidates(xray) for view, xray in self.xrays.items()}
        found = decode(cameras, candidates, detector.levels, self.centres)
        known = {level: self.centres[level] for level in detector.levels}
        naming, border = naming_doubts(found, self.settings), border_doubts(self.xrays, found.boxes)
        doubts = {level: naming.get(level, []) + border.get(level, []) for level in naming.keys() | border.keys()}
        return Detections(found.boxes, doubts, known)


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
    _write_levels(ProvidedBoxes(boxes, images, {v: _size(c) for v, c in geometry.items()}), geometry, target, config)


def detect_trained(
    xrays: str | Path,
    cameras: str | Path,
    vertebrae: str | Path,
    weights_folder: str | Path,
    target: str | Path,
    config: Config,
) -> None:
    """Find the levels with the patient's trained detector, triangulate them and write ``levels.json``.

    Args:
        xrays: line integrals of the prepared shot.
        cameras: its ``cameras.json``.
        vertebrae: the CT's labels, whose distances tell one naming from another.
        weights_folder: of the detector.
        target: ``levels.json``.
        config: ``detection``.

    Raises:
        RadgsError: a file that cannot be used, or no level is seen in two views.
    """
    views, labels = read_xrays(xrays, cameras), read_volume(vertebrae)
    numbers = set(np.unique(labels.array).tolist())
    centres = {level: middle(labels, number) for level, number in LEVELS.items() if number in numbers}
    detector = TrainedDetector(views, weights_folder, centres, config.detection.yolo)
    _write_levels(detector, {name: x.camera for name, x in views.items()}, target, config)


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


def _write_levels(detector: LevelDetector, cameras: Mapping[str, Camera], target: str | Path, config: Config) -> None:
    found = detector.detect()
    located, not_seen = locate(cameras, found.boxes, config)
    if not located:
        reasons = "; ".join(f"{level}: {why}" for level, why in not_seen.items())
        raise AnatomyError(f"{target}: no vertebra is seen in two views ({reasons or 'no boxes'})")
    for level, entry in located.items():
        entry["doubts"] = found.doubts.get(level, [])
    if found.centres:
        _settle(located, not_seen, cameras, found.centres)
    write_json(target, {"levels": located, "not_seen": not_seen})


def _settle(
    located: dict[str, Any],
    not_seen: dict[str, str],
    cameras: Mapping[str, Camera],
    centres: Mapping[str, np.ndarray],
) -> None:
    """Put the levels where they and the CT's spine together say; doubt those far from there, place those missed."""
    levels, found = cranio_caudal(centres), {level: np.array(entry["centre_mm"]) for level, entry in located.items()}
    if len(found) < _FEWEST_FOR_PLACING:
        return
    scores = {level: min(view["score"] for view in entry["views"].values()) for level, entry in located.items()}
    placed = place_spine(found, levels, centres, patient_axes(cameras), scores)
    for level, centre in found.items():
        off = float(np.linalg.norm(placed[level] - centre))
        located[level] |= {"triangulated_mm": centre.tolist(), "centre_mm": placed[level].tolist()}
        if off > _MOST_OFF_MM:
            located[level]["doubts"].append(f"it was found {off:.0f} mm from where its neighbours put it")
    rows = [levels.index(level) for level in found]
    for row, level in enumerate(levels):
        near = min(abs(row - other) for other in rows) <= _REACH_LEVELS
        if level not in located and near and all(camera.sees(placed[level]) for camera in cameras.values()):
            not_seen.pop(level, None)
            located[level] = {
                "views": {},
                "centre_mm": placed[level].tolist(),
                "residual_mm": 0.0,
                "doubts": ["not found itself, placed by its neighbours"],
            }


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
