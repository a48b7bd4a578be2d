"""Training RecM: pose on the whole batch, pictures and volumes of a few of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from radgs.anatomy import VertebraViews
from radgs.config import LossSettings
from radgs.gaussians import Grid, RadiativeGaussians, rasterize, voxelize
from radgs.models import Observation, RecM, Reconstruction, grid_anchors, warp
from radgs.training.augment import augmented
from radgs.training.data import Vertebrae, views_of
from radgs.training.loop import Stage
from radgs.training.losses import ANCHOR_UNIT_MM, anchor_distance, density_distance, point_errors, reconstruction_loss

_DRAWN = 3
_DENSE = 6
_DRAW_CHANCE = 1 / 2


class RecMStage(Stage):
    """RecM's losses.

    Drawing Gaussians costs much more than estimating a pose, and the pose needs many samples: the motion of every
    sample is judged, the first few of every second batch (at random) are drawn, with either kind of anchors.
    """

    def __init__(self, recm: RecM, vertebrae: Vertebrae, weights: LossSettings) -> None:
        super().__init__()
        self.recm, self.vertebrae, self.weights = recm, vertebrae, weights

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L_CAL-rec and the anchors' distance of both branches."""
        batch = augmented(batch)
        seen = self.recm.observe(views_of(batch))
        first = {key: value[:_DENSE] for key, value in batch.items()}
        terms = {
            **pose_terms(seen, batch, self.vertebrae, self.weights),
            **density_terms(self.recm, seen[:_DENSE], first, self.vertebrae, self.weights),
        }
        if torch.rand(()) >= _DRAW_CHANCE:
            return terms
        kind = "patient" if torch.rand(()) < 0.5 else "grid"
        few = {key: value[:_DRAWN] for key, value in batch.items()}
        return {**terms, **picture_terms(self.recm, seen[:_DRAWN], few, self.vertebrae, self.weights, kind)}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Errors of the factual motion, and of no motion."""
        points = self.vertebrae.points[batch["vertebra"]]
        truth = batch["crop_from_vertebra"]
        start = torch.eye(4, dtype=truth.dtype, device=truth.device).expand_as(truth)
        motion = self.recm.observe(views_of(batch)).factual_motion
        return {
            "mtre_mm": point_errors(motion, truth, points),
            "start_mtre_mm": point_errors(start, truth, points),
        }


def expanded(anchors: RadiativeGaussians, count: int) -> RadiativeGaussians:
    """The same anchors for each of a batch."""
    return RadiativeGaussians(
        *(
            tensor.expand(count, *tensor.shape)
            for tensor in (anchors.means, anchors.scales, anchors.quaternions, anchors.densities)
        )
    )


def anchors_of(recm: RecM, rows: Tensor, vertebrae: Vertebrae, kind: str) -> RadiativeGaussians:
    """Anchors of a kind for a batch of vertebrae (their rows), ``[B, N]``, vertebra frame."""
    if kind == "patient":
        return vertebrae.anchors(rows)
    blank = expanded(grid_anchors(recm.settings, recm.crop_mm), len(rows))
    device = rows.device
    return RadiativeGaussians(
        blank.means.to(device), blank.scales.to(device), blank.quaternions.to(device), blank.densities.to(device)
    )


def reconstruct_few(
    recm: RecM, seen: Observation, few: dict[str, Tensor], vertebrae: Vertebrae, kind: str
) -> Reconstruction:
    """Reconstruct what was seen with anchors of a kind."""
    views: VertebraViews = views_of(few)
    return recm.reconstruct(seen, views, anchors_of(recm, few["vertebra"], vertebrae, kind))


def voxels_of(made: Reconstruction, recm: RecM) -> dict[str, Float[Tensor, "B D H W"]]:
    """Both branches on RegM's grid, 1/mm."""
    grid = Grid.centred(recm.crop_mm, recm.settings.volume_voxels)
    return {"effect": voxelize(made.effect, grid), "factual": voxelize(made.factual, grid)}


def pose_terms(
    seen: Observation, batch: dict[str, Tensor], vertebrae: Vertebrae, weights: LossSettings
) -> dict[str, Tensor]:
    """The anchors' distance of both branches."""
    points = vertebrae.points[batch["vertebra"]]
    truth, scale = batch["crop_from_vertebra"], weights.anchor / ANCHOR_UNIT_MM
    return {
        "factual.anchor": scale * anchor_distance(seen.factual_motion, truth, points).float(),
        "effect.anchor": scale * anchor_distance(seen.effect_motion, truth, points).float(),
    }


def picture_terms(
    recm: RecM, seen: Observation, few: dict[str, Tensor], vertebrae: Vertebrae, weights: LossSettings, kind: str
) -> dict[str, Tensor]:
    """L_CAL-rec of what was seen, drawn at the true pose.

    At an estimated pose that is millimetres off, no bone at all costs less L1 than bone beside its place: the first
    networks trained that way drew nothing. The pose has a loss of its own.
    """
    made = reconstruct_few(recm, seen.placed(few["crop_from_vertebra"]), few, vertebrae, kind)
    volumes = voxels_of(made, recm)
    size = (few["targets"].shape[-2], few["targets"].shape[-1])
    images = {
        branch: rasterize(gaussians, few["K"], few["camera_from_crop"], size)
        for branch, gaussians in (("effect", made.effect), ("factual", made.factual))
    }
    target = warp(vertebrae.volumes[few["vertebra"]], few["crop_from_vertebra"], recm.crop_mm)
    return reconstruction_loss(images, volumes, few["targets"], target, weights)


def density_terms(
    recm: RecM, seen: Observation, few: dict[str, Tensor], vertebrae: Vertebrae, weights: LossSettings
) -> dict[str, Tensor]:
    """The densities of a grid at the true pose: cheap, since nothing is drawn."""
    anchors = anchors_of(recm, few["vertebra"], vertebrae, "grid")
    made = recm.factual(seen.placed(few["crop_from_vertebra"]), views_of(few), anchors)
    target = warp(vertebrae.volumes[few["vertebra"]], few["crop_from_vertebra"], recm.crop_mm)
    points = made.means.detach()[:, None, None] / (recm.crop_mm / 2)
    there = F.grid_sample(target[:, None], points, padding_mode="zeros", align_corners=False)[:, 0, 0, 0]
    filled = made.densities * (made.scales / anchors.scales).prod(-1)
    return {"factual.density": weights.density * density_distance(filled, there)}
