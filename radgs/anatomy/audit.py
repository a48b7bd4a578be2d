"""Is each label a whole vertebra, and the one it is called? ``ok``, ``suspect`` or ``cut``, with reasons.

What is usual from T1 to L6 is in ``resources/vertebra_statistics.json``, made by ``benchmarks/vertebra_statistics.py``
from landmarks of vertebrae in 2,116 CTs. Of the neck, spacing and volume are not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radgs.anatomy.levels import LEVELS, level_name
from radgs.errors import AnatomyError
from radgs.images import Volume, read_json, write_json

STATISTICS = Path(__file__).parents[2] / "resources" / "vertebra_statistics.json"
_MAXIMUM_ISLANDS = 0.01  # of the volume; whole vertebrae of TotalSegmentator and VerSe have up to 0.0015
_VARIANTS = ("T13", "L6")  # most people do not have them
Status = Literal["ok", "suspect", "cut"]


@dataclass(frozen=True)
class LevelAudit:
    """What is known of one vertebra's label.

    Attributes:
        status: ``cut`` by the CT's border: not to be registered; ``suspect``: to be looked at; or ``ok``.
        reasons: why it is not ``ok``.
        centre_mm: the label's centroid, ``[3]`` LPS mm.
        volume_mm3: the label's volume.
    """

    status: Status
    reasons: list[str]
    centre_mm: list[float]
    volume_mm3: float


@dataclass(frozen=True)
class _Label:
    """One vertebra measured: centroid (LPS mm), volume (mm^3), share of it off the largest piece, cut or not."""

    centre: NDArray[np.float64]
    volume: float
    islands: float
    cut: bool


def audit_labels(labels: Volume, ct: Volume | None = None) -> dict[str, LevelAudit]:
    """Check every vertebra of a label map.

    Args:
        labels: VerSe numbers.
        ct: HU on the same grid; faces of it that hold one value throughout were not scanned but filled in.

    Returns:
        By level, from head to foot; the sacrum is no level.
    """
    usual = read_json(STATISTICS)
    found = _measure(labels, _scanned(labels if ct is None else ct, given=ct is not None))
    reasons: dict[str, list[str]] = {level: [] for level in found}
    _check_sequence(found, (labels.array == LEVELS["S"]).any(), reasons)
    whole = {level: label for level, label in found.items() if not label.cut}
    known = {level: label for level, label in whole.items() if level in usual["levels"] or level == "T13"}
    _check_spacing(known, usual, reasons)
    _check_volume(known, usual, reasons)
    for level, label in whole.items():
        if label.islands > _MAXIMUM_ISLANDS:
            reasons[level].append(f"{100 * label.islands:.0f} % of it lie apart from the rest")
    return {level: _verdict(label, reasons[level]) for level, label in found.items()}


def _verdict(label: _Label, doubts: list[str]) -> LevelAudit:
    status: Status = "suspect" if doubts else "ok"
    if label.cut:
        status, doubts = "cut", ["cut by the border of the CT"]
    return LevelAudit(status, doubts, label.centre.round(2).tolist(), round(label.volume, 1))


def write_audit(path: str | Path, audit: Mapping[str, LevelAudit]) -> None:
    """Write ``{"levels": {level: {status, reasons, centre_mm, volume_mm3}}}``."""
    write_json(path, {"levels": {level: asdict(found) for level, found in audit.items()}})


def read_audit(path: str | Path) -> dict[str, LevelAudit]:
    """Read what :func:`write_audit` wrote.

    Raises:
        AnatomyError: not such a file.
    """
    try:
        return {level: LevelAudit(**found) for level, found in read_json(path)["levels"].items()}
    except (KeyError, TypeError, AttributeError):
        raise AnatomyError(f"{path}: not the audit of a label map") from None


def _scanned(ct: Volume, given: bool) -> tuple[slice, ...]:
    """The box of the grid (z, y, x) that was scanned."""
    if not given:
        return tuple(slice(0, n) for n in ct.array.shape)
    box = []
    for axis in range(3):
        across = tuple(a for a in range(3) if a != axis)
        varied = np.flatnonzero(ct.array.min(axis=across) != ct.array.max(axis=across))
        box.append(slice(int(varied[0]), int(varied[-1]) + 1) if varied.size else slice(0, ct.array.shape[axis]))
    return tuple(box)


def _measure(labels: Volume, scanned: tuple[slice, ...]) -> dict[str, _Label]:
    """Every level of a label map, from head to foot."""
    voxel, found = float(np.prod(labels.spacing)), {}
    array = labels.array.astype(np.int32)
    order = {number: 19.5 if number == LEVELS["T13"] else number for number in LEVELS.values()}
    boxes = {n: box for n, box in enumerate(ndimage.find_objects(array), start=1) if box and n != LEVELS["S"]}
    for number in sorted(boxes, key=order.__getitem__):
        box, mask = boxes[number], array[boxes[number]] == number
        pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        centre = np.argwhere(mask).mean(axis=0) + [s.start for s in box]
        cut = any(s.start <= seen.start or s.stop >= seen.stop for s, seen in zip(box, scanned, strict=True))
        found[level_name(number)] = _Label(
            labels.points(centre[::-1]), sizes.sum() * voxel, float(1 - sizes.max() / sizes.sum()), cut
        )
    return found


def _check_sequence(found: Mapping[str, _Label], sacrum: bool, reasons: dict[str, list[str]]) -> None:
    """No level may be missing between two that are there; the sacrum, if there, follows the last."""
    chain = sorted(LEVELS, key=lambda level: 19.5 if level == "T13" else LEVELS[level])
    present = [*found, "S"] if sacrum else list(found)
    for upper, lower in pairwise(present):
        missing = [v for v in chain[chain.index(upper) + 1 : chain.index(lower)] if v not in _VARIANTS]
        for level in {upper, lower} - {"S"} if missing else ():
            why = f"{', '.join(missing)} missing between {upper} and {lower}; are the levels named right?"
            reasons[level].append(why)


def _table(usual: Mapping[str, Any], level: str) -> Mapping[str, float]:
    """The numbers of a level; T13 is in no statistics, T12 is next to it."""
    return usual["levels"]["T12" if level == "T13" else level]


def _check_spacing(whole: Mapping[str, _Label], usual: Mapping[str, Any], reasons: dict[str, list[str]]) -> None:
    """Distance between the centroids of consecutive vertebrae, over the usual one at this patient's size."""
    relative = {}
    for upper, lower in pairwise(list(whole)):
        steps = LEVELS[lower] - LEVELS[upper]
        if steps == 1 or (upper, lower) in (("T12", "T13"), ("T13", "L1")):
            distance = float(np.linalg.norm(whole[upper].centre - whole[lower].centre))
            relative[upper, lower] = distance / _table(usual, upper)["spacing_to_next_mm"]
    if not relative:
        return
    scale = float(np.median(list(relative.values())))
    low, high = usual["scale"]
    if not low <= scale <= high:
        for level in whole:
            reasons[level].append(f"spacing of the vertebrae is {scale:.2f} of the usual; is the voxel size right?")
    low, high = usual["spacing_ratio"]
    for (upper, lower), value in relative.items():
        if not low <= value / scale <= high:
            for level in (upper, lower):
                reasons[level].append(f"{upper} and {lower} lie {value / scale:.2f} of the expected distance apart")


def _check_volume(whole: Mapping[str, _Label], usual: Mapping[str, Any], reasons: dict[str, list[str]]) -> None:
    """Volume as a multiple of what its landmarks span: within wide bounds, and like that of its neighbours."""
    filled = {level: label.volume / 1e3 / _table(usual, level)["span_cm3"] for level, label in whole.items()}
    names = list(whole)
    for place, level in enumerate(names):
        low, high = usual["volume_of_span"]
        if not low <= filled[level] <= high:
            reasons[level].append(f"its volume of {whole[level].volume / 1e3:.1f} cm^3 is unusual for {level}")
        beside = [filled[v] for v in names[max(0, place - 1) : place + 2] if v != level]
        low, high = usual["volume_ratio"]
        ratio = filled[level] / float(np.exp(np.mean(np.log(beside)))) if beside else 1.0
        if ratio < low:
            reasons[level].append(f"has {ratio:.2f} of the volume that its neighbours make expect; is a part missing?")
        elif ratio > high:
            reasons[level].append(
                f"has {ratio:.2f} times the volume that its neighbours make expect; is it merged with one?"
            )
