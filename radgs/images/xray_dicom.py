"""X-rays from DICOM (XA, RF, DX, CR): stored values to detector counts. Their geometry is in ``xray_geometry``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut
from scipy import ndimage
from skimage.draw import polygon2mask

from radgs.errors import ImageError
from radgs.geometry import Camera
from radgs.images.dicom import named, read_header, read_pixels
from radgs.images.xray_geometry import GEOMETRY_HEADER, camera_from_header

_MODALITIES = ("XA", "RF", "DX", "CR")
_BORDERS = ("Collimator", "Shutter")
_EDGES = ("LeftVerticalEdge", "RightVerticalEdge", "UpperHorizontalEdge", "LowerHorizontalEdge")
_SHAPES = ("Shape", *_EDGES)
_CIRCLES = (
    ("CenterOfCircularCollimator", "RadiusOfCircularCollimator"),
    ("CenterOfCircularShutter", "RadiusOfCircularShutter"),
)
_POLYGONS = ("VerticesOfThePolygonalCollimator", "VerticesOfThePolygonalShutter")
_HEADER = (
    "Modality",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "PresentationIntentType",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    *(border + shape for border in _BORDERS for shape in _SHAPES),
    *(name for circle in _CIRCLES for name in circle),
    *_POLYGONS,
    *GEOMETRY_HEADER,
)


@dataclass(frozen=True)
class Exposure:
    """One X-ray as the detector counted it.

    Attributes:
        counts: ``[H, W]`` float32, proportional to intensity; NaN behind the collimator.
        camera: its geometry.
        saturation: counts at which the detector is full.
    """

    counts: NDArray[np.float32]
    camera: Camera
    saturation: float


def read_xray_dicom(path: str | Path, spec: Mapping[str, Any], where: str) -> Exposure:
    """Read an X-ray and its camera.

    Counts must be proportional to the intensity at the detector, since line integrals are their logarithm. What is
    taken for that (PS3.3, C.8.7.1.1.2 and C.8.11.3.1.2):

    - Pixel Intensity Relationship LIN, or LOG with the Modality LUT that makes it linear again. DISP, LOG without a
      LUT, an image FOR PRESENTATION and one that does not say are refused, unless ``spec`` says
      ``"intensity": "linear"``.
    - Pixel Intensity Relationship Sign -1 (more beam, lower value) is turned round: full scale minus value.
      MONOCHROME1 is a wish for display and turns nothing round; it only makes the sign necessary, which can also be
      given as ``"intensity_sign"``. MONOCHROME2 without a sign means more beam, higher value.
    - Rescale slope and intercept are applied; VOI window and VOI LUT, which are for the eye, are not.

    Args:
        path: the file.
        spec: the view in ``cameras.json``; its numbers go before those of the header (``xray_geometry``), and
            ``frame`` (1 is the first) chooses from several.
        where: how messages call ``spec``.

    Raises:
        ImageError: not such an X-ray, cut off, or not in counts.
        GeometryError: a number is missing (named with its tag and its key in ``cameras.json``) or impossible.
    """
    path = Path(path)
    header = read_header(path, _HEADER)
    modality = header.get("Modality", "none")
    if modality not in _MODALITIES:
        raise ImageError(f"{path}: {named('Modality')} is {modality}; an X-ray is one of {', '.join(_MODALITIES)}")
    frame = _frame(path, header, spec, where)
    linear = _check_relationship(path, header, spec, where)
    sign = _sign(path, header, spec, where)
    stored = read_pixels(path, frame)
    counts, saturation = _counts(stored, header, -1 if sign < 0 and not linear else 1)
    if not np.isfinite(counts).all() or counts.min() < 0 or counts.max() - counts.min() < 2:
        raise ImageError(f"{path}: values from {counts.min():g} to {counts.max():g} are no detector counts")
    counts[~_exposed(path, header, counts.shape)] = np.nan
    if np.isnan(counts).all():
        raise ImageError(f"{path}: its collimator leaves no pixel; mend {named('CollimatorShape')} and what follows it")
    camera, flips = camera_from_header(path, header, spec, where, counts.shape[::-1])
    return Exposure(np.ascontiguousarray(np.flip(counts, flips)), camera, saturation)


def _frame(path: Path, header: pydicom.Dataset, spec: Mapping[str, Any], where: str) -> int:
    frames, frame = int(header.get("NumberOfFrames", 1)), spec.get("frame")
    if frame is None and frames > 1:
        raise ImageError(f'{path}: holds {frames} frames; choose one, "frame": 1 to {frames}, in {where}')
    frame = 1 if frame is None else frame
    if isinstance(frame, bool) or not isinstance(frame, int) or not 1 <= frame <= frames:
        raise ImageError(f"{where}: frame must be 1 to {frames} for {path}, got {frame!r}")
    return frame - 1


def _check_relationship(path: Path, header: pydicom.Dataset, spec: Mapping[str, Any], where: str) -> bool:
    """Whether a Modality LUT makes the values linear."""
    said = spec.get("intensity")
    if said not in (None, "linear"):
        raise ImageError(f'{where}: intensity can only be "linear", got {said!r}')
    relationship = header.get("PixelIntensityRelationship", "not given")
    shown = header.get("PresentationIntentType") == "FOR PRESENTATION"
    by_lut = relationship == "LOG" and "ModalityLUTSequence" in header
    if said is None and (shown or not (relationship == "LIN" or by_lut)):
        found = "FOR PRESENTATION" if shown else f"{named('PixelIntensityRelationship')} {relationship}"
        raise ImageError(
            f"{path}: {found}; export it unprocessed and linear, or, if its values are proportional to intensity, "
            f'add "intensity": "linear" to {where}'
        )
    return by_lut


def _sign(path: Path, header: pydicom.Dataset, spec: Mapping[str, Any], where: str) -> int:
    sign = spec.get("intensity_sign", header.get("PixelIntensityRelationshipSign"))
    if sign is None and header.get("PhotometricInterpretation") == "MONOCHROME1":
        raise ImageError(
            f"{path}: is MONOCHROME1 without {named('PixelIntensityRelationshipSign')}; add intensity_sign to "
            f"{where}: 1 if more beam gives higher values, -1 if lower"
        )
    if sign not in (None, 1, -1) or isinstance(sign, bool):
        raise ImageError(f"{where}: intensity_sign must be 1 or -1 for {path}, got {sign!r}")
    return 1 if sign is None else int(sign)


def _counts(stored: NDArray[Any], header: pydicom.Dataset, sign: int) -> tuple[NDArray[np.float32], float]:
    bits = int(header.BitsStored)
    low = -(2 ** (bits - 1)) if header.get("PixelRepresentation", 0) else 0
    ends = np.array([low, low + 2**bits - 1])
    if sign < 0:
        stored, ends = int(ends.sum()) - stored.astype(np.int64), ends[::-1]
    scaled = np.asarray(apply_modality_lut(stored, header), dtype=np.float32)
    top = np.asarray(apply_modality_lut(np.array([ends.max()]), header), dtype=np.float32)
    return np.array(scaled), float(top[0])


def _exposed(path: Path, header: pydicom.Dataset, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """``[H, W]``: inside the collimator and the shutter (PS3.3, C.8.7.3, C.7.6.11; the first row is 1)."""
    row, column = np.mgrid[1 : shape[0] + 1, 1 : shape[1] + 1]
    inside = np.ones(shape, dtype=bool)
    try:
        for border, (centre, radius), vertices in zip(_BORDERS, _CIRCLES, _POLYGONS, strict=True):
            shapes = np.atleast_1d(header.get(border + "Shape", [])).tolist()
            if "RECTANGULAR" in shapes:
                left, right, upper, lower = (float(header[border + edge].value) for edge in _EDGES)
                inside &= (column > left) & (column < right) & (row > upper) & (row < lower)
            if "CIRCULAR" in shapes:
                r, c = header[centre].value
                inside &= np.hypot(row - float(r), column - float(c)) < float(header[radius].value)
            if "POLYGONAL" in shapes:
                corners = np.array(header[vertices].value, dtype=np.float64).reshape(-1, 2) - 1
                inside &= ndimage.binary_erosion(polygon2mask(shape, corners), np.ones((3, 3)))  # without its edge
    except (KeyError, TypeError, ValueError):
        raise ImageError(f"{path}: {named(border + 'Shape')} lacks its edges; remove the tag or export again") from None
    return inside
