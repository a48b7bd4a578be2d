"""Names one level off: tried where there is doubt, taken where they agree better."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from radgs.config import Config
from radgs.geometry import RigidTransform
from radgs.registration import refine
from radgs.registration.attempts import Found
from radgs.registration.name_lead import lead_over_other_names
from radgs.registration.names import settle_names
from tests.phantoms import THERE, move, off, result


def doubted(straight):
    entry = {"doubts": ["another name", "at the border"], "name_doubts": ["another name"]}
    return dict.fromkeys(straight[0].excess, entry), {level: straight[0].points(level) for level in straight[0].excess}


def test_doubts_of_names_go_where_one_level_up_or_down_agrees_clearly_less(straight):
    tissue, scene = straight
    levels, points = doubted(straight)
    settings = Config().refinement.model_copy(update={"clear_names": 9.0})  # never
    right = refine(scene, dict.fromkeys(tissue.excess, THERE), settings)
    found, left = settle_names(scene, Found(right, right), levels, points, settings)
    assert found == Found(right, right)
    assert left == {key: [] for key in levels}
    strict = settings.model_copy(update={"certain_names": 1e3})
    _, left = settle_names(scene, Found(right, right), levels, points, strict)
    assert left == {key: ["another name"] for key in levels}


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
    assert (found, left) == (Found(*near), {key: [] for key in levels})
    one = Found(*(replace(each, world_from_ct={"L1": each.world_from_ct["L1"]}) for each in near))
    _, left = settle_names(scene, one, {"L1": levels["L1"]}, {"L1": points["L1"]}, settings)
    assert left == {"L1": []}  # where its neighbours are not registered
    alone = Found(near[0], result(0, {}))  # nothing confirms it
    with pytest.raises(pytest.fail.Exception, match="refined"):
        settle_names(scene, alone, levels, points, settings)


def test_names_one_level_off_that_hold_more_are_taken_and_certain_if_they_hold_twice_as_much(straight):
    tissue, scene = straight
    levels, points = doubted(straight)
    settings = Config().refinement
    spacing = tissue.centre("L1") - tissue.centre("T12")
    wrong = refine(scene, dict.fromkeys(tissue.excess, THERE @ move(*spacing)), settings)
    assert off(wrong.world_from_ct["L1"], tissue) > 15
    for times, remain in ((2.0, []), (1e3, ["another name"])):
        asked = settings.model_copy(update={"certain_names": times})
        settled, left = settle_names(scene, Found(wrong, wrong), levels, points, asked)
        assert max(off(settled.best.world_from_ct[level], tissue, level) for level in levels) < 0.5
        assert "L1" not in settled.other.world_from_ct  # nothing else began there
        assert left == dict.fromkeys(levels, remain)


def test_a_spine_two_levels_off_is_moved_twice_but_not_for_ever(straight, monkeypatch):
    tissue, scene = straight
    levels, points = doubted(straight)
    at = {x: result(x, {key: {"AP": r, "LA": r} for key in tissue.excess}) for x, r in ((0, 0.2), (40, 0.4), (80, 0.7))}
    after = {0: at[40], 40: at[80], 80: at[40]}
    monkeypatch.setattr("radgs.registration.names.place_neighbours", lambda *a: None)

    def settled(found):
        here = []
        monkeypatch.setattr(
            "radgs.registration.names.consensus",
            lambda poses, points: here.append(next(iter(poses.values())).translation[0]) or (THERE, None),
        )
        monkeypatch.setattr("radgs.registration.names.refine", lambda *a, **k: after[here[-1]])
        return settle_names(scene, Found(found, found), levels, points, Config().refinement)

    found, left = settled(at[0])
    assert found.best.world_from_ct["L1"].translation[0] == 80
    assert left == {key: [] for key in levels}
    after = {x: result(x + 40, {k: {"AP": r, "LA": r} for k in levels}) for x, r in ((0, 0.4), (40, 0.5), (80, 0.6))}
    found, left = settled(at[0])
    assert found.best.world_from_ct["L1"].translation[0] == 120
    assert left == {key: ["another name"] for key in levels}


def test_other_names_are_tried_only_where_there_is_doubt(straight, monkeypatch):
    tissue, scene = straight
    calls = []
    monkeypatch.setattr("radgs.registration.names.refine", lambda *a, **k: calls.append(a) or bad)
    good = result(0, {key: {"AP": 0.9, "LA": 0.8} for key in tissue.excess})
    bad = result(40, {key: {"AP": 0.1, "LA": 0.1} for key in tissue.excess})
    levels, points = doubted(straight)
    certain = {key: {"doubts": ["at the border"]} for key in levels}
    found, left = settle_names(scene, Found(good, bad), certain, points, Config().refinement)
    assert (found, left, calls) == (Found(good, bad), {key: [] for key in levels}, [])
    _, left = settle_names(scene, Found(good, bad), levels, points, Config().refinement)
    assert len(calls) == 2
    assert left == {key: [] for key in levels}


def test_a_level_torn_from_those_that_agree_more_keeps_its_doubts(straight, monkeypatch):
    """The spine bears the right names; what one level was found to be is another matter."""
    tissue, scene = straight
    levels, points = doubted(straight)
    found = result(0, {k: {"AP": 0.9, "LA": 0.3 if k == "L1" else 0.8} for k in tissue.excess})
    bad = result(40, {key: {"AP": 0.1, "LA": 0.1} for key in tissue.excess})
    monkeypatch.setattr("radgs.registration.names.refine", lambda *a, **k: bad)
    for by, remain in ((5.0, []), (40.0, ["another name"])):
        there = replace(found, world_from_ct=found.world_from_ct | {"L1": move(by, 0, 0)})
        _, left = settle_names(scene, Found(there, bad), levels, points, Config().refinement)
        assert left == {key: remain if key == "L1" else [] for key in levels}


def test_names_are_certain_by_how_much_more_they_hold_and_not_where_nothing_agrees(straight, monkeypatch):
    tissue, scene = straight
    levels, points = doubted(straight)
    for ours, theirs, certain in ((0.6, 0.3, True), (0.6, 0.5, False), (0.35, 0.05, False)):
        found, other = (result(x, {k: {"AP": r, "LA": r} for k in tissue.excess}) for x, r in ((0, ours), (40, theirs)))
        monkeypatch.setattr("radgs.registration.names.refine", lambda *a, other=other, **k: other)
        _, left = settle_names(scene, Found(found, found), levels, points, Config().refinement)
        assert left == {key: [] if certain else ["another name"] for key in levels}


def test_names_are_not_taken_from_what_agrees_with_nothing(straight, monkeypatch):
    """In noise a level too low may agree by 0.12 where the right one agrees by 0.1."""
    tissue, scene = straight
    levels, points = doubted(straight)
    found = result(0, {key: {"AP": 0.1, "LA": 0.1} for key in tissue.excess})
    for agrees, taken in ((0.12, False), (0.5, True)):
        other = result(40, {key: {"AP": agrees, "LA": agrees} for key in tissue.excess})
        monkeypatch.setattr("radgs.registration.names.refine", lambda *a, other=other, **k: other)
        monkeypatch.setattr("radgs.registration.names.place_neighbours", lambda *a: None)
        settled, left = settle_names(scene, Found(found, found), levels, points, Config().refinement)
        assert (settled.best.world_from_ct["L1"].translation[0] == 40) == taken
        assert left == {key: [] if taken else ["another name"] for key in levels}


def test_other_names_begin_from_the_bent_spine_that_the_detector_saw(straight, monkeypatch):
    """Each level takes the place of its neighbour, as that one lies, not where a straight spine would have it."""
    tissue, scene = straight
    starts = []
    bad = result(40, {key: {"AP": 0.1, "LA": 0.1} for key in tissue.excess})
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


@pytest.mark.parametrize(("clear", "taken"), [(0.3, True), (0.9, False)])
def test_the_clear_view_tells_the_name_where_the_other_is_dark(straight, monkeypatch, clear, taken):
    """By chance the dark view may agree a little more one level off; the least of both views says nothing then."""
    tissue, scene = straight
    levels, points = doubted(straight)
    found = result(0, {key: {"AP": clear, "LA": 0.30} for key in tissue.excess})
    other = result(40, {key: {"AP": 0.6, "LA": 0.33} for key in tissue.excess})
    monkeypatch.setattr("radgs.registration.names.refine", lambda *a, **k: other)
    monkeypatch.setattr("radgs.registration.names.place_neighbours", lambda *a: None)
    settled, left = settle_names(scene, Found(found, found), levels, points, Config().refinement)
    assert (settled.best.world_from_ct["L1"].translation[0] == 40) == taken
    assert left == {key: [] for key in levels}


@pytest.mark.parametrize("returns", [True, False])
def test_certain_names_are_compared_with_what_came_back_and_not_with_wrong_ones(straight, monkeypatch, returns):
    """A detector a level off: what was found elsewhere bears other names, and its spine moved by a level comes back."""
    tissue, scene = straight
    levels, points = doubted(straight)
    good, bad = ({key: {"AP": r, "LA": r} for key in tissue.excess} for r in (0.7, 0.2))
    found = Found(result(0, good), result(40, bad))
    ended = iter([result(0.25, good) if returns else result(45, bad), result(-40, bad)])
    monkeypatch.setattr("radgs.registration.names.refine", lambda *a, **k: next(ended))
    settled, left = settle_names(scene, found, levels, points, Config().refinement)
    assert left == {key: [] for key in levels}
    assert settled.best == found.best
    for level in levels:
        assert settled.apart(level, points[level]) == (pytest.approx(0.25) if returns else None)


def test_after_a_move_the_start_that_led_there_is_not_tried_again(straight, monkeypatch):
    """The result would come back to itself, and seem to be confirmed by another start."""
    tissue, scene = straight
    levels, points = doubted(straight)
    starts = []

    def refined(_, start, *__, **___):
        starts.append(start["L1"].matrix)
        moved = len(starts) in (2, 6)  # from the detector's spine, first a level down, then another
        x, r = (40.0 * (1 + (len(starts) > 4)), 0.4 + 0.2 * (len(starts) > 4)) if moved else (-200.0, 0.1)
        return result(x, {key: {"AP": r, "LA": r} for key in tissue.excess})

    monkeypatch.setattr("radgs.registration.names.refine", refined)
    monkeypatch.setattr("radgs.registration.names.place_neighbours", lambda *a: None)
    found = result(0, {key: {"AP": 0.2, "LA": 0.2} for key in tissue.excess})
    laid = {key: RigidTransform.about(np.zeros(3), [0.0, 0.1 * i, 0.0]) for i, key in enumerate(("T12", "L1", "L2"))}
    settled, _ = settle_names(scene, Found(found, found), levels, points, Config().refinement, laid)
    assert settled.best.world_from_ct["L1"].translation[0] == 80
    assert len(starts) > 8
    for led, after in ((1, starts[4:8]), (5, starts[8:])):
        assert not any(np.allclose(starts[led], start) for start in after)
