"""The ablation's table and figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from radgs.images import atomic_path, read_json

mpl.use("Agg")

_PARTS = ("recm", "regm", "joint")
_MEASURED = [
    f"{kind}_{name}" for kind in ("xray_only", "ct_assisted") for name in ("dice", "asd_mm", "ssim", "psnr_db")
]
_SHOWN = {
    "mTRE, mm": {"after RecM": "recm_median_mm", "after RegM": "regm_median_mm"},
    "Dice of bone": {"X-rays only": "xray_only_dice", "CT-assisted": "ct_assisted_dice"},
    "SSIM 3D": {"X-rays only": "xray_only_ssim", "CT-assisted": "ct_assisted_ssim"},
}


def write_ablation(
    measured: Mapping[str, str | Path],
    about: Mapping[str, str],
    models: str | Path,
    table: str | Path,
    figure: str | Path,
) -> None:
    """Write one line a row, and bars.

    Args:
        measured: by row, the CSV of :func:`radgs.evaluation.write_measured`, in the order of the table.
        about: by row, what it leaves out.
        models: holds ``{row}/{recm,regm,joint}/card.json``.
        table: CSV: medians of the poses' errors and the 95th percentile in mm, means of the reconstructions' numbers
            over the pairs that have them, the minutes that training took.
        figure: PNG.
    """
    rows = pd.DataFrame([_line(name, about[name], path, Path(models) / name) for name, path in measured.items()])
    with atomic_path(table) as part:
        rows.to_csv(part, index=False, float_format="%.4g")
    drawn = Figure(figsize=(11, 1.2 + 0.45 * len(rows)), layout="constrained")
    for axis, (unit, columns) in zip(drawn.subplots(1, len(_SHOWN), sharey=True), _SHOWN.items(), strict=True):
        height = 0.8 / len(columns)
        for i, (name, column) in enumerate(columns.items()):
            places = [k + (i - (len(columns) - 1) / 2) * height for k in range(len(rows))]
            axis.barh(
                places, rows[column], height, label=name, color=str(0.25 + 0.45 * i), edgecolor="k", linewidth=0.4
            )
        axis.set_yticks(range(len(rows)), rows["row"])
        axis.set_xlabel(unit)
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.8 / (1 + len(rows))), ncols=2)
    drawn.axes[0].invert_yaxis()
    with atomic_path(figure) as part:
        drawn.savefig(part, format="png", dpi=110)


def _line(name: str, about: str, path: str | Path, models: Path) -> dict[str, str | float]:
    found = pd.read_csv(path)
    cards = [read_json(models / part / "card.json") for part in _PARTS]
    return {
        "row": name,
        "about": about,
        "pairs": len(found),
        "trained_min": sum(card["seconds"] for card in cards) / 60,
        "start_median_mm": found["start_mm"].median(),
        "recm_median_mm": found["recm_mm"].median(),
        "regm_median_mm": found["regm_mm"].median(),
        "regm_p95_mm": found["regm_mm"].quantile(0.95),
        **{column: found[column].mean() for column in _MEASURED},
    }
