"""Where training runs: devices, processes, precision."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities import rank_zero_only
from torch import nn

from radgs.config import MachineSettings
from radgs.errors import RadgsError
from radgs.models import Encoder

__all__ = ["agreed", "device_of", "make_fabric", "rank_zero_only", "set_precision"]

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device_of(settings: MachineSettings) -> str:
    """``cpu`` or ``cuda``."""
    if settings.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return settings.accelerator


def make_fabric(settings: MachineSettings) -> Fabric:
    """The processes that train together, one a device; the others are started here unless Slurm or torchrun has.

    Raises:
        RadgsError: the machine does not have what is asked for.
    """
    accelerator = device_of(settings)
    if accelerator == "cuda" and torch.cuda.device_count() < settings.devices:
        raise RadgsError(
            f"machine.devices: {settings.devices} CUDA devices are asked for, {torch.cuda.device_count()} are there; "
            "ask for fewer, or for accelerator: cpu"
        )
    strategy: str | DDPStrategy = settings.strategy
    if strategy == "auto" and settings.devices * settings.nodes > 1:
        # A step teaches the parameters of what it draws only. Buffers hold the vertebrae, too large to send every step.
        strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    try:
        fabric = Fabric(accelerator=accelerator, devices=settings.devices, num_nodes=settings.nodes, strategy=strategy)
    except (ValueError, RuntimeError) as error:
        raise RadgsError(f"machine: {' '.join(str(error).split())[:200]}") from None
    fabric.launch()
    return fabric


def set_precision(stage: nn.Module, precision: str) -> None:
    """The type in which encoders compute while they are trained."""
    for module in stage.modules():
        if isinstance(module, Encoder):
            module.compute = _TYPES[precision]


def agreed(fabric: Fabric, value: Any) -> Any:
    """What the first process says, so that all of them do the same."""
    return value if fabric.world_size == 1 else fabric.broadcast(value)
