"""The loop of every stage: the same on CPU and GPU, and the same when stopped and resumed."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from radgs.config import TrainingSettings
from radgs.errors import RadgsError
from radgs.images import atomic_path
from radgs.simulation import ShardedField
from radgs.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from radgs.training.losses import total

_CHECKPOINT_SECONDS = 60.0
_LINE_SECONDS = 10.0
_TERMINAL_SECONDS = 0.5
_WARM_UP = 0.2  # of the steps
_MAX_GRADIENT = 5.0
_VALIDATION_BATCH = 64

Fields = Mapping[str, Tensor | ShardedField]
"""Of equal length, a row a sample; indexing gives tensors."""


class TrainingError(RadgsError):
    """A training cannot go on."""


class Stage(nn.Module):
    """What is trained: networks and their losses."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted loss terms of a batch, scalars; their sum is minimised."""
        raise NotImplementedError

    score = "mtre_mean_mm"
    """The metric that picks the best weights; lower is better."""

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Numbers of each sample, ``[B]``; of a stage that estimates poses ``mtre_mm`` and ``start_mtre_mm``."""
        raise NotImplementedError

    def summarise(self, found: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics of all held-out samples, from what :meth:`validate` says of each."""
        error, start = found["mtre_mm"], found["start_mtre_mm"]
        return {
            "mtre_median_mm": float(error.quantile(0.5)),
            "mtre_mean_mm": float(error.mean()),
            "mtre_p95_mm": float(error.quantile(0.95)),
            "start_mtre_median_mm": float(start.quantile(0.5)),
            "better_than_start": float((error < start).double().mean()),
            "validated": float(len(error)),
        }


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    Attributes:
        steps: of the optimiser.
        seconds: of training, over all runs.
        best: metrics of the weights that the stage now has.
        last: metrics at the end.
        complete: False when ``max_seconds`` ended it.
    """

    steps: int
    seconds: float
    best: dict[str, float]
    last: dict[str, float]
    complete: bool


def train_stage(
    stage: Stage,
    fields: Fields,
    settings: TrainingSettings,
    folder: str | Path,
    *,
    name: str,
    seed: int,
    identity: str,
) -> Outcome:
    """Train with AdamW under a one-cycle rate (Smith 2018); at the end the stage has its best weights.

    The last ``validation_fraction`` of the samples is held out: pairs of one scene lie together, so hardly a scene
    is on both sides. ``folder`` gets ``log.csv`` and, until the end, ``checkpoint.pt``, from which a stopped training
    of the same identity goes on exactly. The weights before the first step count among those the best are picked from:
    a stage never ends with weights that its held-out samples call worse than those it began with.

    Args:
        stage: the networks and their losses.
        fields: the samples; what lies on disk is read a batch at a time.
        settings: how long, in which steps.
        folder: for log and checkpoint.
        name: of the stage, for lines and errors.
        seed: of order, augmentation and counterfactuals.
        identity: changes with anything that would make resuming wrong.

    Raises:
        TrainingError: too few samples, or a loss that is not finite.
    """
    folder = Path(folder)
    fabric = Fabric(accelerator="cuda" if torch.cuda.is_available() else "cpu", devices=1)
    torch.manual_seed(seed)
    present = _length(fields)
    count = min(present, settings.pairs or present)
    held_out = max(1, round(count * settings.validation_fraction))
    per_epoch = (count - held_out) // settings.batch
    if per_epoch < 1:
        raise TrainingError(f"{name}: {count} pairs are too few for batches of {settings.batch}; simulate more")
    steps = max(1, round(settings.epochs * per_epoch))
    trained = [p for p in stage.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=_WARM_UP
    )
    model, fabric_optimizer = fabric.setup(stage, optimizer)
    progress = read_checkpoint(folder / "checkpoint.pt", identity, stage, optimizer, scheduler)
    began, clock = time.monotonic() - progress.seconds, _Clock(name, steps, stage.score)
    saved = time.monotonic()
    held = {key: value[present - held_out :] for key, value in fields.items()}
    if not progress.history:
        _end_epoch(stage, fabric, held, progress, settings.learning_rate)
    in_time = True
    while progress.step < steps and in_time:
        rows = present - count + _rows(count - held_out, per_epoch, settings.batch, progress.step, seed)
        batch = fabric.to_device({key: value[rows] for key, value in fields.items()})
        stage.train()
        terms = model(batch)
        _check(terms, name, progress.step)
        fabric.backward(total(terms))
        fabric.clip_gradients(model, fabric_optimizer, max_norm=_MAX_GRADIENT, error_if_nonfinite=False)
        fabric_optimizer.step()
        fabric_optimizer.zero_grad()
        scheduler.step()
        progress.step += 1
        for key, value in terms.items():
            progress.sums[key] = progress.sums.get(key, 0.0) + float(value.detach())
            progress.counts[key] = progress.counts.get(key, 0) + 1
        progress.seconds = time.monotonic() - began
        in_time = settings.max_seconds is None or progress.seconds < settings.max_seconds
        if progress.step % per_epoch == 0 or progress.step == steps or not in_time:
            _end_epoch(stage, fabric, held, progress, optimizer.param_groups[0]["lr"])
            _write_log(folder / "log.csv", progress)
        if time.monotonic() - saved >= _CHECKPOINT_SECONDS and progress.step < steps:
            write_checkpoint(folder / "checkpoint.pt", identity, progress, stage, optimizer, scheduler)
            saved = time.monotonic()
        clock.tick(progress, float(total(terms).detach()))
    stage.load_state_dict(progress.best_state)
    stage.cpu().eval()
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    best = min(progress.history, key=lambda row: row[stage.score])
    return Outcome(progress.step, progress.seconds, _metrics(best), _metrics(progress.history[-1]), in_time)


def _rows(count: int, per_epoch: int, batch: int, step: int, seed: int) -> Tensor:
    """The samples of a step: each epoch has its own order, drawn from its number alone."""
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return order[position * batch : (position + 1) * batch]


def _check(terms: Mapping[str, Tensor], name: str, step: int) -> None:
    for key, value in terms.items():
        if not value.isfinite():
            raise TrainingError(
                f"{name}: the term {key} is {float(value.detach())} at step {step + 1}; lower the learning rate "
                "or check the pairs"
            )


@torch.no_grad()
def evaluate_stage(stage: Stage, fabric: Fabric, held: Mapping[str, Tensor]) -> dict[str, float]:
    """Metrics over held-out samples."""
    stage.eval()
    parts: dict[str, list[Tensor]] = {}
    for first in range(0, _length(held), _VALIDATION_BATCH):
        batch = {key: value[first : first + _VALIDATION_BATCH] for key, value in held.items()}
        for key, value in stage.validate(fabric.to_device(batch)).items():
            parts.setdefault(key, []).append(value.double().cpu())
    return stage.summarise({key: torch.cat(values) for key, values in parts.items()})


def _length(fields: Fields) -> int:
    return len(next(iter(fields.values())))


def _end_epoch(stage: Stage, fabric: Fabric, held: Mapping[str, Tensor], progress: Progress, rate: float) -> None:
    metrics = evaluate_stage(stage, fabric, held)
    terms = {f"train.{key}": value / progress.counts[key] for key, value in progress.sums.items()}
    progress.history.append(
        {"step": progress.step, "seconds": progress.seconds, "learning_rate": rate, **metrics, **terms}
    )
    progress.sums, progress.counts = {}, {}
    if metrics[stage.score] < progress.best_score:
        progress.best_score = metrics[stage.score]
        progress.best_state = {k: v.detach().cpu().clone() for k, v in stage.state_dict().items()}


def _metrics(row: Mapping[str, float]) -> dict[str, float]:
    return {
        k: v for k, v in row.items() if not k.startswith("train.") and k not in {"step", "seconds", "learning_rate"}
    }


def _write_log(path: Path, progress: Progress) -> None:
    names = list(dict.fromkeys(name for row in progress.history for name in row))
    with atomic_path(path) as part, part.open("w", newline="") as file:
        writer: Any = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(progress.history)


class _Clock:
    """Says now and then how far it is and how long it still takes."""

    def __init__(self, name: str, steps: int, score: str) -> None:
        self.name, self.steps, self.score = name, steps, score
        self.terminal = sys.stdout.isatty()
        self.began, self.spoke, self.first = time.monotonic(), time.monotonic(), -1

    def tick(self, progress: Progress, loss: float) -> None:
        now = time.monotonic()
        if self.first < 0:
            self.first = progress.step - 1
        pause = _TERMINAL_SECONDS if self.terminal else _LINE_SECONDS
        if now - self.spoke < pause and progress.step < self.steps:
            return
        self.spoke = now
        left = (now - self.began) / (progress.step - self.first) * (self.steps - progress.step)
        held_out = f", held-out {self.score} {progress.history[-1][self.score]:.2f}" if progress.history else ""
        line = f"{self.name}: step {progress.step} of {self.steps}, loss {loss:.3f}{held_out}, {left:.0f} s left"
        sys.stdout.write(f"\r{line:<100}" if self.terminal else line + "\n")
        if self.terminal and progress.step >= self.steps:
            sys.stdout.write("\n")
        sys.stdout.flush()
