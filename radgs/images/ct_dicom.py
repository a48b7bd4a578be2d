"""CT from DICOM: a series of slices in a folder, or one enhanced multi-frame file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import UID
from scipy import ndimage

from radgs.errors import ImageError
from radgs.images.dicom import is_dicom, named, read_header, read_pixels
from radgs.images.volume import Volume

AIR_HU = -1024.0
_ENHANCED = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}
_HEADER = (*_GROUPS, *_ENHANCED, "Modality", "ImageType", "SeriesInstanceUID", "PixelPaddingValue")
_DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR, lists other files
_HOUNSFIELD = ("HU", "HU_MOD", "")

# Scanners round positions to 0.001-0.01 mm; a missing slice is off by a whole step.
_POSITION_TOLERANCE_MM = 0.05
_SAME_PLACE_MM = 0.005
_SAME_AXES = 1e-4
# Less shear than this moves the outermost slice of 500 mm by 0.05 mm.
_NO_TILT = 1e-4


@dataclass(frozen=True)
class _Slice:
    """One image of the stack: where it lies (LPS mm) and how its stored values become HU."""

    path: Path
    frame: int
    shape: tuple[int, int]
    position: NDArray[np.float64]
    axes: NDArray[np.float64]  # [2, 3]: direction of rising column, of rising row
    spacing: NDArray[np.float64]  # between columns, between rows, mm
    slope: float
    intercept: float
    padding: int | None

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.axes[0], self.axes[1])

    def __str__(self) -> str:
        return self.path.name if self.frame < 0 else f"frame {self.frame + 1}"


def read_ct_dicom(source: str | Path) -> Volume:
    """Read a CT in Hounsfield units from a folder with one series, or from one enhanced multi-frame file.

    Slices are put in the order of their positions. If the gantry was tilted, each slice is moved within its plane
    (linear interpolation, air outside) so that the grid has right angles. Pixel padding becomes -1024.

    Args:
        source: the folder (files that are not DICOM are passed over, subfolders not entered), or the file.

    Returns:
        float32 HU; axes x and y along the slices' columns and rows, z along their normal; LPS mm.

    Raises:
        ImageError: no DICOM, more than one series, not a CT, a localizer, no rescale to HU, a file cut off, slices
            of several sizes or directions, missing, twice, or several of one place (a time series).
    """
    source = Path(source)
    files = _files(source)
    headers = {path: read_header(path, _HEADER) for path in files}
    _check_series(source, headers)
    slices = [s for path, header in headers.items() for s in _slices(path, header)]
    if len(slices) < 2:
        raise ImageError(f"{source}: one slice is no volume; give the folder that holds the series")
    slices = _in_order(source, slices)
    return _upright(_stack(slices), _affine(source, slices))


def read_frame_of_reference(source: str | Path) -> str | None:
    """The Frame of Reference UID of a CT in DICOM, as :func:`read_ct_dicom` reads it; None if it has no valid one."""
    uid = read_header(_files(Path(source))[0], ["FrameOfReferenceUID"]).get("FrameOfReferenceUID")
    return str(uid) if uid and UID(uid).is_valid else None


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ImageError(f"{source}: no such file or folder")
    found = [path for path in sorted(source.iterdir()) if is_dicom(path)]
    files = [path for path in found if _class_in_meta(path) != _DIRECTORY]
    if not files:
        raise ImageError(f"{source}: no DICOM file lies in this folder (subfolders are not searched); name another")
    return files


def _class_in_meta(path: Path) -> str:
    try:
        return str(pydicom.filereader.read_file_meta_info(path).get("MediaStorageSOPClassUID", ""))
    except Exception:  # a damaged file is reported when it is read
        return ""


def _check_series(source: Path, headers: dict[Path, pydicom.Dataset]) -> None:
    for path, header in headers.items():
        modality = header.get("Modality", "none")
        if modality != "CT":
            raise ImageError(f"{path}: {named('Modality')} is {modality}, not CT; take it out of the series")
        if "LOCALIZER" in header.get("ImageType", []):
            raise ImageError(f"{path}: is a localizer (scout view), not a slice; take it out of the folder")
    series = {path: header.get("SeriesInstanceUID", "") for path, header in headers.items()}
    count = Counter(series.values())
    if len(count) > 1:
        shown = [f"{n} files such as {next(p.name for p in series if series[p] == uid)}" for uid, n in count.items()]
        raise ImageError(
            f"{source}: holds {len(count)} series ({'; '.join(shown[:4])}); put one in a folder of its own"
        )


def _slices(path: Path, header: pydicom.Dataset) -> list[_Slice]:
    if "PerFrameFunctionalGroupsSequence" not in header:
        if int(header.get("NumberOfFrames", 1)) > 1:
            raise ImageError(f"{path}: its frames have no places ({named('PerFrameFunctionalGroupsSequence')})")
        return [_slice(path, header, -1, [header])]
    shared = list(header.get("SharedFunctionalGroupsSequence", []))
    frames = list(header.PerFrameFunctionalGroupsSequence)
    if len(frames) != int(header.get("NumberOfFrames", 1)):
        raise ImageError(f"{path}: {len(frames)} places for {header.get('NumberOfFrames', 1)} frames; export it again")
    return [_slice(path, header, i, [frame, *shared]) for i, frame in enumerate(frames)]


def _element(groups: list[pydicom.Dataset], keyword: str) -> Any:
    for group in groups:
        inner = group.get(_GROUPS[keyword])
        value = (inner[0] if inner else group).get(keyword)
        if value is not None:
            return value
    return None


def _slice(path: Path, header: pydicom.Dataset, frame: int, groups: list[pydicom.Dataset]) -> _Slice:
    found = {keyword: _element(groups, keyword) for keyword in _GROUPS}
    for keyword in _GROUPS:
        if found[keyword] is None and keyword != "RescaleType":
            raise ImageError(f"{path}: has no {named(keyword)}; export the CT again, with all tags and in HU")
    kind = str(found["RescaleType"] or "")
    if kind not in _HOUNSFIELD:
        raise ImageError(f"{path}: {named('RescaleType')} is {kind!r}, not HU; export the CT in Hounsfield units")
    try:
        position, axes, spacing = (
            np.array(found[k], dtype=np.float64).reshape(shape)
            for k, shape in (("ImagePositionPatient", 3), ("ImageOrientationPatient", (2, 3)), ("PixelSpacing", 2))
        )
        slope, intercept = float(found["RescaleSlope"]), float(found["RescaleIntercept"])
    except (TypeError, ValueError):
        raise ImageError(f"{path}: its position, orientation, spacing or rescale is no set of numbers") from None
    if not np.isfinite(position).all() or not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise ImageError(f"{path}: {named('ImageOrientationPatient')} or the position is impossible; export it again")
    if not (np.isfinite(spacing).all() and spacing.min() > 0 and np.isfinite([slope, intercept]).all() and slope > 0):
        raise ImageError(f"{path}: {named('PixelSpacing')} or {named('RescaleSlope')} is not positive; export it again")
    shape = int(header.get("Rows", 0)), int(header.get("Columns", 0))
    padding = header.get("PixelPaddingValue")
    return _Slice(
        path,
        frame,
        shape,
        position,
        axes / np.linalg.norm(axes, axis=1, keepdims=True),
        spacing[::-1],
        slope,
        intercept,
        padding if isinstance(padding, int) else None,
    )


def _in_order(source: Path, slices: list[_Slice]) -> list[_Slice]:
    first = slices[0]
    for s in slices:
        if s.shape != first.shape or not np.allclose(s.spacing, first.spacing, rtol=1e-4, atol=0):
            raise ImageError(f"{source}: {s} and {first} differ in size or pixel spacing; keep one series of slices")
        if np.abs(s.axes - first.axes).max() > _SAME_AXES:
            raise ImageError(f"{source}: {s} and {first} differ in orientation; keep one series of parallel slices")
    slices = sorted(slices, key=lambda s: float(s.position @ first.normal))
    heights = np.array([s.position @ first.normal for s in slices])
    steps = np.diff(heights)
    for (a, b), step in zip(pairwise(slices), steps, strict=True):
        if step < _SAME_PLACE_MM:
            raise ImageError(f"{source}: {a} and {b} show the same place (a copy, or a time series); keep one of them")
    usual = float(np.median(steps))
    widest = int(np.argmax(np.abs(steps - usual)))
    if abs(steps[widest] - usual) > 2 * _POSITION_TOLERANCE_MM:
        raise ImageError(
            f"{source}: slices lie {usual:.2f} mm apart but {slices[widest]} and {slices[widest + 1]} "
            f"{steps[widest]:.2f} mm; add the missing slices or resample the CT to even steps"
        )
    return slices


def _affine(source: Path, slices: list[_Slice]) -> NDArray[np.float64]:
    """lps_from_index ``[4, 4]`` of the slices where they are: sheared if the gantry was tilted."""
    first, positions = slices[0], np.array([s.position for s in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * step).max(axis=1)
    if off.max() > 2 * _POSITION_TOLERANCE_MM:
        raise ImageError(
            f"{source}: {slices[int(off.argmax())]} lies {off.max():.2f} mm off the line of the other slices; "
            "resample the CT to a regular grid"
        )
    affine = np.eye(4)
    affine[:3, :2] = (first.axes * first.spacing[:, None]).T
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return affine


def _stack(slices: list[_Slice]) -> NDArray[np.float32]:
    first = read_pixels(slices[0].path)  # before there is room for all: rows and columns may be nonsense
    enhanced = first.reshape(-1, *first.shape[-2:]) if slices[0].frame >= 0 else None
    hu = np.empty((len(slices), *first.shape[-2:]), dtype=np.float32)
    for out, s in zip(hu, slices, strict=True):
        stored = read_pixels(s.path) if enhanced is None else enhanced[s.frame]
        if stored.shape != s.shape:
            raise ImageError(f"{s.path}: its pixels {stored.shape} are not its rows and columns {s.shape}")
        out[:] = stored * np.float32(s.slope) + np.float32(s.intercept)
        if s.padding is not None:
            out[stored == s.padding] = AIR_HU
    return hu


def _upright(hu: NDArray[np.float32], affine: NDArray[np.float64]) -> Volume:
    """Take the shear of a tilted gantry out: slices move in their planes, onto a grid with room for all."""
    axes = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    normal = np.cross(axes[:, 0], axes[:, 1])
    step = affine[:3, 2]
    along = axes.T @ step  # mm a slice, along x and y
    if np.abs(along).max() <= _NO_TILT * np.linalg.norm(step):
        return Volume(hu, affine)
    pixels = along / np.linalg.norm(affine[:3, :2], axis=0)  # a slice, (x, y)
    total = pixels * (len(hu) - 1)
    before = np.ceil(np.maximum(-total, 0)).astype(int)
    after = np.ceil(np.maximum(total, 0)).astype(int)
    room = [(before[1], after[1]), (before[0], after[0])]
    upright = np.stack(
        [
            ndimage.shift(np.pad(s, room, constant_values=AIR_HU), i * pixels[::-1], order=1, cval=AIR_HU)
            for i, s in enumerate(hu)
        ]
    )
    straight = affine.copy()
    straight[:3, 2] = normal * (normal @ step)
    straight[:3, 3] -= affine[:3, :2] @ before
    return Volume(upright, straight)
