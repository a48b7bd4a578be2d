"""Radiative Gaussians in vectorised PyTorch: footprints of similar size are drawn together as square patches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_SMALLEST = 8
_PIXELS_AT_ONCE = 4_000_000


def rasterize(coefficients: Tensor, size: tuple[int, int], cutoff: float) -> Tensor:
    """The images of ``coefficients [I, N, 11]`` (as `radgs.kernels`), gradients by autograd.

    Returns:
        ``[I, H, W]``.
    """
    height, width = size
    images = coefficients.new_zeros(len(coefficients) * height * width)
    for i, k, rows, columns, inside in _patches(coefficients.detach(), size, cutoff):
        n, q = _quadratics(coefficients[i, k], rows, columns)
        values = coefficients[i, k, 2][:, None, None] * torch.rsqrt(q) * torch.exp(-n / (2 * q))
        flat = (i[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
        images = images.index_add(0, flat[inside], values[inside])
    return images.view(len(coefficients), height, width)


def count_pairs(coefficients: Tensor, size: tuple[int, int], cutoff: float) -> int:
    """(Gaussian, pixel) pairs within the cut-off."""
    return sum(int(inside.sum()) for *_, inside in _patches(coefficients, size, cutoff))


def _patches(
    coefficients: Tensor, size: tuple[int, int], cutoff: float
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Images, Gaussians, rows, columns of patches of one size, and which of their pixels are drawn."""
    top, left, extent = _boxes(coefficients, cutoff)
    bucket = torch.full_like(extent, _SMALLEST)
    while (bucket < extent).any():
        bucket = torch.where(bucket < extent, bucket * 2, bucket)
    for side in bucket.unique().tolist():
        image, gaussian = torch.nonzero((bucket == side) & (extent > 0), as_tuple=True)
        steps = torch.arange(side)
        for part in torch.arange(len(image)).split(max(1, _PIXELS_AT_ONCE // side**2)):
            i, k = image[part], gaussian[part]
            rows, columns = top[i, k][:, None] + steps, left[i, k][:, None] + steps
            n, q = _quadratics(coefficients[i, k], rows, columns)
            within = ((rows >= 0) & (rows < size[0]))[:, :, None] & ((columns >= 0) & (columns < size[1]))[:, None]
            yield i, k, rows, columns, within & (n <= cutoff**2 * q)


def _quadratics(coefficients: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    c = coefficients[..., None, None].unbind(1)
    dx, dy = columns[:, None, :] - c[0], rows[:, :, None] - c[1]
    n = c[3] * dx * dx + 2 * c[4] * dx * dy + c[5] * dy * dy
    return n, 1 + 2 * (c[6] * dx + c[7] * dy) + c[8] * dx * dx + 2 * c[9] * dx * dy + c[10] * dy * dy


def _boxes(c: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """First row and column of each footprint, and the side of the square that holds it; 0: no footprint."""
    t2 = cutoff**2
    mx, mc, my = c[..., 3] - t2 * c[..., 8], c[..., 4] - t2 * c[..., 9], c[..., 5] - t2 * c[..., 10]
    determinant = mx * my - mc * mc
    x = t2 * (my * c[..., 6] - mc * c[..., 7]) / determinant
    y = t2 * (mx * c[..., 7] - mc * c[..., 6]) / determinant
    reach = t2 * (1 + c[..., 6] * x + c[..., 7] * y) / determinant
    half_x, half_y = (reach * my).clamp_min(0).sqrt(), (reach * mx).clamp_min(0).sqrt()
    left, right = (c[..., 0] + x - half_x).ceil().long(), (c[..., 0] + x + half_x).floor().long()
    top, bottom = (c[..., 1] + y - half_y).ceil().long(), (c[..., 1] + y + half_y).floor().long()
    extent = torch.maximum(right - left, bottom - top) + 1
    return top, left, torch.where((determinant > 0) & (mx > 0), extent.clamp_min(0), 0)
