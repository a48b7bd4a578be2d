"""Training the level detector on simulated X-rays of the patient, whose boxes nobody has to draw."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from radgs.anatomy.canvas import local_contrast
from radgs.anatomy.yolo import WEIGHTS, build_detector, detection_loss
from radgs.config import Config
from radgs.images import write_json
from radgs.models import write_weights
from radgs.simulation import SimulatedRadiographs
from radgs.training.data import fingerprint
from radgs.training.detector_pictures import augmented
from radgs.training.loop import Stage, train_stage

_RIGHT = 0.5  # of a box's height: a level is named right if its centre is found nearer than that


class DetectorStage(Stage):
    """YOLO's loss on pictures that are moved, scaled, covered and made noisy."""

    score = "loss"

    def __init__(self, levels: list[str], width: float) -> None:
        super().__init__()
        self.network = build_detector(levels, width)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The three terms of a batch of ``images`` (8 bits) and ``boxes``."""
        return detection_loss(self.network, *augmented(batch["images"].float()[:, None] / 255, batch["boxes"]))

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
