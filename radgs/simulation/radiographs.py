"""Whole simulated X-rays with the box of every vertebra in them: what a level detector learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from radgs.anatomy import LEVELS, cranio_caudal, read_audit, read_labelled_ct, split_tissue
from radgs.anatomy.canvas import canvas_camera, inside_image
from radgs.config import Config
from radgs.errors import AnatomyError, ImageError
from radgs.gaussians import rasterize
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume, atomic_path
from radgs.projection import XrayPhysics
from radgs.simulation.carm import CArm
from radgs.simulation.instruments import sample_instruments
from radgs.simulation.physics import random_physics
from radgs.simulation.spine import ArticulatedSpine, SpinePose, project_part, sample_spine_pose

_FIELDS = ("images", "boxes", "K", "camera_from_world", "centres")
_OVERSAMPLING = 2
_SEEN = 0.5  # a vertebra counts as seen if so much of it is inside the image
_BEYOND_MM = 150.0  # tissue beyond the CT's ends, in half of the scenes: patients do not end where their CT does
_MOST_INSTRUMENTS = 4
_STREAM = 1  # of the seed: other scenes than the training pairs'


class SimulatedRadiographs:
    """The X-rays of one HDF5 file.

    Attributes:
        images: ``[n, V, px, px]`` float16 line integrals on the detector's canvas; NaN where not measured.
        boxes: ``[n, V, L, 4]`` (u0, v0, u1, v1), canvas pixels; NaN where the vertebra is not seen. As large as the
            vertebra in the picture, but its middle is where the vertebra's middle is seen: the middle of a tight box
            is not, and triangulates to a point 3.5 mm off (median; demo patient).
        K: ``[n, V, 3, 3]`` of the canvas.
        camera_from_world: ``[n, V, 4, 4]``.
        centres: ``[n, L, 3]`` world, mm.
        levels: the L names.
        views: the V names.

    Raises:
        ImageError: the file is missing or is not such a file.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            with h5py.File(path, "r") as file:
                self.images, self.boxes, self.K, self.camera_from_world, self.centres = (
                    file[name][...] for name in _FIELDS
                )
                self.levels, self.views = (json.loads(file.attrs[name]) for name in ("levels", "views"))
        except (OSError, KeyError, ValueError) as error:
            raise ImageError(f"{path}: not a file of simulated radiographs ({error})") from None


def _extended(volume: Volume, reach_mm: float) -> Volume:
    """The volume with its first and last slice repeated."""
    slices = int(np.ceil(reach_mm / float(volume.spacing[2])))
    frame = volume.lps_from_index.copy()
    frame[:3, 3] = volume.points([0, 0, -slices])
    return Volume(np.pad(volume.array, ((slices, slices), (0, 0), (0, 0)), mode="edge"), frame)


