"""A small spine whose every number is known: blocks of bone in a block of soft tissue, and X-rays of it."""

import numpy as np

from radgs.anatomy import SpineTissue
from radgs.config import CArmSettings
from radgs.geometry import RigidTransform
from radgs.images import Volume, Xray
from radgs.registration.attempts import Attempt
from radgs.registration.refine import Refined
from radgs.simulation import ArticulatedSpine, CArm, SpinePose

THERE = RigidTransform.from_rotation_translation(np.eye(3), [-11.0, 7.0, -40.0])
LEVEL_NUMBERS = {"T12": 19, "L1": 20, "L2": 21}


def block_spine(shape=(48, 40, 44), spacing=(2.5, 2.5, 3.0)) -> tuple[Volume, Volume]:
    """CT (HU) and label map (VerSe) with three asymmetric vertebrae; L1 in the middle of the volume."""
    hu = np.full(shape, -1000.0, dtype=np.float32)
    hu[2:-2, 4:-4, 4:-4] = 30.0
    labels = np.zeros(shape, dtype=np.uint8)
    for z, number in ((32, 19), (22, 20), (12, 21)):
        body = (slice(z, z + 8), slice(12, 22), slice(14, 28))
        spinous = (slice(z + 1, z + 4), slice(22, 32), slice(19, 22))
        transverse = (slice(z + 4, z + 7), slice(20, 24), slice(10, 34))
        foramen = (slice(z + 5, z + 7), slice(14, 18), slice(23, 26))
        for part, value in ((body, 350.0), (spinous, 600.0), (transverse, 450.0)):
            hu[part], labels[part] = value, number
        hu[foramen] = 900.0
    origin = -np.array(spacing) * (np.array(shape[::-1]) - 1) / 2 + [11.0, -7.0, 40.0]
    return Volume.axis_parallel(hu, spacing, origin), Volume.axis_parallel(labels, spacing, origin)


def xrays_of(tissue: SpineTissue, carm: CArmSettings) -> dict[str, Xray]:
    """Two views of the spine at `THERE`."""
    cameras = {"AP": CArm(carm).camera("AP", 0.1, 0.05), "LA": CArm(carm).camera("LA", -0.05, 0.1)}
    spine = ArticulatedSpine(tissue)
    pose = SpinePose(THERE, dict.fromkeys(tissue.excess, THERE))
    return {view: Xray(view, np.sum(spine.project(c, pose), axis=0), c) for view, c in cameras.items()}


def move(x: float, y: float, z: float) -> RigidTransform:
    """A shift, mm."""
    return RigidTransform.from_rotation_translation(np.eye(3), [x, y, z])


def off(pose: RigidTransform, tissue: SpineTissue, level: str = "L1", truth: RigidTransform = THERE) -> float:
    """Mean distance of a level's points from where they are, mm."""
    points = tissue.points(level)
    return float(np.linalg.norm(pose.apply(points) - truth.apply(points), axis=1).mean())


def result(x: float, similarity: dict[str, dict[str, float]]) -> Refined:
    """What a refinement may have come to: all levels moved by ``x`` mm, similarities by level and view."""
    return Refined(
        dict.fromkeys(similarity, move(x, 0, 0)), similarity, cameras={k: {"AP": move(0, x, 0)} for k in similarity}
    )


def attempt(x: float, similarity: dict[str, dict[str, float]], origin: int | None = None) -> Attempt:
    """A `result` whose origin is ``x`` if none is given."""
    return Attempt(result(x, similarity), dict.fromkeys(similarity, int(x) if origin is None else origin))
