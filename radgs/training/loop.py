"""The loop of every stage: the same on CPU and GPU, and the same when stopped and resumed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from radgs.config import MachineSettings, TrainingSettings
from radgs.errors import RadgsError
from radgs.training.checkpoint import random_states, read_checkpoint, write_checkpoint
from radgs.training.clock import Clock
from radgs.training.held_out import Fields, held_out_metrics, length
from radgs.training.log import TensorBoardLog, metrics_of, write_csv
from radgs.training.losses import total
from radgs.training.machine import agreed, make_fabric, set_precision

_CHECKPOINT_SECONDS = 60.0
_WARM_UP = 0.2  # of the steps
_MAX_GRADIENT = 5.0
_ONE_DEVICE = MachineSettings()


class TrainingError(RadgsError):
    """A training cannot go on."""


class Stage(nn.Module):
    """What is trained: networks and their losses."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted loss terms of a batch, scalars; their sum is minimised."""
        raise NotImplementedError

    score = "mtre_mean_mm"
    """The metric that picks the best weights; lower is better."""

    progress = 0.0
    """The share of the steps, or of the time limit, that is done; the loop keeps it."""

    whole_from = 0.0
    """The progress from which on all is taught: weights from before are not among the best."""

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
        stopped_early: True when ``patience`` ended it.
    """

    steps: int
    seconds: float
    best: dict[str, float]
    last: dict[str, float]
    complete: bool
    stopped_early: bool = False


def train_stage(
    stage: Stage,
    fields: Fields,
    settings: TrainingSettings,
    folder: str | Path,
    *,
    name: str,
    seed: int,
    identity: str,
    machine: MachineSettings = _ONE_DEVICE,
) -> Outcome:
    """Train with AdamW under a one-cycle rate (Smith 2018); at the end the stage has its best weights.

    The last ``validation_fraction`` of the samples is held out: pairs of one scene lie together, so hardly a scene
    is on both sides. ``folder`` gets ``log.csv``, ``tensorboard`` and, until the end, ``checkpoint.pt``, from which a
    stopped training of the same identity goes on exactly. The weights before the first step count among those the best
    are picked from: a stage never ends with weights that its held-out samples call worse than those it began with. With
    no epochs at all it measures them and ends.

    With several devices, each process comes here and leaves with the same weights; the first one writes the files.

    Args:
        stage: the networks and their losses.
        fields: the samples; what lies on disk is read a batch at a time.
        settings: how long, in which steps.
        folder: for logs and checkpoint.
        name: of the stage, for lines and errors.
        seed: of order, augmentation and counterfactuals.
        identity: changes with anything that would make resuming wrong.
        machine: devices and precision.

    Raises:
        TrainingError: too few samples, a batch that the devices cannot share, or a loss that is not finite.
        RadgsError: the machine does not have the devices.
    """
    fabric = make_fabric(machine)
    torch.manual_seed(seed + fabric.global_rank)
    present = length(fields)
    count = min(present, settings.pairs or present)
    held_out = max(1, round(count * settings.validation_fraction))
    held = {key: value[present - held_out :] for key, value in fields.items()}
    used = range(present - count, present - held_out)
    if len(used) < settings.batch:
        raise TrainingError(f"{name}: {count} pairs are too few for batches of {settings.batch}; simulate more")
    if settings.batch % fabric.world_size:
        raise TrainingError(
            f"{name}: a batch of {settings.batch} cannot be shared out among {fabric.world_size} devices; "
            "make it a multiple of their number"
        )
    set_precision(stage, machine.precision)
    identity = f"{identity} {fabric.world_size} {machine.precision}"
    run = _Run(stage, fabric, settings, Path(folder), name, used, identity)
    log = TensorBoardLog(run.folder, run.progress.step) if machine.tensorboard and fabric.is_global_zero else None
    try:
        run.train(fields, held, seed, log)
    finally:
        if log:
            log.close()
    stage.load_state_dict(agreed(fabric, run.progress.best_state))
    stage.cpu().eval()
    fabric.barrier()
    if fabric.is_global_zero:
        (run.folder / "checkpoint.pt").unlink(missing_ok=True)
    return run.outcome()


class _Run:
    """One training: what changes from step to step."""

    def __init__(
        self,
        stage: Stage,
        fabric: Fabric,
        settings: TrainingSettings,
        folder: Path,
        name: str,
        used: range,
        identity: str,
    ) -> None:
        self.stage, self.fabric, self.settings, self.folder, self.name = stage, fabric, settings, folder, name
        self.used, self.identity = used, identity
        self.per_epoch = len(used) // settings.batch
        self.steps = max(1, round(settings.epochs * self.per_epoch)) if settings.epochs else 0
        trained = [p for p in stage.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings.learning_rate, total_steps=max(self.steps, 1) + 1, pct_start=_WARM_UP
        )
        self.model, self.fabric_optimizer = fabric.setup(stage, self.optimizer)
        self.progress = read_checkpoint(
            folder / "checkpoint.pt", identity, stage, self.optimizer, self.scheduler, fabric.global_rank
        )
        fabric.barrier()  # all have read it before the first one writes the next
        self.in_time = True

    def train(self, fields: Fields, held: Mapping[str, Tensor], seed: int, log: TensorBoardLog | None) -> None:
        """Step after step until the last, the time limit, or no more gain."""
        fabric, settings, progress = self.fabric, self.settings, self.progress
        began = saved = time.monotonic()
        began -= progress.seconds
        clock = Clock(self.name, self.steps, self.stage.score, settings.max_seconds, not fabric.is_global_zero)
        clock.begin(len(self.used), settings.batch, f"{fabric.world_size} x {fabric.device.type}")
        if not progress.history:
            self._end_epoch(held, settings.learning_rate, log)
        while progress.step < self.steps and self.in_time and not self.stalled:
            rows = self.used.start + _rows(len(self.used), self.per_epoch, settings.batch, progress.step, seed)
            rows = rows[fabric.global_rank :: fabric.world_size]
            loss = self._step(fabric.to_device({key: value[rows] for key, value in fields.items()}))
            progress.seconds = time.monotonic() - began
            self.in_time = agreed(fabric, settings.max_seconds is None or progress.seconds < settings.max_seconds)
            if progress.step % self.per_epoch == 0 or progress.step == self.steps or not self.in_time:
                self._end_epoch(held, self.optimizer.param_groups[0]["lr"], log)
                if fabric.is_global_zero:
                    write_csv(self.folder / "log.csv", progress.history)
            if agreed(fabric, time.monotonic() - saved >= _CHECKPOINT_SECONDS and progress.step < self.steps):
                self._save()
                saved = time.monotonic()
            clock.tick(progress, loss)
        if progress.step < self.steps:
            clock.end("no better for long enough" if self.in_time else "out of time")

    def _step(self, batch: dict[str, Tensor]) -> float:
        progress = self.progress
        self.stage.train()
        self.stage.progress = self.share
        terms = self.model(batch)
        _check(terms, self.name, progress.step)
        loss = total(terms)
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.model, self.fabric_optimizer, max_norm=_MAX_GRADIENT, error_if_nonfinite=False)
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad()
        self.scheduler.step()
        progress.step += 1
        for key, value in terms.items():
            progress.sums[key] = progress.sums.get(key, 0.0) + float(value.detach())
            progress.counts[key] = progress.counts.get(key, 0) + 1
        return float(loss.detach())

    @property
    def share(self) -> float:
        """Of the steps or of the time limit, what is done."""
        done = self.progress.step / max(self.steps, 1)
        limit = self.settings.max_seconds
        return done if limit is None else min(max(done, self.progress.seconds / limit), 1.0)

    @property
    def eligible(self) -> list[dict[str, float]]:
        """The rows of weights that may be the best: those it began with, and those that all was taught to."""
        first, *others = self.progress.history
        return [first, *(row for row in others if row["progress"] > self.stage.whole_from)]

    @property
    def stalled(self) -> bool:
        """Whether the held-out score has not become better for ``patience`` epochs."""
        scores = [row[self.stage.score] for row in self.eligible]
        patience = self.settings.patience
        return patience is not None and agreed(self.fabric, len(scores) - 1 - scores.index(min(scores)) >= patience)

    def _end_epoch(self, held: Mapping[str, Tensor], rate: float, log: TensorBoardLog | None) -> None:
        progress, stage = self.progress, self.stage
        metrics = held_out_metrics(stage, self.fabric, held)
        terms = {f"train.{key}": value / progress.counts[key] for key, value in progress.sums.items()}
        place = {"step": progress.step, "progress": self.share, "seconds": progress.seconds, "learning_rate": rate}
        progress.history.append({**place, **metrics, **terms})
        progress.sums, progress.counts = {}, {}
        if self.eligible[-1] is progress.history[-1] and metrics[stage.score] < progress.best_score:
            progress.best_score = metrics[stage.score]
            progress.best_state = {k: v.detach().cpu().clone() for k, v in stage.state_dict().items()}
        if log:
            log.add(progress.history[-1])

    def _save(self) -> None:
        random = random_states(self.fabric)
        if self.fabric.is_global_zero:
            write_checkpoint(
                self.folder / "checkpoint.pt",
                self.identity,
                random,
                self.progress,
                self.stage,
                self.optimizer,
                self.scheduler,
            )

    def outcome(self) -> Outcome:
        """How it went."""
        progress, score = self.progress, self.stage.score
        best = min(self.eligible, key=lambda row: row[score])
        early = self.in_time and progress.step < self.steps
        return Outcome(
            progress.step, progress.seconds, metrics_of(best), metrics_of(progress.history[-1]), self.in_time, early
        )


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
