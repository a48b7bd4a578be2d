"""What every benchmark of this project shares: timing side by side, and the form of its JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numba
import torch


@dataclass(frozen=True)
class Row:
    """One number of a benchmark.

    Attributes:
        name: what was measured.
        value: median; None if it could not be measured (``note`` says why).
        unit: of value.
        goal: such as ``">= 15"`` or ``"<= 6"``; empty when there is none.
        met: whether the value reaches the goal; None without value or goal.
        n: repetitions behind the value.
        spread: half the distance between the quartiles, in the unit of the value.
        note: anything needed to read the number.
    """

    name: str
    value: float | None
    unit: str
    goal: str
    met: bool | None
    n: int
    spread: float
    note: str = ""

    @classmethod
    def of(cls, name: str, samples: list[float], unit: str, goal: str = "", note: str = "") -> Row:
        """The median of samples, judged."""
        value = statistics.median(samples)
        return cls(name, value, unit, goal, _meets(value, goal), len(samples), _spread(samples), note)

    @classmethod
    def missing(cls, name: str, unit: str, goal: str, why: str) -> Row:
        """A number that could not be measured."""
        return cls(name, None, unit, goal, None, 0, 0.0, why)


def _meets(value: float, goal: str) -> bool | None:
    if not goal:
        return None
    relation, bound = goal.split()
    return value >= float(bound) if relation == ">=" else value <= float(bound)


def _spread(samples: list[float]) -> float:
    if len(samples) < 4:
        return (max(samples) - min(samples)) / 2
    quartiles = statistics.quantiles(samples, n=4)
    return (quartiles[2] - quartiles[0]) / 2


def side_by_side(work: Mapping[str, Callable[[], Any]], repetitions: int, warm_ups: int = 2) -> dict[str, list[float]]:
    """Milliseconds of each piece of work, taken in turns, so that a busy machine is unfair to none of them."""
    cuda = torch.cuda.is_available()
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warm_ups + repetitions):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if cuda:
                torch.cuda.synchronize()
            if turn >= warm_ups:
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def ratios(times: Mapping[str, list[float]], peer: str, ours: str) -> list[float]:
    """How many times longer the peer took, turn by turn."""
    return [p / o for p, o in zip(times[peer], times[ours], strict=True)]


def machine() -> dict[str, Any]:
    """What the numbers were measured on: nothing that names a person or a place."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
        if Path("/proc/cpuinfo").exists()
        else iter([platform.processor()]),
        "unknown",
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": {"torch": torch.get_num_threads(), "numba": numba.get_num_threads()},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
    }


def write_rows(path: Path, rows: list[Row], **more: Any) -> None:
    """Write the project's form of a benchmark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows], **more}, indent=1) + "\n")


def print_row(row: Row) -> None:
    """One line of a terminal."""
    mark = {True: "met", False: "MISSED", None: ""}[row.met]
    value = "-" if row.value is None else f"{row.value:.4g} ± {row.spread:.2g} {row.unit}"
    sys.stdout.write(f"{row.name:<68} {value:>26}  {row.goal:>9}  {mark:<6} {row.note}\n")
    sys.stdout.flush()
