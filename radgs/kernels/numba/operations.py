"""What the Numba backend does with tensors on the CPU; `radgs.kernels.cuda.operations` does the same on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from radgs.kernels.numba import correlations as correlation
from radgs.kernels.numba import fields, filters, layers, moving, rasterize, siddon, sliding, trilinear, voxelize
from radgs.kernels.numba import project as projection
from radgs.kernels.numba.lanes import zeros
from radgs.kernels.numba.launch import launch
from radgs.kernels.numba.support import BLOCK, BLOCK_Z, occupied, support
from radgs.kernels.sliding import SlidPictures

# Parts a thread gets when one image or volume is shared between threads.
_PARTS_PER_THREAD = 4
# Slabs of the adjoint: a fixed number whatever the threads, for it decides how rays are rounded.
_SLABS = 16


def project(
    gaussians: Sequence[Tensor], cameras: Tensor, cutoffs: Tensor, size: tuple[int, int], cone: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients ``[B, V, N, 11]``, cut-offs ``[B, V, N]`` and footprints for `rasterize_forward`.

    ``gaussians`` are means, scales, quaternions and densities.
    """
    arrays, c = [_array(t) for t in gaussians], _array(cameras)
    shape = (*c.shape[:2], arrays[0].shape[1])
    coefficients, ends = np.empty((*shape, 11), arrays[0].dtype), np.empty(shape, arrays[0].dtype)
    rows = np.empty((*shape, 2), np.int32)
    launch(projection.project, *arrays, c, _array(cutoffs), cone, size[0], coefficients, ends, rows)
    return torch.from_numpy(coefficients), torch.from_numpy(ends), torch.from_numpy(rows)


