"""Sums of Gaussians on pixels and voxels, with gradients to the coefficients that describe them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from radgs.errors import RadgsError
from radgs.kernels.dispatch import Backend, resolve_backend
from radgs.kernels.numba.exponential import LARGEST
from radgs.kernels.numba.rasterize import rasterize_backward, rasterize_forward
from radgs.kernels.numba.voxelize import voxelize_backward, voxelize_forward
from radgs.kernels.reference import rasterize_reference, voxelize_reference

# Parts a thread gets when one image or volume is shared between threads.
_PARTS_PER_THREAD = 4
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
    if resolve_backend(backend, coefficients) == "reference":
        return rasterize_reference(coefficients, visible, size, cutoff)
    return _Rasterize.apply(coefficients, visible, size, cutoff)


def voxelize_coefficients(
    coefficients: Float[Tensor, "B N 10"], shape: tuple[int, int, int], cutoff: float, backend: Backend = "auto"
) -> Float[Tensor, "B d h w"]:
    """Sum the Gaussians of each scene at voxel centres; see `radgs.kernels.numba.voxelize`.

    Raises:
        RadgsError: a cut-off or backend that cannot be used.
    """
    _check_cutoff(cutoff)
    if resolve_backend(backend, coefficients) == "reference":
        return voxelize_reference(coefficients, shape, cutoff)
    return _Voxelize.apply(coefficients, shape, cutoff)


def _check_cutoff(cutoff: float) -> None:
    assert _LARGEST_CUTOFF**2 < LARGEST
    if not 0 < cutoff <= _LARGEST_CUTOFF:
        raise RadgsError(f"cutoff is in standard deviations, above 0 and at most {_LARGEST_CUTOFF:g}, got {cutoff}")


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _parts(jobs: int, rows: int) -> int:
    """Into how many parts each of ``jobs`` images or volumes of ``rows`` rows is cut to keep all threads busy."""
    threads = numba.get_num_threads()
    return 1 if jobs >= _PARTS_PER_THREAD * threads else min(rows, _PARTS_PER_THREAD * threads)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, visible: Tensor, size: tuple[int, int], cutoff: float) -> Tensor:
        images = np.zeros((len(coefficients), *size), np.float32)
        ctx.arrays, ctx.cutoff = (_array(coefficients), _array(visible)), cutoff
        rasterize_forward(*ctx.arrays, cutoff, images, _parts(len(images), size[0]))
        return torch.from_numpy(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        out = np.empty_like(ctx.arrays[0])
        rasterize_backward(*ctx.arrays, ctx.cutoff, _array(gradients[0]), out)
        return torch.from_numpy(out), None, None, None


class _Voxelize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, shape: tuple[int, int, int], cutoff: float) -> Tensor:
        volumes = np.zeros((len(coefficients), *shape), np.float32)
        ctx.array, ctx.cutoff = _array(coefficients), cutoff
        voxelize_forward(ctx.array, cutoff, volumes, _parts(len(volumes), shape[0]))
        return torch.from_numpy(volumes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        out = np.empty_like(ctx.array)
        voxelize_backward(ctx.array, ctx.cutoff, _array(gradients[0]), out)
        return torch.from_numpy(out), None, None
