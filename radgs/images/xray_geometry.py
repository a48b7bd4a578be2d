"""The camera of a DICOM X-ray: numbers of the header, completed or overruled by the view in ``cameras.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from radgs.errors import GeometryError
from radgs.geometry import Camera, positioner_axes, positioner_pose
from radgs.images.dicom import named
from radgs.images.xray import camera_from_spec

# Key in cameras.json: element of the header, how many numbers.
_NUMBERS = {
    "source_to_detector_mm": ("DistanceSourceToDetector", 1),
    "source_to_isocentre_mm": ("DistanceSourceToPatient", 1),
    "imager_pixel_spacing_mm": ("ImagerPixelSpacing", 2),
    "positioner_primary_angle_deg": ("PositionerPrimaryAngle", 1),
    "positioner_secondary_angle_deg": ("PositionerSecondaryAngle", 1),
}
# In these modules Distance Source to Patient ends at the centre of the field of view; in DX (C.8.11.5) at the table.
_ISOCENTRIC = ("XA", "RF")
_DETECTOR = (
    "FieldOfViewOrigin",
    "DetectorActiveOrigin",
    "DetectorActiveDimensions",
    "DetectorElementSpacing",
    "FieldOfViewRotation",
    "FieldOfViewHorizontalFlip",
)
_TILTS = ("DetectorPrimaryAngle", "DetectorSecondaryAngle")
GEOMETRY_HEADER = (
    *(element for element, _ in _NUMBERS.values()),
    *_DETECTOR,
    *_TILTS,
    "PositionerMotion",
    "PatientOrientation",
)
_LETTERS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
_ALIKE = 0.6  # cosine between a letter, which stands for up to 45 degrees, and an axis of the camera
_TILT_DEG = 0.1


def camera_from_header(
    path: Path, header: pydicom.Dataset, spec: Mapping[str, Any], where: str, size: tuple[int, int]
) -> tuple[Camera, tuple[int, ...]]:
    """The camera, and how the image must be flipped to be the one the camera sees.

    With ``K`` and ``camera_from_world`` in ``spec`` the camera is that, of the image as stored. Otherwise it is made
    of distances, spacing and positioner angles (``geometry.positioner``), in a world whose axes are patient LPS and
    whose origin is the isocentre. Images for display are often mirrored (seen from the detector); Patient Orientation
    tells. The central ray is taken to meet the detector at right angles in the middle of its active area, or of the
    image if the header does not describe the detector; ``principal_point`` ``[u, v]``, pixels of the image as stored,
    goes before that.

    Args:
        path: the file, for messages.
        header: its elements ``GEOMETRY_HEADER`` and ``Modality``.
        spec: the view in ``cameras.json``.
        where: how messages call ``spec``.
        size: width and height of the image, pixels.

    Returns:
        The camera and the array axes (0 rows, 1 columns) to flip.

    Raises:
        GeometryError: a number is missing, named with its tag and its key, or impossible.
    """
    if "size" in spec and spec["size"] != list(size):
        raise GeometryError(f"{where}: size {spec['size']} is not that of the image, {list(size)} (width, height)")
    if "K" in spec or "camera_from_world" in spec:
        return camera_from_spec(spec, where, size), ()
    if header.get("PositionerMotion") == "DYNAMIC" and not {k for k in _NUMBERS if k.endswith("_deg")} <= set(spec):
        raise GeometryError(
            f"{path}: the C-arm moved between frames; add positioner_primary_angle_deg and "
            f"positioner_secondary_angle_deg of the chosen frame to {where}"
        )
    found = {key: _numbers(path, header, spec, where, key) for key in _NUMBERS}
    source_to_detector, source_to_isocentre = found["source_to_detector_mm"][0], found["source_to_isocentre_mm"][0]
    spacing = found["imager_pixel_spacing_mm"]  # between rows, between columns
    if not 0 < source_to_isocentre < source_to_detector or spacing.min() <= 0:
        raise GeometryError(
            f"{path}: {source_to_isocentre:g} mm to the isocentre, {source_to_detector:g} mm to the detector and "
            f"pixels of {spacing.tolist()} mm are impossible; mend them in {where}"
        )
    primary, secondary = (
        float(np.radians(found[f"positioner_{name}_angle_deg"][0])) for name in ("primary", "secondary")
    )
    try:
        axes = positioner_axes(primary, secondary)
        pose = positioner_pose(primary, secondary, source_to_isocentre)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}; mend them in {where}") from None
    flips = _flips(path, header, spec, where, axes)
    centre = _principal_point(path, header, spec, where, size, spacing)
    for axis in flips:
        centre[1 - axis] = size[1 - axis] - 1 - centre[1 - axis]
    k = np.diag([source_to_detector / spacing[1], source_to_detector / spacing[0], 1.0])
    k[:2, 2] = centre
    return Camera(k, pose, *size), flips


def _numbers(path: Path, header: pydicom.Dataset, spec: Mapping[str, Any], where: str, key: str) -> NDArray[np.float64]:
    element, count = _NUMBERS[key]
    value = spec.get(key)
    from_spec = value is not None
    if not from_spec:
        value = header.get(element)
        if key == "source_to_isocentre_mm" and header.Modality not in _ISOCENTRIC:
            value = None  # there it ends at the table, which says nothing about the isocentre
    if value is None:
        raise GeometryError(f"{path}: has no {named(element)} that can be used; add {key} to {where}")
    return _as_numbers(value, count, f"{where}: {key}" if from_spec else f"{path}: {named(element)}")


def _as_numbers(value: Any, count: int, what: str) -> NDArray[np.float64]:
    try:
        numbers = np.array(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise GeometryError(f"{what} must be {count} finite number{'s' if count > 1 else ''}")
    return numbers


def _direction(letters: Any) -> NDArray[np.float64]:
    """``"LA"`` is more left than front: the first letter counts twice the second (PS3.3, C.7.6.1.1.1)."""
    total = np.zeros(3)
    for rank, letter in enumerate(str(letters)):
        total += np.array(_LETTERS[letter]) / 2**rank
    return total / np.linalg.norm(total)


def _flips(
    path: Path, header: pydicom.Dataset, spec: Mapping[str, Any], where: str, axes: NDArray[np.float64]
) -> tuple[int, ...]:
    given, what = header.get("PatientOrientation"), f"{path}: {named('PatientOrientation')}"
    if spec.get("patient_orientation") is not None:
        given, what = spec["patient_orientation"], f"{where}: patient_orientation"
    if given is None:
        raise GeometryError(
            f"{path}: has no {named('PatientOrientation')}, so it may be mirrored; add patient_orientation to {where}: "
            'where columns and rows rise to, as ["L", "F"]'
        )
    try:
        row, column = (_direction(letters) for letters in given)
    except (KeyError, TypeError, ValueError):
        raise GeometryError(f'{what} is no pair of directions such as ["L", "F"]') from None
    along = np.array([row @ axes[0], column @ axes[1]])
    if np.abs(along).min() < _ALIKE:
        raise GeometryError(
            f"{path}: its patient orientation does not fit the positioner angles with head or feet up; turn the image, "
            f"or mend patient_orientation or the angles in {where}"
        )
    return tuple(1 - i for i in range(2) if along[i] < 0)


def _principal_point(
    path: Path,
    header: pydicom.Dataset,
    spec: Mapping[str, Any],
    where: str,
    size: tuple[int, int],
    spacing: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(u, v) of the image as stored, pixels."""
    if spec.get("principal_point") is not None:
        return _as_numbers(spec["principal_point"], 2, f"{where}: principal_point")
    for tilt in _TILTS:
        if abs(_as_numbers(header.get(tilt, 0.0), 1, f"{path}: {named(tilt)}")[0]) > _TILT_DEG:
            raise GeometryError(f"{path}: {named(tilt)} is not 0; add principal_point to {where}")
    middle = (np.array(size, dtype=np.float64) - 1) / 2
    if any(key not in header for key in ("FieldOfViewOrigin", "DetectorActiveDimensions", "DetectorElementSpacing")):
        return middle
    elements = {
        key: _as_numbers(header.get(key, (0, 0)), 2, f"{path}: {named(key)}")
        for key in _DETECTOR[:4]
        if key != "DetectorActiveDimensions"
    }
    active = np.resize(np.array(header.DetectorActiveDimensions, dtype=np.float64), 2)  # one number: the diameter
    offset = elements["DetectorActiveOrigin"] - elements["FieldOfViewOrigin"]
    edge_to_centre = offset * elements["DetectorElementSpacing"] + active / 2  # (row, column), mm
    centre = (edge_to_centre / spacing)[::-1] - 0.5
    turned = header.get("FieldOfViewRotation", 0) != 0 or header.get("FieldOfViewHorizontalFlip", "NO") != "NO"
    if turned and np.abs(centre - middle).max() > 1:
        raise GeometryError(f"{path}: a turned or flipped part of the detector; add principal_point to {where}")
    return centre
