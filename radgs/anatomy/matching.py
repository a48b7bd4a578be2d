"""Where the CT's own vertebrae fit the X-rays best: each is drawn at its pose and shifted over the images.

What is compared is the gradient of fine detail (a few mm): soft tissue, lungs and blades have strong edges of other
sizes. The image's detail is divided by its local strength, so that metal and skin count for no more than endplates do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import fft, ndimage

from radgs.anatomy.canvas import canvas_camera, to_canvas
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume, Xray
from radgs.projection import project_part

_PIXEL_MM = 1.1  # at the spine
_FINE_PX, _COARSE_PX = 1.0, 3.0  # standard deviations of the Gaussians between which detail lies
_REACH_PX = 8.0  # over which the image's detail is made equally strong
_MOST = 2.5  # times the local strength
_STEP_MM = 2.5  # of the samples along a ray
_BONE = 0.05  # line integral from which a vertebra is seen
_RIM_PX = 2  # around a vertebra, compared too
_EDGE = int(3 * _COARSE_PX)  # what the filters need around a window
_AROUND_PX = 31  # half of a vertebra and more
_LEAST_SEEN = 0.3  # of a template's strength, or of what is around a point, on measured pixels
_GRID_MM = 1.5  # of the shifts compared
_PRIOR = 0.1  # what half a squared distance, in units of how far off it may be, costs in correlation


@dataclass(frozen=True)
class Match:
    """How a vertebra fits.

    Attributes:
        shift: ``[3]`` world, mm, from its pose to where it fits best.
        fit: normalised correlation there, summed over the views; what is not measured adds 0.
        worth: the fit less what the shift costs.
    """

    shift: NDArray[np.float64]
    fit: float
    worth: float


@dataclass(frozen=True)
class _View:
    """An image's camera, its detail, where it was measured (1 or 0), and how much of what is around a pixel was."""

    camera: Camera
    detail: Float[np.ndarray, "2 h w"]
    measured: Float[np.ndarray, "h w"]
    around: Float[np.ndarray, "h w"]


class Matcher:
    """Compares vertebrae with the views of a shot.

    Args:
        xrays: by view.
        bones: by level, its attenuation above soft tissue, 1/mm.
        centres: by level, ``[3]`` in the CT, mm.
        middle: ``[3]`` world, mm; somewhere in the spine.
    """

    def __init__(
        self,
        xrays: Mapping[str, Xray],
        bones: Mapping[str, Volume],
        centres: Mapping[str, NDArray[np.float64]],
        middle: NDArray[np.float64],
    ) -> None:
        self.bones, self.centres = bones, centres
        self.views = [_view(xray, middle) for xray in xrays.values()]

    def sees(self, point: NDArray[np.float64]) -> bool:
        """Whether the point is in every image, and some of what is around it was measured."""
        for view in self.views:
            if not view.camera.sees(point):
                return False
            column, row = np.rint(view.camera.project(point)).astype(int)
            if view.around[row, column] < _LEAST_SEEN:
                return False
        return True

    def match(
        self, poses: Mapping[str, RigidTransform], levels: Sequence[str], reach_mm: float, off_mm: float
    ) -> dict[str, Match]:
        """Shift each level, and with it the picture of its neighbours, to where it fits best.

        Args:
            poses: world_from_ct, from head to foot.
            levels: which of them.
            reach_mm: how far, each axis.
            off_mm: how far off a level may well be: shifts cost the square of their ratio to it.
        """
        names, axis = list(poses), np.arange(-reach_mm, reach_mm + _GRID_MM / 2, _GRID_MM)
        shifts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
        fits = {level: np.zeros(shifts.shape[:3]) for level in levels}
        for view in self.views:
            near = {names[i] for k in levels for i in range(len(names)) if abs(i - names.index(k)) <= 1}
            drawn = {k: self._drawn(k, view.camera, poses[k]) for k in near}
            for level in levels:
                i = names.index(level)
                picture = np.sum([drawn[k] for k in names[max(i - 1, 0) : i + 2]], axis=0)
                in_camera = view.camera.camera_from_world.apply(poses[level].apply(self.centres[level]))
                pixels = float(view.camera.K[0, 0]) / float(in_camera[2])
                radius = int(np.ceil(reach_mm * np.sqrt(2) * pixels))
                found = _correlation(view, picture, drawn[level] > _BONE, radius)
                if found is not None:
                    along = shifts @ view.camera.camera_from_world.rotation[:2].T * pixels + radius
                    fits[level] += ndimage.map_coordinates(found, [along[..., 1], along[..., 0]], order=1)
        cost = 0.5 * _PRIOR * (shifts**2).sum(axis=-1) / off_mm**2
        return {level: _best(fit, cost, axis) for level, fit in fits.items()}

    def _drawn(self, level: str, camera: Camera, world_from_ct: RigidTransform) -> NDArray[np.float32]:
        """The vertebra's line integrals; nothing if a bad guess puts it behind the source."""
        if np.isnan(camera.project(world_from_ct.apply(self.bones[level].corners))).any():
            return np.zeros((camera.height, camera.width), dtype=np.float32)
        return project_part(self.bones[level], camera, world_from_ct, _STEP_MM)


