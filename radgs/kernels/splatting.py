"""Sums of Gaussians on pixels and voxels, with gradients to the coefficients that describe them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from radgs.errors import RadgsError
from radgs.kernels.dispatch import Backend, operations, resolve_backend
from radgs.kernels.numba.exponential import LARGEST
from radgs.kernels.reference import rasterize_reference, voxelize_reference

_LARGEST_CUTOFF = 10.0


def rasterize_coefficients(
    coefficients: Float[Tensor, "I N 11"],
    visible: Bool[Tensor, "I N"],
    size: tuple[int, int],
    cutoff: float,
    backend: Backend = "auto",
) -> Float[Tensor, "I h w"]:
    """Sum a q^(-1/2) exp(-n / 2q) over the visible Gaussians of each image; see `radgs.kernels.numba.rasterize`.

    Raises:
        RadgsError: a cut-off or backend that cannot be used.
    """
    _check_cutoff(cutoff)
    chosen = resolve_backend(backend, coefficients)
    if chosen == "reference":
        return rasterize_reference(coefficients, visible, size, cutoff)
    return _Rasterize.apply(coefficients, visible, size, cutoff, operations(chosen))


def voxelize_coefficients(
    coefficients: Float[Tensor, "B N 10"], shape: tuple[int, int, int], cutoff: float, backend: Backend = "auto"
) -> Float[Tensor, "B d h w"]:
    """Sum the Gaussians of each scene at voxel centres; see `radgs.kernels.numba.voxelize`.

    Raises:
        RadgsError: a cut-off or backend that cannot be used.
    """
    _check_cutoff(cutoff)
    chosen = resolve_backend(backend, coefficients)
    if chosen == "reference":
        return voxelize_reference(coefficients, shape, cutoff)
    return _Voxelize.apply(coefficients, shape, cutoff, operations(chosen))


def _check_cutoff(cutoff: float) -> None:
    assert _LARGEST_CUTOFF**2 < LARGEST
    if not 0 < cutoff <= _LARGEST_CUTOFF:
        raise RadgsError(f"cutoff is in standard deviations, above 0 and at most {_LARGEST_CUTOFF:g}, got {cutoff}")


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, visible: Tensor, size: tuple[int, int], cutoff: float, fast: ModuleType
    ) -> Tensor:
        ctx.save_for_backward(coefficients, visible)
        ctx.cutoff, ctx.fast = cutoff, fast
        return fast.rasterize_forward(coefficients, visible, size, cutoff)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_coefficients = ctx.fast.rasterize_backward(*ctx.saved_tensors, ctx.cutoff, gradients[0])
        return to_coefficients, None, None, None, None


class _Voxelize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, shape: tuple[int, int, int], cutoff: float, fast: ModuleType) -> Tensor:
        ctx.save_for_backward(coefficients)
        ctx.cutoff, ctx.fast = cutoff, fast
        return fast.voxelize_forward(coefficients, shape, cutoff)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_coefficients = ctx.fast.voxelize_backward(*ctx.saved_tensors, ctx.cutoff, gradients[0])
        return to_coefficients, None, None, None
