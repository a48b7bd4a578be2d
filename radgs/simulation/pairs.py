"""Training pairs: windows of simulated X-rays around a vertebra, and where the vertebra truly is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from radgs.projection import XrayPhysics, project_part, project_parts
from radgs.simulation.carm import CArm
from radgs.simulation.physics import random_physics
from radgs.simulation.spine import ArticulatedSpine, SpinePose, jittered_box, sample_spine_pose

_FIELDS = ("images", "targets", "K", "camera_from_crop", "crop_from_vertebra", "level")
_OVERSAMPLING = 2  # rays per window pixel and axis for bone: the real windows are averages over pixels
_AVERAGED_STEP_MM = 1.5
# Windows have pixels of 1.75 mm. Voxels binned up to about the first number, sampled along the ray at the second, bring
# bone within 3 % of finer rays and tissue within 0.02 of 4.3, less than the quantum noise, at a fifth of the time.
_BONE_MM, _BONE_STEP_MM = 1.5, 2.0
_SOFT_MM, _SOFT_STEP_MM = 3.0, 5.0
SCENES_AT_ONCE = 16  # scenes; each call to the kernel draws a part of the CT in the windows of all
_REACH = 2  # neighbours on either side that a window shows


class SimulatedPairs(Dataset[dict[str, Tensor]]):
    """The pairs of one HDF5 file, held in memory; see ``docs/architecture.md`` for the fields.

    Raises:
        ImageError: the file is missing or is not such a file.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            with h5py.File(path, "r") as file:
                self.fields = {name: _single(torch.from_numpy(file[name][...])) for name in _FIELDS}
                self.attributes = dict(file.attrs)
        except (OSError, KeyError) as error:
            raise ImageError(f"{path}: not a file of simulated pairs ({error})") from None

    def __len__(self) -> int:
        return len(self.fields["level"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.fields.items()}


def _single(values: Tensor) -> Tensor:
    """Images are kept in half precision, whose steps are less than their noise, and computed with in single."""
    return values.float() if values.dtype == torch.float16 else values


def averaged(part: Volume, window: Camera, world_from_ct: RigidTransform) -> NDArray[np.float32]:
    """Line integrals of a part of the CT, each the mean over a pixel of the window, ``[h, w]``."""
    n, first = _OVERSAMPLING, -(_OVERSAMPLING - 1) / (2 * _OVERSAMPLING)
    fine = window.window(first, first, window.width * n, window.height * n, 1 / n)
    drawn = project_part(part, fine, world_from_ct, _AVERAGED_STEP_MM)
    return drawn.reshape(window.height, n, window.width, n).mean(axis=(1, 3))


@dataclass(frozen=True)
class _Shown:
    """One vertebra of a scene, before anything is drawn."""

    rng: np.random.Generator
    level: str
    pose: SpinePose
    cameras: list[Camera]
    windows: list[Camera]
    world_from_crop: RigidTransform
    longer: bool


class PairMaker:
    """Draws pairs of one patient."""

    def __init__(self, ct: Volume, labels: Volume, levels: Sequence[str], config: Config) -> None:
        self.config, self.levels = config, list(levels)
        self.spine = ArticulatedSpine(split_tissue(ct, labels))
        self.centres = self.spine.centres
        self.bone = {name: _binned(part, _BONE_MM) for name, part in self.spine.tissue.excess.items()}
        self.soft = _binned(self.spine.tissue.soft, _SOFT_MM)
        whole = _binned(ct.with_array(hu_to_mu(ct.array)), _SOFT_MM)
        self.longer = continued(self.soft, whole, [self.centres[k] for k in levels], config.simulation.reach_mm)
        self.mask_points = {level: self.spine.tissue.points(level)[::29] for level in levels}

    def scene(
        self, rng: np.random.Generator, levels: Sequence[str] | None = None
    ) -> list[dict[str, NDArray[np.generic]]]:
        """One spine under one C-arm: a pair for each level (all if absent), whose middle is near the isocentre."""
        return self.scenes([(rng, levels or self.levels)])

    def scenes(
        self, wanted: Sequence[tuple[np.random.Generator, Sequence[str]]]
    ) -> list[dict[str, NDArray[np.generic]]]:
        """Several scenes drawn at once: of each its randomness and the levels, as of :meth:`scene`."""
        shown = [one for rng, levels in wanted for one in self._shown(rng, levels)]
        soft = self._draw_soft(shown)
        bone, targets = self._draw_bone(shown)
        return [self._pair(one, soft[i], bone[i], targets[i]) for i, one in enumerate(shown)]

    def _shown(self, rng: np.random.Generator, levels: Sequence[str]) -> list[_Shown]:
        settings: SimulationSettings = self.config.simulation
        size, px = self.config.crop.size_mm, self.config.network.image_px
        near = {name for level in levels for name in neighbours(level, _REACH, set(self.centres))}
        centres = {name: centre for name, centre in self.centres.items() if name in near}
        pose = sample_spine_pose(rng, centres, levels, settings.motion)
        cameras = CArm(settings.carm).sample(rng)
        longer = self.longer is not None and rng.random() < settings.reach_share
        shown = []
        for level in levels:
            located = self._located(rng, level, pose.levels[level], cameras)
            windows = [window_camera(camera, located, size, px) for camera in cameras.values()]
            crop = world_from_crop(cameras, located)
            shown.append(_Shown(rng, level, pose, list(cameras.values()), windows, crop, longer))
        return shown

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

    def _draw_soft(self, shown: Sequence[_Shown]) -> NDArray[np.float32]:
        """Line integrals of the tissue around the vertebrae, ``[n, V, h, w]``."""
        drawn = _images(shown)
        for longer, tissue in ((False, self.soft), (True, self.longer)):
            rows = [i for i, one in enumerate(shown) if one.longer == longer]
            if rows and tissue is not None:
                drawn[rows] = _project(tissue, [(shown[i], shown[i].pose.soft) for i in rows], _SOFT_STEP_MM)
        return drawn

    def _draw_bone(self, shown: Sequence[_Shown]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Line integrals of the excess of all vertebrae and of the shown one alone, ``[n, V, h, w]`` each."""
        bone, targets = _images(shown), _images(shown)
        for name, part in self.bone.items():
            rows = [i for i, one in enumerate(shown) if name in neighbours(one.level, _REACH, set(one.pose.levels))]
            if not rows:
                continue
            drawn = _project(part, [(shown[i], shown[i].pose.levels[name]) for i in rows], _BONE_STEP_MM)
            bone[rows] += drawn
            own = [k for k, i in enumerate(rows) if shown[i].level == name]
            targets[[rows[k] for k in own]] = drawn[own]
        return bone, targets

    def _pair(
        self, shown: _Shown, soft: NDArray[np.float32], bone: NDArray[np.float32], targets: NDArray[np.float32]
    ) -> dict[str, NDArray[np.generic]]:
        rng, level, images = shown.rng, shown.level, []
        for v, (camera, window) in enumerate(zip(shown.cameras, shown.windows, strict=True)):
            ratio = float(camera.K[0, 0] / window.K[0, 0])
            physics = XrayPhysics(random_physics(rng, self.config.simulation.physics, ratio), rng)
            images.append(physics.line_integrals(soft[v], bone[v], ratio**2))
        ct_from_vertebra = RigidTransform.from_rotation_translation(np.eye(3), self.centres[level])
        crop = shown.world_from_crop
        return {
            "images": np.stack(images).astype(np.float16),
            "targets": targets.astype(np.float16),
            "K": np.stack([window.K for window in shown.windows]),
            "camera_from_crop": np.stack([(camera.camera_from_world @ crop).matrix for camera in shown.cameras]),
            "crop_from_vertebra": (crop.inverse() @ shown.pose.levels[level] @ ct_from_vertebra).matrix,
            "level": np.array(LEVELS[level], dtype=np.int64),
        }


def _images(shown: Sequence[_Shown]) -> NDArray[np.float32]:
    window = shown[0].windows[0]
    return np.zeros((len(shown), len(shown[0].windows), window.height, window.width), dtype=np.float32)


def _project(part: Volume, placed: Sequence[tuple[_Shown, RigidTransform]], step_mm: float) -> NDArray[np.float32]:
    """A part of the CT in all windows of each, ``[n, V, h, w]``."""
    windows = [window for one, _ in placed for window in one.windows]
    poses = [pose for one, pose in placed for _ in one.windows]
    drawn = project_parts(part, windows, poses, step_mm)
    return drawn.reshape(len(placed), -1, *drawn.shape[1:])


def _binned(volume: Volume, finest_mm: float) -> Volume:
    """In-plane voxels binned up to about that; nothing is cut."""
    factor = max(int(finest_mm / float(volume.spacing[:2].max())), 1)
    margins = [(0, 0), *((0, -n % factor) for n in volume.array.shape[1:])]
    return Volume(np.pad(volume.array, margins), volume.lps_from_index).binned_in_plane(factor)


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
        pairs += maker.scenes(
            [(np.random.default_rng([config.seed, k]), levels) for k in range(scene, scene + SCENES_AT_ONCE)]
        )
        scene += SCENES_AT_ONCE
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
