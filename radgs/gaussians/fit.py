"""Gaussians fitted to a volume: drawn where it is dense, optimised, and moved to where more are needed."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from radgs.errors import ImageError, RadgsError
from radgs.gaussians.gaussians import RadiativeGaussians, rotations
from radgs.gaussians.voxelize import Grid, voxelize

_NEIGHBOURS = 3
_L1_WEIGHT = 0.1
# Adam's steps: positions in voxels, logarithms of scales, quaternions, densities relative to the volume's maximum.
_RATES = {"means": 0.1, "log_scales": 0.03, "quaternions": 0.02, "densities": 0.02}
_FINAL_RATE = 0.05
_SMALLEST_SCALE_VOXELS = 0.3
# Pruning and splitting: after these shares of the steps, Gaussians fainter than this share of the volume's maximum.
_MOVES = (0.15, 0.3, 0.45, 0.6)
_FAINT = 0.01
_SPLIT_OFFSET, _SPLIT_SHRINK = 0.6, 0.6  # of the standard deviation along the longest axis


@torch.enable_grad()
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
        RadgsError: no Gaussians, negative steps, a negative seed, or numbers that are not whole.
    """
    if tuple(volume.shape) != tuple(grid.shape):
        raise ImageError(f"the volume has shape {tuple(volume.shape)}, the grid {grid.shape}")
    if not volume.isfinite().all() or not (volume > 0).any():
        raise ImageError("Gaussians are fitted to volumes that are finite and somewhere above 0")
    if not all(isinstance(n, Integral) for n in (count, steps, seed)) or count < 1 or steps < 0 or seed < 0:
        raise RadgsError(
            f"at least one Gaussian, no negative steps or seed, all whole numbers, got {count}, {steps} and {seed}"
        )
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
    moves = {round(share * steps) for share in _MOVES}
    for step in range(steps):
        if step in moves and step > 0:
            _split_for_pruned(parameters, optimizer, target, grid)
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


def _split_for_pruned(
    parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer, target: Tensor, grid: Grid
) -> None:
    """Give up faint Gaussians and split, for each, one that lies where the volume is explained worst."""
    drawn = voxelize(_build(parameters, 1.0), grid, cutoff=3.0)
    error = (drawn.detach() - target).abs()
    (covered,) = torch.autograd.grad((drawn * error).sum(), parameters["densities"])
    with torch.no_grad():
        faint = torch.nonzero(parameters["densities"] < _FAINT)[:, 0]
        covered[faint] = -1
        faint = faint[: max(0, len(covered) - len(faint))]
        parents = covered.topk(len(faint)).indices
        scales = parameters["log_scales"][parents].exp()
        longest = scales.argmax(-1, keepdim=True)
        along = rotations(_build(parameters, 1.0))[parents].gather(-1, longest[:, None].expand(-1, 3, 1))[..., 0]
        shift = _SPLIT_OFFSET * scales.gather(-1, longest) * along
        smaller = parameters["log_scales"][parents].scatter_add(
            -1, longest, torch.full_like(shift[:, :1], float(np.log(_SPLIT_SHRINK)))
        )
        for rows, sign in ((faint, 1.0), (parents, -1.0)):
            parameters["means"][rows] = parameters["means"][parents] + sign * shift
            parameters["log_scales"][rows] = smaller
            parameters["quaternions"][rows] = parameters["quaternions"][parents]
            parameters["densities"][rows] = parameters["densities"][parents]
            for parameter in parameters.values():
                for moment in ("exp_avg", "exp_avg_sq"):
                    optimizer.state[parameter][moment][rows] = 0


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
    parts = (means, scales, quaternions, weights[chosen])
    start = RadiativeGaussians(*(torch.from_numpy(part).float().to(volume.device) for part in parts))
    rendered = voxelize(start, grid, cutoff=3.0)
    amount = float((rendered * volume).sum() / rendered.square().sum().clamp_min(1e-20))
    return RadiativeGaussians(start.means, start.scales, start.quaternions, start.densities * amount)
