"""Corrections of the cameras against known errors of the calibration, finite differences and drawn priors."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, load_config
from radgs.errors import ConfigError
from radgs.geometry import RigidTransform, rigid_motion
from radgs.images import Xray
from radgs.registration import Scene, View, refine
from radgs.registration.cameras import CameraCorrections
from radgs.registration.refine import moved
from radgs.registration.results import camera_corrections
from radgs.simulation import ArticulatedSpine, CArm, SpinePose
from tests.phantoms import block_spine

SPREAD = {"camera_prior_deg": 0.3, "camera_prior_mm": 0.5}
# half of what views are turned (degrees) and shifted (mm) against each other
ERRORS = [([0.15, -0.25, 0.1], [-0.3, 0.1, 0.3]), ([-0.2, 0.2, 0.1], [-0.2, 0.3, 0.2])]
EASY = 0.0001  # weight of the priors where there is no noise


def settings(**changes):
    return load_config({"refinement": changes}).refinement


@pytest.fixture(scope="module")
def bent():
    """A bent block spine, its X-rays, and where every vertebra is."""
    tissue = split_tissue(*block_spine())
    whole = RigidTransform.about([0, 0, 0], np.radians([5.0, -4, 8]), [-8, 1, -36])
    truth = {
        level: whole @ RigidTransform.about(tissue.centre(level), np.radians(degrees), shift)
        for level, degrees, shift in (
            ("T12", [2, 1, -2], [1, 0, 0.5]),
            ("L1", [0, 0, 0], [0, 0, 0]),
            ("L2", [-2, 2, 1], [0, -1, 0]),
        )
    }
    carm = CArm(CArmSettings(detector_px=244, pixel_mm=1.552))
    cameras = {"AP": carm.camera("AP", 0.1, 0.05), "LA": carm.camera("LA", -0.05, 0.1)}
    spine = ArticulatedSpine(tissue)
    return (
        tissue,
        truth,
        {v: Xray(v, np.sum(spine.project(c, SpinePose(whole, truth)), axis=0), c) for v, c in cameras.items()},
    )


def middle(bent):
    return bent[1]["L1"].apply(bent[0].centre("L1"))


def scene_of(bent, believed=None):
    """With cameras that a calibration believes: each view's own motion of the world (a true camera is None) undone."""
    tissue, _, xrays = bent
    views = {}
    for name, xray in xrays.items():
        camera = xray.camera
        if believed:
            camera = replace(camera, camera_from_world=camera.camera_from_world @ believed[name].inverse())
        views[name] = View.from_xray(replace(xray, camera=camera), middle(bent), 0.9)
    return Scene(views, tissue)


def error(found, bent):
    tissue, truth, _ = bent
    points = {level: tissue.points(level) for level in truth}
    off = [found.world_from_ct[k].apply(points[k]) - truth[k].apply(points[k]) for k in truth]
    return float(np.mean([np.linalg.norm(d, axis=1).mean() for d in off]))


def start(bent):
    return {k: RigidTransform.about(middle(bent), np.radians([1.0, -1, 1]), [1, -1, 1]) @ p for k, p in bent[1].items()}


def test_a_motion_of_the_world_is_that_of_every_levels_own_parameters(bent):
    scene, truth = scene_of(bent), {k: p.tensor() for k, p in bent[1].items()}
    cameras = CameraCorrections.none(scene, truth, settings(**SPREAD))
    amount = torch.tensor([0.02, -0.01, 0.03, 0.01, 0.02, -0.02], dtype=torch.float64)
    there = moved(scene, truth, cameras.by_amount(scene, truth, list(truth)) @ amount)
    motion = amount * cameras.spread
    whole = rigid_motion(motion[:3], motion[3:], cameras.middle)
    for level in truth:
        points = torch.from_numpy(bent[0].points(level))
        a, b, before = (points @ m[:3, :3].T + m[:3, 3] for m in (there[level], whole @ truth[level], truth[level]))
        assert float((a - b).norm(dim=1).max()) < 1e-4 * float((a - before).norm(dim=1).max())


def drawn(scene, poses, of):
    """An image of LA, the sum over levels of what ``of`` makes of each; fine steps, as depth hardly changes images."""
    out = torch.zeros(scene.views["LA"].image.shape)
    for row, part in scene.draw(poses, 0.2, 0)["LA"]:
        y0, y1, x0, x1 = part.window
        out[y0:y1, x0:x1] += of(row, part.image)
    return out


