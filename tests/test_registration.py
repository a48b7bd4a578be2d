"""Consensus, correlation, refinement and verdict against answers known by construction."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, Config, JudgementSettings, load_config
from radgs.errors import ConfigError, GeometryError
from radgs.geometry import RigidTransform, rigid_motion
from radgs.images import Xray
from radgs.kernels.correlation_reference import correlation, outlier_weights
from radgs.registration import Evidence, Scene, Verdict, View, consensus, judge, refine
from radgs.registration.hypotheses import nearest_level
from radgs.registration.joints import joint_prior, prior_residuals
from radgs.registration.judge import probability, read_model
from radgs.registration.normal_equations import body_from_levels
from radgs.registration.refine import moved
from radgs.simulation import ArticulatedSpine, CArm, SpinePose
from tests.phantoms import block_spine


def about(centre, degrees, shift):
    rotation = Rotation.from_rotvec(np.radians(degrees)).as_matrix()
    centre = np.asarray(centre)
    return RigidTransform.from_rotation_translation(rotation, centre - rotation @ centre + np.asarray(shift))


def test_consensus_of_equal_poses_is_that_pose_and_an_outlier_hardly_moves_it():
    rng = np.random.default_rng(0)
    points = {f"L{i}": rng.normal([0, 0, -35.0 * i], 15, (60, 3)) for i in range(1, 5)}
    pose = about([0, 0, 0], [10, -5, 20], [4, 5, 6])
    found, distance = consensus(dict.fromkeys(points, pose), points)
    assert found.matrix == pytest.approx(pose.matrix, abs=1e-9)
    assert max(distance.values()) < 1e-9
    poses = dict.fromkeys(points, pose)
    poses["L3"] = about([0, 0, -105], [0, 0, 0], [25, 0, 0]) @ pose
    found, distance = consensus(poses, points)
    off = np.linalg.norm(found.apply(points["L1"]) - pose.apply(points["L1"]), axis=1).mean()
    assert off < 2.0  # the plain mean would be off by about 6 mm
    assert max(distance, key=distance.get) == "L3"


def test_partial_correlation_ignores_what_the_nuisance_explains():
    generator = torch.Generator().manual_seed(0)
    signal, nuisance, noise = torch.randn(3, 1600, generator=generator)
    seen, still, alike = signal + 7 * nuisance + 3.0, torch.zeros(1, 1600), torch.ones(1600)
    assert correlation(signal, still, seen, nuisance[None], alike).value == pytest.approx(1.0, abs=0.01)
    assert correlation(signal, still, seen, noise[None], alike).value < 0.3
    assert correlation(-signal, still, seen, nuisance[None], alike).value == pytest.approx(-1.0, abs=0.01)


def test_what_only_one_image_shows_weighs_little_and_a_good_fit_weighs_alike():
    generator = torch.Generator().manual_seed(3)
    signal, nuisance, noise = torch.randn(3, 1600, generator=generator)
    seen = 2 * signal + 3 * nuisance + 0.2 * noise
    seen[100:200] += 15.0  # an edge that the model does not know
    weights = outlier_weights(signal, seen, nuisance[None])
    assert weights[100:200].max() < 0.1
    assert weights[200:].mean() > 0.8
    nothing = torch.zeros(1, 1600)
    assert correlation(signal, nothing, seen, nuisance[None], weights).value > 0.85
    assert correlation(signal, nothing, seen, nuisance[None], torch.ones(1600)).value < 0.7
    assert outlier_weights(signal, 2 * signal + 3 * nuisance, nuisance[None]).min() > 0.99


def test_the_gradient_of_the_correlation_is_that_of_autograd_and_its_hessian_is_exact_at_the_optimum():
    """One minus a correlation is half a squared distance: at a perfect fit Gauss-Newton leaves nothing out."""
    generator = torch.Generator().manual_seed(1)
    base, *directions = torch.randn(5, 500, generator=generator)
    nuisances = torch.randn(2, 500, generator=generator)
    jacobian = torch.stack(directions)
    weights = torch.rand(500, generator=generator)

    def loss(parameters, still):
        m = base + parameters.to(base.dtype) @ jacobian
        stacked = torch.stack([m, still, *nuisances])
        stacked = (stacked - (stacked @ weights)[:, None] / weights.sum()) * weights.sqrt()
        n = torch.linalg.qr(stacked[2:].T)[0].T
        m, s = (x - (n @ x) @ n for x in stacked[:2])
        return 1 - (m @ s) / (m.norm() * s.norm())

    zero = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    still = base + 0.3 * directions[0] + 0.5 * torch.randn(500, generator=generator)
    found = correlation(base, jacobian, still, nuisances, weights)
    value = loss(zero, still)
    assert 1 - found.value == pytest.approx(float(value.detach()), abs=1e-5)
    assert torch.allclose(found.gradient, torch.autograd.grad(value, zero)[0], atol=1e-5)
    assert torch.allclose(found.gradient, -(found.jacobian @ found.residual).double(), atol=1e-5)
    exact = torch.autograd.functional.hessian(lambda p: loss(p, base), torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(correlation(base, jacobian, base, nuisances, weights).hessian, exact, atol=1e-4)


def test_the_prior_is_zero_at_rest_and_its_derivatives_are_those_of_finite_differences(bent):
    scene = scene_of(*bent)
    settings = load_config({}).refinement
    rest = {level: torch.eye(4, dtype=torch.float64) for level in scene.parts}
    assert float(prior_residuals(scene, rest, settings)[0].abs().max()) < 1e-12
    generator = torch.Generator().manual_seed(2)
    motion = 0.1 * torch.randn(6 * len(rest), dtype=torch.float64, generator=generator)
    poses = moved(scene, rest, motion)
    _, by_pose = prior_residuals(scene, poses, settings)
    for parameter in range(len(motion)):
        change = torch.zeros_like(motion)
        change[parameter] = 1e-5
        ends = [prior_residuals(scene, moved(scene, poses, s * change), settings)[0] for s in (1, -1)]
        assert torch.allclose(by_pose[:, parameter], (ends[0] - ends[1]) / 2e-5, atol=1e-3)


def test_the_prior_lets_go_of_a_joint_that_is_bent_far_more_than_it_expects(bent):
    """Its part of the loss grows like a logarithm there; gradients are those of finite differences."""
    scene = scene_of(*bent)
    settings = load_config({}).refinement
    rest = {level: torch.eye(4, dtype=torch.float64) for level in scene.parts}
    shift = torch.zeros(6 * len(rest), dtype=torch.float64)
    along = 6 * list(rest).index("L1") + 3  # of two joints

    def prior(mm, lets_go=True):
        shift[along] = mm
        return joint_prior(scene, moved(scene, rest, shift), settings, lets_go=lets_go)

    for mm, lets_go in ((0.5, True), (2.0, True), (10.0, True), (10.0, False)):
        slope = (prior(mm + 1e-4, lets_go).loss - prior(mm - 1e-4, lets_go).loss) / 2e-4
        assert float(prior(mm, lets_go).gradient[along]) == pytest.approx(slope, rel=1e-4)
    squared = 20.0**2 / settings.prior_mm**2
    assert prior(0.1).loss == pytest.approx(2 * squared * (0.1 / 20.0) ** 2, rel=0.01)
    assert prior(20.0).loss < 0.2 * 2 * squared
    assert prior(20.0, lets_go=False).loss == pytest.approx(2 * squared)


@pytest.mark.parametrize("stages", [[(0.8, 12)], [(1.5, 10), (0.8, 12)]])
def test_joints_are_let_go_in_the_last_stage_alone(bent, monkeypatch, stages):
    tissue, truth, xrays = bent
    asked = []

    def prior(*args, lets_go):
        asked.append(lets_go)
        return joint_prior(*args, lets_go=lets_go)

    monkeypatch.setattr("radgs.registration.normal_equations.joint_prior", prior)
    settings = Config().refinement.model_copy(update={"articulated_stages": stages})
    refine(scene_of(tissue, truth, xrays), truth, settings, as_one_body=False)
    assert asked == sorted(asked)
    assert asked[0] == (len(stages) == 1)
    assert asked[-1]


def test_moving_all_as_one_body_moves_every_level_as_its_own_parameters_say(bent):
    scene = scene_of(*bent)
    rest = {level: torch.eye(4, dtype=torch.float64) for level in scene.parts}
    centres = torch.stack([scene.parts[level].centre for level in rest])
    body = torch.tensor([1e-4, -2e-4, 3e-4, 0.5, -0.2, 0.1], dtype=torch.float64)
    there = moved(scene, rest, body_from_levels(list(centres)) @ body)
    whole = rigid_motion(body[:3], body[3:], centres.mean(dim=0))
    for level in rest:
        assert torch.allclose(there[level], whole, atol=1e-5)


@pytest.fixture(scope="module")
def bent():
    """The X-rays of a block spine whose vertebrae have been moved against each other, and where they are."""
    tissue = split_tissue(*block_spine())
    spine = ArticulatedSpine(tissue)
    whole = about([0, 0, 0], [5, -4, 8], [3, -6, 4]) @ RigidTransform.from_rotation_translation(
        np.eye(3), [-11, 7, -40]
    )
    truth = {
        level: whole @ about(spine.centres[level], degrees, shift)
        for level, degrees, shift in (
            ("T12", [2, 1, -2], [1, 0, 0.5]),
            ("L1", [0, 0, 0], [0, 0, 0]),
            ("L2", [-2, 2, 1], [0, -1, 0]),
        )
    }
    carm = CArm(CArmSettings(detector_px=244, pixel_mm=1.552))
    cameras = {"AP": carm.camera("AP", 0.1, 0.05), "LA": carm.camera("LA", -0.05, 0.1)}
    xrays = {
        view: Xray(view, np.sum(spine.project(camera, SpinePose(whole, truth)), axis=0), camera)
        for view, camera in cameras.items()
    }
    return tissue, truth, xrays


def mtre(a, b, tissue, level):
    points = tissue.points(level)
    return float(np.linalg.norm(a.apply(points) - b.apply(points), axis=1).mean())


def scene_of(tissue, truth, xrays):
    middle = truth["L1"].apply(tissue.centre("L1"))
    return Scene({name: View.from_xray(x, middle, 0.9) for name, x in xrays.items()}, tissue)


def test_refinement_finds_every_vertebra_of_a_bent_spine(bent):
    tissue, truth, xrays = bent
    off = about(truth["L1"].apply(tissue.centre("L1")), [3, -2, 3], [2, -3, 2])
    start = dict.fromkeys(truth, off @ truth["L1"])
    found = refine(scene_of(tissue, truth, xrays), start, Config().refinement)
    for level in truth:
        assert mtre(start[level], truth[level], tissue, level) > 3.0
        assert mtre(found.world_from_ct[level], truth[level], tissue, level) < 0.5
        assert min(found.similarity[level].values()) > 0.6


def test_refinement_does_not_depend_on_the_world_frame(bent):
    tissue, truth, xrays = bent
    moved = about([0, 0, 0], [40, -120, 75], [300, -20, 1000])  # other_from_world
    elsewhere = {
        name: Xray(name, x.line_integrals, type(x.camera)(
            x.camera.K, x.camera.camera_from_world @ moved.inverse(), x.camera.width, x.camera.height
        ))
        for name, x in xrays.items()
    }  # fmt: skip
    settings = load_config({"refinement": {"one_body_stages": [[3, 5]], "articulated_stages": [[1.5, 5]]}}).refinement
    start = {level: about([0, 0, 0], [0, 0, 0], [2, 1, -1]) @ pose for level, pose in truth.items()}
    here = refine(scene_of(tissue, truth, xrays), start, settings)
    there_truth = {level: moved @ pose for level, pose in truth.items()}
    there = refine(
        scene_of(tissue, there_truth, elsewhere), {level: moved @ pose for level, pose in start.items()}, settings
    )
    for level in truth:
        assert mtre(there.world_from_ct[level], moved @ here.world_from_ct[level], tissue, level) < 0.02


def test_a_level_without_an_estimate_starts_from_the_vertebra_next_to_it(bent):
    scene = scene_of(*bent)
    assert nearest_level("T12", ["L2", "L1"], scene) == "L1"
    assert nearest_level("L2", ["T12", "L1"], scene) == "L1"
    assert nearest_level("L1", ["T12", "L1", "L2"], scene) == "L1"


def test_a_view_that_does_not_see_the_spine_is_named(bent):
    tissue, truth, xrays = bent
    with pytest.raises(GeometryError, match="view AP does not see the spine"):
        View.from_xray(xrays["AP"], np.add(truth["L1"].apply(tissue.centre("L1")), [0, 0, 900.0]), 0.9)


def test_unmeasured_pixels_are_left_out(bent):
    tissue, truth, xrays = bent
    holed = {}
    for name, x in xrays.items():
        image = x.line_integrals.copy()
        image[100:112, :] = np.nan
        holed[name] = Xray(name, image, x.camera)
    start = {
        level: about(pose.apply(tissue.centre(level)), [1, 1, -1], [1, -1, 1]) @ pose for level, pose in truth.items()
    }
    found = refine(scene_of(tissue, truth, holed), start, Config().refinement, as_one_body=False)
    for level in truth:
        assert mtre(found.world_from_ct[level], truth[level], tissue, level) < 0.7


FEATURES = ("log_disagreement", "log_spread", "log_joint", "log_laid")
MODEL = {
    "bias": 3.0,
    "weights": dict(zip(FEATURES, (-1.0, -0.5, -2.0, -0.25), strict=True)),
    "mean": dict.fromkeys(FEATURES, 0.0),
    "scale": dict.fromkeys(FEATURES, 1.0),
}
GOOD = Evidence(0.7, 0.6, 0.05, 3.0, 2.0, 1.0, spread_mm=0.15, joint_mm=0.5, laid_mm=2.0)


def test_the_probability_is_the_logistic_models():
    logit = 3 - math.log(1.05) - 0.5 * math.log(0.2) - 2 * math.log(1.5) - 0.25 * math.log(3.0)
    assert probability(GOOD, MODEL) == pytest.approx(1 / (1 + math.exp(-logit)))


def test_starts_that_end_elsewhere_are_as_improbable_however_far():
    near, far, further = (probability(replace(GOOD, disagreement_mm=d), MODEL) for d in (0.05, 8.0, 80.0))
    assert far == further < near


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"disagreement_mm": 9.0}, "9.0 mm apart"),
        ({"contradiction_mm": 2.9}, "contradict each other by 2.9 mm, more than 1.5 mm"),
        ({"worst_similarity": 0.01}, "0.01"),
        ({"visible": 0.3}, "30 %"),
    ],
)
def test_a_closed_gate_is_never_accepted_however_probable(change, reason):
    sure = {**MODEL, "bias": 40.0}
    settings = JudgementSettings()
    assert judge(GOOD, settings, sure).verdict == "accepted"
    assert not judge(GOOD, settings, sure).reasons[0].endswith("is needed")
    unsure = judge(GOOD, settings, {**MODEL, "bias": -40.0})
    assert unsure.reasons[0].endswith(f", {settings.accept_probability:g} is needed")
    verdict = judge(Evidence(**{**GOOD.__dict__, **change}), settings, sure)
    assert verdict.verdict == "review"
    assert any(reason in r for r in verdict.reasons)


def test_a_suspect_label_is_never_accepted_and_the_verdict_says_why():
    sure = {**MODEL, "bias": 40.0}
    verdict = judge(GOOD, JudgementSettings(), sure, ["T11 missing between T10 and T12"])
    assert (verdict.verdict, verdict.labels) == ("review", "suspect")
    assert "label: T11 missing between T10 and T12" in verdict.reasons
    assert judge(GOOD, JudgementSettings(), sure).to_json()["labels"] == "ok"


def test_an_improbable_result_is_rejected_and_a_missing_one_too():
    assert judge(GOOD, JudgementSettings(), {**MODEL, "bias": -40.0}).verdict == "rejected"
    missing = Verdict.not_registered("no box")
    assert (missing.verdict, missing.probability, missing.reasons) == ("rejected", 0.0, ["no box"])


def test_a_missing_verdict_model_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="calibrate_verdict"):
        read_model(tmp_path / "absent.json")
