"""Soft tissue moves by itself: smooth shifts of its layers in a view, found in the X-ray.

What the CT's soft tissue shows at the spine's pose (``soft_tissue``) is off by millimetres: patients breathe, arms lie
otherwise. Its edges cross the vertebrae, and where they are expected in the wrong place, they pull the vertebrae along.
Each layer's picture is shifted by a bilinear field so that, with the vertebrae drawn over it, it has the gradients of
the X-ray: Gauss and Newton's method with weights that doubt outliers (Cauchy), coarse to fine, held by a prior that
wants neighbouring places and layers to move alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from radgs.kernels import field_equations, gradients
from radgs.registration.view import View

NODE_MM = 50.0
_ALIKE_MM, _ALIKE_LAYERS_MM, _STILL_MM = 3.0, 5.0, 15.0  # standard deviations of the prior
_PYRAMID = ((2, 3), (1, 2))  # pixels binned, and steps
_BLUR_PX = 1.5
_OUTLIER = 3.0  # standard deviations
_SAME_NOISE = 5.0  # so many pixels share their noise and what the model lacks
_FEWEST = 500


@dataclass(frozen=True)
class _Hats:
    """Bilinear weights of the nodes, separable, and where pixels lie among the nodes."""

    rows: Float[Tensor, "ny H"]
    columns: Float[Tensor, "nx W"]
    places: tuple[Float[Tensor, " H"], Float[Tensor, " W"]]

    @classmethod
    def of(cls, view: View, factor: int) -> _Hats:
        step = NODE_MM / view.pixel_mm
        sizes = view.camera.height, view.camera.width
        rows, columns = ((torch.arange(n // factor) + 0.5) * factor / step for n in sizes)
        nodes = (torch.arange(int(np.ceil(n / step)) + 1) for n in sizes)
        down, across = (
            (1 - (at - n[:, None]).abs()).clamp_min(0) for at, n in zip((rows, columns), nodes, strict=True)
        )
        return cls(down, across, (rows, columns))


def shifted(layers: Float[Tensor, "B H W"], shifts: Float[Tensor, "B ny nx 2"], view: View) -> Float[Tensor, "B H W"]:
    """The layers after shifts (pixels of the view along u and v, at nodes every ``NODE_MM``)."""
    return _shifted(layers, shifts, _Hats.of(view, 1), 1)


def _shifted(layers: Tensor, shifts: Tensor, hats: _Hats, factor: int) -> Tensor:
    height, width = layers.shape[1:]
    by = torch.einsum("bjic,jy,ix->byxc", shifts, hats.rows, hats.columns) / factor
    v, u = torch.meshgrid(torch.arange(height, dtype=by.dtype), torch.arange(width, dtype=by.dtype), indexing="ij")
    grid = torch.stack([(u - by[..., 0]) * 2 / (width - 1) - 1, (v - by[..., 1]) * 2 / (height - 1) - 1], dim=-1)
    return F.grid_sample(layers[:, None], grid, padding_mode="border", align_corners=True)[:, 0]


def still(layers: Float[Tensor, "B H W"], view: View) -> Float[Tensor, "B ny nx 2"]:
    """Shifts of nothing."""
    hats = _Hats.of(view, 1)
    return torch.zeros(len(layers), len(hats.rows), len(hats.columns), 2)


def find_shifts(
    view: View,
    bones: Float[Tensor, "H W"],
    layers: Float[Tensor, "B H W"],
    near: Bool[Tensor, "H W"],
    shifts: Float[Tensor, "B ny nx 2"],
) -> Float[Tensor, "B ny nx 2"]:
    """Shifts that make ``bones`` and the shifted layers look like the view.

    Args:
        view: the X-ray.
        bones: line integrals of the vertebrae at their present poses.
        layers: of the soft tissue, adding up to the whole.
        near: which pixels count.
        shifts: where to begin, pixels.
    """
    for factor, steps in _PYRAMID:
        level = _Level.of(view, bones, layers, near, factor)
        if level is None:
            return shifts
        for _ in range(steps):
            shifts = level.step(shifts)
    return shifts


@dataclass(frozen=True)
class _Level:
    """One resolution of the search."""

    factor: int
    hats: _Hats
    layers: Float[Tensor, "B h w"]
    near: Bool[Tensor, "h w"]
    seen: Float[Tensor, " n"]
    bones: Float[Tensor, " n"]
    pixel_mm: float

    @classmethod
    def of(cls, view: View, bones: Tensor, layers: Tensor, near: Tensor, factor: int) -> _Level | None:
        small = view.coarser(factor)
        size = (small.camera.height * factor, small.camera.width * factor)

        def shrink(images: Tensor) -> Tensor:
            return F.avg_pool2d(images[None, :, : size[0], : size[1]], factor)[0]

        where = (small.usable(_BLUR_PX) > 0) & (shrink(near[None].float())[0] > 0)
        if int(where.sum()) < _FEWEST:
            return None
        seen, bone = (gradients(im, _BLUR_PX)[0][:, where].flatten() for im in (small.image[None], shrink(bones[None])))
        return cls(factor, _Hats.of(view, factor), shrink(layers), where, seen, bone, view.pixel_mm)

    def step(self, shifts: Tensor) -> Tensor:
        """One step of Gauss and Newton's method."""
        now = _shifted(self.layers, shifts, self.hats, self.factor)
        soft = gradients(now.sum(0)[None], _BLUR_PX)[0][:, self.near].flatten()
        strengths = torch.linalg.lstsq(torch.stack([self.bones, soft], dim=1), self.seen[:, None]).solution[:, 0]
        residual = self.seen - strengths[0] * self.bones - strengths[1] * soft
        deviation = 1.4826 * residual.abs().median().clamp_min(1e-9)
        weights = 1 / (deviation**2 * _SAME_NOISE * (1 + (residual / (_OUTLIER * deviation)) ** 2))
        curvature, pull = self._equations(now, float(strengths[1]), residual, weights)
        active = torch.einsum("jy,yx,ix->ji", self.hats.rows, self.near.float(), self.hats.columns).flatten() > 1
        prior = _prior(len(now), (len(self.hats.rows), len(self.hats.columns)), active) * self.pixel_mm**2
        flat = shifts.flatten(1, 2)
        held = flat[:, active].flatten().double()
        which = active.repeat_interleave(2).repeat(len(now))
        found = torch.linalg.solve(curvature[which][:, which] + prior, pull[which] - prior @ held)
        flat = flat.clone()
        flat[:, active] += found.view(len(now), -1, 2).to(flat.dtype)
        return flat.view_as(shifts)

    def _equations(
        self, now: Tensor, strength: float, residual: Tensor, weights: Tensor
    ) -> tuple[Float64[Tensor, "p p"], Float64[Tensor, " p"]]:
        """Of every shift (layer, node, u and v)."""
        slopes = gradients(now) * (-strength / self.factor)  # [B, 2, h, w]
        by = gradients(slopes.flatten(0, 1), _BLUR_PX)
        left, doubts = torch.zeros(2, 2, *self.near.shape)
        left[:, self.near], doubts[:, self.near] = residual.view(2, -1), weights.view(2, -1)
        nodes = len(self.hats.rows), len(self.hats.columns)
        curvature, pull = field_equations(by, left, doubts, *self.hats.places, nodes)
        count = 2 * len(now) * nodes[0] * nodes[1]
        order = torch.arange(count).view(len(now), 2, -1).mT.flatten()  # nodes before u and v
        return curvature.reshape(count, count)[order][:, order], pull.flatten()[order]


def _prior(layers: int, nodes: tuple[int, int], active: Tensor) -> Float64[Tensor, "p p"]:
    """Inverse covariance of the shifts of active nodes, 1/mm^2."""
    places = np.full(nodes, -1)
    places.ravel()[active.numpy()] = np.arange(int(active.sum()))
    count = int(active.sum())
    precision = np.eye(layers * count) / _STILL_MM**2

    def tie(i: np.ndarray, j: np.ndarray, deviation: float) -> None:
        np.add.at(precision, (i, i), 1 / deviation**2)
        np.add.at(precision, (j, j), 1 / deviation**2)
        np.add.at(precision, (i, j), -1 / deviation**2)
        np.add.at(precision, (j, i), -1 / deviation**2)

    for layer, (a, b) in product(range(layers), ((places[1:], places[:-1]), (places[:, 1:], places[:, :-1]))):
        both = (a >= 0) & (b >= 0)
        tie(a[both] + layer * count, b[both] + layer * count, _ALIKE_MM)
    each = np.arange(count)
    for layer in range(layers - 1):
        tie(each + layer * count, each + (layer + 1) * count, _ALIKE_LAYERS_MM)
    return torch.from_numpy(np.kron(precision, np.eye(2)))