def test_images_change_with_a_camera_as_the_levels_derivatives_say(bent):
    scene, poses = scene_of(bent), {k: p.tensor() for k, p in bent[1].items()}
    cameras = CameraCorrections.none(scene, poses, settings(**SPREAD))
    by_level = cameras.by_amount(scene, poses, list(poses)).view(-1, 6, 6).float()
    for parameter in range(6):
        change = torch.zeros(2, 6, dtype=torch.float64)
        change[1, parameter] = 0.2  # of LA alone
        ends = [cameras.changed(sign * change.flatten()).apply(scene) for sign in (1, -1)]
        assert ends[0].views["AP"].camera.project(middle(bent)) == pytest.approx(
            scene.views["AP"].camera.project(middle(bent)), abs=1e-9
        )
        images = [drawn(end, poses, lambda _, image: image[0]) for end in ends]
        expected = drawn(
            scene, poses, lambda row, image, p=parameter: torch.einsum("phw,p->hw", image[1:], by_level[row, :, p])
        )
        assert float(((images[0] - images[1]) / 0.4 - expected).norm()) < 0.15 * float(expected.norm())


@pytest.mark.parametrize(("turn", "shift"), ERRORS)
def test_errors_of_the_calibration_are_found_and_poses_are_nearer(bent, turn, shift):
    """Each view has half of the error, one this way and one that way: the truth stays where it is."""
    motion = [RigidTransform.about(middle(bent), s * np.radians(turn), s * np.array(shift)) for s in (1, -1)]
    scene = scene_of(bent, {"AP": motion[0], "LA": motion[1]})
    as_given = refine(scene, start(bent), settings())
    corrected = refine(scene, start(bent), settings(**SPREAD, prior_weight=EASY))
    assert as_given.cameras == {}
    assert error(as_given, bent) > 0.25
    assert error(corrected, bent) < 0.6 * error(as_given, bent)
    moves = corrected.cameras["L1"]
    wrong = motion[1].inverse() @ motion[0]
    left = moves["LA"].inverse() @ moves["AP"] @ wrong.inverse()
    assert left.angle() < 0.3 * wrong.angle()
    apart = wrong.apply(middle(bent)) - middle(bent)
    assert np.linalg.norm(left.apply(middle(bent)) - middle(bent)) < 0.5 * np.linalg.norm(apart)


def test_right_cameras_stay_and_corrections_have_no_common_motion(bent):
    """The start is off by millimetres, which no camera may keep."""
    as_given, corrected = (refine(scene_of(bent), start(bent), settings(**s)) for s in ({}, SPREAD))
    for move in corrected.cameras["L1"].values():
        assert np.degrees(move.angle()) < 0.03
        assert np.linalg.norm(move.apply(middle(bent)) - middle(bent)) < 0.05
    one, other = corrected.cameras["L1"].values()
    assert (one @ other).matrix == pytest.approx(np.eye(4), abs=2e-3)
    assert error(corrected, bent) < error(as_given, bent) + 0.02


def test_the_covariance_holds_calibrations_as_wrong_as_the_prior_expects(bent):
    """Squared errors in units of the covariance, mean over draws; without noise nothing else is wrong."""
    rng, ratios = np.random.default_rng(5), []
    for _ in range(12):
        believed = {
            view: RigidTransform.about(middle(bent), np.radians(rng.normal(0, 0.3, 3)), rng.normal(0, 0.5, 3))
            for view in ("AP", "LA")
        }
        found = refine(scene_of(bent, believed), bent[1], settings(**SPREAD), as_one_body=False)
        for level, pose in bent[1].items():
            covariance = found.covariance[level]
            missing = pose @ found.world_from_ct[level].inverse()
            shift = missing.apply(covariance.centre) - covariance.centre
            off = np.concatenate([Rotation.from_matrix(missing.rotation).as_rotvec(), shift])
            ratios.append(off @ np.linalg.solve(covariance.matrix, off) / 6)
    assert 0.6 < np.mean(ratios) < 1.7


def test_corrections_are_told_in_degrees_and_mm():
    middle = np.array([3.0, -5, 700])
    move = RigidTransform.about(middle, np.radians([0.2, 0, 0]), [0.3, 0, 0.4])
    result = SimpleNamespace(refined=RigidTransform.identity(), cameras={"AP": move})
    crop = SimpleNamespace(points=lambda count: np.tile(middle, (count, 1)))
    assert camera_corrections(result, crop)["AP"] == {"turn_deg": pytest.approx(0.2), "shift_mm": pytest.approx(0.5)}


def test_cameras_are_not_corrected_without_a_prior():
    assert not settings().corrects_cameras
    with pytest.raises(ConfigError, match="without a prior"):
        settings(**SPREAD, prior_weight=0)
