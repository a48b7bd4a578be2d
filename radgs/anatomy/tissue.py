"""The CT taken apart: soft tissue, and what each vertebra attenuates above it. Line integrals of the parts add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radgs.anatomy.levels import LEVELS
from radgs.errors import AnatomyError
from radgs.images import Volume, attenuation_of_water, hu_to_mu
from radgs.images.attenuation import CT_KEV

# Muscle and marrow attenuate about 4 % more than water; what a vertebra has above that is its excess.
SOFT_TISSUE_MU = 1.04 * float(attenuation_of_water(CT_KEV))


@dataclass(frozen=True)
class SpineTissue:
    """A CT in parts whose attenuations (1/mm at 70 keV) add up to that of the CT.

    Attributes:
        soft: the whole CT, with no vertebra denser than soft tissue.
        excess: by level, cut to the vertebra's box, what it attenuates above soft tissue; 0 outside its mask.
        masks: by level, on the same grid as its excess, uint8.
    """

    soft: Volume
    excess: dict[str, Volume]
    masks: dict[str, Volume]

    def centre(self, level: str) -> np.ndarray:
        """The middle of the box (axes of the CT's LPS) around a vertebra, ``[3]`` LPS mm."""
        return middle(self.masks[level], 1)

    def points(self, level: str) -> np.ndarray:
        """Centres of the vertebra's voxels, ``[n, 3]`` LPS mm."""
        mask = self.masks[level]
        return mask.points(np.argwhere(mask.array)[:, ::-1])


def middle(labels: Volume, number: int) -> np.ndarray:
    """The middle of the box (axes of LPS) around a label, ``[3]`` LPS mm."""
    points = labels.points(np.argwhere(labels.array == number)[:, ::-1])
    return (points.min(axis=0) + points.max(axis=0)) / 2


def _cut(volume: Volume, box: tuple[slice, ...]) -> Volume:
    start = [s.start for s in reversed(box)]
    affine = volume.lps_from_index.copy()
    affine[:3, 3] = volume.points(start)
    return Volume(np.ascontiguousarray(volume.array[box]), affine)


def split_tissue(
    ct: Volume, labels: Volume, levels: Sequence[str] | None = None, *, rim_mm: float = 0.0
) -> SpineTissue:
    """Take a CT apart.

    Args:
        ct: HU.
        labels: VerSe numbers on the same grid.
        levels: which vertebrae become parts of their own; all in the label map if absent. The others stay in
            the soft part.
        rim_mm: what is dense so near to a label (and nearest to it) moves with it: label maps are a little tight.

    Raises:
        AnatomyError: a level is not in the label map, or the grids differ.
    """
    if not ct.same_grid(labels):
        raise AnatomyError("the label map is not on the CT's grid")
    present = [name for name, number in LEVELS.items() if (labels.array == number).any()]
    missing = [level for level in levels or () if level not in present]
    if missing:
        raise AnatomyError(f"the label map has no {', '.join(missing)}; it has {', '.join(present)}")
    mu = hu_to_mu(ct.array)
    soft = mu.copy()
    excess, masks = {}, {}
    for level in levels or [name for name in LEVELS if name in present and name != "S"]:
        box = _box(labels, LEVELS[level], rim_mm)
        own = labels.array[box] == LEVELS[level]
        mask = _with_rim(labels.array[box], LEVELS[level], labels.spacing[::-1], rim_mm)
        part = np.where(mask, np.maximum(mu[box] - SOFT_TISSUE_MU, 0), 0).astype(np.float32)
        soft[box] -= part
        excess[level] = _cut(ct, box).with_array(part)
        masks[level] = _cut(labels, box).with_array(own.astype(np.uint8))
    return SpineTissue(ct.with_array(soft), excess, masks)


def _box(labels: Volume, number: int, margin_mm: float) -> tuple[slice, ...]:
    """Around a label, one voxel and a margin wider."""
    mask = labels.array == number
    where = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    wide = [1 + int(np.ceil(margin_mm / s)) for s in labels.spacing[::-1]]
    return tuple(slice(max(int(i[0]) - w, 0), int(i[-1]) + 1 + w) for i, w in zip(where, wide, strict=True))


def _with_rim(
    labels: NDArray[np.generic], number: int, spacing: NDArray[np.float64], rim_mm: float
) -> NDArray[np.bool_]:
    """A label and what is within ``rim_mm`` of it and of no other one."""
    own = labels == number
    if not rim_mm:
        return own
    far = ndimage.distance_transform_edt(~own, sampling=spacing)
    others = (labels != 0) & ~own
    other = ndimage.distance_transform_edt(~others, sampling=spacing) if others.any() else np.inf
    return own | ((far <= rim_mm) & (far < other))
