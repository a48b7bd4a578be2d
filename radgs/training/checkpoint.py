"""Where a stopped training stands: enough to go on as if it had not been stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from radgs.errors import RadgsError
from radgs.images import atomic_path


@dataclass
class Progress:
    """How far a training came; plain values and tensors only, so that it is read without pickle.

    Attributes:
        step: optimiser steps done.
        seconds: of training so far, over all runs.
        sums: of each loss term since the epoch began.
        counts: how many steps had the term.
        history: a row of numbers for each epoch, as in ``log.csv``.
        best_score: lowest validation score, mm.
        best_state: the weights that had it.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float = float("inf")
    best_state: dict[str, Tensor] = field(default_factory=dict)


def random_states(fabric: Fabric) -> Tensor:
    """The state of every process's random numbers, a row each; all processes must ask for it."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if fabric.device.type == "cuda" else [])]
    own = torch.cat(states)
    if fabric.world_size == 1:
        return own[None]
    gathered = fabric.all_gather(own)
    assert isinstance(gathered, Tensor)
    return gathered.cpu()


def write_checkpoint(
    path: Path,
    identity: str,
    random: Tensor,
    progress: Progress,
    stage: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Write weights, optimiser, schedule, position and the :func:`random_states`, atomically."""
    content = {
        "identity": identity,
        "progress": vars(progress),
        "stage": stage.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": random,
    }
    with atomic_path(path) as part:
        torch.save(content, part)


def read_checkpoint(
    path: Path,
    identity: str,
    stage: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    rank: int = 0,
) -> Progress:
    """Take up where a checkpoint stopped; a fresh start when there is none or it is of another training.

    Args:
        path: of the checkpoint.
        identity: of the training.
        stage: gets its weights.
        optimizer: gets its state.
        scheduler: gets its state.
        rank: of this process among those that train together.

    Raises:
        RadgsError: the file is damaged.
    """
    if not path.is_file():
        return Progress()
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged or forbidden file
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise RadgsError(f"{path}: not a readable checkpoint ({reason}); delete it to start anew") from None
    if content.get("identity") != identity:
        return Progress()
    stage.load_state_dict(content["stage"])
    optimizer.load_state_dict(content["optimizer"])
    scheduler.load_state_dict(content["scheduler"])
    random, size = content["random"][rank], len(torch.get_rng_state())
    torch.set_rng_state(random[:size].clone())  # PyTorch crashes on a part of a larger tensor
    if len(random) > size and torch.cuda.is_available():
        torch.cuda.set_rng_state(random[size:].clone())
    return Progress(**content["progress"])
