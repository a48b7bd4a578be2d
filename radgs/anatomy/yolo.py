"""The level detector: a small YOLO network of the package ultralytics.

Ultralytics is AGPL-3.0 and an optional extra (``detect``); no other module imports it. Only its network and its loss
are used. Nothing is downloaded or installed, no telemetry is sent, and its settings go to a folder that is deleted at
the end.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import safetensors.torch
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from radgs.anatomy.canvas import canvas_camera, canvas_to_image, local_contrast, to_canvas
from radgs.anatomy.decoding import Candidate
from radgs.anatomy.levels import LEVELS
from radgs.errors import AnatomyError, ConfigError
from radgs.images import Xray, read_json

WEIGHTS = "detector.safetensors"
_QUIET = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
_LEAST_SCORE = 0.02  # of a peak that becomes a candidate
_MOST_CANDIDATES = 30  # a view
_BATCH_MOMENTUM = 0.1  # ultralytics' 0.03 is for trainings of many thousand steps
_REACH_CELLS = (
    8  # how far a box may reach from a cell, cells: a third of the picture; the usual 16 takes a tenth longer
)
_APART = 0.2  # of a box's height: peaks nearer than this are one candidate; thoracic boxes overlap by half


def import_ultralytics() -> Any:
    """Import ultralytics so that it neither calls home nor changes this process.

    Raises:
        ConfigError: the extra ``detect`` is not installed.
    """
    before, opened, saved = dict(os.environ), PIL.Image.open, torch.save
    if "ultralytics" not in sys.modules:
        folder = tempfile.mkdtemp(prefix="radgs-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ.update(_QUIET, YOLO_CONFIG_DIR=folder)
    try:
        import ultralytics.cfg
        import ultralytics.nn.tasks
    except ModuleNotFoundError as error:
        raise ConfigError(
            "detection.backend yolo needs the extra 'detect' (ultralytics, AGPL-3.0): pip install -c constraints.txt "
            f"'.[detect]' ({error})"
        ) from None
    finally:
        # its own ask for packages when a picture cannot be read, and try again when a disk is full
        PIL.Image.open, torch.save = opened, saved
        os.environ.clear()  # OMP_NUM_THREADS=1 and a changed LD_LIBRARY_PATH would reach child processes
        os.environ.update(before)
    return ultralytics


def architecture(levels: int, width: float) -> dict[str, Any]:
    """Four halvings, context from attention over the whole image, one head at an eighth of the image's size."""
    backbone = [
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 1, "C3k2", [128, False, 0.5]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 1, "C3k2", [256, False, 0.5]],  # 4: an eighth
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 1, "C3k2", [512, True]],  # 6: a sixteenth
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 1, "C3k2", [512, True]],
        [-1, 1, "SPPF", [512, 5]],
        [-1, 1, "C2PSA", [512]],  # 10: a thirty-second, every place sees all
    ]
    head: list[list[Any]] = [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 6], 1, "Concat", [1]],
        [-1, 1, "C3k2", [512, False]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 1, "C3k2", [256, False]],
        [[16], 1, "Detect", [levels]],
    ]
    return {
        "nc": levels,
        "scales": {"n": [1.0, width, 1024]},
        "scale": "n",
        "channels": 1,
        "reg_max": _REACH_CELLS,
        "backbone": backbone,
        "head": head,
    }


def build_detector(levels: Sequence[str], width: float) -> nn.Module:
    """The network with random weights; grey images ``[B, 1, px, px]`` in 0 to 1."""
    package = import_ultralytics()
    network: nn.Module = package.nn.tasks.DetectionModel(
        architecture(len(levels), width), ch=1, nc=len(levels), verbose=False
    )
    network.args = package.cfg.get_cfg()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _BATCH_MOMENTUM
    return network


def detection_loss(
    network: nn.Module, images: Float[Tensor, "B 1 h w"], boxes: Float[Tensor, "B L 4"]
) -> dict[str, Tensor]:
    """YOLO's box, class and distribution terms, a sample.

    Args:
        network: of :func:`build_detector`.
        images: 0 to 1.
        boxes: (u0, v0, u1, v1) of each level, pixels; NaN where it is not seen.
    """
    size = images.shape[-1]
    sample, level = torch.nonzero(~boxes.isnan().any(dim=-1), as_tuple=True)
    edges = (boxes[sample, level] + 0.5) / size  # beyond the picture too: cut boxes would have other middles
    low, high = edges[:, :2], edges[:, 2:]
    batch = {
        "img": images,
        "batch_idx": sample.to(images),
        "cls": level.to(images),
        "bboxes": torch.cat([(low + high) / 2, high - low], dim=1),
    }
    terms, _ = network(batch)
    return dict(zip(("box", "class", "distribution"), terms / len(images), strict=True))


@torch.no_grad()
def find_candidates(network: nn.Module, canvas: UInt8[np.ndarray, "n n"]) -> list[Candidate]:
    """Peaks of the network's answer, canvas pixels; each with its score for every level.

    Boxes of neighbouring vertebrae overlap by a third, so peaks are told apart by the distance of their centres: a peak
    takes the highest score for each level around it, and the mean of the boxes there.
    """
    answer = network.eval()(torch.from_numpy(canvas.copy())[None, None].float() / 255)
    found = (answer[0] if isinstance(answer, (tuple, list)) else answer)[0].double().numpy()
    (x, y, width, height), scores = found[:4] - np.array([[0.5], [0.5], [0], [0]]), found[4:]
    top = scores.max(axis=0)
    left = top > _LEAST_SCORE
    candidates: list[Candidate] = []
    while left.any() and len(candidates) < _MOST_CANDIDATES:
        peak = int(np.where(left, top, 0).argmax())
        near = left & (np.hypot(x - x[peak], y - y[peak]) < _APART * height[peak])
        weight = top[near] ** 2 / (top[near] ** 2).sum()
        cx, cy, w, h = (float(values[near] @ weight) for values in (x, y, width, height))
        candidates.append(Candidate((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), scores[:, near].max(axis=1)))
        left &= ~near
    return candidates


class Detector:
    """A trained network.

    Attributes:
        levels: what it knows, from head to foot.
        pixels: side of the picture it sees.

    Raises:
        AnatomyError: the folder holds no detector, or its weights do not fit its card.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        card = read_json(folder / "card.json")
        try:
            self.levels, self.pixels = [str(level) for level in card["levels"]], int(card["image_px"])
            width = float(card["width"])
        except (KeyError, TypeError, ValueError):
            raise AnatomyError(f"{folder / 'card.json'}: not the card of a detector") from None
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise AnatomyError(f"{folder / 'card.json'}: {self.levels} are no levels")
        self.network = build_detector(self.levels, width)
        try:
            self.network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise AnatomyError(f"{folder / WEIGHTS}: not the weights of the detector in card.json ({reason})") from None
        if not all(weight.isfinite().all() for weight in self.network.state_dict().values()):
            raise AnatomyError(f"{folder / WEIGHTS}: holds NaN or infinite weights; train again")
        self.network.eval()

    def candidates(self, xray: Xray) -> list[Candidate]:
        """What looks like a vertebra in a view, image pixels."""
        canvas = canvas_camera(xray.camera, self.pixels)
        found = find_candidates(self.network, local_contrast(to_canvas(xray, self.pixels)))

        def edges(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
            corners: NDArray[np.float64] = canvas_to_image(xray.camera, np.array(box).reshape(2, 2), canvas)
            return tuple(corners.ravel().tolist())  # type: ignore[return-value]

        return [Candidate(edges(one.edges), one.scores) for one in found]
