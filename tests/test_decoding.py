"""Naming the vertebrae of two views together, on spines whose names are known."""

import numpy as np
import pytest

from radgs.anatomy.decoding import Candidate, decode
from radgs.errors import AnatomyError, GeometryError

LEVELS = ["T10", "T11", "T12", "L1", "L2", "L3"]
SPACING = {"T10": 0.0, "T11": 24, "T12": 49, "L1": 76, "L2": 105, "L3": 136}
CENTRES = {level: np.array([0.1 * down, 0.05 * down, -down]) for level, down in SPACING.items()}
SEEN = ["T11", "T12", "L1", "L2"]


@pytest.fixture
def cameras(ap_camera, la_camera):
    return {"AP": ap_camera, "LA": la_camera}


def scores(level, certainty=0.9):
    found = np.full(len(LEVELS), 0.02)
    found[LEVELS.index(level)] = certainty
    return found


def spine(cameras, levels=SEEN, said=scores, moved=(0, 0, 70)):
    """What a good detector would say of vertebrae at their CT's distances."""
    boxes = {}
    for view, camera in cameras.items():
        boxes[view] = []
        for level in levels:
            u, v = camera.project(CENTRES[level] + np.array(moved))
            boxes[view].append(Candidate((u - 60, v - 40, u + 60, v + 40), said(level)))
    return boxes


def names(found):
    assert len({tuple(sorted(boxes)) for boxes in found.boxes.values()}) == 1
    return sorted(next(iter(found.boxes.values())), key=LEVELS.index)


def test_a_clear_answer_is_taken(cameras):
    given = spine(cameras)
    found = decode(cameras, given, LEVELS, CENTRES)
    assert names(found) == SEEN
    for view in cameras:
        assert [found.boxes[view][level].edges for level in SEEN] == [one.edges for one in given[view]]
    assert min(found.margins.values()) > 3
    assert found.shift_margin > 3


def test_a_vertebra_named_wrongly_in_both_views_is_corrected_by_its_neighbours(cameras):
    def said(level):
        return scores("L1", 0.6) + 0.3 * scores("T12") if level == "T12" else scores(level)

    found = decode(cameras, spine(cameras, said=said), LEVELS, CENTRES)
    assert names(found) == SEEN
    boxes = found.boxes["AP"]
    assert boxes["T11"].edges[1] < boxes["T12"].edges[1] < boxes["L1"].edges[1]


def test_a_vertebra_missed_in_one_view_is_left_out_and_the_others_keep_their_names(cameras):
    given = spine(cameras)
    del given["LA"][1]
    assert names(decode(cameras, given, LEVELS, CENTRES)) == ["T11", "L1", "L2"]


def test_something_beside_the_spine_gets_no_name(cameras):
    given = spine(cameras)
    for view in cameras:
        u0, v0, u1, v1 = given[view][2].edges
        given[view].append(Candidate((u0 + 300, v0, u1 + 300, v1), scores("L3", 0.5)))
    assert names(decode(cameras, given, LEVELS, CENTRES)) == SEEN


def test_views_that_contradict_each_other_are_not_paired(cameras):
    """The lateral view is moved along the spine by half a vertebra: no rays meet."""
    given = spine(cameras)
    shift = 45.0
    given["LA"] = [
        Candidate((a, b + shift, c, d + shift), one.scores) for one in given["LA"] for a, b, c, d in [one.edges]
    ]
    assert not decode(cameras, given, LEVELS, CENTRES).margins


def test_a_spine_that_could_be_one_level_off_says_so(cameras):
    """The detector is torn between each level and the next one; distances alone do not decide."""

    def said(level):
        row = LEVELS.index(level)
        found = np.full(len(LEVELS), 0.01)
        found[row], found[row + 1] = 0.5, 0.45
        return found

    torn = decode(cameras, spine(cameras, said=said), LEVELS, CENTRES)
    assert torn.shift_margin < 1 < decode(cameras, spine(cameras), LEVELS, CENTRES).shift_margin


def test_distances_break_a_tie_where_they_can(cameras):
    """T10 is 24 mm above T11 and L2 29 mm above L3: with one score for all, only the true names fit."""
    stretched = dict(CENTRES)
    for level in LEVELS[3:]:
        stretched[level] = CENTRES[level] + np.array([0, 0, -15.0])
    given = {
        view: [
            Candidate((u - 60, v - 40, u + 60, v + 40), np.full(len(LEVELS), 0.4))
            for level in ("T12", "L1", "L2")
            for u, v in [camera.project(stretched[level] + np.array([0, 0, 70]))]
        ]
        for view, camera in cameras.items()
    }
    assert names(decode(cameras, given, LEVELS, stretched)) == ["T12", "L1", "L2"]


def test_nothing_found_is_nothing_named(cameras):
    found = decode(cameras, {"AP": [], "LA": []}, LEVELS, CENTRES)
    assert found.boxes == {"AP": {}, "LA": {}}
    assert not found.margins
    weak = spine(cameras, said=lambda level: scores(level, 0.03))
    assert not decode(cameras, weak, LEVELS, CENTRES).margins


def test_wrong_input_is_refused(cameras, la_camera):
    given = spine(cameras)
    with pytest.raises(AnatomyError, match="one score for each of 5 levels"):
        decode(cameras, given, LEVELS[:-1], CENTRES)
    with pytest.raises(GeometryError, match="AP or PA"):
        decode({"LA": la_camera}, given, LEVELS, CENTRES)
