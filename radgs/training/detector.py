"""Training the level detector on simulated X-rays of the patient, whose boxes nobody has to draw."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from radgs.anatomy.canvas import local_contrast
from radgs.anatomy.yolo import WEIGHTS, build_detector, detection_loss
from radgs.config import Config
from radgs.images import write_json
from radgs.models import write_weights
from radgs.simulation import SimulatedRadiographs
from radgs.training.data import fingerprint
from radgs.training.loop import Stage, train_stage

_SHIFT, _SCALE = 0.08, 0.1  # of the picture; ratio
_CONTRAST, _NOISE = 0.3, 0.05
_HIDDEN_CHANCE, _HIDDEN = 0.3, (0.06, 0.35)  # of a sample; side of the hidden part, of the picture
_RIGHT = 0.5  # of a box's height: a level is named right if its centre is found nearer than that


class DetectorStage(Stage):
    """YOLO's loss on pictures that are moved, scaled, covered and made noisy."""

    score = "loss"

    def __init__(self, levels: list[str], width: float) -> None:
        super().__init__()
        self.network = build_detector(levels, width)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The three terms of a batch of ``images`` (8 bits) and ``boxes``."""
        images, boxes = moved(batch["images"].float()[:, None] / 255, batch["boxes"])
        return detection_loss(self.network, disturbed(images), boxes)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss; of the levels seen, how many are where the network is most sure of them, and how far off."""
        images, boxes = batch["images"].float()[:, None] / 255, batch["boxes"]
        loss = torch.stack(list(detection_loss(self.network, images, boxes).values())).sum()
        answer = self.network(images)
        answer = answer[0] if isinstance(answer, (tuple, list)) else answer
        most = answer[:, 4:].argmax(dim=-1)
        found = answer[:, :2].gather(2, most[:, None].expand(-1, 2, -1)).mT - 0.5
        distance = (found - (boxes[..., :2] + boxes[..., 2:]) / 2).norm(dim=-1)
        seen = ~boxes.isnan().any(dim=-1)
        right = seen & (distance < _RIGHT * (boxes[..., 3] - boxes[..., 1]))
        off = torch.where(right, distance, 0).sum(dim=1)
        return {"loss": loss.expand(len(boxes)), "seen": seen.sum(dim=1), "right": right.sum(dim=1), "off": off}

    def summarise(self, found: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics over all held-out pictures."""
        right = found["right"].sum()
        return {
            "loss": float(found["loss"].mean()),
            "named_right": float(right / found["seen"].sum()),
            "centre_error_px": float(found["off"].sum() / right.clamp(min=1)),
            "validated": float(len(found["loss"])),
        }


def moved(
    images: Float[Tensor, "B 1 n n"], boxes: Float[Tensor, "B L 4"]
) -> tuple[Float[Tensor, "B 1 n n"], Float[Tensor, "B L 4"]]:
    """Shifted and scaled at random; boxes whose middle leaves the picture become NaN."""
    count, size = len(images), images.shape[-1]
    scale = 1 + (torch.rand(count, device=images.device) * 2 - 1) * _SCALE
    shift = (torch.rand(count, 2, device=images.device) * 2 - 1) * _SHIFT * size
    old_from_new = torch.zeros(count, 2, 3, device=images.device)
    old_from_new[:, 0, 0] = old_from_new[:, 1, 1] = scale
    old_from_new[:, :, 2] = shift * 2 / size
    grid = F.affine_grid(old_from_new, list(images.shape), align_corners=False)
    drawn = F.grid_sample(images - 0.5, grid, align_corners=False) + 0.5
    middle = (size - 1) / 2
    corners = (boxes.view(count, -1, 2, 2) - middle - shift[:, None, None]) / scale[:, None, None, None] + middle
    centre = corners.mean(dim=2)
    inside = ((centre > 0) & (centre < size - 1)).all(dim=-1)
    return drawn, torch.where(inside[..., None], corners.reshape(boxes.shape), torch.nan)


def disturbed(images: Float[Tensor, "B 1 n n"]) -> Float[Tensor, "B 1 n n"]:
    """Another contrast, noise, and here and there a part hidden."""
    count, size = len(images), images.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, device=images.device) * (high - low) + low

    out = (images - 0.5) * uniform(1 - _CONTRAST, 1 + _CONTRAST, 1, 1, 1) + 0.5
    out = out + torch.randn_like(out) * uniform(0, _NOISE, 1, 1, 1)
    axis = torch.arange(size, device=images.device)
    low = uniform(0, size, 2)
    high = low + uniform(*_HIDDEN, 2) * size
    within = [(axis >= low[:, i, None]) & (axis < high[:, i, None]) for i in range(2)]
    hidden = within[0][:, :, None] & within[1][:, None, :] & (uniform(0, 1, 1, 1) < _HIDDEN_CHANCE)
    return torch.where(hidden[:, None], 0.5, out)


def pictures(radiographs: SimulatedRadiographs) -> UInt8[np.ndarray, "m n n"]:
    """What the detector sees of every view."""
    flat = radiographs.images.reshape(-1, *radiographs.images.shape[2:])
    return np.stack([local_contrast(image.astype(np.float32)) for image in flat])


def train_detector(radiographs: str | Path, output_folder: str | Path, config: Config) -> None:
    """Train a detector on simulated X-rays and write ``detector.safetensors``, ``card.json`` and ``log.csv``.

    Args:
        radiographs: HDF5 of :func:`radgs.simulation.simulate_radiographs`.
        output_folder: for the results; a stopped training goes on from there.
        config: ``detection.yolo`` and ``seed``.

    Raises:
        RadgsError: a file that cannot be used, or the extra ``detect`` is not installed.
        TrainingError: the loss is not finite, or there are too few shots.
    """
    folder, settings = Path(output_folder), config.detection.yolo
    data = SimulatedRadiographs(radiographs)
    torch.manual_seed(config.seed)
    stage = DetectorStage(data.levels, settings.width)
    boxes = torch.from_numpy(data.boxes).flatten(0, 1)
    fields = {"images": torch.from_numpy(pictures(data)), "boxes": boxes}
    source = fingerprint(radiographs)
    facts = [source, settings.model_dump_json(), str(config.seed), version("radgs")]
    identity = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    outcome = train_stage(
        stage,
        fields,
        settings.training,
        folder,
        name="detector",
        seed=config.seed,
        identity=identity,
        machine=config.machine,
    )
    write_weights(folder / WEIGHTS, stage.network)
    card = {
        "levels": data.levels,
        "image_px": data.images.shape[-1],
        "width": settings.width,
        "data": {"sha256": source, "shots": len(data.images), "views": data.views},
        "metrics": outcome.best,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "complete": outcome.complete,
        "code": {"radgs": version("radgs"), "torch": torch.__version__, "ultralytics": version("ultralytics")},
    }
    write_json(folder / "card.json", card)
