"""Where the C-arm stands, in cases worked out by hand from DICOM PS3.3, C.8.7.5.1.2."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radgs.errors import GeometryError
from radgs.geometry import Camera, positioner_axes, positioner_pose

LEFT, BACK, HEAD = np.eye(3)  # LPS


@pytest.mark.parametrize(
    ("primary_deg", "secondary_deg", "right", "down", "to_detector"),
    [
        (0, 0, -LEFT, -HEAD, -BACK),  # detector in front, source behind: PA
        (90, 0, -BACK, -HEAD, LEFT),  # LAO 90: detector at the patient's left
        (-90, 0, BACK, -HEAD, -LEFT),  # RAO 90: detector at the right
        (180, 0, LEFT, -HEAD, BACK),  # detector behind, source in front: AP
        (-180, 0, LEFT, -HEAD, BACK),
        (0, 90, -LEFT, -BACK, HEAD),  # CRA 90: detector above the head, down is where it came from: the front
        (0, 30, -LEFT, [0, -0.5, -np.sqrt(0.75)], [0, -np.sqrt(0.75), 0.5]),  # CRA 30
        (0, -30, -LEFT, [0, 0.5, -np.sqrt(0.75)], [0, -np.sqrt(0.75), -0.5]),  # CAU 30
        (45, 0, [-np.sqrt(0.5), -np.sqrt(0.5), 0], -HEAD, [np.sqrt(0.5), -np.sqrt(0.5), 0]),  # LAO 45
    ],
)
def test_axes_worked_out_by_hand(primary_deg, secondary_deg, right, down, to_detector):
    found = positioner_axes(np.radians(primary_deg), np.radians(secondary_deg))
    np.testing.assert_allclose(found, [right, down, to_detector], atol=1e-12)


@given(p=st.floats(-np.pi, np.pi), s=st.floats(-np.pi / 2, np.pi / 2), distance=st.floats(100, 1500))
def test_every_pose_is_rigid_and_sees_the_isocentre_on_the_central_ray(p, s, distance):
    pose = positioner_pose(p, s, distance)
    camera = Camera(np.array([[3000.0, 0, 500], [0, 3000, 400], [0, 0, 1]]), pose, 1001, 801)
    np.testing.assert_allclose(camera.project([0, 0, 0]), [500, 400], atol=1e-9)
    assert np.linalg.norm(camera.source) == pytest.approx(distance)
    assert np.linalg.det(pose.rotation) == pytest.approx(1)


@given(p=st.floats(-np.pi, np.pi), s=st.floats(-1.4, 1.4))
def test_the_head_is_up_in_the_image(p, s):
    camera = Camera(np.diag([3000.0, 3000, 1]), positioner_pose(p, s, 800), 10, 10)
    u, v = camera.project([0, 0, 10]) - camera.project([0, 0, 0])
    assert v < 0
    assert u == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("p", "s", "d"), [(4, 0, 800), (0, 1.7, 800), (0, 0, 0), (0, 0, -5), (np.nan, 0, 800)])
def test_impossible_positions_are_refused(p, s, d):
    with pytest.raises(GeometryError):
        positioner_pose(p, s, d)
