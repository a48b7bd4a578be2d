"""By how much views contradict each other, against motions between the images that are known."""

from dataclasses import replace

import numpy as np
import pytest

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, Config
from radgs.registration import Scene, View, refine
from radgs.registration.contradiction import across_both, contradiction_mm
from tests.phantoms import THERE, block_spine, move, xrays_of

REFINEMENT = Config().refinement


@pytest.fixture(scope="module")
def spine():
    tissue = split_tissue(*block_spine())
    return tissue, xrays_of(tissue, CArmSettings(detector_px=244, pixel_mm=1.552))


def contradiction(tissue, xrays, settings=REFINEMENT):
    middle = THERE.apply(tissue.centre("L1"))
    scene = Scene({name: View.from_xray(x, middle, 0.9) for name, x in xrays.items()}, tissue)
    start = dict.fromkeys(tissue.excess, move(0.5, -0.5, 0.5) @ THERE)
    found = refine(scene, start, settings, as_one_body=False).world_from_ct
    return contradiction_mm(scene, {level: found[level] for level in ("L1", "L2")}, settings)


def after(xrays, view, *shift):
    """As if the patient had moved before the view's image was taken."""
    camera = xrays[view].camera
    elsewhere = replace(camera, camera_from_world=camera.camera_from_world @ move(*shift).inverse())
    return {**xrays, view: replace(xrays[view], camera=elsewhere)}


def shared(xrays):
    """The direction across the rays of both views."""
    rays = [THERE.apply(np.zeros(3)) - x.camera.source for x in xrays.values()]
    along = np.cross(*rays)
    return along / np.linalg.norm(along)


@pytest.mark.parametrize("view", ["AP", "LA"])
@pytest.mark.parametrize("mm", [3.0, -6.0])
def test_a_motion_across_the_rays_of_both_views_is_told_in_full(spine, view, mm):
    tissue, xrays = spine
    assert contradiction(tissue, after(xrays, view, *(mm * shared(xrays)))) == pytest.approx(abs(mm), abs=0.3)


def test_views_of_one_place_agree_and_a_motion_along_rays_cannot_be_told(spine):
    tissue, xrays = spine
    assert contradiction(tissue, xrays) < 0.2
    assert contradiction(tissue, xrays, REFINEMENT.model_copy(update={"prior_weight": 0.0})) < 0.2
    ray = THERE.apply(tissue.centre("L1")) - xrays["LA"].camera.source
    assert contradiction(tissue, after(xrays, "LA", *(3 * ray / np.linalg.norm(ray)))) < 0.5


def test_one_view_contradicts_nothing_and_that_is_not_agreement(spine):
    tissue, xrays = spine
    assert contradiction(tissue, {"AP": xrays["AP"]}) is None


def test_what_two_rays_share_is_one_direction_or_if_they_are_parallel_a_plane():
    x, y, z = np.eye(3)
    shift = np.array([3.0, 4.0, 12.0])
    assert across_both(shift, x, y) == pytest.approx(12.0)
    assert across_both(shift, x, -y) == pytest.approx(12.0)
    assert across_both(shift, z, z) == pytest.approx(5.0)
    assert across_both(shift, z, -z) == pytest.approx(5.0)
