"""Line integrals through a voxel volume along the rays of pinhole cameras, with gradients."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from radgs.errors import RadgsError
from radgs.kernels.dispatch import Backend, operations, resolve_backend
from radgs.kernels.reference import siddon_reference, trilinear_reference

Method = Literal["trilinear", "siddon"]


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
    chosen = resolve_backend(backend, volume)
    if chosen == "reference":
        if method == "siddon":
            return siddon_reference(volume, sources, directions, mm_per_depth.shape[1:])
        return trilinear_reference(volume, sources, directions, mm_per_depth, step_mm)
    return _DepthIntegrals.apply(volume, sources, directions, mm_per_depth, method, step_mm, operations(chosen))


def depth_integrals_and_gradients(
    volume: Float[Tensor, "D H W"],
    sources: Float[Tensor, "V 3"],
    directions: Float[Tensor, "V 3 3"],
    mm_per_depth: Float[Tensor, "V h w"],
    method: Method,
    step_mm: float,
    backend: Backend = "auto",
) -> tuple[Float[Tensor, "V h w"], Float[Tensor, "V 6 h w"]]:
    """As :func:`depth_integrals`, with the derivatives of each by its own ray's source and direction (3 each).

    Raises:
        RadgsError: the backend ``reference`` keeps no gradients of rays.
    """
    chosen = resolve_backend(backend, volume)
    if chosen == "reference":
        raise RadgsError("the backend 'reference' keeps no gradients of single rays")
    image, gradient = operations(chosen).integrals_forward(
        volume, sources, directions, mm_per_depth, method, step_mm, True
    )
    return image, gradient


def depth_integrals_in_layers(
    volume: Float[Tensor, "D H W"],
    sources: Float[Tensor, "k 3"],
    directions: Float[Tensor, "k 3 3"],
    rise: Float[Tensor, " 3"],
    heights: Float[Tensor, " k"],
    mm_per_depth: Float[Tensor, "h w"],
    step_mm: float,
    ends: tuple[float, float],
    layers: int,
    wanted: Bool[Tensor, "h w"],
) -> Float[Tensor, "layers h w"]:
    """Integrate a bent volume over depth, in layers; CPU only. See `radgs.projection.project_layers`.

    Args:
        volume: float32, any unit.
        sources: float64, the source in index coordinates of the volume, by motion.
        directions: float64; times (u, v, 1) gives index coordinates per mm of depth, by motion.
        rise: float64; times (u, v, 1) gives height per mm of depth; the source's height is 0.
        heights: float64, ascending, where each motion holds.
        mm_per_depth: float64, length of each ray in mm per mm of depth.
        step_mm: distance of samples along the ray.
        ends: depths of the first and the last layer.
        layers: how many, at least two.
        wanted: pixels to draw; others are 0.

    Raises:
        RadgsError: tensors that are not float32 on the CPU.
    """
    resolve_backend("numba", volume)
    return operations("numba").integrals_in_layers(
        volume, sources, directions, rise, heights, mm_per_depth, step_mm, ends, layers, wanted
    )


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
        fast: ModuleType,
    ) -> Tensor:
        to_rays = bool(ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        image, gradient = fast.integrals_forward(volume, sources, directions, mm_per_depth, method, step_mm, to_rays)
        ctx.save_for_backward(sources, directions, mm_per_depth)
        ctx.gradient, ctx.method, ctx.step_mm, ctx.shape, ctx.fast = gradient, method, step_mm, volume.shape, fast
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (to_image,) = gradients
        to_volume = to_sources = to_directions = None
        if ctx.gradient is not None:
            to_sources, to_directions = ctx.fast.rays_to_cameras(ctx.gradient, to_image)
        if ctx.needs_input_grad[0]:
            to_volume = ctx.fast.integrals_adjoint(to_image, *ctx.saved_tensors, ctx.method, ctx.step_mm, ctx.shape)
        return to_volume, to_sources, to_directions, None, None, None, None
