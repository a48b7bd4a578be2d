"""Rigid transforms: what their names promise, against rotations known by heart."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from radgs.errors import GeometryError
from radgs.geometry import RigidTransform, rigid_motion

vectors = st.tuples(*[st.floats(-100, 100)] * 3)
rotvecs = st.tuples(*[st.floats(-1.8, 1.8)] * 3)
transforms = st.builds(
    lambda r, t: RigidTransform.from_rotation_translation(Rotation.from_rotvec(r).as_matrix(), t), rotvecs, vectors
)
QUARTER_TURN_Z = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # x becomes y


def test_apply_turns_first_and_moves_after():
    world_from_ct = RigidTransform.from_rotation_translation(QUARTER_TURN_Z, [10, 20, 30])
    np.testing.assert_allclose(world_from_ct.apply([1, 0, 0]), [10, 21, 30], atol=1e-12)
    np.testing.assert_allclose(world_from_ct.apply([[[0, 1, 0]], [[0, 0, 1]]]), [[[9, 20, 30]], [[10, 20, 31]]])


def test_names_read_off_when_composed():
    b_from_c = RigidTransform.from_rotation_translation(np.eye(3), [1, 0, 0])
    a_from_b = RigidTransform.from_rotation_translation(QUARTER_TURN_Z, [0, 0, 5])
    a_from_c = a_from_b @ b_from_c
    np.testing.assert_allclose(a_from_c.apply([0, 0, 0]), [0, 1, 5], atol=1e-12)  # moved in b, then turned
    wrong_way = b_from_c @ a_from_b
    np.testing.assert_allclose(wrong_way.apply([0, 0, 0]), [1, 0, 5], atol=1e-12)


@given(a=transforms, b=transforms, point=vectors)
def test_composition_is_one_after_the_other(a, b, point):
    np.testing.assert_allclose((a @ b).apply(point), a.apply(b.apply(point)), atol=1e-8)


@given(a=transforms, point=vectors)
def test_inverse_brings_points_back(a, point):
    np.testing.assert_allclose(a.inverse().apply(a.apply(point)), point, atol=1e-9)
    np.testing.assert_allclose((a @ a.inverse()).matrix, np.eye(4), atol=1e-9)


@given(a=transforms, p=vectors, q=vectors)
def test_distances_are_kept(a, p, q):
    before = math.dist(p, q)
    assert math.dist(a.apply(p), a.apply(q)) == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("degrees", [0, 0.5, 20, 90, 179])
def test_angle_is_that_of_the_rotation(degrees):
    axis = np.array([1, 2, 2]) / 3
    rotation = Rotation.from_rotvec(axis * math.radians(degrees)).as_matrix()
    angle = RigidTransform.from_rotation_translation(rotation, [1, 2, 3]).angle()
    assert angle == pytest.approx(math.radians(degrees), abs=1e-7)


@given(a=transforms)
def test_tensor_is_a_float64_copy(a):
    tensor = a.tensor()
    assert tensor.dtype == torch.float64
    tensor += 1
    np.testing.assert_array_equal(a.matrix[3], [0, 0, 0, 1])


def test_nearest_removes_scale_and_keeps_the_translation():
    almost = np.eye(4)
    almost[:3, :3] = 1.03 * np.array(QUARTER_TURN_Z)
    almost[:3, 3] = [1, 2, 3]
    rigid = RigidTransform.nearest(almost)
    np.testing.assert_allclose(rigid.rotation, QUARTER_TURN_Z, atol=1e-12)
    np.testing.assert_allclose(rigid.translation, [1, 2, 3])


def _with(change) -> np.ndarray:
    matrix = np.eye(4)
    change(matrix)
    return matrix


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(3),
        np.zeros((4, 4)),
        np.diag([1.01, 1.01, 1.01, 1]),  # a scale
        np.diag([-1.0, 1, 1, 1]),  # a mirror
        _with(lambda m: m.__setitem__((0, 1), 0.1)),  # a shear
        _with(lambda m: m.__setitem__((0, 3), np.nan)),
        _with(lambda m: m.__setitem__((3, 0), 1e-3)),  # a translation written in the last row
    ],
)
def test_what_is_not_rigid_is_refused(matrix):
    with pytest.raises(GeometryError):
        RigidTransform(matrix)


def test_a_matrix_with_a_gap_is_shown():
    with pytest.raises(GeometryError, match=r"finite numbers, got \[\[1.0, 0.0, 0.0, nan\]"):
        RigidTransform(_with(lambda m: m.__setitem__((0, 3), np.nan)))


def test_a_turn_about_a_centre_leaves_it_but_for_the_shift_and_turns_the_rest():
    quarter = RigidTransform.about([10, 0, 5], [0, 0, np.pi / 2], [0, 0, 3])
    assert quarter.apply([10, 0, 5]) == pytest.approx([10, 0, 8])
    assert quarter.apply([12, 0, 5]) == pytest.approx([10, 2, 8])
    assert RigidTransform.about([10, 0, 5], [0, 0, np.pi / 2]).apply([10, 0, 5]) == pytest.approx([10, 0, 5])


def test_motion_turns_about_its_centre():
    centre = torch.tensor([10.0, 0, 0], dtype=torch.float64)
    quarter = torch.tensor([0, 0, math.pi / 2], dtype=torch.float64)
    motion = RigidTransform(rigid_motion(quarter, torch.tensor([0.0, 0, 7]).double(), centre).numpy())
    np.testing.assert_allclose(motion.apply([10, 0, 0]), [10, 0, 7], atol=1e-12)  # the centre only moves
    np.testing.assert_allclose(motion.apply([13, 0, 0]), [10, 3, 7], atol=1e-12)


def test_motion_has_the_gradient_of_finite_differences_also_at_rest():
    centre = torch.tensor([[5.0, -3, 2], [1, 1, 1]], dtype=torch.float64)
    for start in (torch.zeros(2, 3), torch.full((2, 3), 0.4)):
        rotvec = start.double().requires_grad_()
        translation = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda r, t: rigid_motion(r, t, centre), (rotvec, translation), atol=1e-6)
