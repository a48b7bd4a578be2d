"""Parts drawn all at once against the projection of each by itself (whose derivatives are those of finite motions)."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from radgs.geometry import RigidTransform
from radgs.images import Volume
from radgs.projection import MovingParts, project_with_jacobian

STEP_MM, MARGIN = 1.3, 5


def part(rng, shape, spacing, centre, turn):
    """Islands in an oblique volume, with voxels at its faces and much that is empty."""
    values = np.zeros(shape, np.float32)
    for _ in range(6):
        low = [int(rng.integers(0, max(n - 1, 1))) for n in shape]
        box = tuple(slice(a, a + int(rng.integers(1, 6))) for a in low)
        values[box] = rng.uniform(0.005, 0.03, values[box].shape)
    frame = np.eye(4)
    frame[:3, :3] = Rotation.from_rotvec(turn).as_matrix() @ np.diag(spacing)
    frame[:3, 3] = np.asarray(centre) - frame[:3, :3] @ (np.array(shape)[::-1] - 1) / 2
    return Volume(values, frame)


@pytest.fixture
def scene(ap_camera, la_camera):
    """Three parts, two cameras, and where the parts are in the world."""
    rng = np.random.default_rng(4)
    parts = [
        part(rng, (21, 70, 65), (0.7, 0.7, 2.5), (0, 0, 30), (0.0, 0.0, 0.0)),
        part(rng, (50, 60, 44), (0.9, 0.8, 1.0), (4, -5, -10), (0.2, -0.1, 0.3)),
        part(rng, (1, 40, 40), (1.0, 1.0, 3.0), (9, 3, -40), (0.0, 0.1, 0.0)),
    ]
    moves = [RigidTransform.about(np.zeros(3), rng.normal(0, 0.2, 3)) for _ in parts]
    cameras = [camera.binned(4) for camera in (ap_camera, la_camera)]
    return parts, cameras, np.stack([move.matrix for move in moves])


def alone(part, camera, world_from_ct):
    centre = torch.from_numpy(part.corners.mean(axis=0))
    return project_with_jacobian(
        torch.from_numpy(part.array),
        torch.from_numpy(part.index_from_lps),
        torch.from_numpy(camera.K.copy())[None],
        torch.from_numpy(camera.camera_from_world.matrix @ world_from_ct)[None],
        centre,
        (camera.height, camera.width),
        step_mm=STEP_MM,
    )


def test_every_part_in_every_view_is_what_its_own_projection_is(scene):
    parts, cameras, poses = scene
    drawn = MovingParts(parts).draw(cameras, [0, 1, 2], poses, STEP_MM, margin=MARGIN)
    assert [(one.camera, one.part) for one in drawn] == [(c, p) for c in range(2) for p in range(3)]
    for one in drawn:
        image, jacobian = alone(parts[one.part], cameras[one.camera], poses[one.part])
        expected = torch.cat([image, jacobian[0]])
        y0, y1, x0, x1 = one.window
        found = torch.zeros_like(expected)
        found[:, y0:y1, x0:x1] = one.image
        for channel, truth in zip(found, expected, strict=True):
            assert torch.allclose(channel, truth, atol=2e-4 * float(truth.abs().max()))
        assert expected[0].max() > 0.01


def test_some_parts_alone_and_without_derivatives_are_the_same(scene):
    parts, cameras, poses = scene
    moving = MovingParts(parts)
    every = moving.draw(cameras, [0, 1, 2], poses, STEP_MM)
    some = moving.draw(cameras[1:], [2, 0], poses[[2, 0]], STEP_MM, motion=False)
    for one, (camera, number) in zip(some, [(0, 2), (0, 0)], strict=True):
        same = next(other for other in every if (other.camera, other.part) == (1, number))
        assert (one.camera, one.part, one.window) == (camera, number, same.window)
        assert one.image.shape[0] == 1
        assert torch.equal(one.image[0], same.image[0])


def test_what_is_behind_the_source_or_beside_the_image_is_not_drawn(scene):
    parts, cameras, poses = scene
    camera = cameras[0]
    behind, beside = poses.copy(), poses.copy()
    behind[0, :3, 3] += camera.source - 100 * camera.camera_from_world.rotation[2]
    beside[1, :3, 3] += 2000 * camera.camera_from_world.rotation[0]
    for moved, gone in ((behind, 0), (beside, 1)):
        drawn = MovingParts(parts).draw([camera], [0, 1, 2], moved, STEP_MM)
        assert [one.part for one in drawn] == [p for p in range(3) if p != gone]
