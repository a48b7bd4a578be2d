"""What is known of a result without the truth, against answers known by construction."""

from dataclasses import replace

import numpy as np
import pytest

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, Config
from radgs.geometry import RigidTransform
from radgs.registration import Scene, View, refine
from radgs.registration.attempts import Found
from radgs.registration.evidence import gather
from tests.phantoms import THERE, block_spine, move, xrays_of


@pytest.fixture(scope="module")
def spine():
    tissue = split_tissue(*block_spine())
    return tissue, xrays_of(tissue, CArmSettings(detector_px=244, pixel_mm=1.552))


def refined(tissue, xrays):
    middle = THERE.apply(tissue.centre("L1"))
    scene = Scene({name: View.from_xray(x, middle, 0.9) for name, x in xrays.items()}, tissue)
    start = dict.fromkeys(tissue.excess, move(0.5, -0.5, 0.5) @ THERE)
    return scene, refine(scene, start, Config().refinement, as_one_body=False)


def test_views_that_contradict_each_other_are_apart_by_as_much(spine):
    """The image of one view slides along the patient by 1.5 mm: its rays and the other's no longer meet."""
    tissue, xrays = spine
    _, agreeing = refined(tissue, xrays)
    believed = xrays["LA"].camera
    slid = replace(believed, camera_from_world=believed.camera_from_world @ move(0, 0, 1.5))
    _, contrary = refined(tissue, {**xrays, "LA": replace(xrays["LA"], camera=slid)})
    for level in tissue.excess:
        assert agreeing.views_apart[level] < 0.3
        assert 0.6 < contrary.views_apart[level] < 3


def test_one_view_is_apart_from_none(spine):
    tissue, xrays = spine
    assert refined(tissue, {"AP": xrays["AP"]})[1].views_apart == {}


def test_evidence_tells_the_level_that_is_torn_turned_and_less_like_the_x_rays(spine):
    tissue, xrays = spine
    scene, best = refined(tissue, xrays)
    poses = dict(best.world_from_ct)
    joint = (scene.parts["L1"].centre + scene.parts["L2"].centre).numpy() / 2
    poses["L2"] = poses["L2"] @ RigidTransform.about(joint, np.radians([0, 5.0, 0])) @ move(0, 4.0, 0)
    similar = {level: {"AP": 0.8, "LA": 0.7} for level in poses} | {"L2": {"AP": 0.6, "LA": 0.4}}
    chosen = replace(best, world_from_ct=poses, similarity=similar)
    points = {level: tissue.points(level) for level in poses}
    residuals = dict.fromkeys(poses, 1.5)
    other = replace(best, world_from_ct={k: pose for k, pose in best.world_from_ct.items() if k != "T12"})
    laid = {"L1": move(0, 3, 0) @ poses["L1"]}
    found = gather(Found(chosen, other), best.world_from_ct, laid, residuals, xrays, scene.parts, points)
    assert found["L1"].disagreement_mm < 1e-6
    assert found["L2"].disagreement_mm > 2
    assert found["T12"].disagreement_mm == 10  # nothing began elsewhere
    assert found["L2"].joint_mm == pytest.approx(4.0, abs=0.3)
    assert found["L2"].joint_deg == pytest.approx(5.0, abs=0.3)
    assert found["L1"].joint_mm == found["L2"].joint_mm
    assert found["T12"].joint_mm < 0.5
    assert found["L2"].worst_similarity == 0.4
    assert found["L2"].less_similar == pytest.approx(0.3)
    assert found["T12"].less_similar == 0
    assert found["L1"].laid_mm == pytest.approx(3.0, abs=1e-6)
    assert found["L2"].laid_mm == found["L2"].moved_mm > 2  # nobody laid it: what the networks said counts
    assert 0 < found["L1"].spread_mm < 1
    assert found["L1"].contradiction_mm == 10  # nobody knows
    told = gather(Found(chosen, other), best.world_from_ct, laid, residuals, xrays, scene.parts, points, 0.4)
    assert {one.contradiction_mm for one in told.values()} == {0.4}


def test_what_lies_behind_a_blade_is_not_visible(spine):
    tissue, xrays = spine
    scene, best = refined(tissue, xrays)
    points = {level: tissue.points(level) for level in tissue.excess}
    row = best.world_from_ct["L1"].apply(tissue.centre("L1"))
    row = int(xrays["AP"].camera.project(row)[1])
    covered = xrays["AP"].line_integrals.copy()
    covered[row:] = np.nan
    shot = {**xrays, "AP": replace(xrays["AP"], line_integrals=covered)}
    residuals = dict.fromkeys(points, 0.0)
    whole, half = (
        gather(Found(best, best), best.world_from_ct, {}, residuals, x, scene.parts, points) for x in (xrays, shot)
    )
    assert [whole[level].visible for level in ("T12", "L1", "L2")] == [1, 1, 1]
    assert half["T12"].visible == 1
    assert 0.3 < half["L1"].visible < 0.7
    assert half["L2"].visible == 0
