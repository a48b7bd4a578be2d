"""What the CUDA backend does with tensors: the six operations of `radgs.kernels.numba.operations`, on a GPU.

Nothing here waits for the GPU: no size depends on what a kernel finds.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor

from radgs.kernels.cuda.launch import run

# As in the sources.
_THREADS = (256,)
_TILE = (16, 16)
_BRICK = (4, 8, 8)
_PIXELS = (16, 8)
_VOXELS = (128,)
_RECORD_BYTES = {"pixels": 16, "voxels": 24, "ray": 36}


def rasterize_forward(coefficients: Tensor, cutoffs: Tensor, size: tuple[int, int]) -> Tensor:
    """Images ``[I, h, w]``."""
    c, tau = coefficients.detach().contiguous(), cutoffs.contiguous()
    count, gaussians, _ = c.shape
    total = count * gaussians
    boxes = _records(total, "pixels", c)
    images = torch.empty((count, *size), dtype=torch.float32, device=c.device)
    run("rasterize", "footprints", _blocks(total), _THREADS, c, tau, np.int64(total), *size, boxes)
    tiles = ceil(size[0] / _TILE[0]) * ceil(size[1] / _TILE[1])
    run("rasterize", "rasterize_forward", (count * tiles,), _THREADS, c, tau, boxes, gaussians, *size, images)
    return images


def rasterize_backward(coefficients: Tensor, cutoffs: Tensor, to_images: Tensor) -> Tensor:
    """Gradient to the coefficients."""
    c, tau, to_image = coefficients.detach().contiguous(), cutoffs.contiguous(), to_images.contiguous()
    count, gaussians, _ = c.shape
    total = count * gaussians
    out = torch.empty_like(c)
    run(
        "rasterize", "rasterize_backward", _blocks(32 * total), _THREADS, c, tau, to_image,
        np.int64(total), gaussians, *to_image.shape[1:], out,
    )  # fmt: skip
    return out


def voxelize_forward(coefficients: Tensor, cutoffs: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Volumes ``[B, d, h, w]``."""
    c, tau = coefficients.detach().contiguous(), cutoffs.contiguous()
    batch, gaussians, _ = c.shape
    total = batch * gaussians
    boxes = _records(total, "voxels", c)
    volumes = torch.empty((batch, *shape), dtype=torch.float32, device=c.device)
    run("voxelize", "reaches", _blocks(total), _THREADS, c, tau, np.int64(total), *shape, boxes)
    bricks = ceil(shape[0] / _BRICK[0]) * ceil(shape[1] / _BRICK[1]) * ceil(shape[2] / _BRICK[2])
    run("voxelize", "voxelize_forward", (batch * bricks,), _THREADS, c, tau, boxes, gaussians, *shape, volumes)
    return volumes


def voxelize_backward(coefficients: Tensor, cutoffs: Tensor, to_volumes: Tensor) -> Tensor:
    """Gradient to the coefficients."""
    c, tau, to_volume = coefficients.detach().contiguous(), cutoffs.contiguous(), to_volumes.contiguous()
    batch, gaussians, _ = c.shape
    total = batch * gaussians
    out = torch.empty_like(c)
    run(
        "voxelize", "voxelize_backward", _blocks(32 * total), _THREADS, c, tau, to_volume,
        np.int64(total), gaussians, *to_volume.shape[1:], out,
    )  # fmt: skip
    return out


def integrals_forward(
    volume: Tensor,
    sources: Tensor,
    directions: Tensor,
    mm_per_depth: Tensor,
    method: str,
    step_mm: float,
    to_rays: bool,
) -> tuple[Tensor, Tensor | None]:
    """Integrals over depth ``[V, h, w]`` and, if wanted, their gradient ``[V, 6, h, w]`` to source and direction."""
    values = volume.detach().contiguous()
    views, height, width = mm_per_depth.shape
    image = torch.empty((views, height, width), dtype=torch.float32, device=volume.device)
    gradient = image.new_empty((views, 6, height, width)) if to_rays else None
    results = [image] if gradient is None else [image, gradient]
    kernel = f"{method}_forward_with_gradient" if to_rays else f"{method}_forward"
    rays = _ray_arguments(sources, directions, mm_per_depth, method, step_mm)
    grid = _pixel_grid(mm_per_depth)
    run(method, kernel, grid, _PIXELS, values, *rays, *values.shape, height, width, *results)
    return image, gradient


def integrals_adjoint(
    to_image: Tensor,
    sources: Tensor,
    directions: Tensor,
    mm_per_depth: Tensor,
    method: str,
    step_mm: float,
    shape: tuple[int, int, int],
) -> Tensor:
    """Gradient to the volume: every voxel gathers from the rays that pass it."""
    weights = to_image.contiguous()
    views, height, width = weights.shape
    table = _records(views * height * width, "ray", weights)
    arguments = _ray_arguments(sources, directions, mm_per_depth, method, step_mm)
    run(method, f"{method}_rays", _pixel_grid(weights), _PIXELS, *arguments, *shape, height, width, table)
    out = torch.empty(shape, dtype=torch.float32, device=weights.device)
    # inv would wait for the GPU to say whether a matrix is singular.
    pixels_from_directions = torch.linalg.inv_ex(directions.detach()).inverse.contiguous()
    run(
        method, f"{method}_adjoint", (ceil(out.numel() / _VOXELS[0]),), _VOXELS, weights, table, arguments[0],
        pixels_from_directions, views, height, width, *shape, out,
    )  # fmt: skip
    return out


def _ray_arguments(
    sources: Tensor, directions: Tensor, mm_per_depth: Tensor, method: str, step_mm: float
) -> list[Tensor | np.float64]:
    rays: list[Tensor | np.float64] = [sources.detach().contiguous(), directions.detach().contiguous()]
    if method == "trilinear":
        rays += [mm_per_depth.detach().contiguous(), np.float64(step_mm)]
    return rays


def _blocks(threads: int) -> tuple[int]:
    return (ceil(threads / _THREADS[0]),)


def _pixel_grid(images: Tensor) -> tuple[int, int, int]:
    views, height, width = images.shape
    return ceil(width / _PIXELS[0]), ceil(height / _PIXELS[1]), views


def _records(count: int, what: str, like: Tensor) -> Tensor:
    """Room for structs of the sources."""
    return torch.empty(count * _RECORD_BYTES[what], dtype=torch.uint8, device=like.device)
