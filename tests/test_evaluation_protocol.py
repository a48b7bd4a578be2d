"""The protocol on results written by hand, so that every number is known before the code runs."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from radgs.config import load_config
from radgs.errors import AnatomyError, GeometryError, RadgsError
from radgs.evaluation import EvaluatedShot, evaluate_registrations
from radgs.evaluation.protocol import averaged_over_voxels
from radgs.geometry import RigidTransform
from radgs.images import Volume, write_json, write_transforms, write_volume

LEVELS = ["L1", "L2", "L3", "L4"]
CONFIG = load_config({"evaluation": {"points": 50}})
QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
TRUTH = RigidTransform.from_rotation_translation(QUARTER, [7, -3, 12])


def off_by(mm: float) -> RigidTransform:
    """A pose whose mTRE is ``mm`` whatever the points."""
    return RigidTransform.from_rotation_translation(np.eye(3), [0.6 * mm, 0, -0.8 * mm]) @ TRUTH


def write_result(folder, level, detected, regm, refined, verdict, seconds=2.0):
    steps = {"detected": off_by(detected), "regm": off_by(regm), "refined": off_by(refined)}
    write_transforms(
        folder / level / "world_from_ct.json",
        {level: off_by(refined)},
        steps={k: v.matrix.tolist() for k, v in steps.items()},
        seconds=seconds,
    )
    write_json(folder / level / "verdict.json", {"verdict": verdict, "probability": 0.9, "reasons": [], "evidence": {}})


@pytest.fixture
def shot(tmp_path, ap_camera, la_camera):
    """L1 good, L2 wrong yet accepted, L3 rejected without a pose, L4 without a folder; T5 no target."""
    folder = tmp_path / "patients" / "p1" / "s1"
    labels = np.zeros((40, 20, 20), np.uint8)
    for label, z in {20: 30, 21: 20, 22: 10, 23: 0}.items():
        labels[z : z + 8, 5:15, 5:15] = label
    write_volume(tmp_path / "patients" / "p1" / "vertebrae.nii.gz", Volume.axis_parallel(labels, 1.0, (0, 0, 0)))
    views = {
        name: {"size": [c.width, c.height], "K": c.K.tolist(), "camera_from_world": c.camera_from_world.matrix.tolist()}
        for name, c in {"AP": ap_camera, "LA": la_camera}.items()
    }
    write_json(folder / "cameras.json", {"views": views})
    write_transforms(tmp_path / "truth.json", dict.fromkeys(["L1", "L2", "L3", "L4", "T5"], TRUTH))
    write_result(folder, "L1", 8.0, 3.0, 0.5, "accepted", seconds=2.0)
    write_result(folder, "L2", 4.0, 6.0, 3.0, "accepted", seconds=4.0)
    write_json(folder / "L3" / "verdict.json", {"verdict": "rejected", "probability": 0.0, "reasons": ["not seen"]})
    patient = tmp_path / "patients" / "p1"
    return EvaluatedShot(
        "p1", "s1", folder, tmp_path / "truth.json", patient / "vertebrae.nii.gz", patient / "ct.nii.gz", LEVELS
    )


def evaluate(shot, tmp_path):
    evaluate_registrations([shot], tmp_path / "e" / "r.csv", tmp_path / "e" / "summary.json", CONFIG)
    return pd.read_csv(tmp_path / "e" / "r.csv"), json.loads((tmp_path / "e" / "summary.json").read_text())


def test_each_target_is_a_row_with_the_errors_it_was_given(shot, tmp_path):
    table, _ = evaluate(shot, tmp_path)
    assert table.columns.tolist() == [
        "patient", "shot", "level", "unregistered_mtre_mm", "start_mtre_mm", "regm_mtre_mm", "mtre_mm",
        "verdict", "probability", "seconds", "labels", "excluded",
    ]  # fmt: skip
    assert table["level"].tolist() == ["L1", "L2", "L3", "L4"]  # T5 has a truth, but nobody asked for it
    np.testing.assert_allclose(table["start_mtre_mm"], [8, 4, np.nan, np.nan], atol=1e-5)
    np.testing.assert_allclose(table["regm_mtre_mm"], [3, 6, np.nan, np.nan], atol=1e-5)
    np.testing.assert_allclose(table["mtre_mm"], [0.5, 3, np.nan, np.nan], atol=1e-5)
    assert table["verdict"].tolist() == ["accepted", "accepted", "rejected", "rejected"]


def test_a_level_without_a_pose_is_a_failure_and_a_wrong_accepted_one_a_false_accept(shot, tmp_path):
    _, summary = evaluate(shot, tmp_path)
    assert summary["n"] == 4
    assert summary["success_2mm"]["value"] == 0.25
    assert summary["success_1mm"]["value"] == 0.25
    assert summary["success_2mm"]["low"] < 0.25 < summary["success_2mm"]["high"]
    assert summary["mtre_mm"]["n"] == 2
    assert summary["mtre_mm"]["median"] == pytest.approx(1.75)
    assert summary["start_mtre_mm"]["mean"] == pytest.approx(6)
    assert summary["regm_mtre_mm"]["median"] == pytest.approx(4.5)
    assert summary["accepted"] == {"count": 2, "fraction": 0.5}
    assert summary["accepted_mtre_mm"]["mean"] == pytest.approx(1.75)
    assert summary["false_accepts"] == 1
    assert summary["better_than_start_regm"]["value"] == 0.25
    assert summary["seconds_per_registration"] == pytest.approx(3)
    assert summary["xray_only"] is None
    assert summary["ct_assisted"] is None


def test_a_level_that_the_ct_cuts_or_less_than_two_images_show_is_no_registration(shot, tmp_path):
    verdict = {"verdict": "rejected", "probability": 0.0, "reasons": [], "labels": "cut"}
    write_json(shot.folder / "L3" / "verdict.json", verdict)
    away = RigidTransform.from_rotation_translation(np.eye(3), [0, 0, 2000])
    write_transforms(shot.truth, {**dict.fromkeys(["L1", "L2", "L3"], TRUTH), "L4": away @ TRUTH})
    table, summary = evaluate(shot, tmp_path)
    assert table["excluded"].fillna("").tolist() == ["", "", "cut", "outside"]
    assert (summary["n"], summary["not_registered"]) == (2, {"cut": 1, "outside": 1})
    assert summary["success_2mm"]["value"] == 0.5
    assert summary["accepted"] == {"count": 2, "fraction": 1.0}
    assert summary["unregistered_mtre_mm"]["n"] == 2


def test_a_level_that_two_images_show_and_nobody_found_stays_a_failure(shot, tmp_path):
    table, summary = evaluate(shot, tmp_path)
    assert table["excluded"].isna().all()
    assert summary["not_registered"] == {"cut": 0, "outside": 0}
    assert summary["success_2mm"]["value"] == 0.25


def test_a_pose_counts_wherever_its_vertebra_is(shot, tmp_path):
    away = RigidTransform.from_rotation_translation(np.eye(3), [0, 0, 2000])
    write_transforms(shot.truth, {"L1": away @ TRUTH})
    table, summary = evaluate(shot, tmp_path)
    assert table["excluded"].isna().all()
    assert (summary["n"], summary["success_2mm"]["value"]) == (1, 0.0)


def test_when_nothing_could_be_registered_the_summary_says_only_that(shot, tmp_path):
    away = RigidTransform.from_rotation_translation(np.eye(3), [0, 0, 2000])
    write_transforms(shot.truth, {"L4": away @ TRUTH})
    assert evaluate(shot, tmp_path)[1] == {
        "n": 0,
        "not_registered": {"cut": 0, "outside": 1},
        "xray_only": None,
        "ct_assisted": None,
    }


def test_rejecting_the_wrong_one_ends_the_false_accept(shot, tmp_path):
    write_result(shot.folder, "L2", 4.0, 6.0, 3.0, "review")
    _, summary = evaluate(shot, tmp_path)
    assert summary["false_accepts"] == 0
    assert summary["accepted_mtre_mm"]["p95"] == pytest.approx(0.5)


def test_unregistered_is_the_ct_with_its_centroid_at_the_worlds_origin(shot, tmp_path):
    """With a truth that only moves, every point is off by the truth's shift plus the centroid."""
    write_transforms(shot.truth, {"L1": RigidTransform.from_rotation_translation(np.eye(3), [1, 2, 3])})
    table, _ = evaluate(shot, tmp_path)
    centroid = np.array([9.5, 9.5, (33.5 + 23.5 + 13.5 + 3.5) / 4])
    assert table["unregistered_mtre_mm"][0] == pytest.approx(np.linalg.norm(centroid + np.array([1, 2, 3])), abs=1e-4)


