"""Training pairs: windows of simulated X-rays around a vertebra, and where the vertebra truly is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from radgs.anatomy import LEVELS, neighbours, read_labelled_ct, split_tissue, world_from_crop
from radgs.anatomy.beyond import continued
from radgs.anatomy.views import window_camera
from radgs.config import Config, SimulationSettings
from radgs.errors import ImageError
from radgs.geometry import Camera, RigidTransform, triangulate
from radgs.images import Volume, atomic_path, hu_to_mu
from radgs.projection import XrayPhysics, project_part
from radgs.simulation.carm import CArm
from radgs.simulation.physics import random_physics
from radgs.simulation.spine import ArticulatedSpine, SpinePose, jittered_box, sample_spine_pose

_FIELDS = ("images", "targets", "K", "camera_from_crop", "crop_from_vertebra", "level")
_OVERSAMPLING = 2  # rays per window pixel and axis for bone: the real windows are averages over pixels
_BONE_STEP_MM = 1.5


class SimulatedPairs(Dataset[dict[str, Tensor]]):
    """The pairs of one HDF5 file, held in memory; see ``docs/architecture.md`` for the fields.

    Raises:
        ImageError: the file is missing or is not such a file.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            with h5py.File(path, "r") as file:
                self.fields = {name: torch.from_numpy(file[name][...]) for name in _FIELDS}
                self.attributes = dict(file.attrs)
        except (OSError, KeyError) as error:
            raise ImageError(f"{path}: not a file of simulated pairs ({error})") from None

    def __len__(self) -> int:
        return len(self.fields["level"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.fields.items()}


def averaged(part: Volume, window: Camera, world_from_ct: RigidTransform) -> NDArray[np.float32]:
    """Line integrals of a part of the CT, each the mean over a pixel of the window, ``[h, w]``."""
    n, first = _OVERSAMPLING, -(_OVERSAMPLING - 1) / (2 * _OVERSAMPLING)
    fine = window.window(first, first, window.width * n, window.height * n, 1 / n)
    drawn = project_part(part, fine, world_from_ct, _BONE_STEP_MM)
    return drawn.reshape(window.height, n, window.width, n).mean(axis=(1, 3))


class PairMaker:
    """Draws pairs of one patient."""

    def __init__(self, ct: Volume, labels: Volume, levels: Sequence[str], config: Config) -> None:
        self.config, self.levels = config, list(levels)
        self.spine = ArticulatedSpine(split_tissue(ct, labels))
        self.centres = self.spine.centres
        factor = max(int(2.1 / float(ct.spacing[:2].max())), 1)
        self.soft = self.spine.tissue.soft.binned_in_plane(factor)
        whole = ct.with_array(hu_to_mu(ct.array)).binned_in_plane(factor)
        self.longer = continued(self.soft, whole, [self.centres[k] for k in levels], config.simulation.reach_mm)
        self.mask_points = {level: self.spine.tissue.points(level)[::29] for level in levels}

    def scene(
        self, rng: np.random.Generator, levels: Sequence[str] | None = None
    ) -> list[dict[str, NDArray[np.generic]]]:
        """One spine under one C-arm: a pair for each level (all if absent), whose middle is near the isocentre."""
        settings: SimulationSettings = self.config.simulation
        seen = list(levels or self.levels)
        pose = sample_spine_pose(rng, self.centres, seen, settings.motion)
        cameras = CArm(settings.carm).sample(rng)
        soft = self.longer if self.longer and rng.random() < settings.reach_share else self.soft
        return [self._pair(rng, level, pose, cameras, soft) for level in seen]

    def _located(
        self, rng: np.random.Generator, level: str, world_from_ct: RigidTransform, cameras: dict[str, Camera]
    ) -> NDArray[np.float64]:
        """Where a detector would put the level: jittered boxes, triangulated, world mm."""
        points, middles = world_from_ct.apply(self.mask_points[level]), []
        for camera in cameras.values():
            uv = camera.project(points)
            depth = float(camera.camera_from_world.apply(points.mean(axis=0))[2])
            jitter = self.config.simulation.centre_jitter_mm * float(camera.K[0, 0]) / depth
            box = jittered_box(rng, np.concatenate([uv.min(axis=0), uv.max(axis=0)]), jitter)
            middles.append((box[:2] + box[2:]) / 2)
        return triangulate(list(cameras.values()), middles).point

    def _pair(
        self, rng: np.random.Generator, level: str, pose: SpinePose, cameras: dict[str, Camera], tissue: Volume
    ) -> dict[str, NDArray[np.generic]]:
        world_from_ct, size = pose.levels[level], self.config.crop.size_mm
        located = self._located(rng, level, world_from_ct, cameras)
        crop = world_from_crop(cameras, located)
        ct_from_vertebra = RigidTransform.from_rotation_translation(np.eye(3), self.centres[level])
        images, targets, intrinsics, poses = [], [], [], []
        for camera in cameras.values():
            window = window_camera(camera, located, size, self.config.network.image_px)
            bones = {
                name: averaged(self.spine.tissue.excess[name], window, pose.levels[name])
                for name in neighbours(level, 2, set(pose.levels))
            }
            soft = project_part(tissue, window, pose.soft, 2.5)
            ratio = float(camera.K[0, 0] / window.K[0, 0])
            physics = XrayPhysics(random_physics(rng, self.config.simulation.physics, ratio), rng)
            images.append(physics.line_integrals(soft, np.sum(list(bones.values()), axis=0), ratio**2))
            targets.append(bones[level])
            intrinsics.append(window.K)
            poses.append((camera.camera_from_world @ crop).matrix)
        return {
            "images": np.stack(images).astype(np.float32),
            "targets": np.stack(targets).astype(np.float32),
            "K": np.stack(intrinsics),
            "camera_from_crop": np.stack(poses),
            "crop_from_vertebra": (crop.inverse() @ world_from_ct @ ct_from_vertebra).matrix,
            "level": np.array(LEVELS[level], dtype=np.int64),
        }


def simulate_pairs(
    ct: str | Path, vertebrae: str | Path, levels: Sequence[str], target: str | Path, config: Config, patient: str
) -> None:
    """Simulate the configured number of pairs of one patient and write them to HDF5.

    The seed differs from the demo shots', so that no shot is a training pair.
    """
    maker = PairMaker(*read_labelled_ct(ct, vertebrae), levels, config)
    pairs: list[dict[str, NDArray[np.generic]]] = []
    scene = 0
    while len(pairs) < config.simulation.pairs:
        pairs += maker.scene(np.random.default_rng([config.seed, scene]))
        scene += 1
        if scene % 50 == 0:
            print(f"{len(pairs)} of {config.simulation.pairs} pairs", flush=True)  # noqa: T201
    pairs = pairs[: config.simulation.pairs]
    settings = json.dumps(config.simulation.model_dump())
    write_pairs(target, pairs, {"patient": patient, "seed": config.seed, "settings": settings})


def write_pairs(
    path: str | Path,
    pairs: Sequence[Mapping[str, NDArray[np.generic]]],
    attributes: Mapping[str, str | int],
    vertebrae: Mapping[str, NDArray[np.generic]] | None = None,
) -> None:
    """Write pairs, and the tables of the vertebrae that they show, to HDF5: a chunk a pair, atomically."""
    with atomic_path(path) as part, h5py.File(part, "w") as file:
        for name in pairs[0]:
            values = np.stack([pair[name] for pair in pairs])
            chunks = (1, *values.shape[1:]) if values.ndim > 1 else None
            options = {"compression": "lzf"} if values.ndim > 3 else {}
            file.create_dataset(name, data=values, chunks=chunks, **options)
        for name, table in (vertebrae or {}).items():
            file.create_dataset(f"vertebrae/{name}", data=table, compression="lzf" if table.ndim > 1 else None)
        file.attrs.update(attributes)
