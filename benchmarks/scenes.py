"""What the benchmarks draw: Gaussians all over a cube, cameras around it, a phantom."""

from __future__ import annotations

import torch
from torch import Tensor

from radgs.gaussians import RadiativeGaussians
from radgs.gaussians.rasterize import pack_cameras
from radgs.geometry import rigid_motion
from radgs.kernels.reference import project_reference

COUNT, IMAGE, VOXELS, CUTOFF = 10_000, 256, 128, 4.0
HALF_MM, SCALE_MM, SPREAD = 120.0, 4.0, 0.5
SOURCE_MM, DETECTOR_MM, DETECTOR_WIDTH_MM = 1000.0, 1500.0, 450.0


def scene(count: int, device: str = "cpu", seed: int = 0) -> RadiativeGaussians:
    """Gaussians of 4 mm, give or take half an order of e, all over a cube of 240 mm."""
    g = torch.Generator().manual_seed(seed)
    parts = (
        (torch.rand(count, 3, generator=g) * 2 - 1) * HALF_MM,
        SCALE_MM * torch.exp(SPREAD * torch.randn(count, 3, generator=g)),
        torch.randn(count, 4, generator=g),
        0.02 * torch.rand(count, generator=g),
    )
    return RadiativeGaussians(*(p.to(device) for p in parts))


def cameras(size: int, views: int = 2) -> tuple[Tensor, Tensor]:
    """K and camera_from_frame of views at right angles."""
    f, c = DETECTOR_MM / (DETECTOR_WIDTH_MM / size), (size - 1) / 2
    k = torch.tensor([[f, 0, c], [0, f, c], [0, 0, 1]], dtype=torch.float64).expand(views, 3, 3).contiguous()
    angle = torch.arange(views, dtype=torch.float64)[:, None] * torch.pi / 2 + 0.3
    turn = angle * torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    shift = torch.tensor([[0, 0, SOURCE_MM]], dtype=torch.float64).expand(views, 3)
    return k, rigid_motion(turn, shift, torch.zeros(3, dtype=torch.float64))


def coefficients(gaussians: RadiativeGaussians, k: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Of each Gaussian in each view, and their cut-offs, by PyTorch: what rasterizers alone are compared on."""
    parts = [t[None] for t in (gaussians.means, gaussians.scales, gaussians.quaternions, gaussians.densities)]
    cameras = pack_cameras(k, torch.linalg.inv(k), pose)[None]
    found, ends = project_reference(parts, cameras, torch.full_like(parts[3], CUTOFF), cone=True)
    return found[0], ends[0]


def leaves(gaussians: RadiativeGaussians) -> list[Tensor]:
    """Its tensors as leaves that want gradients."""
    names = ("means", "scales", "quaternions", "densities")
    return [getattr(gaussians, name).clone().requires_grad_() for name in names]


def phantom(voxels: int) -> Tensor:
    """A smooth body with a denser ball off its centre, 1/mm."""
    axis = torch.linspace(-1, 1, voxels)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    body = 0.02 * ((x / 0.9) ** 2 + (y / 0.7) ** 2 + (z / 0.95) ** 2 < 1)
    return (body + 0.02 * ((x - 0.2) ** 2 + y**2 + (z + 0.3) ** 2 < 0.06)).float()


def vertebra(voxels: int) -> Tensor:
    """A vertebra-like excess in a cube of 112 mm, 1/mm: a body with a shell, an arch with processes, else 0."""
    axis = (torch.arange(voxels) + 0.5) / voxels * 112 - 56
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Tensor:
        return sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True))

    body = ((x / 23) ** 2 + ((y + 14) / 17) ** 2).clamp_min((z / 14).abs() ** 8)
    ring = ((x / 17) ** 2 + ((y - 12) / 14) ** 2) * (z.abs() < 9) + 9.0 * (z.abs() >= 9)
    arch = (ring < 1) & (ring > 0.45)
    processes = (ellipsoid((0, 32, -8), (4, 14, 8)) < 1) | (ellipsoid((0, 14, 4), (38, 6, 5)) < 1)
    canal = (x / 10) ** 2 + ((y - 11) / 9) ** 2 < 1
    inside = ((body < 1) | arch | processes) & ~canal
    return (0.006 * inside + 0.014 * (inside & ~((body < 0.85) & ~arch))).float()
