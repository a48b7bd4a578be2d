"""What a stage learns from: pairs, and each level's volume, points and anchors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from radgs.anatomy import LEVELS, VertebraViews, level_name
from radgs.config import Config
from radgs.errors import AnatomyError, ImageError
from radgs.gaussians import Grid, RadiativeGaussians, fit_to_volume, read_ply
from radgs.images import Volume, read_volume
from radgs.simulation import VERTEBRA_TABLES, ShardedField, ShardedPairs, SimulatedPairs

_POINTS = 256
_GAUSSIANS = ("means", "scales", "quaternions", "densities")


class Vertebrae(nn.Module):
    """Excess volumes, points and fitted Gaussians of the vertebrae that pairs show; all in the vertebra frame.

    Attributes:
        level: ``[L]`` VerSe numbers.
        volumes: ``[L, n, n, n]`` 1/mm.
        points: ``[L, P, 3]`` mm.
        means, scales, quaternions, densities: ``[L, N, ...]`` of the anchors.
    """

    level: Tensor

    volumes: Tensor
    points: Tensor
    means: Tensor
    scales: Tensor
    quaternions: Tensor
    densities: Tensor

    def __init__(self, tables: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in VERTEBRA_TABLES:
            self.register_buffer(name, tables[name], persistent=False)

    def anchors(self, rows: Int[Tensor, " B"]) -> RadiativeGaussians:
        """Gaussians fitted to the CT, ``[B, N]``, vertebra frame."""
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
    levels = sorted(crops, key=LEVELS.__getitem__)
    return Vertebrae(
        {
            "level": torch.tensor([LEVELS[level] for level in levels]),
            "volumes": torch.stack([_shrunk(volumes[level], voxels) for level in levels]),
            "points": torch.stack([_points(volumes[level]) for level in levels]),
            **{name: torch.stack([getattr(gaussians[level], name) for level in levels]) for name in _GAUSSIANS},
        }
    )


@dataclass(frozen=True)
class TrainingData:
    """What a stage learns from.

    Attributes:
        vertebrae: what the pairs show.
        fields: of the pairs; ``vertebra`` is each one's row in ``vertebrae``.
        sha256: of all that was read.
        facts: for the card.
        of_population: whether it is of many patients.
    """

    vertebrae: Vertebrae
    fields: Mapping[str, Tensor | ShardedField]
    sha256: str
    facts: Mapping[str, Any]
    of_population: bool = False


def read_patient(
    pairs: str | Path,
    crops: Mapping[str, str | Path],
    anchors: Mapping[str, str | Path],
    voxels: int,
    *,
    level: str | None = None,
) -> TrainingData:
    """Read one patient's pairs and the crops and anchors of their levels.

    Args:
        pairs: the file.
        crops: by level.
        anchors: by level.
        voxels: of the vertebrae's volumes.
        level: pass over the pairs of others; none: take all.

    Raises:
        ImageError: not a file of pairs, or not a crop.
        AnatomyError: pairs of a level without crop, no pair of the level, or see :func:`read_vertebrae`.
    """
    read = SimulatedPairs(pairs)
    numbers = read.fields["level"]
    kept = numbers == LEVELS[level] if level else torch.ones_like(numbers, dtype=torch.bool)
    if level:
        crops, anchors = {level: crops[level]}, {level: anchors[level]}
    if not kept.any():
        raise AnatomyError(f"{pairs}: no pair of {level or 'any level'}; simulate with it among the levels")
    vertebrae = read_vertebrae(crops, anchors, voxels)
    row = torch.full((max(LEVELS.values()) + 1,), -1)
    row[vertebrae.level] = torch.arange(len(vertebrae.level))
    rows = row[numbers[kept]]
    unknown = numbers[kept][rows < 0].unique()
    if len(unknown):
        names = ", ".join(level_name(int(n)) for n in unknown)
        raise AnatomyError(f"{pairs}: pairs of {names}, which have no crop; give their crops and anchors")
    facts = {"pairs": int(kept.sum()), "patient": str(read.attributes.get("patient", ""))}
    if level:
        facts["level"] = level
    fields = {name: values[kept] if level else values for name, values in read.fields.items()}
    return TrainingData(vertebrae, {**fields, "vertebra": rows}, fingerprint(pairs), facts)


def read_shards(shards: Sequence[str | Path], *, of_population: bool = True) -> TrainingData:
    """Read shards of a population, or of patients with real X-rays; images stay on disk until a batch needs them.

    The last shards are held out by the loop: give them so that the last ones are of patients or variants of their own.

    Raises:
        ImageError: a file is no such shard.
    """
    read = ShardedPairs(shards)
    return TrainingData(
        Vertebrae(read.vertebrae),
        read.fields,
        hashlib.sha256("".join(fingerprint(path) for path in shards).encode()).hexdigest(),
        {"pairs": len(read), "shards": len(shards), "levels_of": read.levels_of},
        of_population=of_population,
    )


def mean_anchors(vertebrae: Vertebrae, config: Config) -> dict[str, RadiativeGaussians]:
    """By level, Gaussians fitted to the mean of its volumes, vertebra frame.

    Of the volumes, because Gaussians of separate fits have nothing to do with each other.
    """
    grid = Grid.centred(config.crop.size_mm, vertebrae.volumes.shape[-1])
    found = {}
    for number in vertebrae.level.unique().tolist():
        mean = vertebrae.volumes[vertebrae.level == number].mean(0)
        found[level_name(number)] = fit_to_volume(
            mean, grid, config.network.gaussians, steps=config.anchors.steps, seed=config.seed
        )
    return found


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
