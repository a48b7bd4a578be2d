"""Starts beyond the reach of refinement: shifts found by correlation, sure levels that place their neighbours."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, Config
from radgs.geometry import RigidTransform
from radgs.images import Xray
from radgs.kernels import gradients
from radgs.registration import Scene, View, refine
from radgs.registration.attempts import Attempt, Found, best_of, convincing, origin_of
from radgs.registration.covariance import PoseCovariance
from radgs.registration.hypotheses import place_neighbours, refine_from_hypotheses
from radgs.registration.names import settle_names
from radgs.registration.refine import Refined
from radgs.registration.register import laid_poses
from radgs.registration.search import ONE_JOINT, WHOLE_SPINE, lead_over_other_names, match, search
from radgs.simulation import ArticulatedSpine, CArm, SpinePose
from tests.phantoms import block_spine

THERE = RigidTransform.from_rotation_translation(np.eye(3), [-11.0, 7.0, -40.0])


def move(x, y, z):
    return RigidTransform.from_rotation_translation(np.eye(3), [x, y, z])


@pytest.fixture(scope="module")
def straight():
    """The block spine with vertebrae that cannot be mistaken for each other, seen from the front and from the side."""
    ct, labels = block_spine()
    hu = ct.array.copy()
    hu[32:40, 12:16, 14:18] = 1500.0
    hu[22:26, 18:22, 18:28] = 1500.0
    hu[13:15, 24:32, 19:22] = 1800.0
    hu[16:20, 12:22, 24:28] = 1200.0
    tissue = split_tissue(ct.with_array(hu), labels)
    carm = CArm(CArmSettings(detector_px=244, pixel_mm=1.552))
    cameras = {"AP": carm.camera("AP", 0.1, 0.05), "LA": carm.camera("LA", -0.05, 0.1)}
    spine = ArticulatedSpine(tissue)
    pose = SpinePose(THERE, dict.fromkeys(tissue.excess, THERE))
    xrays = {view: Xray(view, np.sum(spine.project(c, pose), axis=0), c) for view, c in cameras.items()}
    middle = THERE.apply(tissue.centre("L1"))
    return tissue, Scene({name: View.from_xray(x, middle, 0.9) for name, x in xrays.items()}, tissue)


def off(pose, tissue, level="L1", truth=THERE):
    points = tissue.points(level)
    return float(np.linalg.norm(pose.apply(points) - truth.apply(points), axis=1).mean())


def test_correlation_finds_a_shift_and_leaves_out_what_was_not_measured(straight):
    view = straight[1].coarser(4).views["AP"]
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(view.image.shape, generator=generator)
    there = View(image.roll((3, -2), (0, 1)), view.measured, view.camera, view.pixel_mm)
    window = torch.zeros(image.shape)
    window[15:40, 15:40] = 1
    picture = gradients(image[None], 1.0)[0]
    fits = match(there, picture, window, 6)
    assert fits.shape == (13, 13)
    assert np.unravel_index(int(fits.argmax()), fits.shape) == (6 + 3, 6 - 2)
    assert float(fits.max()) == pytest.approx(1.0, abs=0.02)
    half = view.measured.clone()
    half[:, 28:] = False
    masked = match(View(there.image, half, view.camera, view.pixel_mm), picture, window, 6)
    assert np.unravel_index(int(masked.argmax()), masked.shape) == (6 + 3, 6 - 2)
    none = match(View(there.image, half & False, view.camera, view.pixel_mm), picture, window, 6)
    assert float(none.abs().max()) == 0


@pytest.mark.parametrize("shift", [(0, 0, 28), (18, -16, -20)])
def test_the_spine_is_found_centimetres_away(straight, shift):
    tissue, scene = straight
    start = dict.fromkeys(tissue.excess, move(*shift) @ THERE)
    found = search(scene, start, WHOLE_SPINE, 3)
    assert len(found) == 3
    assert off(start["L1"], tissue) > 25
    assert off(found[0] @ start["L1"], tissue) < 5  # the grid's step is 4 mm
    places = [motion.apply(start["L1"].apply(tissue.centre("L1"))) for motion in found]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]) >= 9.9


def test_one_vertebra_is_looked_for_around_where_its_joint_would_put_it(straight):
    tissue, scene = straight
    start = RigidTransform.about(THERE.apply(tissue.centre("L2")), np.radians([5.0, 0, 0])) @ move(7, -6, 5) @ THERE
    (motion,) = search(scene, {"L2": start}, ONE_JOINT)
    assert off(start, tissue, "L2") > 9
    assert off(motion @ start, tissue, "L2") < 4  # steps of 2 mm and 6 degrees


@pytest.mark.parametrize("shift", [(-14, 12, 18), (18, -16, -20), (0, 0, -28)])
def test_a_start_beyond_the_reach_of_refinement_is_mended(straight, shift):
    tissue, scene = straight
    start = dict.fromkeys(tissue.excess, move(*shift) @ THERE)
    points = {level: tissue.points(level) for level in start}
    settings = Config().refinement
    alone = refine(scene, start, settings)
    assert max(off(alone.world_from_ct[level], tissue, level) for level in start) > 3
    found = refine_from_hypotheses(scene, start, points, settings)
    best, second = found.best, found.other
    for level in start:
        assert off(best.world_from_ct[level], tissue, level) < 0.3
        assert best.objective(level) >= second.objective(level)


def test_a_good_start_costs_two_refinements_and_no_search(straight, monkeypatch):
    tissue, scene = straight
    calls = []
    monkeypatch.setattr("radgs.registration.hypotheses.search", lambda *a: calls.append("search"))
    monkeypatch.setattr(
        "radgs.registration.hypotheses.refine", lambda *a, **k: calls.append("refine") or refine(*a, **k)
    )
    start = dict.fromkeys(tissue.excess, move(1, -1, 1) @ THERE)
    refine_from_hypotheses(scene, start, {level: tissue.points(level) for level in start}, Config().refinement)
    assert calls == ["refine", "refine"]


def test_what_the_detector_laid_on_the_x_rays_is_tried_before_anything_is_searched(straight, monkeypatch):
    tissue, scene = straight
    monkeypatch.setattr("radgs.registration.hypotheses.search", lambda *a: pytest.fail("searched"))
    start = dict.fromkeys(tissue.excess, move(18, -16, -20) @ THERE)
    laid = {"L1": move(1, -1, 1) @ THERE}
    points = {level: tissue.points(level) for level in start}
    best = refine_from_hypotheses(scene, start, points, Config().refinement, laid).best
    assert max(off(best.world_from_ct[level], tissue, level) for level in start) < 0.3


def test_what_the_detector_laid_counts_for_levels_that_are_drawn():
    """A detector knows the whole CT; the scene holds the levels to be registered and their neighbours."""
    levels = {"L1": {"world_from_ct": THERE.matrix.tolist()}, "L2": {}, "T5": {"world_from_ct": THERE.matrix.tolist()}}
    laid = laid_poses(levels, {"L1", "L2"})
    assert list(laid) == ["L1"]
    assert np.array_equal(laid["L1"].matrix, THERE.matrix)


@pytest.mark.parametrize(("gain", "rounds"), [(0.0, 2), (1.0, 6)])
def test_levels_put_others_in_place_as_long_as_it_helps(straight, monkeypatch, gain, rounds):
    tissue, scene = straight
    calls = []

    def again(*a, **k):
        calls.append(a)
        better = 0.35 + gain * 0.02 * len(calls)
        return result(1 + len(calls), {k: {"AP": better, "LA": better} for k in tissue.excess})

    monkeypatch.setattr("radgs.registration.hypotheses.refine", again)
    attempts = [attempt(1, {key: {"AP": 0.35, "LA": 0.35} for key in tissue.excess})]
    place_neighbours(scene, attempts, {key: tissue.points(key) for key in tissue.excess}, Config().refinement)
    assert (len(calls), len(attempts)) == (rounds, rounds + 1)


def test_places_where_nothing_would_be_seen_are_left_out(straight, monkeypatch):
    tissue, scene = straight
    monkeypatch.setattr("radgs.registration.hypotheses.search", lambda *a: [move(5000, 0, 0)])
    start = dict.fromkeys(tissue.excess, move(30, -25, 40) @ THERE)
    points = {level: tissue.points(level) for level in start}
    best = refine_from_hypotheses(scene, start, points, Config().refinement).best
    assert set(best.world_from_ct) == set(start)


def test_a_level_that_convinces_puts_its_neighbours_in_place(straight):
    """One level nearly right, the others centimetres off: what a detector does that skips a vertebra."""
    tissue, scene = straight
    start = {"T12": move(0.5, 0, 1) @ THERE, "L1": move(2, 0, -20) @ THERE, "L2": move(-3, 2, -26) @ THERE}
    best = refine_from_hypotheses(scene, start, {k: tissue.points(k) for k in start}, Config().refinement).best
    assert max(off(best.world_from_ct[level], tissue, level) for level in start) < 0.5


def result(x, similarity):
    return Refined(
        dict.fromkeys(similarity, move(x, 0, 0)), similarity, cameras={k: {"AP": move(0, x, 0)} for k in similarity}
    )


def attempt(x, similarity, origin=None):
    return Attempt(result(x, similarity), dict.fromkeys(similarity, x if origin is None else origin))


def test_the_best_and_the_second_best_are_chosen_level_by_level():
    a = attempt(1, {"L1": {"AP": 0.9, "LA": 0.8}, "L2": {"AP": 0.2, "LA": 0.1}})
    b = attempt(2, {"L1": {"AP": 0.3, "LA": 0.2}, "L2": {"AP": 0.7, "LA": 0.7}})
    c = attempt(3, {"L1": {"AP": 0.8, "LA": 0.8}, "L2": {"AP": 0.6, "LA": 0.5}})
    found = best_of([a, b, c], dict.fromkeys(["L1", "L2"], np.zeros((1, 3))))
    best, second = found.best, found.other
    assert [best.world_from_ct[k].translation[0] for k in ("L1", "L2")] == [1, 2]
    assert [best.cameras[k]["AP"].translation[1] for k in ("L1", "L2")] == [1, 2]
    assert [second.world_from_ct[k].translation[0] for k in ("L1", "L2")] == [3, 3]


def test_attempts_that_began_at_the_same_place_have_one_origin():
    first = replace(attempt(1, {"L1": {"AP": 0.5}}, 0), start={"L1": move(1, 0, 0)})
    points = np.zeros((1, 3))
    assert origin_of("L1", move(1.5, 0, 0), [first], points) == 0
    assert origin_of("L1", move(3, 0, 0), [first], points) == 1
    assert origin_of("L2", move(1, 0, 0), [first], points) == 1
    assert (
        origin_of("L1", move(1, 0, 0), [attempt(1, {"L1": {"AP": 0.5}}, 0)], points) == 1
    )  # where that began is its own


def test_putting_levels_in_place_confirms_neither_those_that_stay_nor_one_put_there_before(straight, monkeypatch):
    tissue, scene = straight
    good, bad = {"AP": 0.9, "LA": 0.9}, {"AP": 0.1, "LA": 0.1}
    similar = {key: bad if key == "L2" else good for key in tissue.excess}
    monkeypatch.setattr("radgs.registration.hypotheses.refine", lambda *a, **k: result(1, similar))
    attempts = [attempt(1, similar, 0)]
    points = {key: tissue.points(key) for key in tissue.excess}
    place_neighbours(scene, attempts, points, Config().refinement)
    assert len(attempts) == 3
    assert [one.origin["L1"] for one in attempts] == [0, 0, 0]
    assert [one.origin["L2"] for one in attempts] == [0, 1, 1]


def test_a_level_is_not_torn_from_those_that_agree_more_if_it_need_not_be():
    """In noise a place centimetres off may agree a little more."""
    right = attempt(1, {"L1": {"AP": 0.4, "LA": 0.4}, "L2": {"AP": 0.1, "LA": 0.1}})
    wrong = attempt(30, {"L1": {"AP": 0.1, "LA": 0.1}, "L2": {"AP": 0.2, "LA": 0.1}})
    points = dict.fromkeys(["L1", "L2"], np.zeros((1, 3)))
    assert best_of([right, wrong], points).best.world_from_ct["L2"].translation[0] == 1
    strong = attempt(30, {"L1": {"AP": 0.1, "LA": 0.1}, "L2": {"AP": 0.8, "LA": 0.8}})
    assert best_of([right, strong], points).best.world_from_ct["L1"].translation[0] == 30  # it chooses first
    far = attempt(60, {"L1": {"AP": 0.4, "LA": 0.4}, "L2": {"AP": 0.1, "LA": 0.1}})
    assert best_of([far, strong], {"L1": points["L1"]}).best.world_from_ct["L1"].translation[0] == 60


def test_a_result_is_not_confirmed_by_one_that_began_from_it():
    found, again = attempt(1, {"L1": {"AP": 0.5}}, 0), attempt(2, {"L1": {"AP": 0.4}}, 0)
    elsewhere = attempt(9, {"L1": {"AP": 0.1}}, 1)
    both = best_of([again, elsewhere, found], dict.fromkeys(["L1"], np.zeros((1, 3))))
    assert [one.world_from_ct["L1"].translation[0] for one in (both.best, both.other)] == [1, 9]
    assert both.apart("L1", np.zeros((1, 3))) == 8
    alone = best_of([again, found], dict.fromkeys(["L1"], np.zeros((1, 3))))
    assert alone.best.world_from_ct["L1"].translation[0] == 1
    assert alone.other.world_from_ct == {}
    assert alone.apart("L1", np.zeros((1, 3))) is None


def test_what_convinces_agrees_with_every_view_and_is_not_torn_from_its_neighbours():
    settings, points = Config().refinement, {"L1": np.zeros((1, 3)), "L2": np.zeros((1, 3))}
    unknown = result(99, {})
    good, bad = {"AP": 0.9, "LA": 0.8}, {"AP": 0.9, "LA": 0.3}
    both = result(1, {"L1": good, "L2": good})
    assert convincing(Found(both, unknown), points, settings) == {"L1", "L2"}
    one = result(1, {"L1": good, "L2": bad})
    assert convincing(Found(one, unknown), points, settings) == {"L1"}
    lost = result(4, {"L1": {"AP": 0.95}, "L2": good})
    assert convincing(Found(lost, unknown), points, settings) == {"L2"}  # L1 is seen by one view only
    torn = result(1, {"L1": good, "L2": {"AP": 0.7, "LA": 0.7}})
    torn.world_from_ct["L2"] = move(21, 0, 0)
    assert convincing(Found(torn, unknown), points, settings) == {"L1"}
    torn.world_from_ct["L2"] = move(9, 0, 0)
    assert convincing(Found(torn, unknown), points, settings) == {"L1", "L2"}


def faint(x, *, views_apart=0.5, spread=0.1):
    """A result whose similarities say little, and its covariance: of a shift, equal along all axes."""
    one = result(x, {"L1": {"AP": 0.3, "LA": 0.25}})
    variance = np.diag([0, 0, 0, *[spread**2 / 3] * 3])
    return replace(one, views_apart={"L1": views_apart}, covariance={"L1": PoseCovariance(variance, np.zeros(3))})


@pytest.mark.parametrize(
    ("best", "other", "convinced"),
    [
        (faint(1), faint(1.1), True),
        (faint(1), faint(1.9), False),  # another start ended elsewhere
        (faint(1, views_apart=2.0), faint(1.1), False),
        (faint(1, spread=0.5), faint(1.1), False),
        (replace(faint(1), covariance={}), faint(1.1), False),
        (faint(1), result(1.1, {}), False),  # nothing began elsewhere
        (replace(faint(1), similarity={"L1": {"AP": 0.3, "LA": 0.1}}), faint(1.1), False),
    ],
)
def test_in_a_dark_image_a_level_convinces_that_starts_and_views_confirm(best, other, convinced):
    points = {"L1": np.zeros((1, 3))}
    assert (convincing(Found(best, other), points, Config().refinement) == {"L1"}) == convinced


def doubted(straight):
    entry = {"doubts": ["another name", "cut"], "name_doubts": ["another name"]}
    return dict.fromkeys(straight[0].excess, entry), {level: straight[0].points(level) for level in straight[0].excess}


def test_doubts_of_names_go_where_one_level_up_or_down_agrees_clearly_less(straight):
    tissue, scene = straight
    levels, points = doubted(straight)
    settings = Config().refinement.model_copy(update={"clear_names": 9.0})  # never
    right = refine(scene, dict.fromkeys(tissue.excess, THERE), settings)
    found, left = settle_names(scene, Found(right, right), levels, points, settings)
    assert found == Found(right, right)
    assert left == {key: ["cut"] for key in levels}
    strict = settings.model_copy(update={"certain_names": 2.0})
    _, left = settle_names(scene, Found(right, right), levels, points, strict)
    assert left == {key: ["another name", "cut"] for key in levels}


def test_clear_names_are_seen_without_refining_others(straight, monkeypatch):
    tissue, scene = straight
    levels, points = doubted(straight)
    settings = Config().refinement
    near = [refine(scene, dict.fromkeys(tissue.excess, move(x, 0, 0) @ THERE), settings) for x in (0, 1)]
    spacing = tissue.centre("L1") - tissue.centre("T12")
    wrong = refine(scene, dict.fromkeys(tissue.excess, THERE @ move(*spacing)), settings)
    assert lead_over_other_names(scene, near[0].world_from_ct) > 0.1
    assert lead_over_other_names(scene, wrong.world_from_ct) < 0
    monkeypatch.setattr("radgs.registration.names.refine", lambda *a, **k: pytest.fail("refined"))
    found, left = settle_names(scene, Found(*near), levels, points, settings)
    assert (found, left) == (Found(*near), {key: ["cut"] for key in levels})
    one = Found(*(replace(each, world_from_ct={"L1": each.world_from_ct["L1"]}) for each in near))
    _, left = settle_names(scene, one, {"L1": levels["L1"]}, {"L1": points["L1"]}, settings)
    assert left == {"L1": ["cut"]}  # where its neighbours are not registered
    alone = Found(near[0], result(0, {}))  # nothing confirms it
    with pytest.raises(pytest.fail.Exception, match="refined"):
        settle_names(scene, alone, levels, points, settings)


def test_names_one_level_off_that_agree_better_are_taken_and_stay_doubted(straight):
    tissue, scene = straight
    levels, points = doubted(straight)
    settings = Config().refinement
    spacing = tissue.centre("L1") - tissue.centre("T12")
    wrong = refine(scene, dict.fromkeys(tissue.excess, THERE @ move(*spacing)), settings)
    assert off(wrong.world_from_ct["L1"], tissue) > 15
    settled, left = settle_names(scene, Found(wrong, wrong), levels, points, settings)
    assert max(off(settled.best.world_from_ct[level], tissue, level) for level in levels) < 0.5
    assert settled.other is wrong
    assert left == {key: ["another name", "cut"] for key in levels}


def test_other_names_are_tried_only_where_there_is_doubt(straight, monkeypatch):
    tissue, scene = straight
    calls = []
    monkeypatch.setattr("radgs.registration.names.refine", lambda *a, **k: calls.append(a) or bad)
    good = result(0, {key: {"AP": 0.9, "LA": 0.8} for key in tissue.excess})
    bad = result(9, {key: {"AP": 0.1, "LA": 0.1} for key in tissue.excess})
    levels, points = doubted(straight)
    certain = {key: {"doubts": ["cut"]} for key in levels}
    found, left = settle_names(scene, Found(good, bad), certain, points, Config().refinement)
    assert (found, left, calls) == (Found(good, bad), {key: ["cut"] for key in levels}, [])
    half = result(0, {k: {"AP": 0.9, "LA": 0.3 if k == "L1" else 0.8} for k in tissue.excess})
    found, left = settle_names(scene, Found(half, bad), levels, points, Config().refinement)
    assert len(calls) == 2
    assert left == {k: ["another name", "cut"] if k == "L1" else ["cut"] for k in levels}  # L1 does not convince


def test_names_are_not_taken_from_what_agrees_with_nothing(straight, monkeypatch):
    """In noise a level too low may agree by 0.12 where the right one agrees by 0.1."""
    tissue, scene = straight
    levels, points = doubted(straight)
    found = result(0, {key: {"AP": 0.1, "LA": 0.1} for key in tissue.excess})
    for agrees, taken in ((0.12, False), (0.5, True)):
        other = result(9, {key: {"AP": agrees, "LA": agrees} for key in tissue.excess})
        monkeypatch.setattr("radgs.registration.names.refine", lambda *a, other=other, **k: other)
        monkeypatch.setattr("radgs.registration.names.place_neighbours", lambda *a: None)
        settled, left = settle_names(scene, Found(found, found), levels, points, Config().refinement)
        assert (settled.best.world_from_ct["L1"].translation[0] == 9) == taken
        assert left == {key: ["another name", "cut"] for key in levels}


def test_other_names_begin_from_the_bent_spine_that_the_detector_saw(straight, monkeypatch):
    """Each level takes the place of its neighbour, as that one lies, not where a straight spine would have it."""
    tissue, scene = straight
    starts = []
    bad = result(9, {key: {"AP": 0.1, "LA": 0.1} for key in tissue.excess})
    monkeypatch.setattr("radgs.registration.names.refine", lambda s, start, *a, **k: starts.append(start) or bad)
    order = ["T12", "L1", "L2"]
    bent = {key: RigidTransform.about(np.zeros(3), [0.0, 0.1 * i, 0.0]) @ THERE for i, key in enumerate(order)}
    centres = {key: part.centre.numpy() for key, part in scene.parts.items()}
    wrong = {  # CT vertebra k lies where k + 1 truly is
        key: bent[lower] @ move(*(centres[lower] - centres[key])) for key, lower in pairwise(order)
    }
    levels, points = doubted(straight)
    settle_names(scene, Found(bad, bad), levels, points, Config().refinement, wrong)
    found = [one for one in starts if np.allclose(one["L1"].matrix, bent["L1"].matrix)]
    assert len(found) == 1
    assert np.allclose(found[0]["L2"].matrix, bent["L2"].matrix)
    assert not np.allclose(bent["L1"].matrix, bent["L2"].matrix)
