"""Write docs/robustness.md and its figure from what benchmarks/registration.py measured.

python benchmarks/robustness_page.py docs/registration.json docs/robustness.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from performance_page import line

HEAD = """# Robustness

Measured by `python benchmarks/registration.py --json {source}`; this page is written from that file by
`benchmarks/robustness_page.py`. **The X-rays are simulated**, from the demo patient's CT (real, slices of 2.5 mm; rows
that name another patient are of its CT), by a simulator that shares no projector, physics or bending of the spine with
training: ITK-RTK, a tube's spectrum, the CT bent as a whole ([benchmarks/world](../benchmarks/world/cases.py) holds
every strength). The patient lies turned by up to 20 degrees and moved by up to 50 mm on each axis; every joint is bent
by 3 degrees and 1.5 mm against the CT; the views are turned by up to 15 degrees. A case changes what its name says and
nothing else; shots with the same number show the same patient lying the same way. A level without a pose that both
images show by half is a failure. Spread: half of the interval between the quartiles, or of the 95 % Wilson interval. A
goal that was missed says so.

Machine: {machine}; one thread, with other work on the machine, so the times are too long. {about}

## Goals

| | measured | goal | |
|---|---|---|---|
"""
CASES = """
## By disturbance

![success by disturbance](images/robustness.png)

| case | registrations (shots) | < 2 mm | < 1 mm | median, mm | no pose | accepted | false accepts | right, refused |
|---|---|---|---|---|---|---|---|---|
"""
MOVING = """
## A patient who moves between the images

All patients together. Nothing that one pose could be is right for both images; errors are to the patient's place at the
first. A motion across the rays of both views is a contradiction that the verdict is told of; one along the rays of one
view looks like another pose, and nothing in two images can show it. "Told": the contradiction is among the reasons.

| case | registrations (shots) | < 2 mm | median, mm | accepted | of them 2 mm off and more | told |
|---|---|---|---|---|---|---|
"""
EVIDENCE = """
## What tells wrong poses from right ones

Over all cases: the area under the ROC curve of each piece of evidence alone (0.5: none, 1: perfect).

| evidence | area | a wrong pose has |
|---|---|---|
"""


def share(found: dict[str, float]) -> str:
    return f"{100 * found['value']:.0f} % ({100 * found['low']:.0f}-{100 * found['high']:.0f})"


def case_line(entry: dict[str, Any]) -> str:
    median = "-" if entry["median_mm"] is None else f"{entry['median_mm']:.2f}"
    cells = [
        entry["case"],
        f"{entry['n']} ({entry['shots']})",
        share(entry["success_2mm"]),
        share(entry["success_1mm"]),
        median,
        *(str(entry[k]) for k in ("no_pose", "accepted", "false_accepts", "rejected_right")),
    ]
    return "| " + " | ".join(cells) + " |\n"


def moving_line(entry: dict[str, Any]) -> str:
    median = "-" if entry["median_mm"] is None else f"{entry['median_mm']:.2f}"
    counts = (str(entry[k]) for k in ("accepted", "false_accepts", "told"))
    cells = [entry["case"], f"{entry['n']} ({entry['shots']})", share(entry["success_2mm"]), median, *counts]
    return "| " + " | ".join(cells) + " |\n"


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Success at 1 and 2 mm with their intervals, and what was accepted."""
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(cases) + 1.2), layout="constrained")
    y = np.arange(len(cases))[::-1]
    for name, label, marker, colour, offset in (
        ("success_2mm", "below 2 mm", "o", "black", 0.15),
        ("success_1mm", "below 1 mm", "s", "0.55", -0.15),
    ):
        value, low, high = (100 * np.array([c[name][k] for c in cases]) for k in ("value", "low", "high"))
        # rounding may leave a bar of minus nothing
        bars = np.maximum([value - low, high - value], 0)
        axes.errorbar(value, y + offset, xerr=bars, fmt=marker, color=colour, label=label, capsize=2, markersize=4)
    axes.plot([100 * c["accepted"] / c["n"] for c in cases], y, "|", color="black", markersize=12, label="accepted")
    axes.set_yticks(y, [f"{c['case']} ({c['n']})" for c in cases])
    axes.set(xlim=(-2, 102), xlabel="registrations, % (bars: 95 % Wilson intervals; in brackets: how many)")
    axes.grid(visible=True, axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(source: Path, page: Path) -> None:
    measured = json.loads(source.read_text())
    m = measured["machine"]
    machine = f"{m['cpu']}; PyTorch {m['torch']}, Numba {m['numba']}"
    text = HEAD.format(source=source.as_posix(), machine=machine, about=measured.get("about", "")) + "".join(
        map(line, measured["rows"])
    )
    text += CASES + "".join(map(case_line, measured["cases"]))
    if measured.get("moving"):
        text += MOVING + "".join(map(moving_line, measured["moving"]))
    text += EVIDENCE + "".join(
        f"| {e['evidence']} | {e['area']:.2f} | {'more' if e['wrong_is_larger'] else 'less'} |\n"
        for e in measured["evidence"]
    )
    page.parent.joinpath("images").mkdir(exist_ok=True)
    plot(measured["cases"], page.parent / "images/robustness.png")
    page.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
