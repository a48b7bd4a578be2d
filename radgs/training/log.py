"""What a training wrote down of each epoch: ``log.csv``, and the same for TensorBoard."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from radgs.images import atomic_path

_TRAIN = "train."
_ABOUT = ("step", "progress", "seconds", "learning_rate")


def metrics_of(row: Mapping[str, float]) -> dict[str, float]:
    """The held-out metrics among an epoch's numbers."""
    return {k: v for k, v in row.items() if not k.startswith(_TRAIN) and k not in _ABOUT}


def write_csv(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """A row for each epoch, a column for each number."""
    names = list(dict.fromkeys(name for row in history for name in row))
    with atomic_path(path) as part, part.open("w", newline="") as file:
        writer: Any = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)


class TensorBoardLog:
    """Scalars of each epoch under ``folder/tensorboard``; what a lost step wrote after ``step`` is not shown."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if step == 0:  # of another training in this folder
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1 if step else None)

    def add(self, row: Mapping[str, float]) -> None:
        """The numbers of an epoch."""
        for name, value in row.items():
            if name.startswith(_TRAIN):
                self.writer.add_scalar(f"train/{name.removeprefix(_TRAIN)}", value, int(row["step"]))
            elif name != "step":
                self.writer.add_scalar(name if name in _ABOUT else f"held-out/{name}", value, int(row["step"]))
        self.writer.flush()

    def close(self) -> None:
        """Nothing more comes."""
        self.writer.close()
