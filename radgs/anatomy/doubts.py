"""Why a level that was found is not certain, in words; such a level is registered, but never accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from radgs.anatomy.boxes import Box
from radgs.anatomy.decoding import Decoded
from radgs.anatomy.fitting import Fitted
from radgs.config import YoloSettings
from radgs.images import Xray

_LEAST_MEASURED = 0.7  # of a box: what lies behind the collimator or outside the image cannot be registered


def naming_doubts(found: Decoded, settings: YoloSettings) -> dict[str, list[str]]:
    """By level, why its name is not certain."""
    shifted = (
        [f"all levels may be named one off (log-odds {found.shift_margin:.1f} a level)"]
        if found.shift_margin < settings.certain_shift
        else []
    )
    return {
        level: shifted
        + ([f"another name fits nearly as well (log-odds {margin:.1f})"] if margin < settings.certain_margin else [])
        for level, margin in found.margins.items()
    }


def fit_doubts(fitted: Fitted, levels: Sequence[str], settings: YoloSettings) -> dict[str, list[str]]:
    """By level, why it may be another one or lie elsewhere, from how the CT's vertebrae fit the images."""
    return {}


def border_doubts(xrays: Mapping[str, Xray], boxes: Mapping[str, Mapping[str, Box]]) -> dict[str, list[str]]:
    """By level, the views in which the image's or the collimator's border cuts it."""
    doubts: dict[str, list[str]] = {}
    for view, found in boxes.items():
        for level, box in found.items():
            share = measured_share(xrays[view], box)
            if share < _LEAST_MEASURED:
                doubts.setdefault(level, []).append(f"only {100 * share:.0f} % of its box in view {view} was measured")
    return doubts


def measured_share(xray: Xray, box: Box) -> float:
    """How much of a box has a measurement."""
    u0, v0, u1, v1 = (np.rint(edge) for edge in box.edges)
    area = (u1 - u0 + 1) * (v1 - v0 + 1)
    u0, v0, u1, v1 = (int(edge) for edge in np.clip((u0, v0, u1 + 1, v1 + 1), 0, None))
    return float(np.isfinite(xray.line_integrals[v0:v1, u0:u1]).sum() / area)
