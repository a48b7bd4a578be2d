"""What a detector sees of an X-ray: a square picture with a margin, the local contrast of the whole image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from radgs.anatomy.views import resample_window
from radgs.geometry import Camera
from radgs.images import Xray

# Around the image, of its longer side: the box of a vertebra that the border cuts still has its true centre.
_MARGIN = 0.1
_MEAN_REACH, _SPREAD_REACH = 0.03, 0.06  # of the canvas; the images show some 280 mm at the spine
_LEAST_SPREAD = 0.02  # line integral: noise is not blown up to contrast
_CLIP = 2.5  # standard deviations


def canvas_camera(camera: Camera, pixels: int) -> Camera:
    """The camera of the square picture around an image: the longer side and a margin in ``pixels`` pixels."""
    step = max(camera.width, camera.height) * (1 + 2 * _MARGIN) / pixels
    half = step * (pixels - 1) / 2
    return camera.window((camera.width - 1) / 2 - half, (camera.height - 1) / 2 - half, pixels, pixels, step)


def inside_image(camera: Camera, pixels: int) -> np.ndarray:
    """``[pixels, pixels]`` bool: which pixels of the canvas have their centre in the image."""
    canvas = canvas_camera(camera, pixels)
    u, v = canvas_to_image(camera, np.stack([np.arange(pixels)] * 2, axis=1), canvas).T
    return ((v >= -0.5) & (v < camera.height - 0.5))[:, None] & ((u >= -0.5) & (u < camera.width - 0.5))


def canvas_to_image(camera: Camera, uv: np.ndarray, canvas: Camera) -> np.ndarray:
    """Coordinates ``[..., 2]`` (u, v) on the canvas to those in the image."""
    step = float(camera.K[0, 0] / canvas.K[0, 0])
    return camera.K[:2, 2] + (np.asarray(uv, dtype=np.float64) - canvas.K[:2, 2]) * step


def to_canvas(xray: Xray, pixels: int) -> Float[np.ndarray, "n n"]:
    """Line integrals on the canvas; NaN outside the image and where most of a pixel was not measured."""
    canvas = canvas_camera(xray.camera, pixels)
    drawn = resample_window(xray.line_integrals, xray.camera, canvas)
    share = resample_window(np.isfinite(xray.line_integrals).astype(np.float32), xray.camera, canvas)
    measured = inside_image(xray.camera, pixels) & (share > 0.5)
    return np.where(measured, drawn, np.nan).astype(np.float32)


def local_contrast(canvas: Float[np.ndarray, "n n"]) -> UInt8[np.ndarray, "n n"]:
    """Line integrals less their local mean, in units of their local spread, as 8 bits; 128 where not measured.

    Endplates are faint beside the edges of lung and diaphragm: without the local spread they are hardly seen.
    """
    measured = np.isfinite(canvas)
    filled = np.where(measured, canvas, 0).astype(np.float32)

    def local_mean(image: Float[np.ndarray, "n n"], reach: float) -> Float[np.ndarray, "n n"]:
        total, weight = (
            ndimage.gaussian_filter(x, reach * len(canvas), truncate=2.5) for x in (image, measured.astype(np.float32))
        )
        return total / np.maximum(weight, 1e-3)

    detail = np.where(measured, filled - local_mean(filled, _MEAN_REACH), 0)
    spread = np.sqrt(local_mean(detail**2, _SPREAD_REACH))
    scaled = np.clip(detail / np.maximum(spread, _LEAST_SPREAD), -_CLIP, _CLIP)
    return np.round(128 + scaled * (127 / _CLIP)).astype(np.uint8)
