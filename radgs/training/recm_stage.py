"""Training RecM: pose on the whole batch, pictures and volumes of a few of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from radgs.anatomy import VertebraViews
from radgs.config import LossSettings
from radgs.gaussians import Grid, RadiativeGaussians, rasterize, voxelize
from radgs.models import Observation, RecM, Reconstruction, warp
from radgs.training.augment import augmented
from radgs.training.data import Vertebrae, views_of
from radgs.training.loop import Stage
from radgs.training.losses import (
    ANCHOR_UNIT_MM,
    ATTENUATION_RANGE,
    anchor_distance,
    balanced_l1,
    chamfer,
    density_distance,
    point_errors,
    reconstruction_loss,
)
from radgs.training.supervision import drawn_targets, extra_views

_DRAWN = 3
_DENSE = 6
_DRAW_CHANCE = 1 / 2


class RecMStage(Stage):
    """RecM's losses.

    Drawing Gaussians costs much more than estimating a pose, and the pose needs many samples: the motion of every
    sample is judged, the first few of every second batch (at random) are drawn, with either kind of anchors. Where
    pictures are all that teaches (losses.anchor 0, as in the publication), every sample is drawn.

    For the first ``losses.pose_first`` of the steps the motion is all that is taught: such a step takes half the time,
    and the reconstruction, which is taught at the true pose, learns little from features that still change.
    """

    def __init__(self, recm: RecM, vertebrae: Vertebrae, weights: LossSettings) -> None:
        super().__init__()
        self.recm, self.vertebrae, self.weights = recm, vertebrae, weights
        if recm.global_head is not None:  # its Gaussians do not follow the motion, which says nothing of them
            self.score = "volume_error"
        elif weights.anchor:
            self.whole_from = weights.pose_first

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L_CAL-rec and the anchors' distance of both branches."""
        if self.progress < self.whole_from:
            batch = augmented({key: value for key, value in batch.items() if key != "targets"})
            return pose_terms(self.recm.observe(views_of(batch)), batch, self.vertebrae, self.weights)
        batch = augmented(batch)
        seen = self.recm.observe(views_of(batch))
        first = {key: value[:_DENSE] for key, value in batch.items()}
        terms = {
            **pose_terms(seen, batch, self.vertebrae, self.weights),
            **density_terms(self.recm, seen[:_DENSE], first, self.vertebrae, self.weights),
        }
        posed = self.weights.anchor > 0
        if posed and torch.rand(()) >= _DRAW_CHANCE:
            return terms
        kind = "patient" if torch.rand(()) < 0.5 else "blank"
        drawn = _DRAWN if posed else len(batch["level"])
        few = {key: value[:drawn] for key, value in batch.items()}
        return {**terms, **picture_terms(self.recm, seen[:drawn], few, self.vertebrae, self.weights, kind)}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Errors of the factual motion and of no motion; of a global head also that of the volume for RegM."""
        points = self.vertebrae.points[batch["vertebra"]]
        truth = batch["crop_from_vertebra"]
        start = torch.eye(4, dtype=truth.dtype, device=truth.device).expand_as(truth)
        seen = self.recm.observe(views_of(batch))
        found = {
            "mtre_mm": point_errors(seen.factual_motion, truth, points),
            "start_mtre_mm": point_errors(start, truth, points),
        }
        if self.recm.global_head is not None:
            found["volume_error"] = self._volume_errors(seen, batch)
        return found

    def _volume_errors(self, seen: Observation, batch: dict[str, Tensor]) -> Float[Tensor, " B"]:
        anchors = anchors_of(self.recm, batch["vertebra"], self.vertebrae, self.recm.settings.anchors)
        grid = Grid.centred(self.recm.crop_mm, self.recm.settings.volume_voxels)
        made = voxelize(self.recm.factual(seen, views_of(batch), anchors), grid)
        target = true_volumes(self.recm, batch, self.vertebrae)
        return torch.stack([balanced_l1(a[None], b[None]) for a, b in zip(made, target)]) / ATTENUATION_RANGE

    def summarise(self, found: Mapping[str, Tensor]) -> dict[str, float]:
        """See :class:`Stage`."""
        more = {"volume_error": float(found["volume_error"].mean())} if "volume_error" in found else {}
        return super().summarise(found) | more


def anchors_of(recm: RecM, rows: Tensor, vertebrae: Vertebrae, kind: str) -> RadiativeGaussians:
    """Anchors for a batch of vertebrae (their rows), ``[B, N]``, vertebra frame: the patient's or the blank ones."""
    return vertebrae.anchors(rows) if kind == "patient" else recm.blank(vertebrae.level[rows])


