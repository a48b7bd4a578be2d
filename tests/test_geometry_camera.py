"""Cameras against points computed by hand, windows and bins against the pixels they are made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radgs.errors import GeometryError
from radgs.geometry import Camera, RigidTransform, rays

K = [[2000.0, 0, 500], [0, 2000, 400], [0, 0, 1]]


@pytest.mark.parametrize(
    ("point", "pixel"),
    [
        ((0, 0, 0), (500, 400)),
        ((10, 0, 0), (500 + 2000 * 10 / 700, 400)),  # to the patient's left: larger u
        ((0, 0, 10), (500, 400 - 2000 * 10 / 700)),  # superior: smaller v
        ((0, 100, 0), (500, 400)),  # posterior: farther away
        ((10, 100, 20), (525, 350)),
        ((10, -200, 20), (540, 320)),  # anterior, nearer the source: larger
    ],
)
def test_ap_camera_puts_points_where_the_hand_calculation_does(ap_camera, point, pixel):
    np.testing.assert_allclose(ap_camera.project(point), pixel, atol=1e-9)


@pytest.mark.parametrize(
    ("point", "pixel"),
    [
        ((0, 0, 0), (500, 400)),
        ((0, -10, 0), (500 + 2000 * 10 / 700, 400)),  # anterior: larger u
        ((100, -10, 20), (525, 350)),
        ((-200, -10, 20), (540, 320)),
    ],
)
def test_la_camera_puts_points_where_the_hand_calculation_does(la_camera, point, pixel):
    np.testing.assert_allclose(la_camera.project(point), pixel, atol=1e-9)


def test_the_source_is_the_centre_of_the_camera(ap_camera, la_camera):
    np.testing.assert_allclose(ap_camera.source, [0, -700, 0], atol=1e-9)
    np.testing.assert_allclose(la_camera.source, [-700, 0, 0], atol=1e-9)


def test_points_behind_the_source_have_no_pixel_and_are_not_seen(ap_camera):
    points = [[0, -701, 0], [0, -700, 0], [0, 0, 0]]
    assert np.isnan(ap_camera.project(points)).all(axis=-1).tolist() == [True, True, False]
    assert ap_camera.sees(points).tolist() == [False, False, True]


def test_the_image_reaches_half_a_pixel_beyond_the_outer_pixel_centres(ap_camera):
    per_pixel = 700 / 2000  # mm at the origin's depth
    left_edge = -500.5 * per_pixel
    assert ap_camera.sees([[left_edge + 0.01, 0, 0], [left_edge - 0.01, 0, 0]]).tolist() == [True, False]
    lower_edge = -400.5 * per_pixel
    assert ap_camera.sees([[0, 0, lower_edge + 0.01], [0, 0, lower_edge - 0.01]]).tolist() == [True, False]


def test_skew_shears_u_by_v(ap_camera):
    sheared = Camera(np.array([[2000.0, 100, 500], [0, 2000, 400], [0, 0, 1]]), ap_camera.camera_from_world, 9, 9)
    np.testing.assert_allclose(sheared.project([0, 0, -7]), [500 + 1, 400 + 20], atol=1e-9)


def test_window_counts_from_the_centre_of_its_first_pixel(ap_camera):
    window = ap_camera.window(460.0, 300.0, 40, 50, step=2.0)
    assert (window.width, window.height) == (40, 50)
    # pixel (525, 350) of the image is (525-460)/2, (350-300)/2 of the window
    np.testing.assert_allclose(window.project([10, 100, 20]), [32.5, 25.0], atol=1e-9)


def test_binned_pixel_is_the_mean_of_the_block_it_averages(ap_camera):
    binned = ap_camera.binned(4)
    assert (binned.width, binned.height) == (250, 200)
    v, u = np.mgrid[8:12, 20:24]  # the block of binned pixel (u, v) = (5, 2)
    _, at_depth = rays(ap_camera, 700.0)
    block_centre = at_depth[v, u].mean(axis=(0, 1))
    np.testing.assert_allclose(binned.project(block_centre), [5, 2], atol=1e-9)


def test_averaging_blocks_of_a_linear_image_agrees_with_the_binned_camera(ap_camera):
    u = np.arange(ap_camera.width, dtype=float)
    means = u[:1000].reshape(250, 4).mean(axis=1)  # an image whose value is u
    _, at_depth = rays(ap_camera.binned(4), 700.0)
    np.testing.assert_allclose(ap_camera.project(at_depth)[0, :, 0], means, atol=1e-9)


@given(depth=st.floats(1, 2000), step=st.floats(0.25, 8), u0=st.floats(-50, 50), v0=st.floats(-50, 50))
def test_rays_end_in_the_pixels_they_start_from(depth, step, u0, v0):
    turned = RigidTransform.from_rotation_translation([[0.6, 0, 0.8], [0, 1, 0], [-0.8, 0, 0.6]], [3, -4, 50])
    camera = Camera(np.array(K), turned, 100, 80).window(u0, v0, 7, 5, step)
    source, points = rays(camera, depth)
    assert points.shape == (5, 7, 3)
    v, u = np.mgrid[0:5, 0:7]
    np.testing.assert_allclose(camera.project(points), np.stack([u, v], -1), atol=1e-6)
    np.testing.assert_allclose(camera.camera_from_world.apply(points)[..., 2], depth, rtol=1e-9)
    np.testing.assert_allclose(camera.camera_from_world.apply(source), 0, atol=1e-9)


@pytest.mark.parametrize(
    "k",
    [
        np.zeros((3, 3)),
        np.diag([2000.0, -2000, 1]),
        np.diag([2000.0, 2000, 2]),
        np.diag([np.nan, 2000, 1]),
        np.array([[2000.0, 0, 500], [3, 2000, 400], [0, 0, 1]]),
        np.eye(4),
    ],
)
def test_impossible_k_is_refused(k):
    with pytest.raises(GeometryError):
        Camera(k, RigidTransform.identity(), 10, 10)


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(GeometryError, match="pixel"):
        Camera(np.array(K), RigidTransform.identity(), *size)


def test_a_camera_does_not_change_when_the_array_it_was_made_from_does():
    k = np.array(K)
    camera = Camera(k, RigidTransform.identity(), 10, 10)
    k[0, 0] = 1
    assert camera.K[0, 0] == 2000
    with pytest.raises(ValueError, match="read-only"):
        camera.K[0, 0] = 1
