"""Names and numbers of vertebrae (VerSe), and the numberings of others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from radgs.errors import AnatomyError

# VerSe'20 (Sekuboyina et al. 2021): C1-C7 = 1-7, T1-T12 = 8-19, L1-L5 = 20-24, L6 = 25, sacrum = 26, T13 = 28.
LEVELS: dict[str, int] = {
    **{f"C{i}": i for i in range(1, 8)},
    **{f"T{i}": 7 + i for i in range(1, 13)},
    **{f"L{i}": 19 + i for i in range(1, 7)},
    "S": 26,
    "T13": 28,
}
_NAMES = {number: name for name, number in LEVELS.items()}
# From head to foot; T13 lies between T12 and L1.
_ORDER = sorted(LEVELS, key=lambda name: 19.5 if name == "T13" else LEVELS[name])
# By numbering, the VerSe number of each of its labels. TotalSegmentator: task `total`, 25/26 = sacrum and S1,
# 27 = L5 ... 50 = C1. CTSpine1K (Deng et al. 2021) numbers C1 ... L6 as VerSe does and has no sacrum and no T13.
NUMBERINGS: dict[str, dict[int, int]] = {
    "verse": {number: number for number in LEVELS.values()},
    "totalsegmentator": {25: 26, 26: 26, **{label: 51 - label for label in range(27, 51)}},
    "ctspine1k": {number: number for number in range(1, 26)},
}
_TOTALSEGMENTATOR_CLASSES = 117


def level_name(number: int) -> str:
    """The name of a VerSe number.

    Raises:
        AnatomyError: no vertebra has this number.
    """
    if number not in _NAMES:
        raise AnatomyError(f"{number} is not a VerSe vertebra number")
    return _NAMES[number]


def cranio_caudal(levels: Iterable[str]) -> list[str]:
    """Levels from head to foot."""
    return sorted(levels, key=_ORDER.index)


def neighbours(level: str, reach: int, available: set[str]) -> list[str]:
    """The available levels at most ``reach`` places from ``level``, itself included, from head to foot."""
    order = [name for name in _ORDER if name in available or name == level]
    place = order.index(level)
    return [name for name in order[max(0, place - reach) : place + reach + 1] if name in available]


def verse_from_totalsegmentator(labels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Labels of TotalSegmentator's task ``total`` to VerSe numbers; what is no vertebra becomes 0."""
    table = np.zeros(256, dtype=np.uint8)
    for label, number in NUMBERINGS["totalsegmentator"].items():
        table[label] = number
    return table[labels.astype(np.uint8)]


def verse_numbers(labels: NDArray[np.generic], numbering: str) -> NDArray[np.uint8]:
    """Labels in one of :data:`NUMBERINGS` to VerSe numbers.

    Raises:
        AnatomyError: values that the numbering does not have, or no vertebra at all.
    """
    table, found = NUMBERINGS[numbering], np.unique(labels).tolist()
    other = range(_TOTALSEGMENTATOR_CLASSES + 1) if numbering == "totalsegmentator" else (0,)  # organs, not a mistake
    unknown = [label for label in found if label not in table and label not in other]
    if unknown:
        raise AnatomyError(f"{_listed(unknown)} are no {numbering} numbers{_advice(found, numbering)}")
    if not any(label in table and table[label] != LEVELS["S"] for label in found):
        raise AnatomyError(f"holds no vertebra in {numbering} numbers{_advice(found, numbering)}")
    return (
        verse_from_totalsegmentator(labels) if numbering == "totalsegmentator" else labels.astype(np.uint8, copy=True)
    )


def _listed(values: list[float]) -> str:
    return f"{values[:5]}" if len(values) <= 5 else f"{values[:5]} and {len(values) - 5} more values"


def _advice(found: list[float], numbering: str) -> str:
    """Which other numberings have all the labels."""
    fits = [name for name, table in NUMBERINGS.items() if name != numbering and {*found} - {0} <= table.keys()]
    return f"; they fit segmentation.numbering: {' or '.join(fits)}" if any(found) and fits else ""
