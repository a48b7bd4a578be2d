"""What a user hands over, checked once and written in the project's own formats."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from radgs.errors import GeometryError, ImageError
from radgs.geometry import triangulate
from radgs.images.collimator import find_collimator
from radgs.images.ct_dicom import read_ct_dicom, read_frame_of_reference
from radgs.images.dicom import derived_uid, is_dicom
from radgs.images.files import write_json
from radgs.images.metal import find_metal
from radgs.images.volume import Volume, read_volume, write_volume
from radgs.images.xray import (
    Xray,
    camera_from_spec,
    read_counts,
    read_view_specs,
    to_line_integrals,
    write_xrays,
)
from radgs.images.xray_dicom import read_xray_dicom

# A CT that shows a vertebra: slices from micro-CT to coarse body scans, larger than one vertebral body.
_SPACING_MM = (0.1, 6.0)
_MINIMUM_EXTENT_MM = 20.0
_BONE_HU = 200.0
_AIR_HU = -1024
_NO_AIR_HU = -500.0
# With nothing in the beam, scatter and noise can lift counts above I0, but not that far.
_HIGHEST_MEDIAN_OF_I0 = 2.0
# Stored values of scanners are HU + 1024; soft tissue then lies near 1000, where hardly any HU does.
_UNSCALED_MEDIAN = 700.0
_SAME = 1e-4  # of line integrals: rounding


def prepare_ct(source: str | Path, target: str | Path, about: str | Path | None = None) -> None:
    """Check a CT and write it as int16 HU, compressed NIfTI, with its geometry unchanged.

    Values below -1024 HU (padding outside the scanner's field) become -1024.

    Args:
        source: CT in Hounsfield units: a folder with one DICOM series, or a file (enhanced DICOM, NIfTI, NRRD,
            MetaImage).
        target: ``ct.nii.gz``, written whole or not at all.
        about: ``ct.json``: what NIfTI cannot hold, the UID of the frame of reference; the header's, else a new one that
            is always the same for the same CT.

    Raises:
        ImageError: the file cannot be read, or its values, voxel size or extent are not those of a CT.
    """
    ct = read_ct(source)
    for doubt in ct_doubts(ct):
        print(f"{source}: {doubt}", flush=True)  # noqa: T201
    limits = np.iinfo(np.int16)
    hu = np.clip(np.rint(ct.array.astype(np.float32)), _AIR_HU, limits.max).astype(np.int16)
    if about is not None:
        known = read_frame_of_reference(source) if _in_dicom(source) else None
        origin = "header of the CT" if known else "made, the CT has none"
        uid = known or derived_uid("ct", ct.lps_from_index.tobytes(), hu.tobytes())
        write_json(about, {"frame_of_reference_uid": uid, "frame_of_reference_from": origin})
    write_volume(target, ct.with_array(hu))


def read_ct(source: str | Path) -> Volume:
    """Read a CT and check that it is one.

    Raises:
        ImageError: as :func:`prepare_ct`.
    """
    ct = read_ct_dicom(source) if _in_dicom(source) else read_volume(source)
    _check_ct(ct, source)
    return ct


def _in_dicom(source: str | Path) -> bool:
    return Path(source).is_dir() or is_dicom(source)


def ct_doubts(ct: Volume) -> list[str]:
    """What is unusual in a CT that can be used: without air it is masked, or a crop from within the body."""
    lowest = float(ct.array.min())
    if lowest < _NO_AIR_HU:
        return []
    return [f"no value below {_NO_AIR_HU:g} HU (the lowest is {lowest:g}): is the CT masked, or not in HU?"]


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
    if low >= 0:
        raise ImageError(
            f"{source}: no value below 0 HU, so neither fat nor air: the CT is masked or not in Hounsfield units; "
            "soft tissue is needed too"
        )


def prepare_xrays(
    images: Mapping[str, str | Path],
    geometry: Mapping[str, str | Path],
    xrays: str | Path,
    cameras: str | Path,
) -> None:
    """Turn the X-rays of one shot into line integrals with their cameras.

    Pixels behind a collimator (DICOM tells, else its edges are looked for in the image), saturated (DICOM tells) or in
    the shadow of metal are not measured: NaN. If more than one pixel in a thousand is saturated, an estimated I0 is the
    saturation, which is too low by an unknown factor.

    I0 is the key ``i0`` of the view in its ``cameras.json`` if it is there, else estimated from the image.

    Args:
        images: per view (``AP``, ``LA``, ...) an image of detector counts (PNG, TIFF) or a DICOM X-ray.
        geometry: per view the ``cameras.json`` that holds it; views may share one file. For a DICOM X-ray it need
            only complete or overrule the header, and may be the X-ray itself.
        xrays: output ``xrays.nii.gz``, ``[V, H, W]`` line integrals.
        cameras: output ``cameras.json``. Both are written or neither.

    Raises:
        ImageError: an image cannot be used, two views have the same pixels, or an I0 is not a positive number.
        GeometryError: fewer than two views, a view without a camera, or an impossible camera.
    """
    if len(images) < 2 or set(images) != set(geometry):
        raise GeometryError(
            "a shot is two or more views, each with an image and a geometry; "
            f"got images of {sorted(images)} and geometry of {sorted(geometry)}"
        )
    with ThreadPoolExecutor(len(images)) as threads:  # what takes long lets go of Python's lock
        read = dict(zip(images, threads.map(lambda v: read_xray(v, images[v], geometry[v]), images), strict=True))
        _refuse_copies(read)
        write_xrays(xrays, cameras, _without_metal(read, threads))


def _refuse_copies(xrays: Mapping[str, Xray]) -> None:
    """No two exposures have the same pixels, at whatever I0: one that stands for two views would confirm itself."""
    for one, other in combinations(xrays, 2):
        a, b = xrays[one].line_integrals, xrays[other].line_integrals
        if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
            continue
        apart = (a - b)[~np.isnan(a)]
        if apart.size and np.ptp(apart) < _SAME:
            raise ImageError(f"views {one} and {other} have the same pixels; is one image given for both?")


def _without_metal(xrays: dict[str, Xray], threads: Executor) -> dict[str, Xray]:
    """The same views with metal, whose edges are no vertebra's, not measured.

    The patient is taken to lie where the views' middles meet: the size of a pixel there tells rods from bones.
    """
    cameras = [xray.camera for xray in xrays.values()]
    middles = [np.array([camera.width - 1, camera.height - 1]) / 2 for camera in cameras]
    patient = triangulate(cameras, middles).point
    pixels_mm = {}
    for view, xray in xrays.items():
        depth = float(xray.camera.camera_from_world.apply(patient)[2])
        if depth <= 0:
            raise GeometryError(
                f"view {view}: what the views look at together lies behind its X-ray source; is the geometry right?"
            )
        pixels_mm[view] = depth / float(xray.camera.K[0, 0])
    metal = threads.map(lambda view: find_metal(xrays[view].line_integrals, pixels_mm[view]), xrays)
    return {
        view: replace(xray, line_integrals=np.where(found, np.float32(np.nan), xray.line_integrals))
        for (view, xray), found in zip(xrays.items(), metal, strict=True)
    }


def read_view_geometry(path: str | Path) -> dict[str, dict[str, Any]]:
    """The views of a ``cameras.json``; none if ``path`` is itself a DICOM X-ray, whose header then says it all.

    Raises:
        RadgsError: neither of the two.
    """
    return {} if is_dicom(path) else read_view_specs(path)


def read_xray(view: str, image: str | Path, geometry: str | Path) -> Xray:
    """Read one view of a shot as line integrals with its camera; arguments and errors as :func:`prepare_xrays`."""
    specs = read_view_geometry(geometry)
    where = f"{geometry}: view {view}"
    spec = specs.get(view, {})
    if is_dicom(image):
        exposure = read_xray_dicom(image, spec, f"view {view} of cameras.json" if is_dicom(geometry) else where)
        counts, camera, saturation = exposure.counts, exposure.camera, exposure.saturation
    else:
        if view not in specs:
            raise GeometryError(f"{geometry}: no view {view}, needed for {image}; it holds {sorted(specs)}")
        counts, saturation = read_counts(image), np.inf
        camera = camera_from_spec(spec, where, (counts.shape[1], counts.shape[0]))
    if np.isfinite(counts).all():  # no header described a collimator
        counts[find_collimator(counts)] = np.nan
    i0 = _given_i0(spec, where)
    if i0 is not None and np.nanmedian(counts) > _HIGHEST_MEDIAN_OF_I0 * i0:
        raise ImageError(
            f"{where}: i0 is {i0:g}, but most counts of {image} are above {_HIGHEST_MEDIAN_OF_I0:g} times that"
        )
    try:
        line_integrals, used, origin = to_line_integrals(counts, i0)
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from None
    line_integrals[counts >= saturation] = np.nan
    if np.isnan(line_integrals).all():
        raise ImageError(f"{image}: every pixel is saturated or behind the collimator; expose it again")
    return Xray(view, line_integrals, camera, Path(image).name, used, origin)


def _given_i0(spec: Mapping[str, Any], where: str) -> float | None:
    i0 = spec.get("i0")
    if i0 is None:
        return None
    if isinstance(i0, bool) or not isinstance(i0, int | float) or not np.isfinite(i0) or i0 <= 0:
        raise ImageError(f"{where}: i0 must be a positive number of counts, got {i0!r}")
    return float(i0)
