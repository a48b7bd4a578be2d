"""X-rays: counts to line integrals, and the pair ``xrays.nii.gz`` + ``cameras.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.geometry import Camera, RigidTransform
from radgs.images.files import read_json, write_json
from radgs.images.nifti import read_nifti, write_nifti

# Fewer counts than this are noise of the electronics rather than transmission.
_MINIMUM_COUNT = 1.0
# Pillow's grey modes; a palette image ("P") also has one channel, but of colour numbers.
_GREY_MODES = {"L", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}


@dataclass(frozen=True)
class Xray:
    """One view as line integrals of attenuation.

    Attributes:
        view: its name, for example ``AP`` or ``LA``.
        line_integrals: ``[H, W]`` float32, no unit; NaN where nothing was measured.
        camera: its geometry in the world.
        source_file: the image it came from.
        i0: counts without an object.
        i0_origin: how ``i0`` was found: ``given`` or ``estimated``.
    """

    view: str
    line_integrals: NDArray[np.float32]
    camera: Camera
    source_file: str = ""
    i0: float = 1.0
    i0_origin: str = "given"

    def shows(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each world point ``[n, 3]`` (mm) lies where something was measured, not behind a blade or metal."""
        inside = self.camera.sees(points)
        last = (self.camera.width - 1, self.camera.height - 1)  # a half pixel beyond may be rounded up
        u, v = np.clip(np.rint(self.camera.project(points[inside])), 0, last).astype(int).T
        shown = np.zeros(len(points), dtype=bool)
        shown[inside] = np.isfinite(self.line_integrals[v, u])
        return shown


def read_counts(path: str | Path) -> NDArray[np.float32]:
    """Read an X-ray of detector counts (PNG or TIFF, one channel), ``[H, W]``.

    Raises:
        ImageError: missing, unreadable, in colour, with NaN or negative values, or without contrast.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            counts = np.asarray(image).astype(np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read, is it complete? ({error})") from None
    if mode == "L":
        raise ImageError(f"{path}: 8 bits are too few for detector counts; export 16 bits")
    if mode not in _GREY_MODES or frames != 1 or counts.ndim != 2:
        raise ImageError(f"{path}: one grey image of counts is needed, got {frames} of mode {mode}")
    if not np.isfinite(counts).all():
        raise ImageError(f"{path}: holds NaN or infinite values; replace them before use")
    if counts.min() < 0 or counts.max() - counts.min() < 2:
        raise ImageError(f"{path}: values from {counts.min():g} to {counts.max():g} are no detector counts")
    return counts


def to_line_integrals(counts: NDArray[np.float32], i0: float | None = None) -> tuple[NDArray[np.float32], float, str]:
    """``p = -ln(I / I0)``; without ``i0`` the 99.9th percentile of the counts is taken for unattenuated.

    NaN counts were not measured and stay NaN.

    Returns:
        line integrals ``[H, W]``, the I0 used, and ``given`` or ``estimated``.

    Raises:
        ImageError: I0 is not positive.
    """
    origin = "given" if i0 is not None else "estimated"
    i0 = float(np.nanpercentile(counts, 99.9)) if i0 is None else float(i0)
    if not np.isfinite(i0) or i0 <= 0:
        raise ImageError(f"I0 must be a positive number of counts, got {i0}")
    return -np.log(np.maximum(counts, _MINIMUM_COUNT) / np.float32(i0)).astype(np.float32), i0, origin


def camera_from_spec(spec: Mapping[str, Any], where: str, size: tuple[int, int]) -> Camera:
    """A camera from one view of ``cameras.json``; ``size`` is the image's own (width, height).

    Raises:
        GeometryError: a number is missing or impossible, or ``size`` differs from the image's.
    """
    missing = [key for key in ("K", "camera_from_world") if key not in spec]
    if missing:
        raise GeometryError(f"{where}: lacks {' and '.join(missing)}")
    if "size" in spec and spec["size"] != list(size):
        raise GeometryError(f"{where}: size {spec['size']} is not that of the image, {list(size)} (width, height)")
    try:
        return Camera(np.array(spec["K"], float), RigidTransform(spec["camera_from_world"]), *size)
    except (GeometryError, ValueError, TypeError) as error:
        raise GeometryError(f"{where}: {error}") from None


def read_view_specs(path: str | Path) -> dict[str, dict[str, Any]]:
    """The views of a ``cameras.json``: ``{"views": {"AP": {"size", "K", "camera_from_world", ...}}}``."""
    content = read_json(path)
    views = content.get("views") if isinstance(content, dict) else None
    if not isinstance(views, dict) or not all(isinstance(spec, dict) for spec in views.values()):
        raise RadgsError(f'{path}: expected {{"views": {{"AP": {{"K": ..., "camera_from_world": ...}}}}}}')
    return views


def read_cameras(path: str | Path) -> dict[str, Camera]:
    """The cameras of a ``cameras.json`` whose views all state their ``size`` (``prepare_xrays`` sees to that).

    Raises:
        RadgsError: not such a file.
        GeometryError: a view lacks a number, or it is impossible.
    """
    cameras = {}
    for name, spec in read_view_specs(path).items():
        where, size = f"{path}: view {name}", spec.get("size")
        if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)):
            raise GeometryError(f"{where}: size must be [width, height] in pixels, got {size!r}")
        cameras[name] = camera_from_spec(spec, where, (size[0], size[1]))
    return cameras


def write_xrays(images: str | Path, cameras: str | Path, xrays: Mapping[str, Xray]) -> None:
    """Write the views as ``[V, H, W]`` NIfTI (padded with NaN to a common size) and their cameras as JSON."""
    height = max(x.camera.height for x in xrays.values())
    width = max(x.camera.width for x in xrays.values())
    stack = np.full((len(xrays), height, width), np.nan, dtype=np.float32)
    specs = {}
    for i, (name, x) in enumerate(xrays.items()):
        stack[i, : x.camera.height, : x.camera.width] = x.line_integrals
        specs[name] = {
            "size": [x.camera.width, x.camera.height],
            "K": x.camera.K.tolist(),
            "camera_from_world": x.camera.camera_from_world.matrix.tolist(),
            "source_file": x.source_file,
            "i0": x.i0,
            "i0_origin": x.i0_origin,
        }
    write_nifti(images, stack, np.eye(4))
    write_json(cameras, {"views": specs})


def read_xrays(images: str | Path, cameras: str | Path) -> dict[str, Xray]:
    """Read what :func:`write_xrays` wrote.

    Raises:
        ImageError: the stack does not fit the cameras.
    """
    views = read_cameras(cameras)
    stack = read_nifti(images)[0].astype(np.float32, copy=False)
    if stack.ndim != 3 or len(stack) != len(views):
        raise ImageError(f"{images}: {stack.shape} does not hold the {len(views)} views of {cameras}")
    specs = read_view_specs(cameras)
    xrays = {}
    for image, (name, camera) in zip(stack, views.items(), strict=True):
        if image.shape[0] < camera.height or image.shape[1] < camera.width:
            raise ImageError(f"{images}: {stack.shape} is smaller than view {name} of {cameras}")
        measured = image[: camera.height, : camera.width].copy()
        about = specs[name]
        xrays[name] = Xray(
            name,
            measured,
            camera,
            about.get("source_file", ""),
            about.get("i0", 1.0),
            about.get("i0_origin", "given"),
        )
    return xrays
