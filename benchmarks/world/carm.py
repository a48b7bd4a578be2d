"""A C-arm as a technician would describe it: where the source is and which way the detector lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from radgs.geometry import Camera, RigidTransform

SOURCE_TO_DETECTOR_MM, SOURCE_TO_ISOCENTRE_MM = 1124.0, 700.0
DETECTOR_MM, PIXELS = 378.7, 488
TURN_DEG = 15.0
# by view, in the patient's left, posterior, superior: from the isocentre to the source, and along the image's rows
_NOMINAL = {"AP": ([0, -1, 0], [1, 0, 0]), "LA": ([1, 0, 0], [0, 1, 0])}


def camera_at(to_source: NDArray[np.float64], along_rows: NDArray[np.float64]) -> Camera:
    """The camera whose isocentre is the origin, from a direction and the direction in which columns count up."""
    away = -to_source / np.linalg.norm(to_source)
    right = along_rows - (along_rows @ away) * away
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(away, right), away])
    focal, middle = SOURCE_TO_DETECTOR_MM / (DETECTOR_MM / PIXELS), (PIXELS - 1) / 2
    k = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    return Camera(k, RigidTransform.from_rotation_translation(rotation, [0, 0, SOURCE_TO_ISOCENTRE_MM]), PIXELS, PIXELS)


def sample_cameras(rng: np.random.Generator, world_from_room: RigidTransform) -> dict[str, Camera]:
    """AP and LA, each turned at random; the room's axes are the patient's nominal ones, the world is a tracker's."""
    cameras = {}
    for view, axes in _NOMINAL.items():
        turn = Rotation.from_euler("zx" if view == "AP" else "zy", rng.uniform(-TURN_DEG, TURN_DEG, 2), degrees=True)
        camera = camera_at(*(turn.apply(axis) for axis in np.array(axes, dtype=np.float64)))
        cameras[view] = replace(camera, camera_from_world=camera.camera_from_world @ world_from_room.inverse())
    return cameras


def believed(
    rng: np.random.Generator, camera: Camera, isocentre: NDArray[np.float64], shift_mm: float, turn_deg: float
) -> Camera:
    """What the calibration says of a camera: wrong by up to ``shift_mm`` on the detector and ``turn_deg`` an axis.

    Args:
        rng: source of randomness.
        camera: the true one.
        isocentre: ``[3]`` world, mm, about which a C-arm turns and its angles are read.
        shift_mm: of the principal point.
        turn_deg: about each axis of the world.
    """
    shift, turn = rng.uniform(-1, 1, 2) * shift_mm, rng.uniform(-1, 1, 3) * turn_deg
    k = camera.K.copy()
    k[:2, 2] += shift * k[0, 0] / SOURCE_TO_DETECTOR_MM
    rotation = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    about = RigidTransform.from_rotation_translation(rotation, isocentre - rotation @ isocentre)
    return replace(camera, K=k, camera_from_world=camera.camera_from_world @ about)
