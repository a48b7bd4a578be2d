"""Tissue beyond the ends of a CT: in radiographs patients go on where their CT ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from radgs.images import Volume


def continued(soft: Volume, whole: Volume, centres: Sequence[NDArray[np.float64]], reach_mm: float) -> Volume | None:
    """The soft tissue of a CT, with the CT mirrored at its ends as far as any of the centres is to see.

    Mirrored slices fit to the end without a step and keep their texture, bone included; repeated ones would be
    streaks. The CT itself, and so every vertebra and its label, stays as it is.

    Args:
        soft: the CT without its vertebrae's excess, 1/mm.
        whole: the CT with it, on the same grid.
        centres: ``[3]`` each, LPS mm.
        reach_mm: along the body, from each centre.

    Returns:
        A longer volume; None if the CT reaches that far.
    """
    along = _body_axis(soft)
    last = soft.array.shape[2 - along] - 1
    places = [float(soft.index_from_lps[along, :3] @ c + soft.index_from_lps[along, 3]) for c in centres]
    reach = reach_mm / float(soft.spacing[along])
    before = max(int(np.ceil(reach - min(places))), 0)
    after = max(int(np.ceil(reach - (last - max(places)))), 0)
    if not before and not after:
        return None
    longer = _longer(whole, along, before, after, "symmetric")
    inside = [slice(None)] * 3
    inside[2 - along] = slice(before, before + last + 1)
    longer.array[tuple(inside)] = soft.array
    return longer


def repeated(soft: Volume, reach_mm: float) -> Volume:
    """The soft tissue of a CT with its first and last slice repeated: longer without more vertebrae to be named.

    Args:
        soft: 1/mm.
        reach_mm: beyond each end, along the body.
    """
    along = _body_axis(soft)
    slices = int(np.ceil(reach_mm / float(soft.spacing[along])))
    return _longer(soft, along, slices, slices, "edge")


def _body_axis(volume: Volume) -> int:
    """The index axis (0: x) nearest to the body's."""
    return int(np.argmax(np.abs(volume.lps_from_index[2, :3])))


def _longer(volume: Volume, along: int, before: int, after: int, mode: Literal["edge", "symmetric"]) -> Volume:
    pads = [(0, 0)] * 3
    pads[2 - along] = (before, after)
    first = np.zeros(3)
    first[along] = -before
    frame = volume.lps_from_index.copy()
    frame[:3, 3] = volume.points(first)
    return Volume(np.pad(volume.array, pads, mode=mode).astype(np.float32), frame)
