"""Several refinements of one shot: which is the best, what confirms it, what convinces."""

from dataclasses import replace

import numpy as np
import pytest

from radgs.config import Config
from radgs.registration.attempts import Found, best_of, convincing, origin_of
from radgs.registration.covariance import PoseCovariance
from tests.phantoms import attempt, move, result


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
