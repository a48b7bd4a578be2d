"""More views to supervise a reconstruction with than the two it is made of: simulated pairs can offer any number."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.gaussians import Grid
from radgs.geometry import rigid_motion
from radgs.projection import project

_TILT = math.radians(15)


@torch.no_grad()
def extra_views(
    K: Float64[Tensor, "B V 3 3"],
    camera_from_crop: Float64[Tensor, "B V 4 4"],
    count: int,
) -> tuple[Float64[Tensor, "B E 3 3"], Float64[Tensor, "B E 4 4"]]:
    """Cameras like the first one, turned about the patient's long axis by any angle and tilted by up to 15 degrees.

    The crop's origin stays where the first window shows it.

    Args:
        K: of the windows.
        camera_from_crop: mm.
        count: E, how many.
    """
    batch = len(K)
    turn, tilt = torch.zeros(2, batch * count, 3, dtype=K.dtype, device=K.device)
    turn[:, 2] = torch.rand(batch * count, dtype=K.dtype, device=K.device) * 2 * torch.pi
    tilt[:, 0] = (torch.rand(batch * count, dtype=K.dtype, device=K.device) * 2 - 1) * _TILT
    origin = torch.zeros(3, dtype=K.dtype, device=K.device)
    turned = rigid_motion(tilt, origin.expand_as(tilt), origin) @ rigid_motion(turn, origin.expand_as(turn), origin)
    poses = camera_from_crop[:, :1] @ turned.view(batch, count, 4, 4)
    return K[:, :1].expand(batch, count, 3, 3), poses


@torch.no_grad()
def drawn_targets(
    volume: Float[Tensor, "B D H W"],
    crop_from_vertebra: Float64[Tensor, "B 4 4"],
    K: Float64[Tensor, "B E 3 3"],
    camera_from_crop: Float64[Tensor, "B E 4 4"],
    size: tuple[int, int],
    crop_mm: float,
) -> Float[Tensor, "B E h w"]:
    """Line integrals of the vertebra at its true pose, in those views.

    Args:
        volume: its excess, 1/mm, in the vertebra frame; it fills the crop cube.
        crop_from_vertebra: the true pose, mm.
        K: of the views.
        camera_from_crop: of the views, mm.
        size: height and width in pixels.
        crop_mm: edge of the cube.
    """
    grid = Grid.centred(crop_mm, volume.shape[-1])
    index_from_vertebra = torch.eye(4, dtype=torch.float64, device=volume.device) / grid.spacing_mm
    index_from_vertebra[:3, 3] = -torch.tensor(grid.origin, dtype=torch.float64) / grid.spacing_mm
    index_from_vertebra[3, 3] = 1
    camera_from_vertebra = camera_from_crop @ crop_from_vertebra.double()[:, None]
    return project(volume, index_from_vertebra, K, camera_from_vertebra, size)
