"""Radiative Gaussians as a volume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from radgs.errors import GeometryError
from radgs.gaussians.cutoff import cutoffs
from radgs.gaussians.gaussians import RadiativeGaussians, check_values, rotations
from radgs.kernels import THINNEST, Backend, voxelize_coefficients


@dataclass(frozen=True)
class Grid:
    """Cubic voxels parallel to the axes of the Gaussians' frame.

    Attributes:
        shape: D, H, W.
        spacing_mm: edge of a voxel.
        origin: centre of voxel (0, 0, 0) as x, y, z in mm.

    Raises:
        GeometryError: no voxels, or a spacing or origin that is not finite.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    origin: tuple[float, float, float]

    def __post_init__(self) -> None:
        whole = len(self.shape) == 3 and all(isinstance(n, Integral) and n >= 1 for n in self.shape)
        finite = len(self.origin) == 3 and all(math.isfinite(x) for x in (self.spacing_mm, *self.origin))
        if not whole or not finite or self.spacing_mm <= 0:
            raise GeometryError(
                f"a grid has three positive sizes, a positive spacing and a finite origin, got {self.shape}, "
                f"{self.spacing_mm}, {self.origin}"
            )

    @classmethod
    def centred(cls, size_mm: float, voxels: int) -> Grid:
        """A cube of ``voxels`` cubed that spans ``size_mm`` about the frame's origin.

        Raises:
            GeometryError: not at least one voxel, or a size that is not positive.
        """
        if voxels < 1:
            raise GeometryError(f"a grid has at least one voxel an edge, got {voxels}")
        spacing = size_mm / voxels
        first = -(voxels - 1) / 2 * spacing
        return cls((voxels, voxels, voxels), spacing, (first, first, first))


def voxelize(
    gaussians: RadiativeGaussians,
    grid: Grid,
    *,
    cutoff: float = 4.0,
    max_error: float | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "*batch D H W"]:
    """The attenuation at voxel centres, differentiable in the Gaussians.

    A Gaussian thinner than 1e-9 voxels is left out, with gradients of zero.

    Args:
        gaussians: float32 (``reference`` also takes float64), in the grid's frame.
        grid: where.
        cutoff: a Gaussian is cut at this many standard deviations.
        max_error: 1/mm; instead of ``cutoff``, each Gaussian is cut where it adds less than this.
        backend: ``numba`` (CPU), ``cuda`` (NVIDIA GPU), ``reference`` (PyTorch) or ``auto``.

    Returns:
        1/mm, ``[*batch, D, H, W]`` as (z, y, x), of the Gaussians' type.

    Raises:
        RadgsError: Gaussians with impossible values, or a cut-off or backend that cannot be used.
    """
    check_values(gaussians)
    ends = cutoffs(gaussians.densities, cutoff, max_error).reshape(_scenes(gaussians), gaussians.count)
    ends = ends.masked_fill((gaussians.scales.detach().amin(-1) < THINNEST * grid.spacing_mm).reshape(ends.shape), 0)
    volumes = voxelize_coefficients(voxel_coefficients(gaussians, grid), ends, grid.shape, backend)
    return volumes.reshape(*gaussians.batch_shape, *grid.shape)


def voxel_coefficients(gaussians: RadiativeGaussians, grid: Grid) -> Float[Tensor, "B N 10"]:
    """The numbers that describe each Gaussian in voxels, batch flattened; see `radgs.kernels.numba.voxelize`."""
    origin = torch.tensor(grid.origin, dtype=torch.float64, device=gaussians.means.device)
    centres = ((gaussians.means.double() - origin) / grid.spacing_mm).to(gaussians.means.dtype)
    scales = gaussians.scales.clamp_min(THINNEST * grid.spacing_mm)
    whitening = rotations(gaussians).mT * (grid.spacing_mm / scales)[..., None]
    x, y, z = whitening.unbind(-1)
    products = ((x, x), (x, y), (x, z), (y, y), (y, z), (z, z))
    columns = [*centres.unbind(-1), gaussians.densities, *((a * b).sum(-1) for a, b in products)]
    return torch.stack(columns, -1).reshape(_scenes(gaussians), gaussians.count, 10)


def _scenes(gaussians: RadiativeGaussians) -> int:
    return math.prod(gaussians.batch_shape)