def project_adjoint(
    gaussians: Sequence[Tensor],
    cameras: Tensor,
    ends: Tensor,
    cone: bool,
    to_coefficients: Tensor,
    to_cameras_wanted: bool,
) -> list[Tensor | None]:
    """Gradients to means, scales, quaternions, densities and, if wanted, cameras."""
    arrays, c = [_array(t) for t in gaussians], _array(cameras)
    out = [np.empty_like(a) for a in arrays]
    chunks = -(-arrays[0].shape[1] // projection.CHUNK)
    to_cameras = np.empty((c.shape[0], chunks, *c.shape[1:]))
    launch(projection.project_adjoint, *arrays, c, _array(ends), cone, _array(to_coefficients), *out, to_cameras)
    return [*(torch.from_numpy(a) for a in out), torch.from_numpy(to_cameras.sum(1)) if to_cameras_wanted else None]


def footprints(coefficients: Tensor, cutoffs: Tensor, size: tuple[int, int]) -> Tensor:
    """What `rasterize_forward` wants to know of every Gaussian beside its coefficients."""
    rows = np.empty((*cutoffs.shape, 2), np.int32)
    launch(rasterize.footprint_rows, _array(coefficients), _array(cutoffs), size[0], rows)
    return torch.from_numpy(rows)


def rasterize_forward(coefficients: Tensor, cutoffs: Tensor, footprints: Tensor, size: tuple[int, int]) -> Tensor:
    """Images ``[I, h, w]``."""
    images = zeros((len(coefficients), *size))
    parts = _parts(len(images), size[0])
    arrays = _array(coefficients), _array(cutoffs), _array(footprints)
    launch(rasterize.rasterize_forward, *arrays, images, size[1], parts)
    return torch.from_numpy(images[..., : size[1]]).contiguous()


def rasterize_backward(coefficients: Tensor, cutoffs: Tensor, to_images: Tensor) -> Tensor:
    """Gradient to the coefficients."""
    c = _array(coefficients)
    out = np.empty_like(c)
    launch(rasterize.rasterize_backward, c, _array(cutoffs), _array(to_images), out)
    return torch.from_numpy(out)


def voxelize_forward(coefficients: Tensor, cutoffs: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Volumes ``[B, d, h, w]``."""
    volumes = zeros((len(coefficients), *shape))
    parts = _parts(len(volumes), shape[0])
    launch(voxelize.voxelize_forward, _array(coefficients), _array(cutoffs), volumes, shape[2], parts)
    return torch.from_numpy(volumes[..., : shape[2]]).contiguous()


def voxelize_backward(coefficients: Tensor, cutoffs: Tensor, to_volumes: Tensor) -> Tensor:
    """Gradient to the coefficients."""
    c = _array(coefficients)
    out = np.empty_like(c)
    launch(voxelize.voxelize_backward, c, _array(cutoffs), _array(to_volumes), out)
    return torch.from_numpy(out)


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
    values, s, d, mm = _array(volume), _array(sources), _array(directions), _array(mm_per_depth)
    views, height, width = mm.shape
    image = np.empty((views, height, width), np.float32)
    gradient = np.empty((views, 6, height, width) if to_rays else (1, 6, 1, 1), np.float32)
    box = np.empty((2, 3), np.int64)
    support(values, box)
    if not box[1].any():
        image[:], gradient[:] = 0, 0
    elif method == "siddon":
        launch(siddon.siddon_forward, values, box, s, d, image, gradient, to_rays)
    else:
        launch(trilinear.trilinear_forward, values, box, s, d, mm, step_mm, image, gradient, to_rays)
    return torch.from_numpy(image), torch.from_numpy(gradient) if to_rays else None


def integrals_in_layers(
    volume: Tensor,
    sources: Tensor,
    directions: Tensor,
    rise: Tensor,
    heights: Tensor,
    mm_per_depth: Tensor,
    step_mm: float,
    ends: tuple[float, float],
    count: int,
    wanted: Tensor,
) -> Tensor:
    """Integrals over depth ``[layers, h, w]``."""
    image = np.empty((count, *mm_per_depth.shape), np.float32)
    motions, mm = (_array(sources), _array(directions)), _array(mm_per_depth)
    bend = _array(rise), _array(heights)
    launch(layers.bent_layers, _array(volume), *motions, *bend, mm, step_mm, ends, _array(wanted), image)
    return torch.from_numpy(image)


def gradients(images: Tensor, smooth: np.ndarray, steep: np.ndarray) -> Tensor:
    """Derivatives ``[n, 2, h, w]``."""
    out = np.empty((len(images), 2, *images.shape[1:]), np.float32)
    launch(filters.slopes, _array(images), smooth, steep, out)
    return torch.from_numpy(out)


def slide(pictures: SlidPictures, images: Tensor, measured: Tensor, rim: int, least: float) -> Tensor:
    """Correlations ``[J, n, n]``."""
    places = torch.cat([pictures.image[:, None], pictures.corner, pictures.radius[:, None]], dim=1)
    side = 2 * int(pictures.radius.max()) + 1 if len(places) else 1
    out = np.empty((len(places), side, side), np.float32)
    arrays = _array(pictures.values), _array(pictures.shown), _array(places)
    launch(sliding.slide, *arrays, rim, _array(images), _array(measured), least, out)
    return torch.from_numpy(out)


def along_axes(slid: Tensor, owners: Tensor, steps: Tensor, values: Tensor, count: int) -> Tensor:
    """Sums over views ``[L, n, n, n]``."""
    out = np.empty((count, *[len(values)] * 3))
    launch(sliding.along_axes, _array(slid), _array(owners), _array(steps), _array(values), out)
    return torch.from_numpy(out)


def pack(volumes: Sequence[Tensor]) -> tuple[np.ndarray, ...]:
    """Values, where each volume's begin, shapes, supports, occupied blocks, where each volume's begin."""
    arrays = [_array(v) for v in volumes]
    boxes = np.empty((len(arrays), 2, 3), np.int64)
    for array, box in zip(arrays, boxes, strict=True):
        support(array, box)
    sides = BLOCK_Z, BLOCK, BLOCK
    blocks = [np.empty([-(-n // s) for n, s in zip(a.shape, sides, strict=True)], np.uint8) for a in arrays]
    for array, of_array in zip(arrays, blocks, strict=True):
        occupied(array, of_array)
    values, firsts = _in_a_row(arrays)
    return values, firsts, np.array([a.shape for a in arrays]), boxes, *_in_a_row(blocks)


def _in_a_row(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All values, and where each array's begin."""
    return np.concatenate([a.ravel() for a in arrays]), np.cumsum([0, *(a.size for a in arrays)])[:-1]


def moved_line_integrals(
    packed: tuple[np.ndarray, ...],
    owner: Tensor,
    rays: Sequence[Tensor],
    drawn: Sequence[tuple[int, int, int, int]],
    windows: Sequence[tuple[int, int, int, int]],
    step_mm: float,
    motion: bool,
) -> list[Tensor]:
    """Images ``[7 or 1, h, w]``, window by window."""
    shapes = [(7 if motion else 1, y1 - y0, x1 - x0) for y0, y1, x0, x1 in windows]
    ends = np.cumsum([0, *(c * h * w for c, h, w in shapes)])
    heights = [y1 - y0 for y0, y1, _, _ in windows]
    rows = np.stack([np.repeat(np.arange(len(windows)), heights), np.concatenate([np.arange(*w[:2]) for w in windows])])
    out = np.empty(ends[-1], np.float32)
    places = np.array(drawn, np.int64), np.array(windows, np.int64), ends[:-1]
    arrays = tuple(_array(r) for r in rays)
    launch(moving.draw, packed, _array(owner), arrays, places, rows.T, step_mm, motion, out)
    return [torch.from_numpy(out[a:b].reshape(s)) for a, b, s in zip(ends[:-1], ends[1:], shapes, strict=True)]


def correlations(
    drawn: Sequence[Tensor],
    windows: Sequence[tuple[int, int, int, int]],
    seen: Tensor,
    pixels: Sequence[Tensor],
    ends: np.ndarray,
) -> tuple[Tensor, ...]:
    """Values, gradients, Hessians, own Jacobians and residuals of `radgs.kernels.Correlations`."""
    parts, count = len(drawn), int(ends[-1])
    starts = np.cumsum([0, *(image.numel() for image in drawn)])[:-1]
    value, gradient, hessian = (np.zeros((parts, 2, *(6 * parts,) * n)) for n in range(3))
    jacobian, residual = np.empty((2, 6, count), np.float32), np.empty((2, count), np.float32)
    if count:
        flat, where = torch.cat([image.flatten() for image in drawn]), torch.cat(list(pixels))
        boxes = np.array(windows, np.int64)
        out = value, gradient, hessian, jacobian, residual
        launch(correlation.correlate, _array(flat), starts, boxes, _array(seen), _array(where), ends, *out)
    return tuple(torch.from_numpy(a) for a in (value, gradient, hessian, jacobian, residual))


def field_equations(
    derivatives: Tensor, residual: Tensor, weights: Tensor, rows: Tensor, columns: Tensor, nodes: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Curvature ``[C, ny, nx, C, ny, nx]`` and pull ``[C, ny, nx]``."""
    places = _array(rows), _array(columns)
    ends = tuple(np.searchsorted(at, np.arange(n)) for at, n in zip(places, nodes, strict=True))
    count = len(derivatives)
    cells = np.empty((nodes[0] - 1, nodes[1] - 1, 4 * count + 1, 4 * count + 1))
    launch(fields.cells, _array(derivatives), _array(residual), _array(weights), places, ends, cells)
    curvature, pull = np.zeros((count, *nodes, count, *nodes)), np.zeros((count, *nodes))
    fields.add_cells(cells, curvature, pull)
    return torch.from_numpy(curvature), torch.from_numpy(pull)


def rays_to_cameras(of_rays: Tensor, to_image: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to sources ``[V, 3]`` and directions ``[V, 3, 3]`` from those of every ray ``[V, 6, h, w]``."""
    views, height, width = to_image.shape
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (height, width))
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([u.ravel(), v.ravel(), torch.ones(height * width, dtype=torch.float64)], 1)
    sums = (of_rays * to_image[:, None]).double().reshape(views, 6, -1) @ pixels
    return sums[:, :3, 2], sums[:, 3:]


def integrals_adjoint(
    to_image: Tensor,
    sources: Tensor,
    directions: Tensor,
    mm_per_depth: Tensor,
    method: str,
    step_mm: float,
    shape: tuple[int, int, int],
) -> Tensor:
    """Gradient to the volume."""
    weights, s, d = _array(to_image), _array(sources), _array(directions)
    out = np.zeros(shape, np.float32)
    slabs = min(shape[0], _SLABS)
    if method == "siddon":
        launch(siddon.siddon_adjoint, weights, s, d, out, slabs)
    else:
        launch(trilinear.trilinear_adjoint, weights, s, d, _array(mm_per_depth), step_mm, out, slabs)
    return torch.from_numpy(out)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _parts(jobs: int, rows: int) -> int:
    """Into how many parts each of ``jobs`` images or volumes of ``rows`` rows is cut to keep all threads busy."""
    return max(1, min(rows, -(-_PARTS_PER_THREAD * numba.get_num_threads() // max(jobs, 1))))
