"""The cube around one vertebra, and Gaussians fitted to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from radgs.anatomy.segmentation import read_labelled_ct
from radgs.anatomy.tissue import split_tissue
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.gaussians import Grid, fit_to_volume, write_ply
from radgs.geometry import RigidTransform
from radgs.images import Volume, read_volume, resample_like, write_volume


@dataclass(frozen=True)
class VertebraCrop:
    """One vertebra in a cube whose axes are parallel to LPS.

    Attributes:
        level: its name.
        excess: ``[n, n, n]`` float32, attenuation above soft tissue, 1/mm; 0 outside the mask.
        mask: uint8 on the same grid.
    """

    level: str
    excess: Volume
    mask: Volume

    @property
    def centre(self) -> np.ndarray:
        """The cube's centre, ``[3]`` LPS mm: the origin of the ``vertebra`` frame."""
        return self.excess.corners.mean(axis=0)

    @property
    def vertebra_from_ct(self) -> RigidTransform:
        """From LPS of the CT to the frame at the cube's centre."""
        return RigidTransform.from_rotation_translation(np.eye(3), -self.centre)

    def points(self, count: int, seed: int = 0) -> np.ndarray:
        """``[count, 3]`` voxel centres of the mask, drawn without order, LPS mm."""
        index = np.argwhere(self.mask.array)[:, ::-1]
        return self.mask.points(np.random.default_rng(seed).choice(index, min(count, len(index)), replace=False))


def crop_grid(centre: np.ndarray, size_mm: float, voxels: int) -> Volume:
    """An empty axis-parallel cube: voxels fill it, so the first centre lies half a voxel inside."""
    spacing = size_mm / voxels
    origin = np.asarray(centre) - size_mm / 2 + spacing / 2
    return Volume.axis_parallel(np.zeros((voxels,) * 3, dtype=np.float32), spacing, origin)


def crop_vertebrae(
    ct: str | Path, vertebrae: str | Path, targets: Mapping[str, tuple[str | Path, str | Path]], config: Config
) -> None:
    """Cut vertebrae's excess attenuation and mask out of a CT and write both (NIfTI).

    Args:
        ct: HU.
        vertebrae: its labels, VerSe numbers.
        targets: by level, the files of excess and mask.
        config: ``crop``.

    Raises:
        AnatomyError: a level is not in the label map.
        ImageError: a file cannot be used.
    """
    volumes = read_labelled_ct(ct, vertebrae)
    try:
        tissue = split_tissue(*volumes, levels=list(targets))
    except AnatomyError as error:
        raise AnatomyError(f"{vertebrae}: {error}") from None
    for level, (excess, mask) in targets.items():
        grid = crop_grid(tissue.centre(level), config.crop.size_mm, config.crop.voxels)
        write_volume(excess, resample_like(tissue.excess[level], grid))
        write_volume(mask, resample_like(tissue.masks[level], grid, nearest=True))


def read_crop(excess: str | Path, mask: str | Path, level: str) -> VertebraCrop:
    """Read what :func:`crop_vertebrae` wrote.

    Raises:
        AnatomyError: there is no vertebra in it.
    """
    crop = VertebraCrop(level, read_volume(excess), read_volume(mask))
    if not crop.mask.array.any() or not crop.excess.array.max() > 0:
        raise AnatomyError(f"{mask}: no bone of {level} in it; check the label map and the CT's HU")
    return crop


def fit_anchors(excess: str | Path, ply: str | Path, config: Config) -> None:
    """Fit Gaussians to a crop; they are in the ``vertebra`` frame, mm. Used by the CT-assisted head."""
    crop = read_volume(excess)
    n = crop.array.shape[0]
    volume = torch.nn.functional.avg_pool3d(torch.from_numpy(crop.array)[None], max(n // 64, 1))[0]
    grid = Grid.centred(float(crop.spacing[0]) * n, volume.shape[0])
    gaussians = fit_to_volume(volume, grid, config.network.gaussians, steps=config.anchors.steps, seed=config.seed)
    write_ply(ply, gaussians)