def _view(xray: Xray, middle: NDArray[np.float64]) -> _View:
    depth = float(xray.camera.camera_from_world.apply(middle)[2])
    pixels = round(depth / float(canvas_camera(xray.camera, 1).K[0, 0]) / _PIXEL_MM)
    camera, image = canvas_camera(xray.camera, pixels), to_canvas(xray, pixels)
    known = np.isfinite(image)
    weight = ndimage.gaussian_filter(known.astype(np.float32), 2 * _COARSE_PX)
    around = ndimage.gaussian_filter(np.where(known, image, 0), 2 * _COARSE_PX) / np.maximum(weight, 1e-3)
    inner = ndimage.binary_erosion(known, iterations=int(2 * _FINE_PX) + 1).astype(np.float32)
    detail = _detail(np.where(known, image, around)) * inner
    share = ndimage.gaussian_filter(inner, _REACH_PX)
    strength = np.sqrt(ndimage.gaussian_filter((detail**2).sum(axis=0), _REACH_PX) / np.maximum(share, 0.05))
    detail = detail / np.maximum(strength, 1e-6)
    size = np.sqrt((detail**2).sum(axis=0))
    detail *= np.minimum(1, _MOST / np.maximum(size, 1e-6))
    return _View(camera, detail, inner, ndimage.uniform_filter(inner, _AROUND_PX, mode="constant"))


def _detail(image: NDArray[np.float32]) -> Float[np.ndarray, "2 h w"]:
    """The gradient (along v, along u) of what is neither noise nor coarse."""
    fine, coarse = (ndimage.gaussian_filter(image, sigma, truncate=3.0) for sigma in (_FINE_PX, _COARSE_PX))
    return np.stack(np.gradient(fine - coarse))


def _correlation(
    view: _View, picture: NDArray[np.float32], own: NDArray[np.bool_], radius: int
) -> NDArray[np.float32] | None:
    """Normalised correlation by shift (v, u) from ``-radius``; None if the vertebra is not in the image."""
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    if len(rows) < 2 or len(columns) < 2:
        return None
    top, left = rows[0] - _RIM_PX, columns[0] - _RIM_PX
    height, width = rows[-1] - top + _RIM_PX + 1, columns[-1] - left + _RIM_PX + 1
    template = _detail(_cut(picture, top - _EDGE, left - _EDGE, height + 2 * _EDGE, width + 2 * _EDGE))
    template = template[:, _EDGE:-_EDGE, _EDGE:-_EDGE]
    weight = ndimage.binary_dilation(_cut(own, top, left, height, width), iterations=_RIM_PX).astype(np.float32)
    template *= weight
    strength = (template**2).sum(axis=0)
    place = (top - radius, left - radius, height + 2 * radius, width + 2 * radius)
    image, measured = _cut(view.detail, *place), _cut(view.measured, *place)
    shape = [fft.next_fast_len(int(n), True) for n in measured.shape]

    def slid(over: NDArray[np.float32], small: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sums of products by shift."""
        product = (fft.rfft2(over, shape) * fft.rfft2(small, shape).conj()).sum(axis=0)
        found: NDArray[np.float32] = fft.irfft2(product, shape)[: 2 * radius + 1, : 2 * radius + 1]
        return found

    together = slid(image, template)
    energy = slid((image**2).sum(axis=0, keepdims=True), weight[None]) * strength.sum()
    seen = slid(measured[None], strength[None]) > _LEAST_SEEN * strength.sum()
    return np.where(seen, together / np.sqrt(np.maximum(energy, 1e-9)), 0)


def _cut(array: NDArray[np.generic], top: int, left: int, height: int, width: int) -> NDArray[Any]:
    """A window of the last two axes, 0 beyond the array."""
    out = np.zeros((*array.shape[:-2], height, width), dtype=array.dtype)
    low, high = np.maximum([top, left], 0), np.minimum([top + height, left + width], array.shape[-2:])
    if (high > low).all():
        (v0, u0), (v1, u1) = low, high
        out[..., v0 - top : v1 - top, u0 - left : u1 - left] = array[..., v0:v1, u0:u1]
    return out


def _best(fit: NDArray[np.float64], cost: NDArray[np.float64], axis: NDArray[np.float64]) -> Match:
    """The best of the shifts compared, between the grid's points by a parabola an axis."""
    total = fit - cost
    at = np.unravel_index(int(total.argmax()), total.shape)
    shift = axis[list(at)]
    for i, n in enumerate(at):
        if 0 < n < len(axis) - 1:
            low, mid, high = (float(total[(*at[:i], n + step, *at[i + 1 :])]) for step in (-1, 0, 1))
            if low + high < 2 * mid:
                shift[i] += 0.5 * _GRID_MM * (low - high) / (low + high - 2 * mid)
    return Match(shift, float(fit[at]), float(total[at]))
