"""Shots of a bent patient, handed over as a hospital would; the truth lies apart.

    python benchmarks/world/shots.py --ct CT --labels LABELS --out FOLDER [--case "all at once"] [--shots 3]

LABELS in VerSe numbers. Writes ``FOLDER/{shot}/{AP,LA}.png`` (16-bit counts) and ``cameras.json`` (the calibration as
it is believed) and ``FOLDER/truth/{shot}.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from radgs.anatomy import cranio_caudal
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume, atomic_path, read_volume, write_json, write_transforms
from world import rtk
from world.body import Body
from world.carm import DETECTOR_MM, PIXELS, SOURCE_TO_DETECTOR_MM, believed, sample_cameras
from world.cases import CASES, MOVING, World
from world.detector import I0, expose
from world.matter import bone_hu
from world.metal import Cylinder, pedicle_screws, wire

PIXEL_MM = DETECTOR_MM / PIXELS
_KEPT = 8  # drawn bodies
_SOFT_HU, _MUSCLE = 80.0, 1.04  # bone begins above; muscle and marrow are that much denser than water


@dataclass(frozen=True)
class Scene:
    """Everything true of a shot: cameras, poses, metal.

    Attributes:
        cameras: true ones.
        world_from_body: of the bent body.
        bent_from_ct: by level.
        metal: world.
        isocentre: ``[3]`` world, mm.
        moves: by view, how the patient has moved in the world since the first image; none of views before that.
    """

    cameras: dict[str, Camera]
    world_from_body: RigidTransform
    bent_from_ct: dict[str, RigidTransform]
    metal: list[Cylinder]
    isocentre: NDArray[np.float64]
    moves: dict[str, RigidTransform] = field(default_factory=dict)

    def taken_by(self, view: str) -> Camera:
        """The camera that would take the view's image of a patient who has not moved."""
        camera = self.cameras[view]
        moved = self.moves.get(view, RigidTransform.identity())
        return replace(camera, camera_from_world=camera.camera_from_world @ moved)

    @property
    def truth(self) -> dict[str, RigidTransform]:
        """By level, world_from_ct; of the first image if the patient moves."""
        return {level: self.world_from_body @ motion for level, motion in self.bent_from_ct.items()}


class Hospital:
    """Takes X-rays of one patient.

    Args:
        ct: HU.
        labels: VerSe numbers on its grid.
        targets: levels near the middle of the images.
    """

    def __init__(self, ct: Volume, labels: Volume, targets: Sequence[str]) -> None:
        upright = [Volume.from_sitk(sitk.DICOMOrient(v.to_sitk(), "LPS")) for v in (ct, labels)]
        centres = _centres(upright[1], targets)
        self.targets, self.middle = list(targets), np.mean(centres, axis=0)
        self.body = Body(*upright, self.middle)
        self._drawn: dict[bytes, dict[str, dict[str, NDArray[Any]]]] = {}

    def arrange(self, rng: np.random.Generator, world: World) -> Scene:
        """Lay the patient down, bend the spine, turn the C-arm, put metal in."""
        world_from_room = RigidTransform.from_rotation_translation(
            Rotation.random(random_state=rng).as_matrix(), rng.uniform(-500, 500, 3)
        )
        cameras = sample_cameras(rng, world_from_room)
        bent = bend(rng, self.body.centres, self.middle, world.neighbour_deg, world.neighbour_mm)
        turn = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3) * world.turn_deg, degrees=True).as_matrix()
        move = rng.uniform(-1, 1, 3) * world.move_mm
        room_from_body = RigidTransform.from_rotation_translation(turn, move - turn @ self.middle)
        scene = Scene(cameras, world_from_room @ room_from_body, bent, [], world_from_room.translation)
        carriers = [str(k) for k in rng.permutation(self.targets)]
        for level in carriers[: world.screws]:
            scene.metal.extend(c.moved(scene.truth[level]) for c in pedicle_screws(self.body.centres[level]))
        for i in range(world.wires):
            level = carriers[i % len(carriers)]
            scene.metal.append(wire(rng, scene.truth[level].apply(self.body.centres[level])))
        if world.between_mm:  # drawn last: the same seed shows the same patient with and without
            move = RigidTransform.from_rotation_translation(np.eye(3), _direction(rng) * world.between_mm)
            scene.moves.update(dict.fromkeys(list(cameras)[1:], move))
        return scene

    def shoot(self, scene: Scene, world: World, rng: np.random.Generator) -> dict[str, NDArray[np.uint16]]:
        """Counts of every view."""
        images = {}
        for view in scene.cameras:
            camera, lengths = scene.taken_by(view), dict(self._lengths(scene)[view])
            for rod in scene.metal:
                lengths[rod.material] = lengths.get(rod.material, 0) + rod.lengths(camera)
            opening = self._opening(rng, camera, scene, world.open_field)
            images[view] = expose(lengths, PIXEL_MM, opening, world, rng)
        return images

    def _lengths(self, scene: Scene) -> dict[str, dict[str, NDArray[Any]]]:
        """By view and material of the body; kept, as many cases differ in physics only."""
        cameras = {view: scene.taken_by(view) for view in scene.cameras}
        places = [*scene.truth.values(), *(camera.camera_from_world for camera in cameras.values())]
        key = b"".join(place.matrix.tobytes() for place in places)
        if key not in self._drawn:
            hu = self.body.bent(scene.bent_from_ct)
            parts = {name: rtk.to_itk(part) for name, part in materials(hu).items()}
            while len(self._drawn) >= _KEPT:
                self._drawn.pop(next(iter(self._drawn)))
            self._drawn[key] = {
                view: {
                    name: rtk.project(part, camera, scene.world_from_body, SOURCE_TO_DETECTOR_MM)
                    for name, part in parts.items()
                }
                for view, camera in cameras.items()
            }
        return self._drawn[key]

    def _opening(
        self, rng: np.random.Generator, camera: Camera, scene: Scene, width: float | None
    ) -> tuple[float, float, float, float] | None:
        """A collimator as wide as asked for, around the targets as far as the detector reaches."""
        if width is None:
            return None
        seen = np.mean([camera.project(scene.truth[k].apply(self.body.centres[k])) for k in self.targets], axis=0)
        u, v = np.clip(seen / PIXELS + rng.uniform(-0.03, 0.03, 2), width / 2, 1 - width / 2)
        return v - width / 2, v + width / 2, u - width / 2, u + width / 2


