"""Gaussians fitted to a volume: drawn where it is dense, then optimised."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from radgs.errors import ImageError, RadgsError
from radgs.gaussians.gaussians import RadiativeGaussians
from radgs.gaussians.voxelize import Grid, voxelize

_NEIGHBOURS = 3
_L1_WEIGHT = 0.1
# Adam's steps: positions in voxels, logarithms of scales, quaternions, densities relative to the volume's maximum.
_RATES = {"means": 0.1, "log_scales": 0.03, "quaternions": 0.02, "densities": 0.02}
_FINAL_RATE = 0.05
_SMALLEST_SCALE_VOXELS = 0.3


def fit_to_volume(
    volume: Float[Tensor, "D H W"], grid: Grid, count: int, *, steps: int = 300, seed: int = 0
) -> RadiativeGaussians:
    """Fit Gaussians to a volume by least squares with a share of L1.

    Args:
        volume: 1/mm on ``grid``; negative values count as fit targets but attract no Gaussians.
        grid: where the voxels are; the Gaussians come out in its frame.
        count: how many Gaussians.
        steps: of Adam.
        seed: of the draw; the same seed gives the same Gaussians.

    Returns:
        float32, no batch, densities not negative.

    Raises:
        ImageError: the volume does not fit the grid, is not finite, or has nothing above 0.
        RadgsError: no Gaussians or no steps are asked for.
    """
    if tuple(volume.shape) != tuple(grid.shape):
        raise ImageError(f"the volume has shape {tuple(volume.shape)}, the grid {grid.shape}")
    if not volume.isfinite().all() or not (volume > 0).any():
        raise ImageError("Gaussians are fitted to volumes that are finite and somewhere above 0")
    if count < 1 or steps < 0:
        raise RadgsError(f"at least one Gaussian and no negative steps, got {count} and {steps}")
    target = volume.detach().float()
    peak = float(target.max())
    start = _draw(target, grid, count, np.random.default_rng(seed))
    parameters = {
        "means": start.means,
        "log_scales": start.scales.log(),
        "quaternions": start.quaternions,
        "densities": start.densities / peak,
    }
    units = {"means": grid.spacing_mm, "log_scales": 1.0, "quaternions": 1.0, "densities": 1.0}
    for parameter in parameters.values():
        parameter.requires_grad_()
    groups = [{"params": [parameters[name]], "lr": rate * units[name]} for name, rate in _RATES.items()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, _FINAL_RATE ** (1 / max(steps, 1)))
    smallest = float(np.log(_SMALLEST_SCALE_VOXELS * grid.spacing_mm))
    target = target / peak
    for _ in range(steps):
        optimizer.zero_grad()
        difference = voxelize(_build(parameters, 1.0), grid, cutoff=3.0) - target
        # Sums over voxels per Gaussian: the loss does not fade with the empty part of the grid.
        loss = (difference.square().sum() + _L1_WEIGHT * difference.abs().sum()) / count
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            parameters["densities"].clamp_(min=0)
            parameters["log_scales"].clamp_(min=smallest)
    return _build({name: parameter.detach() for name, parameter in parameters.items()}, peak)


def _build(parameters: dict[str, Tensor], peak: float) -> RadiativeGaussians:
    q = parameters["quaternions"]
    return RadiativeGaussians(
        parameters["means"],
        parameters["log_scales"].exp(),
        q / q.norm(dim=-1, keepdim=True),
        parameters["densities"] * peak,
    )


def _draw(volume: Tensor, grid: Grid, count: int, rng: np.random.Generator) -> RadiativeGaussians:
    """Positions in proportion to the volume, as wide as their neighbours are far, scaled to the volume's mass."""
    weights = volume.cpu().numpy().astype(np.float64).clip(min=0).ravel()
    chosen = rng.choice(weights.size, count, p=weights / weights.sum())
    index = np.stack(np.unravel_index(chosen, tuple(volume.shape))[::-1], -1)
    jittered = index + rng.uniform(-0.5, 0.5, index.shape)
    means = jittered * grid.spacing_mm + np.asarray(grid.origin)
    neighbours = min(_NEIGHBOURS, count - 1)
    distances = cKDTree(means).query(means, k=neighbours + 1)[0].reshape(count, -1)[:, 1:]
    spacing = distances.mean(1) if neighbours else np.full(count, 4 * grid.spacing_mm)
    scales = np.repeat(np.maximum(0.6 * spacing, 0.5 * grid.spacing_mm)[:, None], 3, axis=1)
    quaternions = np.tile([1.0, 0.0, 0.0, 0.0], (count, 1))
    start = RadiativeGaussians(
        means=torch.from_numpy(means).float(),
        scales=torch.from_numpy(scales).float(),
        quaternions=torch.from_numpy(quaternions).float(),
        densities=torch.from_numpy(weights[chosen]).float(),
    )
    rendered = voxelize(start, grid, cutoff=3.0)
    amount = float((rendered * volume).sum() / rendered.square().sum().clamp_min(1e-20))
    return RadiativeGaussians(start.means, start.scales, start.quaternions, start.densities * amount)
