"""Triangulation against known points and skew lines; the patient's axes whatever the world and the views."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from radgs.errors import GeometryError
from radgs.geometry import Camera, RigidTransform, patient_axes, triangulate, triangulate_pairs

K = np.array([[2000.0, 0, 500], [0, 2000, 400], [0, 0, 1]])
points = st.tuples(*[st.floats(-80, 80)] * 3)
rotations = st.tuples(*[st.floats(-3, 3)] * 3).map(lambda r: Rotation.from_rotvec(r).as_matrix())

# Rows of camera_from_world: the patient directions (LPS) of image right, image down and of the beam.
L, P, S = np.eye(3)
VIEWS = {"AP": (L, -S, P), "PA": (-L, -S, -P), "LL": (-P, -S, L), "LR": (P, -S, -L)}


def camera(view: str, world_from_lps: RigidTransform | None = None) -> Camera:
    rotation = np.stack(VIEWS[view])
    lps = RigidTransform.from_rotation_translation(rotation, [0, 0, 700])
    return Camera(K, lps @ (world_from_lps or RigidTransform.identity()).inverse(), 1000, 800)


@given(point=points, world=rotations, shift=points)
def test_two_and_three_views_give_the_point_back_exactly(point, world, shift):
    world_from_lps = RigidTransform.from_rotation_translation(world, shift)
    there = world_from_lps.apply(point)
    for views in (["AP", "LL"], ["AP", "LR", "PA"]):
        cameras = [camera(view, world_from_lps) for view in views]
        found = triangulate(cameras, np.stack([c.project(there) for c in cameras]))
        np.testing.assert_allclose(found.point, there, atol=1e-6)
        assert found.residual_mm < 1e-6


def test_every_pixel_with_every_other_is_what_two_pixels_are():
    cameras = [camera("AP"), camera("LL")]
    pixels = np.random.default_rng(0).uniform(200, 700, (2, 3, 2))
    points, residuals = triangulate_pairs(*cameras, *pixels[:, :2])
    for i, j in np.ndindex(2, 2):
        alone = triangulate(cameras, [pixels[0, i], pixels[1, j]])
        np.testing.assert_allclose(points[i, j], alone.point, atol=1e-9)
        assert residuals[i, j] == pytest.approx(alone.residual_mm)
    with pytest.raises(GeometryError, match="same direction"):
        triangulate_pairs(cameras[0], camera("PA"), *pixels)


def test_residual_of_two_views_is_the_distance_of_the_skew_rays():
    # AP: the ray along y through the origin. LL: from (-700, 0, 0) along (1, 0, 0.01), 20 pixels up.
    # In the x-z plane the origin is 700 * 0.01 / sqrt(1.0001) from that ray; its foot is at tau = 700 / 1.0001.
    found = triangulate([camera("AP"), camera("LL")], [[500, 400], [500, 380]])
    tau = 700 / 1.0001
    assert found.residual_mm == pytest.approx(7 / math.sqrt(1.0001), rel=1e-9)
    np.testing.assert_allclose(found.point, [(tau - 700) / 2, 0, 0.01 * tau / 2], atol=1e-9)


def test_one_view_and_views_along_one_line_are_refused():
    with pytest.raises(GeometryError, match="two or more"):
        triangulate([camera("AP")], [[500, 400]])
    with pytest.raises(GeometryError, match="same direction"):
        triangulate([camera("AP"), camera("PA")], [[500, 400], [500, 400]])
    with pytest.raises(GeometryError):
        triangulate([camera("AP"), camera("LL")], [[500, 400]])


@pytest.mark.parametrize("frontal", ["AP", "PA"])
@pytest.mark.parametrize("lateral", ["LL", "LR"])
@given(world=rotations, shift=points)
def test_patient_axes_follow_the_world_frame(frontal, lateral, world, shift):
    world_from_lps = RigidTransform.from_rotation_translation(world, shift)
    cameras = {frontal: camera(frontal, world_from_lps), "LA": camera(lateral, world_from_lps)}
    np.testing.assert_allclose(patient_axes(cameras), world, atol=1e-9)


def test_patient_axes_of_a_single_frontal_view():
    np.testing.assert_allclose(patient_axes({"PA": camera("PA")}), np.eye(3), atol=1e-12)


def test_patient_axes_of_views_that_disagree_are_between_them_and_a_rotation():
    turned = RigidTransform.from_rotation_translation(
        Rotation.from_rotvec([0, 0, math.radians(10)]).as_matrix(), [0, 0, 0]
    )
    axes = patient_axes({"AP": camera("AP", turned), "LA": camera("LL")})
    np.testing.assert_allclose(axes, Rotation.from_rotvec([0, 0, math.radians(5)]).as_matrix(), atol=1e-9)


def test_patient_axes_need_a_view_that_tells_front_from_back():
    with pytest.raises(GeometryError, match="AP or PA"):
        patient_axes({"LA": camera("LL")})


def test_a_mislabelled_frontal_view_shows_as_a_patient_turned_by_half():
    swapped = {"PA": camera("AP"), "LA": camera("LL")}
    np.testing.assert_allclose(patient_axes(swapped), np.stack([-L, -P, S], axis=1), atol=1e-12)