def _centres(labels: Volume, targets: Sequence[str]) -> list[NDArray[np.float64]]:
    from radgs.anatomy import LEVELS
    from radgs.anatomy.tissue import middle

    return [middle(labels, LEVELS[level]) for level in targets]


def bend(
    rng: np.random.Generator,
    centres: dict[str, NDArray[np.float64]],
    middle: NDArray[np.float64],
    degrees: float,
    mm: float,
) -> dict[str, RigidTransform]:
    """Every joint bent by exactly ``degrees`` and shifted by ``mm``, each in a direction of its own.

    Half of a bend is common to the whole spine, as when a patient lies on a bolster, half is each joint's own.

    Returns:
        by level, bent_from_ct; the level nearest to ``middle`` (LPS mm) stays where it is.
    """
    order = cranio_caudal(centres)
    start = min(range(len(order)), key=lambda i: abs(centres[order[i]][2] - middle[2]))
    common = _direction(rng)
    motions = {order[start]: RigidTransform.identity()}
    for chain in (range(start + 1, len(order)), range(start - 1, -1, -1)):
        sign = 1 if chain.step > 0 else -1
        for i in chain:
            beside = order[i - sign]
            joint = (centres[beside] + centres[order[i]]) / 2
            axis = sign * common + _direction(rng)
            rotation = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.radians(degrees)).as_matrix()
            slip = _direction(rng) * mm
            about = RigidTransform.from_rotation_translation(rotation, joint - rotation @ joint + slip)
            motions[order[i]] = motions[beside] @ about
    return motions


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    v = rng.normal(size=3)
    return v / np.linalg.norm(v)


def materials(hu: Volume) -> dict[str, Volume]:
    """Volume shares of water and of solid cortical bone that together look like the CT's numbers."""
    bone = np.clip((hu.array - _SOFT_HU) / (bone_hu() - _SOFT_HU), 0, None).astype(np.float32)
    soft = np.where(hu.array > _SOFT_HU, _MUSCLE, np.clip(1 + hu.array / 1000, 0, _MUSCLE))
    water = np.clip((1 - bone) * soft, 0, None).astype(np.float32)
    return {"water": hu.with_array(water), "bone": hu.with_array(bone)}


def hand_over(folder: Path, truth: Path, hospital: Hospital, world: World, seed: Sequence[int]) -> Scene:
    """Simulate one shot and write it.

    Args:
        folder: for the images and ``cameras.json``.
        truth: the file for the poses.
        hospital: the patient.
        world: strengths.
        seed: the scene is the same for the same seed, whatever the strengths of physics.
    """
    scene = hospital.arrange(np.random.default_rng([*seed, 0]), world)
    images = hospital.shoot(scene, world, np.random.default_rng([*seed, 1]))
    rng, specs = np.random.default_rng([*seed, 2]), {}
    for view, counts in images.items():
        with atomic_path(folder / f"{view}.png") as part:
            Image.fromarray(counts).save(part, format="PNG")
        camera = believed(rng, scene.cameras[view], scene.isocentre, world.calibration_mm, world.calibration_deg)
        specs[view] = {
            "image": f"{view}.png",
            "size": [camera.width, camera.height],
            "K": camera.K.tolist(),
            "camera_from_world": camera.camera_from_world.matrix.tolist(),
        } | ({"i0": I0} if world.i0_known else {})
    write_json(folder / "cameras.json", {"views": specs})
    write_transforms(truth, scene.truth)
    return scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--levels", nargs="+", default=["T10", "T11", "T12", "L1"])
    parser.add_argument("--case", choices=CASES | MOVING, default="usual")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--seed", type=int, default=31000)
    options = parser.parse_args()
    hospital = Hospital(read_volume(options.ct), read_volume(options.labels), options.levels)
    for number in range(options.shots):
        shot = f"w{number + 1}"
        hand_over(
            options.out / shot,
            options.out / "truth" / f"{shot}.json",
            hospital,
            (CASES | MOVING)[options.case],
            (options.seed, number),
        )
        print(shot, flush=True)


if __name__ == "__main__":
    main()
