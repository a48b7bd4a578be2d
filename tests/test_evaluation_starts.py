"""Standardised starts against their own definition, measured without the code that drew them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from radgs.errors import RadgsError
from radgs.evaluation import (
    CaptureRange,
    capture_range,
    publication_starts,
    standardised_starts,
    target_registration_error,
)
from radgs.evaluation.starts import standard_body
from radgs.geometry import RigidTransform

TRUTH = RigidTransform.from_rotation_translation(Rotation.from_rotvec([0.3, -0.8, 0.2]).as_matrix(), [40, -90, 700])
CENTRE = np.array([12.0, -30, 205])


def test_every_millimetre_up_to_twenty_has_ten_starts_of_the_error_they_say():
    starts = standardised_starts(seed=5)
    errors = [target_registration_error(s.pose(TRUTH, CENTRE), TRUTH, standard_body() + CENTRE) for s in starts]
    np.testing.assert_allclose(errors, [s.mtre_mm for s in starts], atol=1e-6)
    np.testing.assert_array_equal(np.bincount(np.floor(errors).astype(int)), np.full(20, 10))


def test_a_method_that_always_succeeds_is_proven_up_to_the_last_bin_and_one_that_fails_far_off_to_there():
    errors = np.array([s.mtre_mm for s in standardised_starts(seed=5)])
    assert capture_range(errors, errors < 100) == CaptureRange(20.0, "starts")
    assert capture_range(errors, errors < 13) == CaptureRange(13.0, "success")


def test_a_start_turns_about_the_centre_and_shifts_along_the_cts_axes():
    start = standardised_starts(seed=5)[150]
    there, truth = start.pose(TRUTH, CENTRE), TRUTH
    np.testing.assert_allclose(there.apply(CENTRE), truth.apply(CENTRE + start.shift), atol=1e-9)
    turned = truth.inverse().rotation @ there.rotation
    np.testing.assert_allclose(Rotation.from_matrix(turned).as_rotvec(), start.turn, atol=1e-9)


def test_turns_and_shifts_share_the_error_without_preference():
    starts = standardised_starts(seed=2, starts_a_bin=40, up_to_mm=10)
    radius = np.linalg.norm(standard_body(), axis=1).mean()
    turns, shifts = (np.array([getattr(s, k) for s in starts]) for k in ("turn", "shift"))
    assert 0.8 < np.linalg.norm(turns * radius) / np.linalg.norm(shifts) < 1.25
    assert np.abs(np.mean(shifts / np.linalg.norm(shifts, axis=1, keepdims=True), axis=0)).max() < 0.1


def test_for_a_vertebra_of_its_own_the_same_directions_are_scaled_until_its_own_error_fills_the_bins():
    own = np.random.default_rng(0).normal([4, -3, 2], [20, 9, 14], (200, 3))
    for start, standard in zip(standardised_starts(5, body=own), standardised_starts(5), strict=True):
        error = target_registration_error(start.pose(TRUTH, CENTRE), TRUTH, own + CENTRE)
        assert error == pytest.approx(standard.mtre_mm, abs=1e-6)
        cosine = start.shift @ standard.shift / np.linalg.norm(start.shift) / np.linalg.norm(standard.shift)
        assert cosine == pytest.approx(1, abs=1e-9)


def test_far_starts_do_not_turn_further_than_an_eighth_of_a_circle():
    starts = standardised_starts(seed=3, up_to_mm=60, bin_mm=5, starts_a_bin=20)
    assert max(np.linalg.norm(s.turn) for s in starts) <= np.pi / 4 + 1e-9
    assert starts[-1].mtre_mm > 55


def test_the_same_seed_gives_the_same_starts_and_another_does_not():
    one, again, other = (standardised_starts(seed=s) for s in (1, 1, 2))
    assert all((a.turn == b.turn).all() and (a.shift == b.shift).all() for a, b in zip(one, again, strict=True))
    assert not (one[0].shift == other[0].shift).all()


def test_the_publications_starts_fill_their_box():
    starts = publication_starts(seed=1, count=4000)
    turns = np.degrees([s.turn for s in starts])
    shifts = np.array([s.shift for s in starts])
    for values, limit in ((turns, 20), (shifts, 50)):
        assert np.abs(values).max() <= limit
        np.testing.assert_allclose(values.std(axis=0), limit / np.sqrt(3), rtol=0.05)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.05 * limit)
    points = standard_body() + CENTRE
    error = target_registration_error(starts[7].pose(TRUTH, CENTRE), TRUTH, points)
    assert error == pytest.approx(starts[7].mtre_mm, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"up_to_mm": 0}, {"bin_mm": 0}, {"starts_a_bin": 0}, {"bin_mm": -1}])
def test_no_bins_or_no_starts_are_refused(wrong):
    with pytest.raises(RadgsError, match="at least one"):
        standardised_starts(1, **wrong)
    with pytest.raises(RadgsError, match="at least one"):
        publication_starts(1, 0)
