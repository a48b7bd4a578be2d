"""Whole simulated X-rays with the box of every vertebra in them: what a level detector learns from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from radgs.anatomy import LEVELS, cranio_caudal, read_audit, read_labelled_ct, split_tissue
from radgs.anatomy.beyond import repeated
from radgs.anatomy.canvas import canvas_camera, inside_image
from radgs.config import Config, SpineMotionSettings
from radgs.errors import AnatomyError, ImageError
from radgs.gaussians import rasterize
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume, atomic_path
from radgs.projection import XrayPhysics, project_part
from radgs.simulation.carm import CArm
from radgs.simulation.collimation import sample_opening
from radgs.simulation.instruments import sample_instruments
from radgs.simulation.physics import random_physics
from radgs.simulation.spine import ArticulatedSpine, SpinePose, sample_spine_pose

_FIELDS = ("images", "boxes", "K", "camera_from_world", "centres")
_OVERSAMPLING = 2
_SEEN = 0.5  # a vertebra counts as seen if so much of it is inside the image
_BEYOND_MM = 150.0  # tissue beyond the CT's ends, in half of the scenes: patients do not end where their CT does
_MOST_INSTRUMENTS = 4
_NEIGHBOUR_MOTION = (0.5, 1.5)  # of the configured limits: now and then a patient's joints bend further
_ELSEWHERE = 0.4  # of the scenes lie about another level that an image of the registered ones can show
_METAL_FOUND, _METAL_LEAST = 0.5, 0.15  # how often metal is masked as in preparation; line integral from which it is
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
        self.soft = [soft, repeated(soft, _BEYOND_MM)]
        self.within_reach = _within_reach(self.centres, self.levels, config)
        self.points = {level: self.spine.tissue.points(level)[::17] for level in self.levels}

    def scene(self, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        """One spine under one C-arm; see :class:`SimulatedRadiographs` for the fields."""
        settings, px = self.config.simulation, self.config.detection.yolo.image_px
        about = self.config.levels if rng.random() > _ELSEWHERE else [str(rng.choice(self.within_reach))]
        pose = sample_spine_pose(rng, self.centres, about, _more_motion(rng, settings.motion))
        soft = self.soft[int(rng.integers(2))]
        middle = np.mean([pose.levels[k].apply(self.centres[k]) for k in about], axis=0)
        metal, found = sample_instruments(rng, middle, _MOST_INSTRUMENTS), rng.random() < _METAL_FOUND
        cameras = CArm(settings.carm).sample(rng)
        images, boxes = [], []
        for camera in cameras.values():
            canvas = canvas_camera(camera, px)
            bone, measured = self._bone(canvas, pose), inside_image(camera, px) & sample_opening(rng, camera, px)
            if metal is not None:
                k, view = torch.from_numpy(canvas.K.copy())[None], canvas.camera_from_world.tensor()[None]
                rods = rasterize(metal, k, view, (px, px))[0].numpy()
                bone += rods
            boxes.append([self._box(canvas, measured, pose.levels[level], level) for level in self.levels])
            if metal is not None and found:
                measured &= rods < _METAL_LEAST
            ratio = float(camera.K[0, 0] / canvas.K[0, 0])
            physics = XrayPhysics(random_physics(rng, settings.physics, ratio), rng)
            image = physics.line_integrals(project_part(soft, canvas, pose.soft, 3.0), bone, ratio**2)
            images.append(np.where(measured, image, np.nan))
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

    def _box(
        self, canvas: Camera, measured: NDArray[np.bool_], world_from_ct: RigidTransform, level: str
    ) -> NDArray[np.float64]:
        points = world_from_ct.apply(self.points[level])
        uv, middle = canvas.project(points), canvas.project(world_from_ct.apply(self.centres[level]))
        column, row = np.clip(np.rint(uv), 0, len(measured) - 1).astype(int).T
        if (canvas.sees(points) & measured[row, column]).mean() < _SEEN:
            return np.full(4, np.nan)
        half = (uv.max(axis=0) - uv.min(axis=0)) / 2
        return np.concatenate([middle - half, middle + half])


def _more_motion(rng: np.random.Generator, motion: SpineMotionSettings) -> SpineMotionSettings:
    ratio = float(rng.uniform(*_NEIGHBOUR_MOTION))
    return motion.model_copy(
        update={
            "neighbour_rotation_deg": motion.neighbour_rotation_deg * ratio,
            "neighbour_translation_mm": motion.neighbour_translation_mm * ratio,
        }
    )


def _within_reach(centres: Mapping[str, NDArray[np.float64]], levels: Sequence[str], settings: Config) -> list[str]:
    """The levels whose middle an image about ``settings.levels`` can show, the patient moved as far as configured."""
    carm, motion = settings.simulation.carm, settings.simulation.motion
    field = carm.detector_px * carm.pixel_mm * carm.source_to_isocentre_mm / carm.source_to_detector_mm
    middle = np.mean([centres[k] for k in settings.levels], axis=0)
    reach = field / 2 + motion.translation_mm
    return [k for k in levels if np.linalg.norm(centres[k] - middle) < reach] or list(levels)


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