class RadiographMaker:
    """Draws whole X-rays of one patient.

    Args:
        ct: HU.
        labels: VerSe numbers on its grid.
        levels: to be named in the X-rays.
        config: ``levels`` lie near the middle of the images; ``detection`` and ``simulation``.
    """

    def __init__(self, ct: Volume, labels: Volume, levels: Sequence[str], config: Config) -> None:
        self.config, self.levels = config, list(levels)
        self.spine = ArticulatedSpine(split_tissue(ct, labels))
        self.centres = self.spine.centres
        factor = max(int(2.1 / float(ct.spacing[:2].max())), 1)
        soft = self.spine.tissue.soft.binned_in_plane(factor)
        self.soft = [soft, _extended(soft, _BEYOND_MM)]
        self.points = {level: self.spine.tissue.points(level)[::17] for level in self.levels}

    def scene(self, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        """One spine under one C-arm; see :class:`SimulatedRadiographs` for the fields."""
        settings, px = self.config.simulation, self.config.detection.yolo.image_px
        pose = sample_spine_pose(rng, self.centres, self.config.levels, settings.motion)
        soft = self.soft[int(rng.integers(2))]
        middle = np.mean([pose.levels[k].apply(self.centres[k]) for k in self.config.levels], axis=0)
        metal = sample_instruments(rng, middle, _MOST_INSTRUMENTS)
        cameras = CArm(settings.carm).sample(rng)
        images, boxes = [], []
        for camera in cameras.values():
            canvas = canvas_camera(camera, px)
            bone = self._bone(canvas, pose)
            if metal is not None:
                k, view = torch.from_numpy(canvas.K.copy())[None], canvas.camera_from_world.tensor()[None]
                bone += rasterize(metal, k, view, (px, px))[0].numpy()
            ratio = float(camera.K[0, 0] / canvas.K[0, 0])
            physics = XrayPhysics(random_physics(rng, settings.physics, ratio), rng)
            image = physics.line_integrals(project_part(soft, canvas, pose.soft, 3.0), bone, ratio**2)
            images.append(np.where(_exposed(rng, inside_image(camera, px)), image, np.nan))
            boxes.append([self._box(camera, canvas, pose.levels[level], level) for level in self.levels])
        return {
            "images": np.stack(images).astype(np.float16),
            "boxes": np.array(boxes, dtype=np.float32),
            "K": np.stack([canvas_camera(c, px).K for c in cameras.values()]),
            "camera_from_world": np.stack([c.camera_from_world.matrix for c in cameras.values()]),
            "centres": np.stack([pose.levels[k].apply(self.centres[k]) for k in self.levels]),
        }

    def _bone(self, canvas: Camera, pose: SpinePose) -> NDArray[np.float32]:
        n, first = canvas.width, -(_OVERSAMPLING - 1) / (2 * _OVERSAMPLING)
        fine = canvas.window(first, first, n * _OVERSAMPLING, n * _OVERSAMPLING, 1 / _OVERSAMPLING)
        drawn = np.zeros((fine.height, fine.width), dtype=np.float32)
        for level, part in self.spine.tissue.excess.items():
            drawn += project_part(part, fine, pose.levels[level], 1.5)
        return drawn.reshape(n, _OVERSAMPLING, n, _OVERSAMPLING).mean(axis=(1, 3))

    def _box(self, camera: Camera, canvas: Camera, world_from_ct: RigidTransform, level: str) -> NDArray[np.float64]:
        points = world_from_ct.apply(self.points[level])
        if camera.sees(points).mean() < _SEEN:
            return np.full(4, np.nan)
        uv, middle = canvas.project(points), canvas.project(world_from_ct.apply(self.centres[level]))
        half = (uv.max(axis=0) - uv.min(axis=0)) / 2
        return np.concatenate([middle - half, middle + half])


def _exposed(rng: np.random.Generator, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of the image that a random collimator leaves, in a third of all images."""
    if rng.random() > 1 / 3:
        return inside
    n = len(inside)
    low, high = (rng.uniform(0, 0.2, 2) * n).astype(int), n - (rng.uniform(0, 0.2, 2) * n).astype(int)
    open_ = np.zeros_like(inside)
    open_[low[0] : high[0], low[1] : high[1]] = True
    return inside & open_


def simulate_radiographs(
    ct: str | Path, vertebrae: str | Path, audit: str | Path, target: str | Path, config: Config
) -> None:
    """Simulate X-rays of one patient and write them to HDF5; every level that the CT's border does not cut is named.

    Args:
        ct: HU.
        vertebrae: VerSe labels.
        audit: ``vertebrae.json``.
        target: the file.
        config: ``detection.yolo``, ``simulation``, ``levels``, ``seed``.

    Raises:
        AnatomyError: the CT's border cuts every level.
    """
    whole = {level for level, found in read_audit(audit).items() if found.status != "cut"}
    levels = [level for level in cranio_caudal(LEVELS) if level in whole]
    if not levels:
        raise AnatomyError(f"{audit}: the border of the CT cuts every level")
    maker = RadiographMaker(*read_labelled_ct(ct, vertebrae), levels, config)
    scenes: list[dict[str, NDArray[np.generic]]] = []
    count = config.detection.yolo.shots
    for number in range(count):
        scenes.append(maker.scene(np.random.default_rng([config.seed, _STREAM, number])))
        if (number + 1) % 50 == 0:
            print(f"{number + 1} of {count} shots", flush=True)  # noqa: T201
    views = list(CArm(config.simulation.carm).views)
    with atomic_path(target) as part, h5py.File(part, "w") as file:
        for name in _FIELDS:
            file.create_dataset(name, data=np.stack([scene[name] for scene in scenes]))
        file.attrs.update(levels=json.dumps(maker.levels), views=json.dumps(views), seed=config.seed)
