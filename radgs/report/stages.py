"""What a patient's networks have learned from, stage by stage."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from radgs.images import read_json


def stages_section(cards: Mapping[str, Sequence[tuple[str, str | Path]]]) -> str:
    """A table for each patient.

    Args:
        cards: by patient, name and ``card.json`` of each stage, the first one first.
    """
    parts = []
    for patient, stages in cards.items():
        rows = "".join(_row(name, read_json(path)) for name, path in stages)
        parts.append(
            f"<h3>{html.escape(patient)}</h3><table><tr><th>stage</th><th>learned from</th><th>pairs</th>"
            f"<th>minutes</th><th>held-out mTRE, mm</th></tr>{rows}</table>"
        )
    return f"<h2>What the networks learned from</h2>{''.join(parts)}" if parts else ""


def _row(name: str, card: Mapping[str, Any]) -> str:
    if not card["trained"]:
        cells = f"<td colspan=4>not trained, its weights were passed on: {html.escape(card['reason'])}</td>"
        return f"<tr><td>{html.escape(name)}</td>{cells}</tr>"
    data, metrics = card["data"], card["metrics"]
    of = data.get("patient") or ", ".join(data.get("levels_of", {}))
    numbers = (f"{data['pairs']}", f"{card['seconds'] / 60:.1f}", f"{metrics['mtre_mean_mm']:.2f}")
    cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
    return f"<tr><td>{html.escape(name)}</td><td>{html.escape(of)}</td>{cells}</tr>"
