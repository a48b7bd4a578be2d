"""What a user hands over, checked once and written in the project's own formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radgs.errors import GeometryError, ImageError
from radgs.images.ct_dicom import read_ct_dicom
from radgs.images.dicom import is_dicom
from radgs.images.volume import Volume, read_volume, write_volume
from radgs.images.xray import (
    Xray,
    camera_from_spec,
    read_counts,
    read_view_specs,
    to_line_integrals,
    write_xrays,
)

# A CT that shows a vertebra: slices from micro-CT to coarse body scans, larger than one vertebral body.
_SPACING_MM = (0.1, 6.0)
_MINIMUM_EXTENT_MM = 20.0
_BONE_HU = 200.0
_AIR_HU = -1024
# Stored values of scanners are HU + 1024; soft tissue then lies near 1000, where hardly any HU does.
_UNSCALED_MEDIAN = 700.0


def prepare_ct(source: str | Path, target: str | Path) -> None:
    """Check a CT and write it as int16 HU, compressed NIfTI, with its geometry unchanged.

    Values below -1024 HU (padding outside the scanner's field) become -1024.

    Args:
        source: CT in Hounsfield units: a folder with one DICOM series, or a file (enhanced DICOM, NIfTI, NRRD,
            MetaImage).
        target: ``ct.nii.gz``, written whole or not at all.

    Raises:
        ImageError: the file cannot be read, or its values, voxel size or extent are not those of a CT.
    """
    ct = read_ct(source)
    limits = np.iinfo(np.int16)
    hu = np.clip(np.rint(ct.array.astype(np.float32)), _AIR_HU, limits.max).astype(np.int16)
    write_volume(target, ct.with_array(hu))


def read_ct(source: str | Path) -> Volume:
    """Read a CT and check that it is one.

    Raises:
        ImageError: as :func:`prepare_ct`.
    """
    ct = read_ct_dicom(source) if Path(source).is_dir() or is_dicom(source) else read_volume(source)
    _check_ct(ct, source)
    return ct


def _check_ct(ct: Volume, source: str | Path) -> None:
    spacing, size = ct.spacing, np.array(ct.array.shape[::-1])
    shown = " x ".join(f"{s:.3g}" for s in spacing)
    if spacing.min() < _SPACING_MM[0] or spacing.max() > _SPACING_MM[1]:
        raise ImageError(
            f"{source}: voxels of {shown} mm are not those of a CT ({_SPACING_MM[0]}-{_SPACING_MM[1]} mm); "
            "is the spacing in mm?"
        )
    if (spacing * size).min() < _MINIMUM_EXTENT_MM:
        extent = " x ".join(f"{e:.0f}" for e in spacing * size)
        raise ImageError(f"{source}: {extent} mm is too small to show a vertebra")
    low, high = float(ct.array.min()), float(ct.array.max())
    if high < _BONE_HU or high - low < _BONE_HU:
        raise ImageError(f"{source}: values from {low:g} to {high:g} hold no bone; are they Hounsfield units?")
    values = ct.array.astype(np.float32)
    if low >= 0 and np.median(values[values > 0]) > _UNSCALED_MEDIAN:
        raise ImageError(
            f"{source}: values from {low:g} to {high:g} look like stored values without the rescale intercept; "
            "Hounsfield units are needed (water 0, air -1000)"
        )


def prepare_xrays(
    images: Mapping[str, str | Path],
    geometry: Mapping[str, str | Path],
    xrays: str | Path,
    cameras: str | Path,
) -> None:
    """Turn the X-rays of one shot into line integrals with their cameras.

    I0 is the key ``i0`` of the view in its ``cameras.json`` if it is there, else estimated from the image.

    Args:
        images: per view (``AP``, ``LA``, ...) an image of detector counts (PNG, TIFF).
        geometry: per view the ``cameras.json`` that holds it; views may share one file.
        xrays: output ``xrays.nii.gz``, ``[V, H, W]`` line integrals.
        cameras: output ``cameras.json``. Both are written or neither.

    Raises:
        ImageError: an image cannot be used, or an I0 is not a positive number.
        GeometryError: fewer than two views, a view without a camera, or an impossible camera.
    """
    if len(images) < 2 or set(images) != set(geometry):
        raise GeometryError(
            "a shot is two or more views, each with an image and a geometry; "
            f"got images of {sorted(images)} and geometry of {sorted(geometry)}"
        )
    write_xrays(xrays, cameras, {view: _prepare_view(view, images[view], geometry[view]) for view in images})


def _prepare_view(view: str, image: str | Path, geometry: str | Path) -> Xray:
    specs = read_view_specs(geometry)
    if view not in specs:
        raise GeometryError(f"{geometry}: no view {view}, needed for {image}; it holds {sorted(specs)}")
    counts = read_counts(image)
    height, width = counts.shape
    camera = camera_from_spec(specs[view], f"{geometry}: view {view}", (width, height))
    i0 = _given_i0(specs[view], f"{geometry}: view {view}")
    try:
        line_integrals, used, origin = to_line_integrals(counts, i0)
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from None
    return Xray(view, line_integrals, camera, Path(image).name, used, origin)


def _given_i0(spec: Mapping[str, Any], where: str) -> float | None:
    i0 = spec.get("i0")
    if i0 is None:
        return None
    if isinstance(i0, bool) or not isinstance(i0, int | float) or not np.isfinite(i0) or i0 <= 0:
        raise ImageError(f"{where}: i0 must be a positive number of counts, got {i0!r}")
    return float(i0)
