"""What is wrong with a run's files, all at once and before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from radgs.anatomy import LEVELS, Box, ProvidedBoxes, ProvidedLabels, audit_labels, locate, required_weights
from radgs.config import Config
from radgs.errors import AnatomyError, RadgsError
from radgs.geometry import Camera, frontal_and_lateral, triangulate
from radgs.images import (
    Volume,
    ct_doubts,
    is_dicom,
    read_counts,
    read_ct,
    read_transforms,
    read_view_geometry,
    read_xray,
)
from radgs.sheets import Sheets, patient_levels
from radgs.simulation import demo_shot_files

_FILE_COLUMNS = ("ct", "labels", "image", "geometry", "truth", "boxes")
# Boxes of the right views meet within the few millimetres by which their centres are off.
_SWAPPED_MM, _SWAPPED_RATIO = 5.0, 3.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Finding:
    """Something about a file: an ``error`` stops the workflow, a ``warning`` changes what comes out of it."""

    kind: Literal["error", "warning"]
    file: str
    what: str


def check_files(config: Config, sheets: Sheets) -> tuple[list[Finding], int]:
    """Read every file behind both sheets.

    Args:
        config: settings.
        sheets: of :func:`radgs.sheets.examine_sheets`.

    Returns:
        all findings, those of the sheets too, and how many files of the demo were not looked at because the workflow
        makes them.
    """
    patients, xrays = sheets.patients, sheets.xrays
    check = _Check(config, xrays)
    for sheet, place, mistake in sheets.problems:
        check.add("error", str(sheet), f"{place and place + ': '}{mistake}")
    if config.segmentation.backend == "totalsegmentator":
        weights = config.segmentation.totalsegmentator
        check.attempt(str(weights.weights or "weights"), lambda: required_weights(weights))
    for row in patients.values():
        check.patient(row)
    for (patient, _), rows in groupby(xrays, key=lambda row: (row["patient"], row["shot"])):
        named = patients.get(patient)
        check.shot(list(rows), patient_levels(named, config) if named else config.levels)
    for row in sheets.doubtful:
        check.camera(row)
    if config.results.exists() and not config.results.is_dir():
        check.add("error", str(config.results), "is a file; results need a folder")
    if not (xrays or sheets.problems):
        check.add("error", str(config.xrays), "holds no shot")
    named_files = {Path(row[c]) for row in [*patients.values(), *xrays] for c in _FILE_COLUMNS if row.get(c)}
    return list(dict.fromkeys(check.found)), len(named_files & check.made)


class _Check:
    def __init__(self, config: Config, xrays: Sequence[dict[str, str]]) -> None:
        self.config, self.found = config, list[Finding]()
        folder = config.results / "demo"
        shots = sorted({row["shot"] for row in xrays if row["patient"] == "demo"})
        files = demo_shot_files(folder, folder / "truth", shots)
        self.made = {folder / "ct.nii.gz", folder / "labels.nii.gz", *files}

    def add(self, kind: Literal["error", "warning"], file: str, what: str) -> None:
        self.found.append(Finding(kind, file, what.removeprefix(f"{file}: ")))

    def attempt(self, file: str, read: Callable[[], _T], *others: str) -> _T | None:
        """What ``read`` returns, or None and a finding about ``file``, or the other that the message begins with."""
        try:
            return read()
        except RadgsError as error:
            named = next((other for other in others if str(error).startswith(f"{other}: ")), file)
            self.add("error", named, str(error))
            return None

    def _is_made(self, file: str) -> bool:
        return bool(file) and Path(file) in self.made

    def patient(self, row: Mapping[str, str]) -> None:
        """A CT and its labels."""
        ct = None if self._is_made(row["ct"]) else self.attempt(row["ct"], lambda: read_ct(row["ct"]))
        if ct is None:
            return
        for doubt in ct_doubts(ct):
            self.add("warning", row["ct"], doubt)
        if self.config.segmentation.backend != "provided" or self._is_made(row["labels"]):
            return
        if not row["labels"]:
            where = f"patient {row['patient']}: the column labels is empty, and segmentation.backend is provided"
            self.add("error", str(self.config.patients), where)
            return
        provided = ProvidedLabels(row["labels"], self.config.segmentation.numbering)
        labels = self.attempt(row["labels"], lambda: provided.segment(ct))
        if labels is not None:
            self._levels(row["labels"], labels, ct, patient_levels(row, self.config))

    def _levels(self, file: str, labels: Volume, ct: Volume, levels: Sequence[str]) -> None:
        absent = [level for level in levels if not (labels.array == LEVELS[level]).any()]
        if absent:
            self.add("error", file, f"lacks {', '.join(absent)} of levels (or they are below 1 cm^3)")
        audited = {level: audit for level, audit in audit_labels(labels, ct).items() if level in levels}
        for level, audit in audited.items():
            outcome = {"cut": "it will not be registered", "suspect": "it will not be accepted"}.get(audit.status)
            if outcome:
                self.add("warning", file, f"{level}: {'; '.join(audit.reasons)}: {outcome}")
        if audited and all(audit.status == "cut" for audit in audited.values()):
            self.add("error", file, "the border of the CT cuts every level that is to be registered")

    def shot(self, rows: Sequence[Mapping[str, str]], levels: Sequence[str]) -> None:
        """The views of a shot, its truth and its boxes."""
        cameras = {row["view"]: camera for row in rows if (camera := self.camera(row))}
        truth, boxes = rows[0]["truth"], rows[0]["boxes"]
        if truth and not self._is_made(truth):
            self.attempt(truth, lambda: read_transforms(truth))
        if self.config.detection.backend != "provided" or self._is_made(boxes):
            return
        if not boxes:
            where = f"patient {rows[0]['patient']}, shot {rows[0]['shot']}: the column boxes is empty"
            self.add("error", str(self.config.xrays), f"{where}, and detection.backend is provided")
            return
        sizes = {view: (camera.width, camera.height) for view, camera in cameras.items()}
        provided = ProvidedBoxes(boxes, {row["view"]: row["image"] for row in rows}, sizes)
        found = self.attempt(boxes, provided.detect)
        if found and len(cameras) == len(rows):
            self.attempt(boxes, lambda: self._boxes(boxes, found.boxes, cameras, levels))

    def camera(self, row: Mapping[str, str]) -> Camera | None:
        """A view's image and geometry."""
        image, geometry = row["image"], row["geometry"]
        if self._is_made(image):
            return None
        readable = self.attempt(image, lambda: is_dicom(image) or read_counts(image)) is not None
        if self._is_made(geometry) or self.attempt(geometry, lambda: read_view_geometry(geometry)) is None:
            return None
        xray = self.attempt(image, lambda: read_xray(row["view"], image, geometry), geometry) if readable else None
        return xray.camera if xray else None

    def _boxes(
        self,
        file: str,
        boxes: Mapping[str, Mapping[str, Box]],
        cameras: Mapping[str, Camera],
        levels: Sequence[str],
    ) -> None:
        for view, camera in cameras.items():
            for level, box in boxes.get(view, {}).items():
                if box.outside(camera.width, camera.height):
                    size = f"{camera.width} x {camera.height}"
                    edges = [round(edge, 1) for edge in box.edges]
                    self.add("error", file, f"view {view}, {level}: box {edges} is outside the image of {size} pixels")
        located, not_seen = locate(cameras, boxes, self.config)
        lost = {level: not_seen.get(level, "it has no box") for level in levels if level not in located}
        for level, why in lost.items():
            self.add("warning", file, f"{level} will not be registered: {why}")
        if len(lost) == len(levels):
            swapped = all("do not meet" in why for why in lost.values())
            hint = "; are the boxes of two views swapped?" if swapped else ""
            raise AnatomyError(f"no level that is to be registered can be located{hint}")
        doubt = _swapped(boxes, cameras)
        if doubt:
            self.add("warning", file, doubt)


def _swapped(boxes: Mapping[str, Mapping[str, Box]], cameras: Mapping[str, Camera]) -> str:
    """Why the boxes of the two main views may have been exchanged; empty if nothing speaks for it."""
    first, second = frontal_and_lateral(cameras)
    shared = sorted(boxes.get(first, {}).keys() & boxes.get(second, {}).keys())
    if not shared:
        return ""

    def residual(*order: str) -> float:
        pair = [cameras[first], cameras[second]]
        return float(np.median([triangulate(pair, [boxes[v][k].centre for v in order]).residual_mm for k in shared]))

    given, exchanged = residual(first, second), residual(second, first)
    if given < _SWAPPED_MM or given < _SWAPPED_RATIO * exchanged:
        return ""
    return (
        f"the rays of {first} and {second} pass {given:.1f} mm from each other, {exchanged:.1f} mm if their boxes are "
        "exchanged: are they swapped?"
    )
