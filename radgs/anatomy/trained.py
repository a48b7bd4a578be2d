"""The YOLO network of a patient, decoded and made sharp with the patient's CT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radgs.anatomy.decoding import decode
from radgs.anatomy.doubts import border_doubts, fit_doubts, missed_doubts, naming_doubts
from radgs.anatomy.fitting import Fitted, Spine, fit_spine
from radgs.anatomy.locating import locate
from radgs.anatomy.matching import BANDS, Matcher, canvases
from radgs.anatomy.tissue import SpineTissue
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.geometry import patient_axes
from radgs.images import Volume, Xray
from radgs.projection import MovingParts

_VOXEL_MM = 2.0  # in plane, of the vertebrae that are compared with the images
_REACH_LEVELS = 2  # so far from one that was found is a level placed that was not


class TrainedDetector:
    """Finds, names and places the levels of a patient's shots; made once a patient.

    Args:
        weights_folder: of :func:`radgs.training.train_detector`.
        tissue: the patient's CT.
        config: ``detection``.

    Raises:
        AnatomyError: no usable weights, or levels that the CT does not have.
        ConfigError: the extra ``detect`` is not installed.
    """

    def __init__(self, weights_folder: str | Path, tissue: SpineTissue, config: Config) -> None:
        from radgs.anatomy.yolo import Detector

        self.config, self.network = config, Detector(weights_folder)
        unknown = [level for level in self.network.levels if level not in tissue.excess]
        if unknown:
            raise AnatomyError(f"{weights_folder}: knows {', '.join(unknown)}, which the CT's labels do not have")
        self.centres = {level: tissue.centre(level) for level in self.network.levels}
        self.bones = MovingParts([_coarse(tissue.excess[level]) for level in self.network.levels])

    def locate(self, xrays: Mapping[str, Xray]) -> tuple[dict[str, Any], dict[str, str]]:
        """The levels' places in a shot.

        Args:
            xrays: the views.

        Returns:
            per level the views it was found in, centre (world, mm), epipolar residual (mm), the pose (world_from_ct) at
            which the CT's vertebra fits, how well, and doubts; and, for the others, why not.
        """
        cameras = {view: xray.camera for view, xray in xrays.items()}
        candidates = {view: self.network.candidates(xray) for view, xray in xrays.items()}
        found = decode(cameras, candidates, self.network.levels, self.centres)
        located, not_seen = locate(cameras, found.boxes, self.config)
        if not located:
            return located, not_seen
        points = {level: np.array(entry["centre_mm"]) for level, entry in located.items()}
        scores = {level: min(view["score"] for view in entry["views"].values()) for level, entry in located.items()}
        middle = np.median(list(points.values()), axis=0)
        images = canvases(xrays, middle)
        matchers = (Matcher(images, self.bones, self.centres, band) for band in BANDS)
        fitted = fit_spine(matchers, Spine(self.network.levels, self.centres, patient_axes(cameras)), points, scores)
        self._settle(xrays, located, not_seen, fitted)
        settings = self.config.detection.yolo
        of_names = (
            naming_doubts(found, settings),
            fit_doubts(fitted, self.network.levels, settings),
            missed_doubts(fitted, [level for level, entry in located.items() if not entry["views"]], settings),
        )
        borders = border_doubts(xrays, found.boxes)
        for level, entry in located.items():
            entry["name_doubts"] = [doubt for source in of_names for doubt in source.get(level, [])]
            entry["doubts"] = entry["name_doubts"] + borders.get(level, [])
        return located, not_seen

    def _settle(
        self, xrays: Mapping[str, Xray], located: dict[str, Any], not_seen: dict[str, str], fitted: Fitted
    ) -> None:
        """Put the levels where they fit, and beside them those that the network missed."""
        levels = self.network.levels
        rows = [levels.index(level) for level in located]
        for row, level in enumerate(levels):
            pose = fitted.poses[level]
            centre = pose.apply(self.centres[level])
            if level in located:
                located[level]["triangulated_mm"] = located[level]["centre_mm"]
            elif min(abs(row - other) for other in rows) <= _REACH_LEVELS and all(
                xray.camera.sees(centre) for xray in xrays.values()
            ):
                not_seen.pop(level, None)
                located[level] = {"views": {}, "residual_mm": 0.0}
            else:
                continue
            located[level] |= {
                "centre_mm": centre.tolist(),
                "fit": round(fitted.fits.get(level, 0.0), 3),
                "world_from_ct": pose.matrix.tolist(),
            }


def _coarse(bone: Volume) -> Volume:
    factor = max(round(_VOXEL_MM / float(bone.spacing[:2].max())), 1)
    _, height, width = bone.array.shape
    whole = np.pad(bone.array, ((0, 0), (0, -height % factor), (0, -width % factor)))
    return Volume(whole, bone.lps_from_index).binned_in_plane(factor)
