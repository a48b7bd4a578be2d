"""Line integrals through a voxel volume along the rays of pinhole cameras, with gradients."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from radgs.kernels.dispatch import Backend, resolve_backend
from radgs.kernels.numba import siddon, trilinear
from radgs.kernels.numba.launch import launch
from radgs.kernels.numba.support import support
from radgs.kernels.reference import siddon_reference, trilinear_reference

Method = Literal["trilinear", "siddon"]
# Slabs of the adjoint: a fixed number whatever the threads, for it decides how rays are rounded.
_SLABS = 16


def depth_integrals(
    volume: Float[Tensor, "D H W"],
    sources: Float[Tensor, "V 3"],
    directions: Float[Tensor, "V 3 3"],
    mm_per_depth: Float[Tensor, "V h w"],
    method: Method,
    step_mm: float,
    backend: Backend = "auto",
) -> Float[Tensor, "V h w"]:
    """Integrate a volume over depth t along ``source + t * direction(u, v)``, t from 0 to beyond the volume.

    Args:
        volume: float32, any unit.
        sources: float64, index coordinates (x, y, z) of the volume.
        directions: float64; times (u, v, 1) gives index coordinates per mm of depth.
        mm_per_depth: float64, length of each ray in mm per mm of depth; sets the samples' distance.
        method: `trilinear` samples every ``step_mm`` or `siddon` path lengths.
        step_mm: distance of samples along the ray.
        backend: who computes.

    Returns:
        The integral over **depth**: multiply by ``mm_per_depth`` for the line integral. Differentiable in
        volume, sources and directions.
    """
    if resolve_backend(backend, volume) == "reference":
        if method == "siddon":
            return siddon_reference(volume, sources, directions, mm_per_depth.shape[1:])
        return trilinear_reference(volume, sources, directions, mm_per_depth, step_mm)
    return _DepthIntegrals.apply(volume, sources, directions, mm_per_depth, method, step_mm)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


class _DepthIntegrals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        volume: Tensor,
        sources: Tensor,
        directions: Tensor,
        mm_per_depth: Tensor,
        method: Method,
        step_mm: float,
    ) -> Tensor:
        values, s, d, mm = _array(volume), _array(sources), _array(directions), _array(mm_per_depth)
        views, height, width = mm.shape
        image = np.empty((views, height, width), np.float32)
        to_rays = bool(ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        gradient = np.empty((views, 6, height, width) if to_rays else (1, 6, 1, 1), np.float32)
        box = np.empty((2, 3), np.int64)
        support(values, box)
        if not box[1].any():
            image[:] = 0
            gradient[:] = 0
        elif method == "siddon":
            launch(siddon.siddon_forward, values, box, s, d, image, gradient, to_rays)
        else:
            launch(trilinear.trilinear_forward, values, box, s, d, mm, step_mm, image, gradient, to_rays)
        ctx.rays, ctx.method, ctx.step_mm, ctx.shape = (s, d, mm), method, step_mm, values.shape
        ctx.gradient = torch.from_numpy(gradient) if to_rays else None
        return torch.from_numpy(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (to_image,) = gradients
        to_volume = to_sources = to_directions = None
        if ctx.gradient is not None:
            views, _, height, width = ctx.gradient.shape
            weighted = (ctx.gradient * to_image[:, None]).double().reshape(views, 6, -1)
            v, u = torch.meshgrid(
                torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
            )
            sums = weighted @ torch.stack([u.ravel(), v.ravel(), torch.ones(height * width, dtype=torch.float64)], 1)
            to_sources, to_directions = sums[:, :3, 2], sums[:, 3:]
        if ctx.needs_input_grad[0]:
            s, d, mm = ctx.rays
            out = np.zeros(ctx.shape, np.float32)
            slabs = min(ctx.shape[0], _SLABS)
            if ctx.method == "siddon":
                launch(siddon.siddon_adjoint, _array(to_image), s, d, out, slabs)
            else:
                launch(trilinear.trilinear_adjoint, _array(to_image), s, d, mm, ctx.step_mm, out, slabs)
            to_volume = torch.from_numpy(out)
        return to_volume, to_sources, to_directions, None, None, None
