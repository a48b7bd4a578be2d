"""Tissue beyond the ends of a CT: in radiographs patients go on where their CT ended."""

from __future__ import annotations

from collections.abc import Sequence

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
    along = int(np.argmax(np.abs(soft.lps_from_index[2, :3])))  # the index axis nearest to the body's
    last = soft.array.shape[2 - along] - 1
    places = [float(soft.index_from_lps[along, :3] @ c + soft.index_from_lps[along, 3]) for c in centres]
    reach = reach_mm / float(soft.spacing[along])
    before = max(int(np.ceil(reach - min(places))), 0)
    after = max(int(np.ceil(reach - (last - max(places)))), 0)
    if not before and not after:
        return None
    pads, inside = [(0, 0)] * 3, [slice(None)] * 3
    pads[2 - along], inside[2 - along] = (before, after), slice(before, before + last + 1)
    array = np.pad(whole.array, pads, mode="symmetric").astype(np.float32)
    array[tuple(inside)] = soft.array
    first = np.zeros(3)
    first[along] = -before
    frame = soft.lps_from_index.copy()
    frame[:3, 3] = soft.points(first)
    return Volume(array, frame)
