"""Who labels the vertebrae of a CT."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from radgs.anatomy.levels import LEVELS
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.images import Volume, read_volume, write_volume

_MINIMUM_VOLUME_MM3 = 1000.0


class Segmenter(Protocol):
    """Anything that labels vertebrae."""

    def segment(self, ct: Volume) -> Volume:
        """Label map in VerSe numbers (uint8) on the CT's grid."""
        ...


class ProvidedLabels:
    """A label map that the user brings, in VerSe numbers."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def segment(self, ct: Volume) -> Volume:
        """Read and check the label map.

        Raises:
            AnatomyError: another grid than the CT's, values that are no VerSe numbers, no vertebra at all, or one
                too small to be a vertebra.
        """
        labels = read_volume(self.path)
        if not ct.same_grid(labels):
            raise AnatomyError(
                f"{self.path}: the label map has shape {labels.array.shape} and spacing "
                f"{labels.spacing.round(3).tolist()} mm, the CT {ct.array.shape} and "
                f"{ct.spacing.round(3).tolist()} mm; resample the labels to the CT (nearest neighbour)"
            )
        numbers, counts = np.unique(labels.array, return_counts=True)
        unknown = [n for n in numbers.tolist() if n != 0 and n not in set(LEVELS.values())]
        if unknown:
            raise AnatomyError(f"{self.path}: {unknown} are no VerSe numbers (C1-C7 1-7, T1-T12 8-19, L1-L6 20-25)")
        if not numbers.any():
            raise AnatomyError(f"{self.path}: holds no vertebra")
        volume = dict(zip(numbers.tolist(), counts * float(np.prod(ct.spacing)), strict=True))
        small = [n for n in numbers.tolist() if n and volume[n] < _MINIMUM_VOLUME_MM3]
        kept = np.where(np.isin(labels.array, small), 0, labels.array).astype(np.uint8)
        if not kept.any():
            raise AnatomyError(f"{self.path}: every vertebra is smaller than {_MINIMUM_VOLUME_MM3:.0f} mm^3")
        return labels.with_array(kept)


def segment(ct: str | Path, labels: str | Path, target: str | Path, config: Config) -> None:
    """Label the vertebrae of ``ct`` with the configured backend and write VerSe numbers to ``target``."""
    segmenter: Segmenter = {"provided": ProvidedLabels}[config.segmentation.backend](labels)
    write_volume(target, segmenter.segment(read_volume(ct)))


def read_labelled_ct(ct: str | Path, vertebrae: str | Path) -> tuple[Volume, Volume]:
    """Read a CT and its label map.

    Raises:
        AnatomyError: they are not on one grid.
    """
    volume = read_volume(ct)
    return volume, ProvidedLabels(vertebrae).segment(volume)
