"""Few patients become many: other sizes, other shapes, other bone density, left and right exchanged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.anatomy import LEVELS
from radgs.config import VariationSettings
from radgs.images import Volume

_COARSE_MM = 6.0  # grid of the velocities, far below their smoothness
_SQUARINGS = 5
_BONE_HU = 60.0  # what lies above it in a vertebra is its mineral
_TEXTURE_MM = 6.0
_SLAB = 16  # slices
_MUSCLE_HU, _FAT_HU, _AIR_HU = 45.0, -100.0, -1000.0
_CORTEX_HU, _CORTEX_MM, _TRABECULAR_HU = 650.0, 1.6, 190.0


def varied(ct: Volume, labels: Volume, rng: np.random.Generator, settings: VariationSettings) -> tuple[Volume, Volume]:
    """Another patient, made of this one.

    In this order: mirrored left to right (every second time), bent by a smooth diffeomorphism (a stationary field of
    velocities, integrated by scaling and squaring; Arsigny et al. 2006), scaled along the array's axes, the vertebrae's
    mineral made denser or thinner.

    Args:
        ct: HU.
        labels: VerSe numbers on the same grid.
        rng: source of randomness.
        settings: how much of each.

    Returns:
        HU and labels on one grid; the grid's spacing carries the scaling, so that nothing is resampled for it.
    """
    values, numbers = ct.array.astype(np.float32), labels.array.astype(np.float32)
    if settings.mirror and rng.random() < 0.5:
        axis = 2 - int(np.abs(ct.lps_from_index[0, :3]).argmax())
        values, numbers = np.flip(values, axis), np.flip(numbers, axis)
    shift = displacement(values.shape, ct.spacing, rng, settings)
    values = _sampled(np.ascontiguousarray(values), shift, ct.spacing, "bilinear")
    numbers = _sampled(np.ascontiguousarray(numbers), shift, ct.spacing, "nearest")
    names = numbers.round().astype(np.uint8)
    values = _denser(values, names, ct.spacing, rng, settings)
    growth = np.exp(rng.normal(0, settings.growth) + rng.normal(0, settings.growth / 2, 3))
    affine = ct.lps_from_index @ np.diag([*growth, 1.0])
    return Volume(values, affine), Volume(names, affine)


def displacement(
    shape: tuple[int, ...], spacing: NDArray[np.float64], rng: np.random.Generator, settings: VariationSettings
) -> Float[Tensor, "3 d h w"]:
    """A smooth, invertible displacement (x, y, z; mm) on a coarse grid over a volume of ``shape`` and ``spacing``.

    The velocities are white noise smoothed over ``warp_length_mm``, with a root mean square of ``warp_mm`` an axis.
    """
    from monai.networks.blocks.warp import DVF2DDF  # takes seconds to import

    extent = np.array(shape) * spacing[::-1]
    coarse = np.maximum(np.ceil(extent / _COARSE_MM).astype(int), 4)
    step = extent / coarse
    noise = rng.normal(size=(3, *coarse))
    smooth = np.stack([ndimage.gaussian_filter(one, settings.warp_length_mm / step) for one in noise])
    velocity = smooth * settings.warp_mm / np.sqrt((smooth**2).mean(axis=(1, 2, 3), keepdims=True))
    cells = torch.from_numpy(step).float().view(3, 1, 1, 1)  # z, y, x, the order MONAI wants
    moved = DVF2DDF(_SQUARINGS, padding_mode="border")((torch.from_numpy(velocity).float() / cells)[None])[0]
    return (moved * cells).flip(0)


def _sampled(
    values: NDArray[np.float32], shift: Float[Tensor, "3 d h w"], spacing: NDArray[np.float64], mode: str
) -> NDArray[np.float32]:
    """The values where the displacement points to, slab by slab: a field for a whole CT would fill the memory."""
    source, (d, h, w) = torch.from_numpy(values)[None, None], values.shape
    extent = torch.tensor([w, h, d]) * torch.from_numpy(spacing)
    own = [(2 * torch.arange(n) + 1) / n - 1 for n in (w, h, d)]
    out = torch.empty_like(source)
    for first in range(0, d, _SLAB):
        z = own[2][first : first + _SLAB]
        where = torch.stack([*torch.meshgrid(z, own[1], own[0], indexing="ij")][::-1], -1)
        there = F.grid_sample(shift[None], where[None], align_corners=False, padding_mode="border")[0]
        grid = where + 2 * there.permute(1, 2, 3, 0) / extent.float()
        out[0, 0, first : first + _SLAB] = F.grid_sample(
            source, grid[None], mode=mode, align_corners=False, padding_mode="border"
        )[0, 0]
    return out[0, 0].numpy()


def _denser(
    values: NDArray[np.float32],
    labels: NDArray[np.uint8],
    spacing: NDArray[np.float64],
    rng: np.random.Generator,
    settings: VariationSettings,
) -> NDArray[np.float32]:
    """Mineral of the vertebrae times one factor, and a texture."""
    low, high = settings.mineral
    gain = np.exp(rng.uniform(np.log(low), np.log(high)))
    noise = ndimage.gaussian_filter(rng.normal(size=values.shape).astype(np.float32), _TEXTURE_MM / spacing[::-1])
    gains = gain * (1 + settings.texture * noise / max(float(noise.std()), 1e-6))
    bone = (labels > 0) & (values > _BONE_HU)
    return np.where(bone, _BONE_HU + (values - _BONE_HU) * np.maximum(gains, 0), values).astype(np.float32)


def filled(labels: Volume, rng: np.random.Generator) -> Volume:
    """A CT made up around a label map: HU of cortex, trabecular bone, muscle, a rim of fat, and air.

    Each vertebra has a shell of cortex and a textured inside; the body is an elliptic cylinder about the volume's
    middle. It has no ribs and no organs: what depends on them cannot be learned from it.
    """
    array, spacing = labels.array.astype(np.uint8), labels.spacing
    noise = ndimage.gaussian_filter(rng.normal(size=array.shape).astype(np.float32), _TEXTURE_MM / 2 / spacing[::-1])
    noise /= max(float(noise.std()), 1e-6)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in array.shape), indexing="ij", sparse=True)
    radius = np.sqrt(x**2 + y**2) + 0 * z
    hu = np.where(radius < 0.85, _MUSCLE_HU + 10 * noise, np.where(radius < 0.97, _FAT_HU, _AIR_HU)).astype(np.float32)
    for number in np.unique(array[array > 0]):
        (box,) = ndimage.find_objects((array == number).astype(np.uint8))
        inside = np.pad(array[box] == number, 1)
        depth = ndimage.distance_transform_edt(inside, sampling=spacing[::-1])[1:-1, 1:-1, 1:-1]
        bone = np.where(depth <= max(_CORTEX_MM, float(spacing.max())), _CORTEX_HU, _TRABECULAR_HU + 60 * noise[box])
        hu[box] = np.where(depth > 0, bone, hu[box])
    return labels.with_array(hu)


def without(ct: Volume, labels: Volume, levels: Sequence[str]) -> tuple[Volume, Volume]:
    """The same CT with muscle in the place of some vertebrae, so that nothing is learned of them."""
    gone = np.isin(labels.array, [LEVELS[level] for level in levels])
    wide = ndimage.binary_dilation(gone, iterations=2) & ((labels.array == 0) | gone)
    hu = ct.array.astype(np.float32)
    hu[wide & (hu > _MUSCLE_HU)] = _MUSCLE_HU
    return ct.with_array(hu), labels.with_array(np.where(gone, 0, labels.array).astype(np.uint8))
