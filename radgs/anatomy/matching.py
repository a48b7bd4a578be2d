"""Where the CT's own vertebrae fit the X-rays best: each is drawn at its pose and shifted over the images.

What is compared is the gradient of fine detail (a few mm): soft tissue, lungs and blades have strong edges of other
sizes. The image's detail is divided by its local strength, so that metal and skin count for no more than endplates do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.anatomy.canvas import canvas_camera, to_canvas
from radgs.anatomy.levels import cranio_caudal
from radgs.geometry import Camera, RigidTransform
from radgs.images import Xray
from radgs.kernels import Box, SlidPictures, along_axes, gradients, slide
from radgs.projection import MovingParts

_PIXEL_MM = 1.1  # at the spine
_REACH_PX = 8.0  # over which the image's detail is made equally strong
_MOST = 2.5  # times the local strength
_STEP_MM = 3.5  # of the samples along a ray
_BONE = 0.05  # line integral from which a vertebra is seen
_RIM_PX = 2  # around a vertebra, compared too
_AROUND_PX = 31  # half of a vertebra and more
_LEAST_SEEN = 0.3  # of a template's strength, or of what is around a point, on measured pixels
_GRID_MM = 1.5  # of the shifts compared
_LEAST_BEND = 0.02  # of a parabola through correlations
_PRIOR = 0.1  # what half a squared distance, in units of how far off it may be, costs in correlation


@dataclass(frozen=True)
class Band:
    """Which detail is compared: what lies between two Gaussians (deviations in pixels of 1.1 mm at the spine)."""

    fine_px: float
    coarse_px: float

    @property
    def edge(self) -> int:
        """Pixels that the filters need around a window."""
        return int(3 * self.coarse_px)

    def detail(self, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2 h w"]:
        """The gradient (along u, along v) of what is neither noise nor coarse."""
        return gradients(images, self.fine_px) - gradients(images, self.coarse_px)


#: From the finest on: in noise, and where joints are bent, coarser detail leads further.
BANDS = (Band(0.7, 3.0), Band(1.2, 4.0))


@dataclass(frozen=True)
class Match:
    """How a vertebra fits.

    Attributes:
        shift: ``[3]`` world, mm, from its pose to where it fits best.
        fit: normalised correlation there, summed over the views; what is not measured adds 0.
        worth: the fit less what the shift costs.
        weakest: the least of the views' correlations there.
    """

    shift: NDArray[np.float64]
    fit: float
    worth: float
    weakest: float = 0.0


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
        images: by view, its camera and line integrals ``[h, w]``, NaN where not measured.
        bones: attenuation above soft tissue, 1/mm, of the levels in the order of ``centres``.
        centres: by level, ``[3]`` in the CT, mm.
        band: what is compared.
    """

    def __init__(
        self,
        images: Iterable[tuple[Camera, Float[np.ndarray, "h w"]]],
        bones: MovingParts,
        centres: Mapping[str, NDArray[np.float64]],
        band: Band = BANDS[0],
    ) -> None:
        self.centres, self.band = centres, band
        self.views = [_view(camera, image, band) for camera, image in images]
        self._names, self._parts = list(centres), bones
        self._rows = {level: row for row, level in enumerate(centres)}
        order = cranio_caudal(centres)
        self._near = {level: order[max(i - 1, 0) : i + 2] for i, level in enumerate(order)}
        side = max(max(view.measured.shape) for view in self.views)
        self._details = torch.stack([_padded(view.detail, side) for view in self.views])
        self._measured = torch.stack([_padded(view.measured, side) for view in self.views])

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
            poses: world_from_ct.
            levels: which of them.
            reach_mm: how far, each axis.
            off_mm: how far off a level may well be: shifts cost the square of their ratio to it.
        """
        axis = np.arange(-reach_mm, reach_mm + _GRID_MM / 2, _GRID_MM)
        fits, slid, steps, jobs = self._slid(poses, levels, axis)
        square = axis**2
        cost = off_cost(square[:, None, None] + square[:, None] + square, off_mm)
        best = [_best(fit, cost, axis) for fit in fits]
        by_view = np.zeros((len(levels), len(self.views)))
        for one, step, (view, i) in zip(slid, steps, jobs, strict=True):
            row, column = np.clip(np.rint(len(one) // 2 + step @ best[i].shift), 0, len(one) - 1).astype(int)
            by_view[i, view] = one[row, column]
        return {k: replace(m, weakest=float(w)) for k, m, w in zip(levels, best, by_view.min(axis=1), strict=True)}

    def fits(
        self, poses: Mapping[str, RigidTransform], levels: Sequence[str], axis: NDArray[np.float64]
    ) -> Float[np.ndarray, "L n n n"]:
        """How well each level fits wherever it is shifted to: correlations summed over the views.

        Args:
            poses: world_from_ct.
            levels: which of them.
            axis: ``[n]`` shifts along each axis of the world, mm, ascending.
        """
        return self._slid(poses, levels, axis)[0]

    def _slid(
        self, poses: Mapping[str, RigidTransform], levels: Sequence[str], axis: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64], list[tuple[int, int]]]:
        """`fits`; by view and level, correlations, pixels that 1 mm along each axis goes, and which they are."""
        drawn = self._drawn(poses, levels)
        jobs = [(v, i) for i in range(len(levels)) for v in range(len(self.views)) if (v, levels[i]) in drawn]
        if not jobs:
            return np.zeros((len(levels), *[len(axis)] * 3)), np.empty((0, 1, 1), np.float32), np.empty((0, 2, 3)), []
        reach = float(np.abs(axis).max())
        pictures, steps = self._pictures(drawn, poses, [(v, levels[i]) for v, i in jobs], reach)
        slid = slide(pictures, self._details, self._measured, rim=_RIM_PX, least=_LEAST_SEEN)
        owners = torch.tensor([i for _, i in jobs])
        fits = along_axes(slid, owners, torch.from_numpy(steps), torch.from_numpy(axis), len(levels))
        return fits.numpy(), slid.numpy(), steps, jobs

    def _drawn(
        self, poses: Mapping[str, RigidTransform], levels: Sequence[str]
    ) -> dict[tuple[int, str], tuple[Box, NDArray[np.float32]]]:
        """By view and level, windows and line integrals of levels and their neighbours; none behind the source."""
        near = sorted({self._rows[k] for level in levels for k in self._near[level]})
        if not near:
            return {}
        matrices = np.stack([poses[self._names[n]].matrix for n in near])
        drawn = self._parts.draw([view.camera for view in self.views], near, matrices, _STEP_MM, motion=False)
        return {(one.camera, self._names[one.part]): (one.window, one.image[0].numpy()) for one in drawn}

    def _pictures(
        self,
        drawn: Mapping[tuple[int, str], tuple[Box, NDArray[np.float32]]],
        poses: Mapping[str, RigidTransform],
        jobs: Sequence[tuple[int, str]],
        reach_mm: float,
    ) -> tuple[SlidPictures, NDArray[np.float64]]:
        """What views and levels are compared by, and the pixels (v, u) that a shift of 1 mm along each axis goes."""
        windows, edge = [drawn[job][0] for job in jobs], self.band.edge
        height, width = (max(w[k + 1] - w[k] for w in windows) + 2 * edge for k in (0, 2))
        pictures, own = np.zeros((2, len(jobs), height, width), dtype=np.float32)
        steps, radius = np.empty((len(jobs), 2, 3)), []
        for n, ((view, level), (top, bottom, left, right)) in enumerate(zip(jobs, windows, strict=True)):
            for name in self._near[level]:
                if (view, name) in drawn:
                    _add(pictures[n], top - edge, left - edge, *drawn[view, name])
            own[n, edge : edge + bottom - top, edge : edge + right - left] = drawn[view, level][1]
            camera = self.views[view].camera
            in_camera = camera.camera_from_world.apply(poses[level].apply(self.centres[level]))
            pixels = float(camera.K[0, 0]) / float(in_camera[2])
            steps[n] = camera.camera_from_world.rotation[[1, 0]] * pixels
            radius.append(int(np.ceil(reach_mm * np.sqrt(2) * pixels)))
        return SlidPictures(
            self.band.detail(torch.from_numpy(pictures)),
            torch.from_numpy(own > _BONE),
            torch.tensor([view for view, _ in jobs]),
            torch.tensor([(w[0] - edge, w[2] - edge) for w in windows]),
            torch.tensor(radius),
        ), steps


def off_cost(square: Any, off: float) -> Any:
    """What shifts, by their squares (mm^2), cost in correlation if levels may well be so far off; or turns, alike."""
    return 0.5 * _PRIOR * square / off**2


def canvases(xrays: Mapping[str, Xray], middle: NDArray[np.float64]) -> list[tuple[Camera, Float[np.ndarray, "n n"]]]:
    """X-rays as a :class:`Matcher` takes them, with the pixels that `BANDS` are for.

    Args:
        xrays: by view.
        middle: ``[3]`` world, mm; somewhere in the spine.
    """
    out = []
    for xray in xrays.values():
        depth = float(xray.camera.camera_from_world.apply(middle)[2])
        pixels = round(depth / float(canvas_camera(xray.camera, 1).K[0, 0]) / _PIXEL_MM)
        out.append((canvas_camera(xray.camera, pixels), to_canvas(xray, pixels)))
    return out


def _view(camera: Camera, image: Float[np.ndarray, "h w"], band: Band) -> _View:
    known = np.isfinite(image)
    weight = ndimage.gaussian_filter(known.astype(np.float32), 2 * band.coarse_px)
    around = ndimage.gaussian_filter(np.where(known, image, 0), 2 * band.coarse_px) / np.maximum(weight, 1e-3)
    inner = ndimage.binary_erosion(known, iterations=int(2 * band.fine_px) + 1).astype(np.float32)
    detail = band.detail(torch.from_numpy(np.where(known, image, around))[None])[0].numpy() * inner
    share = ndimage.gaussian_filter(inner, _REACH_PX)
    strength = np.sqrt(ndimage.gaussian_filter((detail**2).sum(axis=0), _REACH_PX) / np.maximum(share, 0.05))
    detail = detail / np.maximum(strength, 1e-6)
    size = np.sqrt((detail**2).sum(axis=0))
    detail *= np.minimum(1, _MOST / np.maximum(size, 1e-6))
    return _View(camera, detail, inner, ndimage.uniform_filter(inner, _AROUND_PX, mode="constant"))


def _padded(image: Float[np.ndarray, "*c h w"], side: int) -> Float[Tensor, "*c n n"]:
    """Zeros below and to the right."""
    right, below = side - image.shape[-1], side - image.shape[-2]
    return torch.nn.functional.pad(torch.from_numpy(image), (0, right, 0, below))


def _add(picture: NDArray[np.float32], top: int, left: int, window: Box, image: NDArray[np.float32]) -> None:
    """Add what a window shows to a picture whose first pixel is at ``top`` and ``left``."""
    y0, x0 = max(window[0], top), max(window[2], left)
    y1, x1 = min(window[1], top + picture.shape[0]), min(window[3], left + picture.shape[1])
    if y1 > y0 and x1 > x0:
        inside = image[y0 - window[0] : y1 - window[0], x0 - window[2] : x1 - window[2]]
        picture[y0 - top : y1 - top, x0 - left : x1 - left] += inside


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


def vertex(low: float, mid: float, high: float) -> float:
    """Where between -1 and 1 the parabola through three values (at -1, 0 and 1) is highest."""
    bend = 2 * mid - low - high
    return float(np.clip((high - low) / (2 * bend) if bend > _LEAST_BEND else np.sign(high - low), -1, 1))
