"""RegM: the CT's vertebra against the reconstruction, in 3D."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from radgs.config import CropSettings, NetworkSettings
from radgs.geometry import rigid_motion
from radgs.models.encoders import build_encoder

_CHANNELS = 32
_HIDDEN = 128
_TRANSLATION_UNIT_MM = 10.0
_ATTENUATION_UNIT = 0.02  # 1/mm, of bone above soft tissue
_POOLED = 2


class RegM(nn.Module):
    """Two channels, the CT moved by ``start`` and the reconstruction, to the motion that is still missing.

    It starts at no correction.

    Source: RadGS-Reg (MICCAI 2025), RegM.
    """

    def __init__(self, settings: NetworkSettings, crop_mm: float = CropSettings().size_mm) -> None:
        super().__init__()
        self.settings, self.crop_mm = settings, crop_mm
        self.encoder = build_encoder(settings.encoder, 3, 2, _CHANNELS, settings.regm_width, settings.volume_voxels)
        self.pool = nn.AdaptiveAvgPool3d(_POOLED)
        last = nn.Linear(_HIDDEN, 6)
        self.head = nn.Sequential(nn.Linear(_CHANNELS * _POOLED**3, _HIDDEN), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self,
        ct: Float[Tensor, "B D H W"],
        reconstruction: Float[Tensor, "B D H W"],
        start: Float[Tensor, "B 4 4"],
    ) -> Float[Tensor, "B 4 4"]:
        """Register B vertebrae.

        Args:
            ct: excess attenuation in the vertebra frame, 1/mm; the volume fills the crop cube.
            reconstruction: 1/mm, in the crop frame, on the same grid.
            start: crop_from_vertebra of RecM, mm.

        Returns:
            crop_from_vertebra, float64, mm: the correction after ``start``.
        """
        moved = warp(ct, start, self.crop_mm)
        seen = self.encoder(torch.stack([moved, reconstruction], dim=1) / _ATTENUATION_UNIT)
        raw = self.head(self.pool(seen).flatten(1)).double()
        centre = start.double()[:, :3, 3]
        return rigid_motion(raw[:, :3], raw[:, 3:] * _TRANSLATION_UNIT_MM, centre) @ start.double()


def warp(
    volume: Float[Tensor, "B D H W"], crop_from_vertebra: Float[Tensor, "B 4 4"], size_mm: float
) -> Float[Tensor, "B D H W"]:
    """A volume of the vertebra frame, resampled in the crop frame (trilinear, 0 outside); differentiable.

    Args:
        volume: fills a cube of ``size_mm`` about the frame's origin, (z, y, x).
        crop_from_vertebra: mm.
        size_mm: edge of the cube, of both frames.
    """
    vertebra_from_crop = torch.linalg.inv(crop_from_vertebra.double())
    scaled = vertebra_from_crop[:, :3].clone()
    scaled[:, :, 3] = scaled[:, :, 3] * (2 / size_mm)
    grid = F.affine_grid(scaled.to(volume.dtype), [len(volume), 1, *volume.shape[1:]], align_corners=False)
    return F.grid_sample(volume[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]
