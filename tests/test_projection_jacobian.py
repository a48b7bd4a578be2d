"""The six derivatives of every pixel, against finite differences of the projection itself."""

import pytest
import torch

from radgs.errors import GeometryError, RadgsError
from radgs.geometry import rigid_motion
from radgs.projection import project, project_with_jacobian


@pytest.fixture
def scene(ap_camera, la_camera):
    """A smooth oblique volume seen by two cameras."""
    axis = torch.linspace(-1, 1, 24)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = 0.02 * torch.exp(-4 * (x**2 + 0.5 * y**2 + 1.5 * z**2 + 0.5 * x * y))
    turn = rigid_motion(torch.tensor([0.2, -0.1, 0.3]).double(), torch.zeros(3).double(), torch.zeros(3).double())
    index_from_ct = (
        torch.tensor([[0.4, 0, 0, 11.5], [0, 0.45, 0, 11.5], [0, 0, 0.35, 11.5], [0, 0, 0, 1]]).double() @ turn
    )
    cameras = [camera.window(300, 200, 40, 44, 10) for camera in (ap_camera, la_camera)]
    k = torch.stack([torch.from_numpy(c.K.copy()) for c in cameras])
    pose = torch.stack([c.camera_from_world.tensor() for c in cameras])
    return volume, index_from_ct, k, pose, torch.tensor([5.0, -8.0, 12.0]).double()


def test_every_pixel_changes_as_a_finite_motion_says(scene, fast):
    volume, index_from_ct, k, pose, centre = scene
    there, how = volume.to(fast.device), {"backend": fast.backend}
    image, jacobian = project_with_jacobian(there, index_from_ct, k, pose, centre, (44, 40), **how)
    assert torch.equal(image, project(there, index_from_ct, k, pose, (44, 40), **how))
    jacobian = jacobian.cpu()
    for parameter in range(6):
        step = 2e-3 if parameter < 3 else 0.05
        drawn = []
        for sign in (1, -1):
            change = torch.zeros(6, dtype=torch.float64)
            change[parameter] = sign * step
            moved = pose @ rigid_motion(change[:3], change[3:], centre)
            drawn.append(project(volume, index_from_ct, k, moved, (44, 40), step_mm=1.0))
        expected = (drawn[0] - drawn[1]) / (2 * step)
        error = (jacobian[:, parameter] - expected).abs()
        assert float(error.max()) < 0.05 * float(expected.abs().max())
        assert float(error.mean()) < 0.01 * float(expected.abs().max())


def test_the_reference_backend_has_none(scene):
    volume, index_from_ct, k, pose, centre = scene
    with pytest.raises(RadgsError, match="keeps no gradients of single rays"):
        project_with_jacobian(volume, index_from_ct, k, pose, centre, (44, 40), backend="reference")


@pytest.mark.parametrize("centre", [torch.zeros(4).double(), torch.full((3,), float("nan")).double()])
def test_a_centre_that_is_no_finite_point_is_refused_in_a_sentence(scene, centre):
    volume, index_from_ct, k, pose, _ = scene
    with pytest.raises(GeometryError, match="centre is one finite point"):
        project_with_jacobian(volume, index_from_ct, k, pose, centre, (44, 40))


def test_matrices_may_be_single_precision(scene):
    volume, index_from_ct, k, pose, centre = scene
    _, expected = project_with_jacobian(volume, index_from_ct, k, pose, centre, (44, 40))
    singles = (x.float() for x in (index_from_ct, k, pose, centre))
    _, found = project_with_jacobian(volume, *singles, (44, 40))
    assert (found - expected).norm() < 1e-3 * expected.norm()
