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
    """By level, why the images may show another one there.

    Args:
        fitted: the CT's spine on the images.
        levels: from head to foot.
        settings: how well it should fit.
    """
    doubts: dict[str, list[str]] = {level: [] for level in levels}
    if fitted.lead < settings.certain_lead:
        for found in doubts.values():
            found.append(f"named one level up or down, the CT fits the images nearly as well (lead {fitted.lead:.2f})")
    for level, fit in _weakest_links(fitted.fits, levels).items():
        if fit < settings.certain_fit:
            doubts[level].append(
                f"the CT fits the images badly there or between there and where it fits (fit {fit:.2f})"
            )
    return doubts


def missed_doubts(fitted: Fitted, missed: Sequence[str], settings: YoloSettings) -> dict[str, list[str]]:
    """By level that the network missed, why its place is not certain: nothing in the images shows it."""
    return {
        level: ["not found itself, placed by its neighbours"]
        for level in missed
        if fitted.fits.get(level, 0.0) < settings.certain_fit
    }


def _weakest_links(fits: Mapping[str, float], levels: Sequence[str]) -> dict[str, float]:
    """By level, the least mean fit of three neighbours on the way from it to the level that fits best.

    A chain of names is as sure as its weakest link: levels above joints where nothing fits may be one level off.
    """
    if not fits:
        return dict.fromkeys(levels, 0.0)
    own = np.array([fits.get(level, np.nan) for level in levels])
    padded = np.pad(own, 1, constant_values=np.nan)
    triples = np.stack([padded[:-2], own, padded[2:]])
    count = np.isfinite(triples).sum(axis=0)
    means = np.nansum(triples, axis=0) / np.maximum(count, 1)
    best = int(np.nanargmax(own))
    return {level: float(means[min(row, best) : max(row, best) + 1].min()) for row, level in enumerate(levels)}


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
