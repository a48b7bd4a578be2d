"""Slow, obvious twins of the kernels in plain PyTorch: any float type, any device, gradients by autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import roma
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

# Pixels or voxels. Gaussians thinner than this are left out: products of their coefficients leave float32.
THINNEST = 1e-9


def _directions(directions: Tensor, height: int, width: int) -> Tensor:
    """Directions of all pixels, ``[V, h, w, 3]``."""
    kind: dict[str, Any] = {"dtype": directions.dtype, "device": directions.device}
    v, u = torch.meshgrid(torch.arange(height, **kind), torch.arange(width, **kind), indexing="ij")
    return torch.einsum("vij,hwj->vhwi", directions, torch.stack([u, v, torch.ones_like(u)], -1))


def _entry_and_exit(sources: Tensor, slopes: Tensor, low: float, high: Tensor) -> tuple[Tensor, Tensor]:
    """Depths where rays ``[V, h, w, 3]`` enter and leave a box; equal where they miss it."""
    safe = torch.where(slopes.abs() < 1e-12, torch.full_like(slopes, 1e-12), slopes)
    origin = sources[:, None, None]
    a, b = (low - origin) / safe, (high - origin) / safe
    start = torch.minimum(a, b).amax(-1).clamp_min(0)
    return start, torch.maximum(torch.maximum(a, b).amin(-1), start)


def trilinear_reference(
    volume: Float[Tensor, "D H W"],
    sources: Float[Tensor, "V 3"],
    directions: Float[Tensor, "V 3 3"],
    mm_per_depth: Float[Tensor, "V h w"],
    step_mm: float,
) -> Float[Tensor, "V h w"]:
    """Integral over depth of the interpolated volume; see `radgs.kernels.line_integrals.depth_integrals`."""
    slopes = _directions(directions, *mm_per_depth.shape[1:])
    size = torch.tensor(volume.shape[::-1], dtype=sources.dtype, device=sources.device)
    step = step_mm / mm_per_depth.detach()
    with torch.no_grad():
        start, end = _entry_and_exit(sources, slopes, -1.0, size)
        count = int(((end - start) / step).max().ceil())
    total = torch.zeros(mm_per_depth.shape, dtype=volume.dtype, device=volume.device)
    for k in range(count):
        t = start + (k + 0.5) * step
        position = sources[:, None, None] + t[..., None] * slopes
        # Without align_corners the normalisation does not divide by size - 1, which one slice would make zero.
        scaled = (2 * position + 1) / size - 1
        sampled = grid_sample(
            volume[None, None], scaled[None].to(volume.dtype), padding_mode="zeros", align_corners=False
        )
        total = total + sampled[0, 0] * (step * (t < end)).to(volume.dtype)
    return total


def siddon_reference(
    volume: Float[Tensor, "D H W"],
    sources: Float[Tensor, "V 3"],
    directions: Float[Tensor, "V 3 3"],
    size: Sequence[int],
) -> Float[Tensor, "V h w"]:
    """Integral over depth of the volume of boxes: all plane crossings of a ray, sorted."""
    slopes = _directions(directions, *size)
    shape = torch.tensor(volume.shape[::-1], dtype=sources.dtype, device=sources.device)
    start, end = _entry_and_exit(sources, slopes, -0.5, shape - 0.5)
    safe = torch.where(slopes.abs() < 1e-12, torch.full_like(slopes, 1e-12), slopes)
    crossings = []
    for axis in range(3):
        planes = torch.arange(int(shape[axis]) + 1, dtype=sources.dtype, device=sources.device) - 0.5
        crossings.append((planes - sources[:, None, None, axis, None]) / safe[..., axis, None])
    t = torch.cat(crossings, -1)
    t = torch.minimum(torch.maximum(t, start[..., None]), end[..., None]).sort(-1).values
    middle = (t[..., 1:] + t[..., :-1]) / 2
    position = sources[:, None, None, None] + middle[..., None] * slopes[..., None, :]
    voxel = (position.detach() + 0.5).floor().long()
    x, y, z = (voxel[..., axis].clamp(0, volume.shape[2 - axis] - 1) for axis in range(3))
    return (volume[z, y, x] * t.diff(dim=-1).to(volume.dtype)).sum(-1)


def project_reference(
    gaussians: Sequence[Tensor], cameras: Float[Tensor, "B V 24"], cutoffs: Float[Tensor, "B N"], cone: bool
) -> tuple[Float[Tensor, "B V N 11"], Float[Tensor, "B V N"]]:
    """Coefficients of each Gaussian's image and its cut-off there, 0 where the image is not bounded.

    ``gaussians`` are means, scales, quaternions and densities; for the rest see `radgs.kernels.numba.project`.
    """
    means, scales, quaternions, densities = gaussians
    dtype, pose = means.dtype, cameras[..., :12].unflatten(-1, (3, 4))
    k, k_inverse = cameras[..., 12:18].unflatten(-1, (2, 3)), cameras[..., 18:].unflatten(-1, (2, 3)).to(dtype)
    # Centres in float64: the source is a metre away from what is a tenth of a millimetre wide.
    centre = means.double().unsqueeze(-3) @ pose[..., :3].mT + pose[..., None, :, 3]
    turned = roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(quaternions / quaternions.norm(dim=-1, keepdim=True)))
    # Rows: the Gaussian's own axes seen from the camera; one large product is faster than many of 3x3.
    axes = (turned.mT.flatten(-3, -2).unsqueeze(1) @ pose[..., :3].mT.to(dtype)).unflatten(-2, (-1, 3))
    scales, ends = scales.unsqueeze(1), cutoffs.unsqueeze(1).expand(centre.shape[:-1])
    drawn = _wider_than_nothing(scales, k, centre, cone)
    if cone:
        depth_sigma = (axes[..., 2] * scales).square().sum(-1).sqrt().detach()
        drawn = drawn & (centre[..., 2].detach() > ends * depth_sigma)
    ends = torch.where(drawn, ends, 0)
    # Stand-ins keep the numbers, and so the gradients, of those left out finite.
    centre = torch.where(drawn[..., None], centre, torch.tensor([0.0, 0.0, 1.0], dtype=centre.dtype).to(centre))
    scales = torch.where(drawn[..., None], scales, 1)
    if cone:
        depth = centre[..., 2:]
        ray = point = centre / depth
    else:
        depth = torch.ones_like(centre[..., 2:])
        ray, point = torch.cat([torch.zeros_like(centre[..., :2]), depth], -1), torch.cat([centre[..., :2], depth], -1)
    whitening = axes / scales[..., None]
    w = (whitening * ray.to(dtype)[..., None, :]).sum(-1)
    b1, b2 = (whitening.flatten(-3, -2) @ k_inverse.mT).unflatten(-2, (-1, 3)).unbind(-1)
    inverse = 1 / w.square().sum(-1)
    c1, c2 = torch.linalg.cross(w, b1), torch.linalg.cross(w, b2)
    of_ray = [
        *(inverse * (w * x).sum(-1) for x in (b1, b2)),
        *(inverse * (x * y).sum(-1) for x, y in ((b1, b1), (b1, b2), (b2, b2))),
    ]
    columns = [
        *(point @ k.mT).to(dtype).unbind(-1),
        densities.unsqueeze(1) * (2 * math.pi * inverse).sqrt(),
        *(depth[..., 0].to(dtype).square() * inverse * (x * y).sum(-1) for x, y in ((c1, c1), (c1, c2), (c2, c2))),
        *(of_ray if cone else [torch.zeros_like(inverse)] * len(of_ray)),
    ]
    return torch.stack(columns, -1), ends


@torch.no_grad()
def _wider_than_nothing(scales: Tensor, k: Tensor, centre: Tensor, cone: bool) -> Tensor:
    """Which Gaussians are not so thin on the image that float32 cannot hold their coefficients, ``[B, V, N]``."""
    pixels_per_mm = k[..., :2].abs().amax((-1, -2))[..., None]
    depth = centre[..., 2].abs() if cone else 1.0
    return pixels_per_mm * scales.amin(-1) > THINNEST * depth


# Gaussians that the dense sums below hold at a time.
_CHUNK = 64


def rasterize_reference(
    coefficients: Float[Tensor, "I N 11"], cutoffs: Float[Tensor, "I N"], size: Sequence[int]
) -> Float[Tensor, "I h w"]:
    """Every Gaussian at every pixel, without footprints; see `radgs.kernels.numba.rasterize`."""
    kind: dict[str, Any] = {"dtype": coefficients.dtype, "device": coefficients.device}
    v, u = torch.meshgrid(torch.arange(size[0], **kind), torch.arange(size[1], **kind), indexing="ij")
    images = torch.zeros(len(coefficients), *size, **kind)
    for first in range(0, coefficients.shape[1], _CHUNK):
        part = coefficients[:, first : first + _CHUNK, :, None, None].unbind(2)
        u0, v0, a, gxx, gxy, gyy, gx, gy, qxx, qxy, qyy = part
        dx, dy = u - u0, v - v0
        n = gxx * dx * dx + 2 * gxy * dx * dy + gyy * dy * dy
        q = 1 + 2 * (gx * dx + gy * dy) + qxx * dx * dx + 2 * qxy * dx * dy + qyy * dy * dy
        tau = cutoffs[:, first : first + _CHUNK, None, None]
        drawn = (tau > 0) & (n <= tau**2 * q)
        images = images + torch.where(drawn, a * q.rsqrt() * torch.exp(-n / (2 * q)), 0).sum(1)
    return images


def voxelize_reference(
    coefficients: Float[Tensor, "B N 10"], cutoffs: Float[Tensor, "B N"], shape: Sequence[int]
) -> Float[Tensor, "B d h w"]:
    """Every Gaussian at every voxel; see `radgs.kernels.numba.voxelize`."""
    kind: dict[str, Any] = {"dtype": coefficients.dtype, "device": coefficients.device}
    z, y, x = torch.meshgrid(*(torch.arange(n, **kind) for n in shape), indexing="ij")
    volumes = torch.zeros(len(coefficients), *shape, **kind)
    for first in range(0, coefficients.shape[1], _CHUNK):
        part = coefficients[:, first : first + _CHUNK, :, None, None, None].unbind(2)
        px, py, pz, density, sxx, sxy, sxz, syy, syz, szz = part
        dx, dy, dz = x - px, y - py, z - pz
        square = sxx * dx * dx + syy * dy * dy + szz * dz * dz
        square = square + 2 * (sxy * dx * dy + sxz * dx * dz + syz * dy * dz)
        tau = cutoffs[:, first : first + _CHUNK, None, None, None]
        drawn = (tau > 0) & (square <= tau**2)
        volumes = volumes + torch.where(drawn, density * torch.exp(-square / 2), 0).sum(1)
    return volumes
