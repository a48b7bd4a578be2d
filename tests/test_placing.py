"""The CT's spine laid on the vertebrae found."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from radgs.anatomy.placing import Seen
from radgs.anatomy.placing import place_spine as place_poses

LEVELS = ["T9", "T10", "T11", "T12", "L1", "L2", "L3"]
CENTRES = {level: np.array([0.3 * n**2, 2.0 * n, -26.0 * n]) for n, level in enumerate(LEVELS)}
TURN = Rotation.from_rotvec(np.radians([8, -5, 10])).as_matrix()
TRUTH = {level: TURN @ centre + [5, 60, -20] for level, centre in CENTRES.items()}


def place_spine(found, levels, centres, world_from_patient):
    """Where :func:`radgs.anatomy.placing.place_spine` puts the levels' centres."""
    poses = place_poses({k: Seen(point) for k, point in found.items()}, levels, centres, world_from_patient)
    return {k: pose.apply(centres[k]) for k, pose in poses.items()}


def off(placed):
    return {level: float(np.linalg.norm(placed[level] - TRUTH[level])) for level in LEVELS}


def test_a_rigid_spine_is_found_again_and_its_missing_levels_with_it():
    found = {level: TRUTH[level] for level in ("T10", "T11", "L1", "L2")}
    error = off(place_spine(found, LEVELS, CENTRES, np.eye(3)))
    assert max(error[level] for level in found) < 0.6  # the weak pull of the axes
    assert error["T12"] < 0.6  # between
    assert max(error["T9"], error["L3"]) < 1.5  # beside


def test_one_wrong_level_hardly_moves_the_others():
    found = {level: TRUTH[level] for level in LEVELS}
    found["L1"] = TRUTH["L1"] + [0, 0, 20]
    error = off(place_spine(found, LEVELS, CENTRES, np.eye(3)))
    assert error["L1"] < 5
    assert max(error.values()) < 5


def test_errors_of_single_levels_average_out():
    rng = np.random.default_rng(0)
    noisy, raw = [], []
    for _ in range(20):
        found = {level: TRUTH[level] + rng.normal(0, 3, 3) for level in LEVELS}
        noisy += list(off(place_spine(found, LEVELS, CENTRES, np.eye(3))).values())
        raw += [float(np.linalg.norm(found[level] - TRUTH[level])) for level in LEVELS]
    assert np.mean(noisy) < 0.8 * np.mean(raw)


def test_a_single_level_is_laid_by_the_patients_axes():
    placed = place_spine({"L1": np.zeros(3)}, LEVELS, CENTRES, np.eye(3))
    assert placed["L1"] == pytest.approx([0, 0, 0], abs=1e-9)
    assert placed["L2"] == pytest.approx(CENTRES["L2"] - CENTRES["L1"], abs=1e-6)
