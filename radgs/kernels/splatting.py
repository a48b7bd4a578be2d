"""Sums of Gaussians on pixels and voxels, with gradients to the coefficients that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from radgs.kernels.dispatch import Backend, operations, resolve_backend
from radgs.kernels.numba.exponential import LARGEST
from radgs.kernels.reference import project_reference, rasterize_reference, voxelize_reference

LARGEST_CUTOFF = 10.0
assert LARGEST_CUTOFF**2 < LARGEST, "the fast exponential ends before the largest cut-off"


def rasterize_gaussians(
    gaussians: Sequence[Tensor],
    cameras: Float[Tensor, "B V 24"],
    cutoffs: Float[Tensor, "B N"],
    size: tuple[int, int],
    cone: bool,
    backend: Backend = "auto",
) -> Float[Tensor, "B V h w"]:
    """Line integrals of Gaussians over depth, in each camera; differentiable in Gaussians and cameras.

    Args:
        gaussians: means ``[B, N, 3]`` mm, scales ``[B, N, 3]`` mm, quaternions ``[B, N, 4]`` (w, x, y, z), densities
            ``[B, N]``.
        cameras: float64; the rows of camera_from_frame, the first two of K and the first two columns of K's inverse.
        cutoffs: in standard deviations; 0 leaves the Gaussian out. No gradient.
        size: height and width.
        cone: whether rays meet in the source; else they are parallel to the camera's z axis.
        backend: who computes.

    Raises:
        RadgsError: a backend that cannot be used.
    """
    chosen = resolve_backend(backend, *gaussians)
    if chosen == "reference":
        coefficients, ends = project_reference(gaussians, cameras, cutoffs, cone)
        images = rasterize_reference(coefficients.flatten(0, 1), ends.flatten(0, 1), size)
        return images.unflatten(0, cameras.shape[:2])
    return _RasterizeGaussians.apply(*gaussians, cameras, cutoffs, size, cone, operations(chosen))


def rasterize_coefficients(
    coefficients: Float[Tensor, "I N 11"],
    cutoffs: Float[Tensor, "I N"],
    size: tuple[int, int],
    backend: Backend = "auto",
) -> Float[Tensor, "I h w"]:
    """Sum a q^(-1/2) exp(-n / 2q) over the Gaussians of each image; see `radgs.kernels.numba.rasterize`.

    Args:
        coefficients: of each Gaussian in each image.
        cutoffs: in standard deviations; 0 leaves the Gaussian out. No gradient.
        size: height and width.
        backend: who computes.

    Raises:
        RadgsError: a backend that cannot be used.
    """
    chosen = resolve_backend(backend, coefficients)
    if chosen == "reference":
        return rasterize_reference(coefficients, cutoffs, size)
    return _Rasterize.apply(coefficients, cutoffs, size, operations(chosen))


def voxelize_coefficients(
    coefficients: Float[Tensor, "B N 10"],
    cutoffs: Float[Tensor, "B N"],
    shape: tuple[int, int, int],
    backend: Backend = "auto",
) -> Float[Tensor, "B d h w"]:
    """Sum the Gaussians of each scene at voxel centres; see `radgs.kernels.numba.voxelize`.

    Args:
        coefficients: of each Gaussian.
        cutoffs: in standard deviations; 0 leaves the Gaussian out. No gradient.
        shape: D, H, W.
        backend: who computes.

    Raises:
        RadgsError: a backend that cannot be used.
    """
    chosen = resolve_backend(backend, coefficients)
    if chosen == "reference":
        return voxelize_reference(coefficients, cutoffs, shape)
    return _Voxelize.apply(coefficients, cutoffs, shape, operations(chosen))


class _RasterizeGaussians(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        quaternions: Tensor,
        densities: Tensor,
        cameras: Tensor,
        cutoffs: Tensor,
        size: tuple[int, int],
        cone: bool,
        fast: ModuleType,
    ) -> Tensor:
        gaussians = (means, scales, quaternions, densities)
        coefficients, ends, footprints = fast.project(gaussians, cameras, cutoffs, size, cone)
        ctx.save_for_backward(*gaussians, cameras, coefficients, ends)
        ctx.cone, ctx.fast = cone, fast
        images = fast.rasterize_forward(coefficients.flatten(0, 1), ends.flatten(0, 1), footprints.flatten(0, 1), size)
        return images.unflatten(0, cameras.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *gaussians, cameras, coefficients, ends = ctx.saved_tensors
        to_images = gradients[0].flatten(0, 1)
        to_coefficients = ctx.fast.rasterize_backward(coefficients.flatten(0, 1), ends.flatten(0, 1), to_images)
        to_inputs = ctx.fast.project_adjoint(
            gaussians, cameras, ends, ctx.cone, to_coefficients.view_as(coefficients), ctx.needs_input_grad[4]
        )
        return (*to_inputs, None, None, None, None)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, cutoffs: Tensor, size: tuple[int, int], fast: ModuleType) -> Tensor:
        ctx.save_for_backward(coefficients, cutoffs)
        ctx.fast = fast
        return fast.rasterize_forward(coefficients, cutoffs, fast.footprints(coefficients, cutoffs, size), size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.fast.rasterize_backward(*ctx.saved_tensors, gradients[0]), None, None, None


class _Voxelize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, cutoffs: Tensor, shape: tuple[int, int, int], fast: ModuleType
    ) -> Tensor:
        ctx.save_for_backward(coefficients, cutoffs)
        ctx.fast = fast
        return fast.voxelize_forward(coefficients, cutoffs, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.fast.voxelize_backward(*ctx.saved_tensors, gradients[0]), None, None, None
