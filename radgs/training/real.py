"""Pairs from real X-rays whose true poses are known: what stage P2 learns from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy import LEVELS, VertebraCrop, cut_views, read_crop, read_levels, world_from_crop
from radgs.anatomy.views import window_camera
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.geometry import RigidTransform, frontal_and_lateral
from radgs.images import Xray, read_transforms, read_xrays
from radgs.simulation import VERTEBRA_TABLES
from radgs.simulation.pairs import averaged, write_pairs
from radgs.training.data import read_vertebrae


@dataclass(frozen=True)
class RealShot:
    """Files of one shot: line integrals, cameras, located levels, and the truth (``world_from_ct`` by level)."""

    xrays: Path
    cameras: Path
    levels: Path
    truth: Path


def real_pairs(
    shots: Sequence[RealShot],
    crops: Mapping[str, str | Path],
    masks: Mapping[str, str | Path],
    anchors: Mapping[str, str | Path],
    target: str | Path,
    config: Config,
    patient: str,
) -> None:
    """Write the pairs of one patient in the form of a population's shard.

    A pair is a level that a shot's detection has placed within ``detection.max_residual_mm`` of where the truth puts
    it. Its target is what the CT's vertebra would add to the X-rays there.

    Args:
        shots: at least one.
        crops: by level, excess attenuation.
        masks: by level.
        anchors: by level, Gaussians.
        target: the shard.
        config: sizes of crop and network.
        patient: its name.

    Raises:
        AnatomyError: no level has a truth, a crop and a place in any shot.
        RadgsError: a file cannot be used.
    """
    read = {level: read_crop(crops[level], masks[level], level) for level in crops}
    pairs = [pair for shot in shots for pair in _pairs(shot, read, config)]
    if not pairs:
        raise AnatomyError(
            f"patient {patient}: no level of {', '.join(crops)} has a true pose and was found near it in any shot; "
            "check truth and boxes, or take the truth out of the sheet"
        )
    vertebrae = read_vertebrae(crops, anchors, config.network.volume_voxels)
    rows = {int(number): i for i, number in enumerate(vertebrae.level)}
    for pair in pairs:
        pair["vertebra"] = np.array(rows[int(pair["level"])], dtype=np.int64)
    attributes: dict[str, str | int] = {
        "subject": patient,
        "variant": 0,
        "levels": " ".join(crops),
        "leave_out": "",
        "settings": json.dumps(config.model_dump(mode="json", include={"crop", "network"})),
    }
    write_pairs(target, pairs, attributes, {name: getattr(vertebrae, name).numpy() for name in VERTEBRA_TABLES})


def _pairs(
    shot: RealShot, crops: Mapping[str, VertebraCrop], config: Config
) -> Iterator[dict[str, NDArray[np.generic]]]:
    xrays, located = read_xrays(shot.xrays, shot.cameras), read_levels(shot.levels)
    truth = read_transforms(shot.truth)
    pair = {name: xrays[name] for name in frontal_and_lateral({k: x.camera for k, x in xrays.items()})}
    for level in [name for name in crops if name in located and name in truth]:
        centre = np.asarray(located[level]["centre_mm"], dtype=np.float64)
        off = np.linalg.norm(truth[level].apply(crops[level].centre) - centre)
        if off <= config.detection.max_residual_mm:
            yield _pair(pair, crops[level], centre, truth[level], config)


def _pair(
    xrays: Mapping[str, Xray],
    crop: VertebraCrop,
    centre: NDArray[np.float64],
    world_from_ct: RigidTransform,
    config: Config,
) -> dict[str, NDArray[np.generic]]:
    size, pixels = config.crop.size_mm, config.network.image_px
    views = cut_views(xrays, crop.level, centre, size, pixels)
    cameras = {name: x.camera for name, x in xrays.items()}
    windows = [window_camera(camera, centre, size, pixels) for camera in cameras.values()]
    crop_from_world = world_from_crop(cameras, centre).inverse()
    return {
        "images": views.images[0].numpy(),
        "targets": np.stack([averaged(crop.excess, w, world_from_ct) for w in windows]),
        "K": views.K[0].numpy(),
        "camera_from_crop": views.camera_from_crop[0].numpy(),
        "crop_from_vertebra": (crop_from_world @ world_from_ct @ crop.vertebra_from_ct.inverse()).matrix,
        "level": np.array(LEVELS[crop.level], dtype=np.int64),
    }
