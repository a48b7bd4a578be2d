"""Starts beyond the reach of refinement: shifts found by correlation, sure levels that place their neighbours."""

import numpy as np
import pytest
import torch

from radgs.config import Config
from radgs.geometry import RigidTransform
from radgs.kernels import gradients
from radgs.registration import View, refine
from radgs.registration.hypotheses import place_neighbours, refine_from_hypotheses
from radgs.registration.name_lead import match
from radgs.registration.refine import Refined
from radgs.registration.register import laid_poses
from radgs.registration.search import FAR_TURNS, NEAR_TURNS, search_joint, search_spine
from tests.phantoms import THERE, attempt, move, off, result


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
    found = search_spine(scene, start, NEAR_TURNS, 3)
    assert len(found) == 3
    assert off(start["L1"], tissue) > 25
    assert off(found[0] @ start["L1"], tissue) < 5  # the grid's step is 4 mm
    places = [motion.apply(start["L1"].apply(tissue.centre("L1"))) for motion in found]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]) >= 9.9


def test_a_spine_turned_far_is_found(straight):
    tissue, scene = straight
    turn = RigidTransform.about(THERE.apply(tissue.centre("L1")), np.radians([25.0, -25.0, 20.0]))
    start = dict.fromkeys(tissue.excess, move(8, -4, 12) @ turn @ THERE)

    def furthest_off(turns):
        (found,) = search_spine(scene, start, turns, 1)
        return max(off(found @ start[level], tissue, level) for level in start)

    assert max(off(start[level], tissue, level) for level in start) > 25
    assert furthest_off(FAR_TURNS) < 12 < furthest_off(NEAR_TURNS)  # turns are 16 degrees apart


class Peaks:
    """Stands for a scene and its matcher: levels fit at known shifts along x, and nowhere else."""

    centres = dict.fromkeys(("T12", "L1", "L2"), np.zeros(3))

    def __init__(self, *by_level):
        self.by_level = by_level
        self.matcher = self

    def coarser(self, _):
        return self

    def fits(self, _, levels, axis):
        found = np.zeros((len(levels), *[len(axis)] * 3))
        for fit, peaks in zip(found, self.by_level, strict=True):
            for x, value in peaks.items():
                fit[np.argmin(np.abs(axis - x)), np.argmin(np.abs(axis)), np.argmin(np.abs(axis))] = value
        return found


def first_shift(scene):
    return search_spine(scene, dict.fromkeys(scene.centres, RigidTransform.identity()), NEAR_TURNS, 1)[0].apply(
        np.zeros(3)
    )


def test_a_bent_spine_is_found_where_all_levels_nearly_fit_and_not_where_some_fit_alike():
    bent = Peaks({16: 1.0, -20: 0.8}, {20: 1.0, -20: 0.8}, {24: 1.0})
    assert first_shift(bent) == pytest.approx([20, 0, 0])
    assert first_shift(Peaks({-20: 0.8}, {-20: 0.8}, {})) == pytest.approx([-20, 0, 0])


def test_a_spine_is_not_looked_for_far_away_where_it_fits_as_well_nearby():
    assert first_shift(Peaks({}, {}, {})) == pytest.approx([0, 0, 0])
    assert first_shift(Peaks(*[{-36: 0.9, 12: 0.9}] * 3)) == pytest.approx([12, 0, 0])


def test_a_scene_with_other_views_looks_for_vertebrae_in_those(straight):
    _, scene = straight
    assert scene.matcher is scene.matcher
    for other in (scene.coarser(2), scene.seen_by({"AP": scene.views["AP"]})):
        assert [view.camera for view in other.matcher.views] == [view.camera for view in other.views.values()]


def test_one_vertebra_is_looked_for_around_where_its_joint_would_put_it(straight):
    tissue, scene = straight
    start = RigidTransform.about(THERE.apply(tissue.centre("L2")), np.radians([5.0, 0, 0])) @ move(7, -6, 5) @ THERE
    assert off(start, tissue, "L2") > 9
    assert off(search_joint(scene, "L2", start), tissue, "L2") < 2


@pytest.mark.parametrize(("said", "searches"), [(0.9, 1), (0.1, 2)])
def test_far_turns_are_tried_only_where_no_level_says_anything(straight, monkeypatch, said, searches):
    tissue, scene = straight
    asked = []
    monkeypatch.setattr("radgs.registration.hypotheses.convinces", lambda *_: False)
    monkeypatch.setattr("radgs.registration.hypotheses.place_neighbours", lambda *_: None)
    monkeypatch.setattr(
        "radgs.registration.hypotheses.search_spine", lambda scene, poses, turns, count: asked.append(len(turns)) or []
    )
    monkeypatch.setattr(Refined, "objective", lambda *_: said)
    start = dict.fromkeys(tissue.excess, THERE)
    refine_from_hypotheses(scene, start, {level: tissue.points(level) for level in start}, Config().refinement)
    assert asked == [len(NEAR_TURNS), len(FAR_TURNS)][:searches]


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
    monkeypatch.setattr("radgs.registration.hypotheses.search_spine", lambda *a: calls.append("search"))
    monkeypatch.setattr(
        "radgs.registration.hypotheses.refine", lambda *a, **k: calls.append("refine") or refine(*a, **k)
    )
    start = dict.fromkeys(tissue.excess, move(1, -1, 1) @ THERE)
    refine_from_hypotheses(scene, start, {level: tissue.points(level) for level in start}, Config().refinement)
    assert calls == ["refine", "refine"]


def test_what_the_detector_laid_on_the_x_rays_is_tried_before_anything_is_searched(straight, monkeypatch):
    tissue, scene = straight
    monkeypatch.setattr("radgs.registration.hypotheses.search_spine", lambda *a: pytest.fail("searched"))
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
    monkeypatch.setattr("radgs.registration.hypotheses.search_spine", lambda *a: [move(5000, 0, 0)])
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
