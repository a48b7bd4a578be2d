"""What a border cuts: doubted where it is found, not taught where it is hidden, shown as unmeasured to the network."""

import numpy as np
import pytest

from radgs.anatomy.boxes import Box
from radgs.anatomy.canvas import canvas_camera, local_contrast, to_canvas
from radgs.anatomy.doubts import border_doubts, measured_share
from radgs.geometry import Camera, RigidTransform
from radgs.images import Xray
from radgs.simulation.collimation import opening, sample_opening

NOMINAL = {"AP": [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "LA": [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]}


def camera(view):
    pose = RigidTransform.from_rotation_translation(np.array(NOMINAL[view], float), [0, 0, 700])
    return Camera(np.array([[1400.0, 0, 149.5], [0, 1400, 149.5], [0, 0, 1]]), pose, 300, 300)


def xray(view="AP", hidden=np.s_[:, :0]):
    image = np.zeros((300, 300), np.float32)
    image[hidden] = np.nan
    return Xray(view, image, camera(view))


def test_the_share_of_a_box_that_was_measured():
    assert measured_share(xray(), Box((100, 100, 149, 149), 1)) == 1
    assert measured_share(xray(hidden=np.s_[:, :125]), Box((100, 100, 149, 149), 1)) == pytest.approx(0.5)
    assert measured_share(xray(), Box((-50, 100, 49, 149), 1)) == pytest.approx(0.5)
    assert measured_share(xray(), Box((-90, -90, -10, -10), 1)) == 0


def test_a_level_that_the_collimator_cuts_is_doubted_in_the_view_where_it_does():
    views = {"AP": xray("AP"), "LA": xray("LA", np.s_[140:, :])}
    boxes = {view: {"T12": Box((100, 60, 160, 110), 0.9), "L1": Box((100, 110, 160, 160), 0.9)} for view in views}
    doubts = border_doubts(views, boxes)
    assert list(doubts) == ["L1"]
    assert doubts["L1"] == ["only 59 % of its box in view LA was measured"]


def test_the_network_sees_what_was_not_measured_as_it_was_taught():
    """128 both in training (NaN on the canvas) and in use (NaN in the image)."""
    rng = np.random.default_rng(0)
    seen = xray(hidden=np.s_[:, 200:])
    seen.line_integrals[:, :200] = rng.random((300, 200))
    canvas = to_canvas(seen, 160)
    u = canvas_camera(seen.camera, 160).K[0, 2] + (200 - 149.5) * canvas_camera(seen.camera, 160).K[0, 0] / 1400
    assert np.isnan(canvas[80, int(u) + 2 :]).all()
    assert np.isfinite(canvas[80, 80 : int(u) - 1]).all()
    assert (local_contrast(canvas)[80, int(u) + 2 :] == 128).all()


def test_openings_are_rectangles_turned_and_rounded():
    v, u = np.mgrid[0:200, 0:300].astype(float)
    straight = opening(u, v, (150, 100), 100, 60)
    assert straight.sum() == pytest.approx(100 * 60, rel=0.03)
    assert opening(u, v, (150, 100), 100, 60, 0.4).sum() == pytest.approx(100 * 60, rel=0.03)
    assert opening(u, v, (150, 100), 80, 80, 0, 40).sum() == pytest.approx(np.pi * 40**2, rel=0.03)
    assert straight[71:129, 101:199].all()


def test_collimators_leave_all_or_a_part_that_lies_in_the_image():
    shares = [sample_opening(np.random.default_rng(n), camera("AP"), 120).mean() for n in range(60)]
    assert 0.5 < np.mean(np.array(shares) == 1) < 0.95
    assert min(shares) > 0.05