def _inside(points: np.ndarray) -> np.ndarray:
    """A bone of 0.02 / mm in the CT, nowhere symmetric: a box with a process to one side. LPS, mm."""
    x, y, z = np.moveaxis(points, -1, 0)
    box = (x > 0) & (x < 12) & (y > 0) & (y < 18) & (z > 25) & (z < 40)
    process = (x > 2) & (x < 6) & (y >= 18) & (y < 30) & (z > 30) & (z < 36)
    return box | process


def _sampled(grid: Volume, ct_from_grid: RigidTransform) -> Volume:
    index = np.moveaxis(np.indices(grid.array.shape)[::-1], 0, -1)
    return grid.with_array((0.02 * _inside(ct_from_grid.apply(grid.points(index)))).astype(np.float32))


def test_reconstructions_are_measured_where_the_truth_puts_the_bone(shot, tmp_path):
    crop = Volume.axis_parallel(np.zeros((48, 48, 48), np.float32), 1.0, (-17.5, -13.5, 8.5))
    write_volume(tmp_path / "patients" / "p1" / "crops" / "L1_excess.nii.gz", _sampled(crop, RigidTransform.identity()))
    oblique = np.eye(4)
    oblique[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    oblique[:3, 3] = TRUTH.apply([6, 12, 32]) - oblique[:3, :3] @ np.full(3, 23.5)
    grid = Volume(np.zeros((48, 48, 48), np.float32), oblique)
    write_volume(shot.folder / "L1" / "reconstruction_xray_only.nii.gz", _sampled(grid, TRUTH.inverse()))
    write_volume(shot.folder / "L1" / "reconstruction_ct_assisted.nii.gz", _sampled(grid, off_by(10).inverse()))

    _, summary = evaluate(shot, tmp_path)

    assert summary["xray_only"]["n"] == 1
    assert summary["xray_only"]["dice"] > 0.93  # the same but for interpolation at the surface
    assert summary["xray_only"]["asd_mm"] < 0.4
    assert summary["ct_assisted"]["dice"] < 0.6  # the same bone, 10 mm away
    assert summary["ct_assisted"]["psnr_db"] < summary["xray_only"]["psnr_db"] - 3


def test_the_truth_of_a_coarse_grid_is_the_mean_over_its_voxels():
    """A turned linear field averages to its value at each centre; a thin sheet to its share of the voxel."""
    world_from_ct = RigidTransform.from_rotation_translation(QUARTER, [0, 0, 0])  # x_ct becomes y_world
    x = np.broadcast_to(np.arange(40, dtype=np.float32), (40, 40, 40)).copy()
    fine = Volume.axis_parallel(x, 1.0, (0, 0, 0))
    grid = Volume.axis_parallel(np.zeros((3, 4, 5), np.float32), 4.0, (-30, 10, 10))
    np.testing.assert_allclose(
        averaged_over_voxels(fine, grid, world_from_ct).array[0, :, 0], [10, 14, 18, 22], atol=1e-4
    )
    sheet = fine.with_array((x == 15).astype(np.float32))  # from 14.5 to 15.5; the second voxel is 12 to 16
    coarse = averaged_over_voxels(sheet, grid, world_from_ct).array[0, :, 0]
    np.testing.assert_allclose(coarse, [0, 0.25, 0, 0], atol=0.01)


def test_shots_and_patients_are_all_counted(shot, tmp_path):
    evaluate_registrations([shot, shot], tmp_path / "r.csv", tmp_path / "s.json", CONFIG)
    assert json.loads((tmp_path / "s.json").read_text())["n"] == 8


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (lambda s: s.truth.unlink(), RadgsError, "no such file"),
        (lambda s: write_transforms(s.truth, {"L6": TRUTH, "L1": TRUTH}), RadgsError, None),
        (lambda s: write_json(s.folder / "L1" / "verdict.json", {"verdict": "fine"}), RadgsError, "verdict must be"),
        (lambda s: (s.folder / "cameras.json").unlink(), RadgsError, "cameras.json"),
        (
            lambda s: write_json(s.folder / "L1" / "world_from_ct.json", {"steps": {"regm": [[1]]}}),
            GeometryError,
            r"world_from_ct\.json: steps",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_one_line_and_nothing_is_written(shot, tmp_path, damage, kind, message):
    damage(shot)
    if message is None:  # L6 is no target: the rest is evaluated
        assert evaluate(shot, tmp_path)[1]["n"] == 1
        return
    with pytest.raises(kind, match=message) as error:
        evaluate(shot, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "e").exists()


def test_a_truth_for_a_level_that_the_ct_lacks_is_refused(shot, tmp_path):
    write_transforms(shot.truth, {"L5": TRUTH})
    with pytest.raises(AnatomyError, match=r"vertebrae\.nii\.gz: L5 is not in it"):
        evaluate(replace(shot, levels=["L1", "L5"]), tmp_path)


def test_nothing_to_evaluate_is_said(shot, tmp_path):
    write_transforms(shot.truth, {"T5": TRUTH})
    with pytest.raises(RadgsError, match="nothing to evaluate"):
        evaluate(shot, tmp_path)


def test_without_any_truth_the_table_is_empty_and_the_summary_says_so(tmp_path):
    evaluate_registrations([], tmp_path / "r.csv", tmp_path / "s.json", load_config({}))
    assert json.loads((tmp_path / "s.json").read_text()) == {"n": 0}
    table = pd.read_csv(tmp_path / "r.csv")
    assert len(table) == 0
    assert {"patient", "shot", "level", "mtre_mm", "verdict", "labels"} <= set(table.columns)
