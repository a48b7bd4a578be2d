"""Label maps that the user brings: one file, or a folder with a mask a vertebra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy.levels import LEVELS, level_name, verse_numbers
from radgs.errors import AnatomyError
from radgs.images import Volume, read_volume

MINIMUM_VOLUME_MM3 = 1000.0


def check_grid(ct: Volume, labels: Volume, path: str | Path) -> None:
    """Refuse labels that do not lie on the CT's voxels.

    Raises:
        AnatomyError: another grid.
    """
    if ct.same_grid(labels):
        return
    if ct.array.shape == labels.array.shape and np.allclose(ct.spacing, labels.spacing, atol=1e-3):
        apart = np.linalg.norm(ct.corners - labels.corners, axis=-1).max()
        raise AnatomyError(
            f"{path}: the label map lies elsewhere than the CT: their corners are up to {apart:.1f} mm apart; is it of "
            "this CT, and does its header hold the same origin and axes?"
        )
    raise AnatomyError(
        f"{path}: the label map has shape {labels.array.shape} and spacing "
        f"{labels.spacing.round(3).tolist()} mm, the CT {ct.array.shape} and "
        f"{ct.spacing.round(3).tolist()} mm; resample the labels to the CT (nearest neighbour)"
    )


class ProvidedLabels:
    """Labels in a known numbering.

    Attributes:
        path: a label map, or a folder with a mask a vertebra named as TotalSegmentator does, ``vertebrae_L1.nii.gz``.
        numbering: of the label map, one of :data:`radgs.anatomy.levels.NUMBERINGS`; masks carry their level's name.
    """

    def __init__(self, path: str | Path, numbering: str = "verse") -> None:
        self.path, self.numbering = Path(path), numbering

    def segment(self, ct: Volume) -> Volume:
        """Read and check the labels; vertebrae below 1 cm^3 are crumbs at the edge of the CT and left out.

        Raises:
            AnatomyError: another grid than the CT's, labels that do not fit the numbering, levels that run from foot
                to head, masks that overlap, or no vertebra large enough.
        """
        labels = self._from_folder(ct) if self.path.is_dir() else self._from_file(ct)
        voxel = float(np.prod(ct.spacing))
        counts = np.sum([np.bincount(one.ravel(), minlength=256) for one in labels], axis=0)
        small = [n for n in np.flatnonzero(counts) if n and counts[n] * voxel < MINIMUM_VOLUME_MM3]
        if small:
            labels[np.isin(labels, small)] = 0
        if not labels.any():
            raise AnatomyError(f"{self.path}: every vertebra is smaller than {MINIMUM_VOLUME_MM3:.0f} mm^3")
        kept = ct.with_array(labels)
        self._check_direction(kept)
        return kept

    def _from_file(self, ct: Volume) -> NDArray[np.uint8]:
        labels = read_volume(self.path)
        check_grid(ct, labels, self.path)
        try:
            return verse_numbers(labels.array, self.numbering)
        except AnatomyError as error:
            raise AnatomyError(f"{self.path}: {error}") from None

    def _from_folder(self, ct: Volume) -> NDArray[np.uint8]:
        if self.numbering != "totalsegmentator":
            raise AnatomyError(f"{self.path}: a folder of masks needs segmentation.numbering: totalsegmentator")
        labels = np.zeros(ct.array.shape, dtype=np.uint8)
        masks = {f"vertebrae_{level}.nii.gz": number for level, number in LEVELS.items() if level != "S"}
        for name, number in {**masks, "vertebrae_S1.nii.gz": 26, "sacrum.nii.gz": 26}.items():
            if (self.path / name).exists():
                mask = read_volume(self.path / name)
                check_grid(ct, mask, self.path / name)
                inside = np.asarray(mask.array != 0)
                taken = set(np.unique(labels[inside]).tolist()) - {0, LEVELS["S"]}
                if taken:
                    others = ", ".join(level_name(n) for n in sorted(taken))
                    raise AnatomyError(f"{self.path / name}: overlaps the mask of {others}")
                labels[inside] = number
        if not set(np.unique(labels).tolist()) - {0, LEVELS["S"]}:
            raise AnatomyError(f"{self.path}: holds no vertebra (masks are named vertebrae_L1.nii.gz and so on)")
        return labels

    def _check_direction(self, labels: Volume) -> None:
        """LPS z falls from C1 to L5; the wrong numbering or a mask flipped against its header reverse it."""
        numbers = [n for n in np.unique(labels.array).tolist() if n and n < LEVELS["S"]]
        if len(numbers) < 2:
            return
        ends = [
            labels.points(np.argwhere(labels.array == n)[:, ::-1].mean(axis=0))[2] for n in (numbers[0], numbers[-1])
        ]
        if ends[0] < ends[1]:
            names = f"{level_name(numbers[0])} to {level_name(numbers[-1])}"
            raise AnatomyError(
                f"{self.path}: {names} run from foot to head; is the numbering {self.numbering}, is the map flipped?"
            )
