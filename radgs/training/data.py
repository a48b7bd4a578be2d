"""What a stage learns from: pairs, and each level's volume, points and anchors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from radgs.anatomy import LEVELS, VertebraViews, level_name
from radgs.errors import AnatomyError, ImageError
from radgs.gaussians import RadiativeGaussians, read_ply
from radgs.images import Volume, read_volume
from radgs.simulation import SimulatedPairs

_POINTS = 256


class Vertebrae(nn.Module):
    """By level: excess volume, points of the vertebra, Gaussians fitted to it; all in the vertebra frame.

    Attributes:
        volumes: ``[L, n, n, n]`` 1/mm.
        points: ``[L, P, 3]`` mm.
        means, scales, quaternions, densities: ``[L, N, ...]`` of the anchors.
    """

    volumes: Tensor
    points: Tensor
    means: Tensor
    scales: Tensor
    quaternions: Tensor
    densities: Tensor
    row_of_level: Tensor

    def __init__(self, crops: Mapping[str, Volume], anchors: Mapping[str, RadiativeGaussians], voxels: int) -> None:
        super().__init__()
        levels = sorted(crops, key=LEVELS.__getitem__)
        row = torch.full((max(LEVELS.values()) + 1,), -1)
        row[[LEVELS[level] for level in levels]] = torch.arange(len(levels))
        tensors = {
            "row_of_level": row,
            "volumes": torch.stack([_shrunk(crops[level], voxels) for level in levels]),
            "points": torch.stack([_points(crops[level]) for level in levels]),
            **{
                name: torch.stack([getattr(anchors[level], name) for level in levels])
                for name in ("means", "scales", "quaternions", "densities")
            },
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def rows(self, level: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Where a VerSe number's vertebra lies in the tables."""
        return self.row_of_level[level]

    def anchors(self, level: Int[Tensor, " B"]) -> RadiativeGaussians:
        """Gaussians fitted to the CT, ``[B, N]``, vertebra frame."""
        rows = self.rows(level)
        return RadiativeGaussians(self.means[rows], self.scales[rows], self.quaternions[rows], self.densities[rows])


def read_vertebrae(crops: Mapping[str, str | Path], anchors: Mapping[str, str | Path], voxels: int) -> Vertebrae:
    """Read the crops and anchors of a patient's levels.

    Raises:
        AnatomyError: a level has a crop and no anchors, or the levels' anchors differ in number.
        ImageError: a crop is empty or not parallel to the axes.
    """
    missing = set(crops) ^ set(anchors)
    if missing or not crops:
        raise AnatomyError(f"every level needs a crop and anchors; one of them is missing for {sorted(missing)}")
    volumes = {level: read_volume(path) for level, path in crops.items()}
    for level, volume in volumes.items():
        affine = volume.lps_from_index[:3, :3]
        cube = len(set(volume.array.shape)) == 1 and np.allclose(affine, affine[0, 0] * np.eye(3), atol=1e-4)
        if not cube or affine[0, 0] <= 0 or not volume.array.astype(np.float32).max() > 0:
            raise ImageError(f"{crops[level]}: not a crop (a cube parallel to LPS with a vertebra in it)")
    gaussians = {level: read_ply(path) for level, path in anchors.items()}
    if len({g.count for g in gaussians.values()}) != 1:
        raise AnatomyError("the levels' anchors differ in number; fit them all with the same settings")
    return Vertebrae(volumes, gaussians, voxels)


def read_pairs(path: str | Path, vertebrae: Vertebrae) -> SimulatedPairs:
    """Read pairs whose levels are all known.

    Raises:
        ImageError: not a file of pairs.
        AnatomyError: pairs of a level without crop.
    """
    pairs = SimulatedPairs(path)
    unknown = pairs.fields["level"][vertebrae.rows(pairs.fields["level"]) < 0].unique()
    if len(unknown):
        names = ", ".join(level_name(int(n)) for n in unknown)
        raise AnatomyError(f"{path}: pairs of {names}, which have no crop; give their crops and anchors")
    return pairs


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def views_of(batch: Mapping[str, Tensor]) -> VertebraViews:
    """What RecM sees of a batch of pairs: never the pose, never the targets."""
    return VertebraViews(batch["images"], batch["K"], batch["camera_from_crop"], batch["level"])


def _shrunk(crop: Volume, voxels: int) -> Float[Tensor, "D H W"]:
    return F.adaptive_avg_pool3d(torch.from_numpy(crop.array.astype(np.float32))[None], voxels)[0]


def _points(crop: Volume) -> Float[Tensor, "P 3"]:
    index = np.argwhere(crop.array.astype(np.float32) > 0)[:, ::-1]
    chosen = np.random.default_rng(0).choice(index, _POINTS)
    n = crop.array.shape[0]
    return torch.from_numpy((chosen - (n - 1) / 2) * crop.spacing).float()
