"""Shards of a population: pairs of one changed patient, with everything that training needs to know of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from radgs.anatomy import LEVELS, split_tissue
from radgs.anatomy.audit import audit_labels
from radgs.anatomy.crops import crop_grid
from radgs.anatomy.provided import ProvidedLabels
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.gaussians import Grid, fit_to_volume
from radgs.images import Volume, read_volume, resample_like
from radgs.simulation.pairs import SCENES_AT_ONCE, PairMaker, write_pairs
from radgs.simulation.variation import filled, varied, without

_FINEST_MM = 1.3  # in-plane voxels are binned up to about that: pairs hold windows of 1.75 mm a pixel
_FITTED_VOXELS = 64
_POINTS = 256


def simulate_population(
    ct: str | Path | None,
    labels: str | Path,
    levels: Sequence[str],
    leave_out: Sequence[str],
    subject: str,
    variant: int,
    target: str | Path,
    config: Config,
) -> None:
    """Change a patient of the population, simulate pairs of the result and write one shard (HDF5).

    The shard holds the pairs of :func:`radgs.simulation.simulate_pairs` and, in the group ``vertebrae``, the volumes,
    points and fitted Gaussians that they show; ``vertebra`` is each pair's row there.

    Args:
        ct: HU; None makes a CT up around the labels.
        labels: VerSe numbers.
        levels: to learn of; all whole ones if empty.
        leave_out: levels that must not be learned of; their bone is taken out.
        subject: its name.
        variant: its number; each has a seed of its own.
        target: the shard.
        config: settings.

    Raises:
        AnatomyError: no whole vertebra is left.
    """
    seeds = [config.seed, *subject.encode(), variant]
    rng = np.random.default_rng(seeds)
    volume, numbers = _read(ct, labels, rng)
    whole = [level for level, audit in audit_labels(numbers, volume).items() if audit.status != "cut"]
    if leave_out:
        volume, numbers = without(volume, numbers, leave_out)
    volume, numbers = varied(volume, numbers, rng, config.population.variation)
    chosen = [level for level in whole if level not in leave_out and level in (levels or whole)]
    if not chosen:
        raise AnatomyError(f"{labels}: none of {list(levels) or 'the levels'} is whole in it and not left out")
    maker = PairMaker(volume, numbers, chosen, config)
    pairs: list[dict[str, NDArray[np.generic]]] = []
    while len(pairs) < config.population.pairs:
        firsts = rng.integers(0, max(len(chosen) - config.population.levels, 0) + 1, SCENES_AT_ONCE)
        pairs += maker.scenes(
            [
                (child, chosen[k : k + config.population.levels])
                for child, k in zip(rng.spawn(SCENES_AT_ONCE), firsts, strict=True)
            ]
        )
    pairs = pairs[: config.population.pairs]
    for pair in pairs:
        pair["vertebra"] = np.array(chosen.index(_name(int(pair["level"]))), dtype=np.int64)
    tables = vertebra_tables(volume, numbers, chosen, config, seed=variant)
    attributes: dict[str, str | int] = {
        "subject": subject,
        "variant": variant,
        "levels": " ".join(chosen),
        "leave_out": " ".join(leave_out),
        "settings": json.dumps(config.model_dump(mode="json", include={"simulation", "population"})),
    }
    write_pairs(target, pairs, attributes, tables)


def vertebra_tables(
    ct: Volume, labels: Volume, levels: Sequence[str], config: Config, seed: int
) -> dict[str, NDArray[np.generic]]:
    """By level in a row: volume at network resolution (1/mm), points (mm) and fitted Gaussians, vertebra frame."""
    tissue, size, n = split_tissue(ct, labels, levels), config.crop.size_mm, config.network.volume_voxels
    rng = np.random.default_rng(seed)
    rows: list[dict[str, NDArray[np.generic]]] = []
    for level in levels:
        grid = crop_grid(tissue.centre(level), size, _FITTED_VOXELS)
        excess = torch.from_numpy(resample_like(tissue.excess[level], grid).array)
        fit = fit_to_volume(
            excess,
            Grid.centred(size, _FITTED_VOXELS),
            config.network.gaussians,
            steps=config.population.anchor_steps,
            seed=seed,
        )
        points = rng.choice(tissue.points(level), _POINTS) - tissue.centre(level)
        rows.append(
            {
                "level": np.array(LEVELS[level]),
                "volumes": torch.nn.functional.adaptive_avg_pool3d(excess[None], n)[0].numpy(),
                "points": points.astype(np.float32),
                **{name: getattr(fit, name).numpy() for name in ("means", "scales", "quaternions", "densities")},
            }
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _read(ct: str | Path | None, labels: str | Path, rng: np.random.Generator) -> tuple[Volume, Volume]:
    if ct is None:
        numbers = read_volume(labels)
        numbers = numbers.with_array(numbers.array.astype(np.uint8))
        return filled(numbers, rng), numbers
    volume = read_volume(ct)
    numbers = ProvidedLabels(labels).segment(volume)
    factor = int(_FINEST_MM * 1.1 / float(volume.spacing[:2].max()))
    if factor > 1:
        volume = volume.binned_in_plane(factor)
        numbers = resample_like(numbers, volume, nearest=True)
    return volume, numbers


def _name(number: int) -> str:
    return next(name for name, n in LEVELS.items() if n == number)
