"""The networks' pose of each located vertebra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from radgs.anatomy import VertebraCrop, VertebraViews, cut_views, world_from_crop
from radgs.config import Config
from radgs.gaussians import Grid, RadiativeGaussians, voxelize
from radgs.geometry import RigidTransform, frontal_and_lateral
from radgs.images import Xray
from radgs.models import RecM, RegM
from radgs.registration.attention import ViewAttention


@dataclass(frozen=True)
class Estimate:
    """What the networks say of one vertebra.

    Attributes:
        detected: world_from_ct before any network: the CT, unturned, at the located centre.
        regm: world_from_ct after RecM and RegM.
        world_from_crop: the frame of the volumes and Gaussians below.
        reconstructions: by kind (``xray_only``, ``ct_assisted``), ``[D, H, W]`` 1/mm on ``grid``.
        gaussians: the reconstruction that RegM used, crop frame.
        grid: of the reconstructions, crop frame.
        attention: by view, where RecM looked.
    """

    detected: RigidTransform
    regm: RigidTransform
    world_from_crop: RigidTransform
    reconstructions: dict[str, Float[Tensor, "D H W"]]
    gaussians: RadiativeGaussians
    grid: Grid
    attention: dict[str, ViewAttention]


def _stack(anchors: list[RadiativeGaussians]) -> RadiativeGaussians:
    return RadiativeGaussians(
        torch.stack([a.means for a in anchors]),
        torch.stack([a.scales for a in anchors]),
        torch.stack([a.quaternions for a in anchors]),
        torch.stack([a.densities for a in anchors]),
    )


@torch.no_grad()
def estimate(
    xrays: Mapping[str, Xray],
    centres: Mapping[str, NDArray[np.float64]],
    crops: Mapping[str, VertebraCrop],
    anchors: Mapping[str, RadiativeGaussians],
    recm: RecM | Mapping[str, RecM],
    regm: RegM | Mapping[str, RegM],
    config: Config,
) -> dict[str, Estimate]:
    """Reconstruct each located vertebra from the X-rays, then register its CT to the reconstruction.

    Args:
        xrays: the shot's views.
        centres: by level, located centre, ``[3]`` world, mm.
        crops: by level, of the CT.
        anchors: by level, Gaussians fitted to the CT (vertebra frame); used by the CT-assisted reconstruction only.
        recm: X-rays to Gaussians; of all levels, or by level.
        regm: CT and reconstruction to pose; likewise.
        config: crop size, network sizes, and which reconstruction RegM gets.
    """
    if isinstance(recm, Mapping):
        assert isinstance(regm, Mapping)
        each = ((k, {k: centre}, recm[k], regm[k]) for k, centre in centres.items())
        return {k: estimate(xrays, one, crops, anchors, a, b, config)[k] for k, one, a, b in each}
    assert not isinstance(regm, Mapping)
    levels, size, network = list(centres), config.crop.size_mm, config.network
    # the order they were trained with: AP or PA, then the view most across it
    pair = {name: xrays[name] for name in frontal_and_lateral({k: x.camera for k, x in xrays.items()})}
    parts = [cut_views(pair, level, centres[level], size, network.image_px) for level in levels]
    views = VertebraViews.cat(parts)
    grid = Grid.centred(size, network.volume_voxels)
    sources = {
        "xray_only": recm.blank(views.level),
        "ct_assisted": _stack([anchors[level] for level in levels]),
    }
    made = {kind: recm(views, source) for kind, source in sources.items()}
    volumes = {kind: voxelize(one.factual, grid) for kind, one in made.items()}
    used = "ct_assisted" if network.anchors == "patient" else "xray_only"
    ct = torch.stack([_shrink(crops[level], network.volume_voxels) for level in levels])
    motion = regm(ct, volumes[used], made[used].crop_from_vertebra)
    cameras = {name: x.camera for name, x in pair.items()}
    out = {}
    for i, level in enumerate(levels):
        crop, vertebra_from_ct = world_from_crop(cameras, centres[level]), crops[level].vertebra_from_ct
        out[level] = Estimate(
            detected=crop @ vertebra_from_ct,
            regm=crop @ RigidTransform.nearest(motion[i].double().numpy()) @ vertebra_from_ct,
            world_from_crop=crop,
            reconstructions={kind: volume[i] for kind, volume in volumes.items()},
            gaussians=made[used].factual[i],
            grid=grid,
            attention={
                name: ViewAttention(views.images[i, v].numpy(), made[used].attention[i, v].numpy(), size)
                for v, name in enumerate(pair)
            },
        )
    return out


def _shrink(crop: VertebraCrop, voxels: int) -> Float[Tensor, "D H W"]:
    return torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(crop.excess.array)[None], voxels)[0]
