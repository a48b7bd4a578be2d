"""What the CUDA backend does with tensors: the operations of `radgs.kernels.numba.operations`, on a GPU.

Nothing here waits for the GPU: no size depends on what a kernel finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from radgs.errors import RadgsError
from radgs.kernels.cuda.launch import run

# As in the sources.
_THREADS = (256,)
_PROJECT_THREADS = (128,)
_TILE = (16, 16)
_BRICK = (4, 8, 8)
_PIXELS = (8, 16)
_VOXELS = (128,)
_RAYS_A_BLOCK = 2048
_MOST_VOXELS = 2**31 - 1
_RECORD_BYTES = {"pixels": 16, "ray": 36, "splat": 48, "ellipsoid": 48}


def project(
    gaussians: Sequence[Tensor], cameras: Tensor, cutoffs: Tensor, size: tuple[int, int], cone: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients ``[B, V, N, 11]``, cut-offs ``[B, V, N]`` and footprints for `rasterize_forward`.

    ``gaussians`` are means, scales, quaternions and densities.
    """
    parts, where, tau = (
        [t.detach().contiguous() for t in gaussians],
        cameras.detach().contiguous(),
        cutoffs.contiguous(),
    )
    scenes, views, count = *where.shape[:2], tau.shape[1]
    coefficients = parts[0].new_empty((scenes, views, count, 11))
    ends, boxes = parts[0].new_empty((scenes, views, count)), _records((scenes, views, count), "pixels", tau)
    run(
        "project", "project", _blocks(ends.numel(), _PROJECT_THREADS), _PROJECT_THREADS, *parts, where, tau,
        int(cone), views, count, np.int64(ends.numel()), *size, coefficients, ends, boxes,
    )  # fmt: skip
    return coefficients, ends, boxes


def project_adjoint(
    gaussians: Sequence[Tensor],
    cameras: Tensor,
    ends: Tensor,
    cone: bool,
    to_coefficients: Tensor,
    to_cameras_wanted: bool,
) -> list[Tensor | None]:
    """Gradients to means, scales, quaternions, densities and, if wanted, cameras."""
    parts, where = [t.detach().contiguous() for t in gaussians], cameras.detach().contiguous()
    scenes, views, count = ends.shape
    out, blocks = [torch.empty_like(t) for t in parts], ceil(count / _PROJECT_THREADS[0])
    warps = blocks * _PROJECT_THREADS[0] // 32 if to_cameras_wanted else 0
    to_cameras = where.new_empty((scenes, views, warps, where.shape[-1]))
    run(
        "project", "project_adjoint", (scenes * blocks,), _PROJECT_THREADS, *parts, where, ends.contiguous(),
        to_coefficients.contiguous(), int(cone), views, count, *out, int(to_cameras_wanted), to_cameras,
    )  # fmt: skip
    return [*out, to_cameras.sum(2) if to_cameras_wanted else None]


def footprints(coefficients: Tensor, cutoffs: Tensor, size: tuple[int, int]) -> Tensor:
    """What `rasterize_forward` wants to know of every Gaussian beside its coefficients."""
    c, tau = coefficients.detach().contiguous(), cutoffs.contiguous()
    boxes = _records(tau.shape, "pixels", c)
    run("rasterize", "footprints", _blocks(tau.numel()), _THREADS, c, tau, np.int64(tau.numel()), *size, boxes)
    return boxes


def rasterize_forward(coefficients: Tensor, cutoffs: Tensor, footprints: Tensor, size: tuple[int, int]) -> Tensor:
    """Images ``[I, h, w]``."""
    c, tau = coefficients.detach().contiguous(), cutoffs.contiguous()
    count, gaussians, _ = c.shape
    splats, bits = _records((count, gaussians), "splat", c), _bits(count, gaussians, size, _TILE, c)
    run(
        "rasterize", "mark_tiles", _blocks(32 * count * bits.shape[-1]), _THREADS, c, tau, footprints, count, gaussians,
        *size, splats, bits,
    )  # fmt: skip
    images = torch.empty((count, *size), dtype=torch.float32, device=c.device)
    run(
        "rasterize", "rasterize_forward", (count * prod(_slots(size, _TILE)),), _THREADS, splats, bits, gaussians,
        *size, images,
    )  # fmt: skip
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
    records, bits = _records((batch, gaussians), "ellipsoid", c), _bits(batch, gaussians, shape, _BRICK, c)
    run(
        "voxelize", "mark_bricks", _blocks(32 * batch * bits.shape[-1]), _THREADS, c, tau, batch, gaussians, *shape,
        records, bits,
    )  # fmt: skip
    volumes = torch.empty((batch, *shape), dtype=torch.float32, device=c.device)
    run(
        "voxelize", "voxelize_forward", (batch * prod(_slots(shape, _BRICK)),), _THREADS, records, bits, gaussians,
        *shape, volumes,
    )  # fmt: skip
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
    if values.numel() > _MOST_VOXELS:
        raise RadgsError(f"backend 'cuda' takes volumes of at most {_MOST_VOXELS} voxels, got {values.numel()}")
    views, height, width = mm_per_depth.shape
    image = torch.empty((views, height, width), dtype=torch.float32, device=volume.device)
    gradient = image.new_empty((views, 6, height, width)) if to_rays else None
    results = [image] if gradient is None else [image, gradient]
    kernel = f"{method}_forward_with_gradient" if to_rays else f"{method}_forward"
    rays = _ray_arguments(sources, directions, mm_per_depth, method, step_mm)
    grid = _pixel_grid(mm_per_depth)
    run(method, kernel, grid, _PIXELS, values, *rays, *values.shape, height, width, *results)
    return image, gradient


def rays_to_cameras(of_rays: Tensor, to_image: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to sources ``[V, 3]`` and directions ``[V, 3, 3]`` from those of every ray ``[V, 6, h, w]``."""
    rays, weights = of_rays.contiguous(), to_image.contiguous()
    views, height, width = weights.shape
    blocks = ceil(height * width / _RAYS_A_BLOCK)
    sums = torch.empty((views, blocks * _THREADS[0] // 32, 6, 3), dtype=torch.float64, device=rays.device)
    run(
        "cameras", "rays_to_cameras", (blocks, 6, views), _THREADS, rays, weights, height * width, width, _RAYS_A_BLOCK,
        sums,
    )  # fmt: skip
    total = sums.sum(1)
    return total[:, :3, 2], total[:, 3:]


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
    table = _records(weights.shape, "ray", weights)
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


def _blocks(threads: int, block: tuple[int] = _THREADS) -> tuple[int]:
    return (ceil(threads / block[0]),)


def _pixel_grid(images: Tensor) -> tuple[int, int, int]:
    views, height, width = images.shape
    return ceil(width / _PIXELS[0]), ceil(height / _PIXELS[1]), views


def _slots(shape: Sequence[int], edges: Sequence[int]) -> list[int]:
    """How many tiles or bricks lie along each axis."""
    return [ceil(n / edge) for n, edge in zip(shape, edges, strict=True)]


def _bits(count: int, gaussians: int, shape: Sequence[int], edges: Sequence[int], like: Tensor) -> Tensor:
    """Room for a bit a Gaussian and slot of each axis."""
    words = ceil(gaussians / 32)
    return torch.empty((count, sum(_slots(shape, edges)), words), dtype=torch.int32, device=like.device)


def _records(shape: Sequence[int], what: str, like: Tensor) -> Tensor:
    """Room for structs of the sources."""
    return torch.empty((*shape, _RECORD_BYTES[what]), dtype=torch.uint8, device=like.device)
