"""Training RegM on reconstructions made beforehand, and both networks together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from radgs.config import LossSettings
from radgs.gaussians import Grid, voxelize
from radgs.geometry import rigid_motion
from radgs.models import RecM, RegM, warp
from radgs.training.augment import augmented
from radgs.training.data import Vertebrae, views_of
from radgs.training.loop import Stage
from radgs.training.losses import point_errors, registration_loss
from radgs.training.recm_stage import anchors_of, picture_terms, pose_terms, reconstruct_few, voxels_of

_DRAWN = 4
_START_ANGLE = math.radians(4)
_START_MM = 3.0
_RECONSTRUCTED_AT_ONCE = 16


@torch.no_grad()
def reconstructed(recm: RecM, fields: dict[str, Tensor], vertebrae: Vertebrae, kind: str) -> dict[str, Tensor]:
    """RecM's motion (``start``) and voxelized factual Gaussians (``reconstruction``, 1/mm) beside truth and level.

    It is computed where the network and the vertebrae are, and comes back on the CPU.
    """
    device = vertebrae.volumes.device
    recm.eval()
    grid = Grid.centred(recm.crop_mm, recm.settings.volume_voxels)
    starts, volumes = [], []
    for first in range(0, len(fields["level"]), _RECONSTRUCTED_AT_ONCE):
        batch = {k: v[first : first + _RECONSTRUCTED_AT_ONCE].to(device) for k, v in fields.items()}
        views = views_of(batch)
        seen = recm.observe(views)
        made = recm.factual(seen, views, anchors_of(recm, batch["vertebra"], vertebrae, kind))
        starts.append(seen.factual_motion.cpu())
        volumes.append(voxelize(made, grid).cpu())
    return {
        "level": fields["level"],
        "vertebra": fields["vertebra"],
        "crop_from_vertebra": fields["crop_from_vertebra"],
        "start": torch.cat(starts),
        "reconstruction": torch.cat(volumes),
    }


class RegMStage(Stage):
    """RegM's losses; half of the starts are disturbed, so that there is something to correct."""

    def __init__(self, regm: RegM, vertebrae: Vertebrae, weights: LossSettings) -> None:
        super().__init__()
        self.regm, self.vertebrae, self.weights = regm, vertebrae, weights

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L_reg."""
        rows = batch["vertebra"]
        ct = self.vertebrae.volumes[rows]
        estimate = self.regm(ct, batch["reconstruction"], _disturbed(batch["start"]))
        warped = warp(ct, estimate, self.regm.crop_mm)
        truth, points = batch["crop_from_vertebra"], self.vertebrae.points[rows]
        return registration_loss(warped, batch["reconstruction"], estimate, truth, points, self.weights)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Errors after RegM, and of RecM's motion."""
        rows = batch["vertebra"]
        estimate = self.regm(self.vertebrae.volumes[rows], batch["reconstruction"], batch["start"])
        truth, points = batch["crop_from_vertebra"], self.vertebrae.points[rows]
        return {
            "mtre_mm": point_errors(estimate, truth, points),
            "start_mtre_mm": point_errors(batch["start"], truth, points),
        }


class JointStage(Stage):
    """L_reg + L_CAL-rec: RegM's error reaches RecM through the voxelizer.

    The statistics of batch normalisation stay as they are: the batches that RegM sees here are small.
    """

    def __init__(self, recm: RecM, regm: RegM, vertebrae: Vertebrae, weights: LossSettings, kind: str) -> None:
        super().__init__()
        self.recm, self.regm, self.vertebrae = recm, regm, vertebrae
        self.weights, self.kind = weights, kind

    def train(self, mode: bool = True) -> JointStage:
        """Training mode for all but batch normalisation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.eval()
        return self

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both sums."""
        batch = augmented(batch)
        seen = self.recm.observe(views_of(batch))
        few = {key: value[:_DRAWN] for key, value in batch.items()}
        made = reconstruct_few(self.recm, seen[:_DRAWN], few, self.vertebrae, self.kind)
        volume = voxels_of(made.factual, self.recm)
        rows, size = few["vertebra"], self.recm.crop_mm
        ct = self.vertebrae.volumes[rows]
        estimate = self.regm(ct, volume, made.crop_from_vertebra)
        truth, points = few["crop_from_vertebra"], self.vertebrae.points[rows]
        registration = registration_loss(warp(ct, estimate, size), volume, estimate, truth, points, self.weights)
        return {
            **pose_terms(seen, batch, self.vertebrae, self.weights),
            **picture_terms(self.recm, seen[:_DRAWN], few, self.vertebrae, self.weights, self.kind),
            **{f"registration.{key}": value for key, value in registration.items()},
        }

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Errors after both networks, and of no motion."""
        made = reconstructed(self.recm, batch, self.vertebrae, self.kind)
        rows = batch["vertebra"]
        start = made["start"].to(rows.device)
        estimate = self.regm(self.vertebrae.volumes[rows], made["reconstruction"].to(rows.device), start)
        truth, points = batch["crop_from_vertebra"], self.vertebrae.points[rows]
        none = torch.eye(4, dtype=truth.dtype, device=truth.device).expand_as(truth)
        return {
            "mtre_mm": point_errors(estimate, truth, points),
            "start_mtre_mm": point_errors(none, truth, points),
        }


def _disturbed(start: Tensor) -> Tensor:
    """Every second start turned and shifted a little, about the vertebra's centre."""
    size = torch.zeros(len(start), 1, dtype=start.dtype, device=start.device)
    size[::2] = 1
    turn = (torch.rand(len(start), 3, dtype=start.dtype, device=start.device) * 2 - 1) * _START_ANGLE
    shift = (torch.rand(len(start), 3, dtype=start.dtype, device=start.device) * 2 - 1) * _START_MM
    return rigid_motion(turn * size, shift * size, start[:, :3, 3]) @ start
