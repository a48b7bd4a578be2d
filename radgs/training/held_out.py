"""Samples, and what a stage is worth on those that it does not learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from lightning_fabric import Fabric
from torch import Tensor

from radgs.simulation import ShardedField

if TYPE_CHECKING:
    from radgs.training.loop import Stage

_VALIDATION_BATCH = 64

Fields = Mapping[str, Tensor | ShardedField]
"""Of equal length, a row a sample; indexing gives tensors."""


@torch.no_grad()
def held_out_metrics(stage: Stage, fabric: Fabric, held: Mapping[str, Tensor]) -> dict[str, float]:
    """Metrics over held-out samples."""
    stage.eval()
    parts: dict[str, list[Tensor]] = {}
    for first in range(0, length(held), _VALIDATION_BATCH):
        batch = {key: value[first : first + _VALIDATION_BATCH] for key, value in held.items()}
        for key, value in stage.validate(fabric.to_device(batch)).items():
            parts.setdefault(key, []).append(value.double().cpu())
    return stage.summarise({key: torch.cat(values) for key, values in parts.items()})


def length(fields: Fields) -> int:
    """How many samples."""
    return len(next(iter(fields.values())))
