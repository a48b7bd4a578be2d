"""What the networks make of simulated pairs: poses after each of them, reconstructions in both kinds, seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import torch

from radgs.evaluation.volumes import compare_volumes
from radgs.gaussians import Grid, voxelize
from radgs.images import Volume, atomic_path
from radgs.models import RecM, RegM, load_recm, load_regm, warp
from radgs.training import TrainingData, anchors_of, point_errors, views_of

COMPARED_VOXELS = 64
"""Across a crop when reconstructions are compared: 1.75 mm of 112."""
KINDS = {"xray_only": "blank", "ct_assisted": "patient"}
"""Reconstructions by what their anchors know. They are two numbers, never one."""


@torch.no_grad()
def measure_networks(recm: RecM, regm: RegM, data: TrainingData) -> pd.DataFrame:
    """Measure every pair by itself, as a registration would go.

    Args:
        recm: X-rays to Gaussians.
        regm: CT and Gaussians to pose.
        data: pairs that neither has seen; its vertebrae's volumes are ``COMPARED_VOXELS`` wide, or finer.

    Returns:
        A row a pair: ``level`` (VerSe), ``seconds`` (RecM, voxelize, RegM), mTRE in mm before any network
        (``start_mm``), after RecM (``recm_mm``) and after RegM (``regm_mm``), and for each of ``KINDS`` the numbers
        of :class:`radgs.evaluation.VolumeMetrics`, as ``xray_only_dice``.
    """
    rows = []
    for i in range(len(data.fields["level"])):
        pair = {name: values[i : i + 1] for name, values in data.fields.items()}
        index, truth, views = pair["vertebra"], pair["crop_from_vertebra"], views_of(pair)
        ct, points = data.vertebrae.volumes[index], data.vertebrae.points[index]
        coarse = torch.nn.functional.adaptive_avg_pool3d(ct, recm.settings.volume_voxels)
        used = "patient" if recm.settings.anchors == "patient" else "blank"
        began = time.perf_counter()
        seen = recm.observe(views)
        made = recm.factual(seen, views, anchors_of(recm, index, data.vertebrae, used))
        motion = seen.factual_motion
        pose = regm(coarse, voxelize(made, Grid.centred(recm.crop_mm, recm.settings.volume_voxels)), motion)
        row = {"level": int(pair["level"]), "seconds": time.perf_counter() - began}
        still = torch.eye(4, dtype=truth.dtype)[None]
        for name, at in (("start_mm", still), ("recm_mm", motion), ("regm_mm", pose)):
            row[name] = float(point_errors(at, truth, points))
        grid = Grid.centred(recm.crop_mm, ct.shape[-1])
        target = Volume.axis_parallel(warp(ct, truth, recm.crop_mm)[0].numpy(), grid.spacing_mm, (0, 0, 0))
        for kind, anchors in KINDS.items():
            gaussians = made
            if anchors != used:
                gaussians = recm.factual(seen, views, anchors_of(recm, index, data.vertebrae, anchors))
            found = compare_volumes(target.with_array(voxelize(gaussians, grid)[0].numpy()), target)
            row |= {f"{kind}_{name}": value for name, value in vars(found).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def write_measured(models: str | Path, data: TrainingData, target: str | Path) -> None:
    """:func:`measure_networks` of a models folder, as CSV.

    Raises:
        RadgsError: the folder's weights cannot be used.
    """
    table = measure_networks(load_recm(models), load_regm(models), data)
    with atomic_path(target) as part:
        table.to_csv(part, index=False)
