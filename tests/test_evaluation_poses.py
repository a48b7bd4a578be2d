"""Errors of poses and their statistics, against answers known by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radgs.errors import AnatomyError
from radgs.evaluation import (
    CaptureRange,
    capture_range,
    success_rate,
    summarize,
    target_points,
    target_registration_error,
)
from radgs.geometry import RigidTransform
from radgs.images import Volume


def shifted(*mm) -> RigidTransform:
    return RigidTransform.from_rotation_translation(np.eye(3), mm)


@pytest.fixture
def mask() -> Volume:
    array = np.zeros((30, 20, 10), np.uint8)
    array[5:25, 4:16, 2:8] = 1  # 1440 voxels
    return Volume.axis_parallel(array, (2, 1, 3), (100, -50, 0))


def test_points_are_voxel_centres_inside_the_mask_and_the_same_every_time(mask):
    points = target_points(mask)
    assert points.shape == (1000, 3)
    index = (points - [100, -50, 0]) / [2, 1, 3]
    np.testing.assert_allclose(index, np.rint(index), atol=1e-9)
    assert mask.array[tuple(np.rint(index).astype(int)[:, ::-1].T)].all()
    assert len(np.unique(points, axis=0)) == 1000
    np.testing.assert_array_equal(points, target_points(mask))
    assert not np.array_equal(points, target_points(mask, seed=1))


def test_points_spread_over_the_whole_mask(mask):
    np.testing.assert_allclose(target_points(mask).mean(axis=0), [109, -40.5, 43.5], atol=1.5)


def test_a_small_mask_gives_all_its_voxels_and_an_empty_one_is_refused(mask):
    assert len(target_points(mask, count=5000)) == 1440
    with pytest.raises(AnatomyError, match="empty"):
        target_points(mask.with_array(np.zeros_like(mask.array)))


@given(shift=st.tuples(*[st.floats(-50, 50)] * 3))
def test_a_shift_is_an_error_of_its_length(shift):
    points = np.random.default_rng(0).normal(size=(50, 3)) * 20
    truth = RigidTransform.from_rotation_translation([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1, 2, 3])
    assert target_registration_error(shifted(*shift) @ truth, truth, points) == pytest.approx(
        math.hypot(*shift), abs=1e-9
    )


def test_a_half_turn_moves_points_by_twice_their_distance_from_the_axis():
    half_turn = RigidTransform.from_rotation_translation(np.diag([-1.0, -1, 1]), [0, 0, 0])
    points = [[3, 4, 0], [0, 1, 77], [0, 0, 5]]  # 5, 1 and 0 mm from the axis
    assert target_registration_error(half_turn, RigidTransform.identity(), points) == pytest.approx(12 / 3)


def test_success_rate_has_the_wilson_interval():
    # Wilson 95 % for 9 of 10, by the formula with z = 1.959964
    z, p, n = 1.959964, 0.9, 10
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    rate = success_rate([0.5] * 9 + [5.0], 2.0)
    assert rate["value"] == 0.9
    assert rate["low"] == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-6)
    assert rate["high"] == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-6)


def test_an_error_at_the_threshold_and_a_missing_pose_are_failures():
    assert success_rate([1.999, 2.0, float("nan"), 0.1], 2.0)["value"] == 0.5


def test_summary_leaves_out_missing_poses_and_says_how_many_it_has():
    summary = summarize([1, 2, 3, 4, 10, float("nan")])
    assert summary == {"n": 5, "median": 3, "mean": 4, "sd": pytest.approx(math.sqrt(12.5)), "p95": pytest.approx(8.8)}
    assert summarize([2.0])["sd"] == 0
    assert summarize([]) == {"n": 0, "median": None, "mean": None, "sd": None, "p95": None}


def starts(*bins: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bins of (starts, successes), one a millimetre."""
    mtre = np.concatenate([np.full(n, k + 0.5) for k, (n, _) in enumerate(bins)])
    return mtre, np.concatenate([np.arange(n) < good for n, good in bins])


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        ([(20, 20), (20, 19), (20, 18), (20, 20)], CaptureRange(2.0, "success")),  # 19/20 = 95 % holds, 90 % not
        ([(10, 10), (9, 9), (10, 10)], CaptureRange(1.0, "starts")),
        ([(10, 10), (10, 10)], CaptureRange(2.0, "starts")),
        ([(10, 9)], CaptureRange(0.0, "success")),
        ([(0, 0), (10, 10)], CaptureRange(0.0, "starts")),
    ],
)
def test_capture_range_ends_with_the_last_bin_that_is_proven(bins, expected):
    assert capture_range(*starts(*bins)) == expected


def test_capture_range_of_nothing_is_nothing():
    assert capture_range([], []) == CaptureRange(0.0, "starts")


def test_capture_range_takes_other_bins():
    mtre, success = starts((20, 20), (20, 20), (20, 0))
    assert capture_range(mtre * 2, success, bin_mm=2.0) == CaptureRange(4.0, "success")