def reconstruct_few(
    recm: RecM, seen: Observation, few: dict[str, Tensor], vertebrae: Vertebrae, kind: str
) -> Reconstruction:
    """Reconstruct what was seen with anchors of a kind."""
    views: VertebraViews = views_of(few)
    return recm.reconstruct(seen, views, anchors_of(recm, few["vertebra"], vertebrae, kind))


def taught(weights: LossSettings) -> tuple[str, ...]:
    """The branches that losses look at."""
    return ("effect", "factual") if weights.counterfactual else ("factual",)


def voxels_of(gaussians: RadiativeGaussians, recm: RecM) -> Float[Tensor, "B D H W"]:
    """Gaussians on RegM's grid, 1/mm."""
    return voxelize(gaussians, Grid.centred(recm.crop_mm, recm.settings.volume_voxels))


def pose_terms(
    seen: Observation, batch: dict[str, Tensor], vertebrae: Vertebrae, weights: LossSettings
) -> dict[str, Tensor]:
    """The anchors' distance of the branches that are taught."""
    if not weights.anchor:
        return {}
    points = vertebrae.points[batch["vertebra"]]
    truth, scale = batch["crop_from_vertebra"], weights.anchor / ANCHOR_UNIT_MM
    motions = {"factual": seen.factual_motion, "effect": seen.effect_motion}
    return {
        f"{branch}.anchor": scale * anchor_distance(motions[branch], truth, points).float()
        for branch in taught(weights)
    }


def picture_terms(
    recm: RecM, seen: Observation, few: dict[str, Tensor], vertebrae: Vertebrae, weights: LossSettings, kind: str
) -> dict[str, Tensor]:
    """L_CAL-rec of what was seen, and the distance of the centres from those of the Gaussians fitted to the CT.

    It is drawn at the true pose when the pose has a loss of its own: at an estimated pose that is millimetres off, no
    bone at all costs less L1 than bone beside its place, and the first networks trained that way drew nothing.
    """
    truth = few["crop_from_vertebra"]
    made = reconstruct_few(recm, seen.placed(truth) if weights.anchor else seen, few, vertebrae, kind)
    branches = {branch: getattr(made, branch) for branch in taught(weights)}
    volumes = {branch: voxels_of(gaussians, recm) for branch, gaussians in branches.items()}
    K, cameras, targets = few["K"], few["camera_from_crop"], few["targets"]
    size = (targets.shape[-2], targets.shape[-1])
    if weights.views > targets.shape[1]:
        more, poses = extra_views(K, cameras, weights.views - targets.shape[1])
        volume = vertebrae.volumes[few["vertebra"]]
        targets = torch.cat([targets, drawn_targets(volume, truth, more, poses, size, recm.crop_mm)], dim=1)
        K, cameras = torch.cat([K, more], dim=1), torch.cat([cameras, poses], dim=1)
    images = {branch: rasterize(gaussians, K, cameras, size) for branch, gaussians in branches.items()}
    terms = reconstruction_loss(images, volumes, targets, true_volumes(recm, few, vertebrae), weights)
    if weights.chamfer:
        fitted = vertebrae.anchors(few["vertebra"]).moved(truth).means
        for branch, gaussians in branches.items():
            terms[f"{branch}.chamfer"] = weights.chamfer * chamfer(gaussians.means, fitted) / ANCHOR_UNIT_MM
    return terms


def true_volumes(recm: RecM, batch: dict[str, Tensor], vertebrae: Vertebrae) -> Float[Tensor, "B D H W"]:
    """The vertebrae's excess at their true poses, crop frame, 1/mm."""
    return warp(vertebrae.volumes[batch["vertebra"]], batch["crop_from_vertebra"], recm.crop_mm)


def density_terms(
    recm: RecM, seen: Observation, few: dict[str, Tensor], vertebrae: Vertebrae, weights: LossSettings
) -> dict[str, Tensor]:
    """The densities of a grid at the true pose: cheap, since nothing is drawn. A population's anchors are no grid."""
    if not weights.density or recm.population is not None:
        return {}
    anchors = recm.blank(few["level"])
    made = recm.factual(seen.placed(few["crop_from_vertebra"]), views_of(few), anchors)
    target = true_volumes(recm, few, vertebrae)
    points = made.means.detach()[:, None, None] / (recm.crop_mm / 2)
    there = F.grid_sample(target[:, None], points, padding_mode="zeros", align_corners=False)[:, 0, 0, 0]
    filled = made.densities * (made.scales / anchors.scales).prod(-1)
    return {"factual.density": weights.density * density_distance(filled, there)}
