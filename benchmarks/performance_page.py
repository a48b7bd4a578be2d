"""Write docs/performance.md and its plots from what benchmarks/kernels.py measured.

python benchmarks/performance_page.py docs/kernels.json docs/performance.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

AXES = {
    "gaussians": "Gaussians, drawn on 2 x 256² pixels",
    "image": "pixels an edge, 2 images, 10,000 Gaussians",
    "volume": "voxels an edge, 10,000 Gaussians",
}
HEAD = """# Performance of the kernels

Measured by `python benchmarks/kernels.py --json {source} --prototype …`; this page is written from that file by
`benchmarks/performance_page.py`. Ratios are taken turn by turn in one run, so a busy machine is unfair to neither
side; values are medians ± half the distance between the quartiles. A goal that was missed says so. "Prototype": the
kernels this project began with, which get their footprints ready-made.

Machine: {machine}.

| work | measured | goal | |
|---|---|---|---|
"""


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    value = (
        "not measured" if row["value"] is None else f"{row['value']:.3g} ± {row['spread']:.2g} {row['unit']}".strip()
    )
    mark = {True: "met", False: "**missed**", None: ""}[row["met"]]
    return f"| {row['name']} | {value} | {row['goal']} | {'; '.join(x for x in (mark, row['note']) if x)} |\n"


def plot(points: list[dict[str, float]], label: str, path: Path) -> None:
    """Milliseconds forward and backward, both axes logarithmic."""
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name, marker in (("forward", "o"), ("backward", "s")):
        axes.loglog([p["x"] for p in points], [p[name] for p in points], marker=marker, label=name)
    axes.set(xlabel=label, ylabel="milliseconds")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(source: Path, page: Path) -> None:
    """Read the measurements, write page and plots."""
    measured = json.loads(source.read_text())
    m = measured["machine"]
    machine = f"{m['cpu']}, {m['cores']} cores, {m['gpu'] or 'no GPU'}; PyTorch {m['torch']}, Numba {m['numba']}"
    text = HEAD.format(source=source.as_posix(), machine=machine) + "".join(map(line, measured["rows"]))
    images = page.parent / "images"
    for name, points in measured.get("series", {}).items():
        plot(points, AXES[name], images / f"performance_{name}.png")
        text += f"\n![time against {AXES[name]}](images/performance_{name}.png)\n"
    page.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
