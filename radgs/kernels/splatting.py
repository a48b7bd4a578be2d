"""Sums of Gaussians on pixels and voxels, with gradients to the coefficients that describe them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from radgs.errors import RadgsError
from radgs.kernels.dispatch import Backend, resolve_backend
from radgs.kernels.numba.exponential import LARGEST
from radgs.kernels.numba.launch import launch
from radgs.kernels.numba.rasterize import footprint_rows, rasterize_backward, rasterize_forward
from radgs.kernels.numba.voxelize import voxelize_backward, voxelize_forward
from radgs.kernels.reference import rasterize_reference, voxelize_reference

# Parts a thread gets when one image or volume is shared between threads.
_PARTS_PER_THREAD = 4
LARGEST_CUTOFF = 10.0


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
        RadgsError: a cut-off or backend that cannot be used.
    """
    _check_cutoffs(cutoffs)
    if resolve_backend(backend, coefficients) == "reference":
        return rasterize_reference(coefficients, cutoffs, size)
    return _Rasterize.apply(coefficients, cutoffs, size)


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
        RadgsError: a cut-off or backend that cannot be used.
    """
    _check_cutoffs(cutoffs)
    if resolve_backend(backend, coefficients) == "reference":
        return voxelize_reference(coefficients, cutoffs, shape)
    return _Voxelize.apply(coefficients, cutoffs, shape)


def _check_cutoffs(cutoffs: Tensor) -> None:
    assert LARGEST_CUTOFF**2 < LARGEST
    if not ((cutoffs >= 0) & (cutoffs <= LARGEST_CUTOFF)).all():
        raise RadgsError(f"cut-offs are in standard deviations, 0 to {LARGEST_CUTOFF:g}")


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _parts(jobs: int, rows: int) -> int:
    """Into how many parts each of ``jobs`` images or volumes of ``rows`` rows is cut to keep all threads busy."""
    threads = numba.get_num_threads()
    return 1 if jobs >= _PARTS_PER_THREAD * threads else min(rows, _PARTS_PER_THREAD * threads)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, cutoffs: Tensor, size: tuple[int, int]) -> Tensor:
        images = np.zeros((len(coefficients), *size), np.float32)
        ctx.arrays = _array(coefficients), _array(cutoffs)
        rows = np.empty((*ctx.arrays[1].shape, 2), np.int32)
        launch(footprint_rows, *ctx.arrays, size[0], rows)
        launch(rasterize_forward, *ctx.arrays, rows, images, _parts(len(images), size[0]))
        return torch.from_numpy(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        out = np.empty_like(ctx.arrays[0])
        launch(rasterize_backward, *ctx.arrays, _array(gradients[0]), out)
        return torch.from_numpy(out), None, None


class _Voxelize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, cutoffs: Tensor, shape: tuple[int, int, int]) -> Tensor:
        volumes = np.zeros((len(coefficients), *shape), np.float32)
        ctx.arrays = _array(coefficients), _array(cutoffs)
        launch(voxelize_forward, *ctx.arrays, volumes, _parts(len(volumes), shape[0]))
        return torch.from_numpy(volumes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        out = np.empty_like(ctx.arrays[0])
        launch(voxelize_backward, *ctx.arrays, _array(gradients[0]), out)
        return torch.from_numpy(out), None, None
