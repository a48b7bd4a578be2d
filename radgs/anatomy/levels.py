"""Names and numbers of vertebrae (VerSe), and the numberings of others."""

from __future__ import annotations

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
_TOTALSEGMENTATOR_SACRUM, _TOTALSEGMENTATOR_L5, _TOTALSEGMENTATOR_C1 = (25, 26), 27, 50


def level_name(number: int) -> str:
    """The name of a VerSe number.

    Raises:
        AnatomyError: no vertebra has this number.
    """
    if number not in _NAMES:
        raise AnatomyError(f"{number} is not a VerSe vertebra number")
    return _NAMES[number]


def neighbours(level: str, reach: int, available: set[str]) -> list[str]:
    """The available levels at most ``reach`` places from ``level``, itself included, from head to foot."""
    order = [name for name in _ORDER if name in available or name == level]
    place = order.index(level)
    return [name for name in order[max(0, place - reach) : place + reach + 1] if name in available]


def verse_from_totalsegmentator(labels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Labels of TotalSegmentator's task ``total`` (25/26 sacrum and S1, 27 = L5 ... 50 = C1) to VerSe numbers."""
    table = np.zeros(256, dtype=np.uint8)
    table[list(_TOTALSEGMENTATOR_SACRUM)] = LEVELS["S"]
    for label in range(_TOTALSEGMENTATOR_L5, _TOTALSEGMENTATOR_C1 + 1):
        table[label] = LEVELS["L5"] - (label - _TOTALSEGMENTATOR_L5)
    return table[labels.astype(np.uint8)]
