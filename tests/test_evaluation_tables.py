"""Tables of other programs' poses, written by hand so that every error is known before the code runs."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from radgs.config import load_config
from radgs.errors import GeometryError, RadgsError
from radgs.evaluation import EvaluatedShot, evaluate_poses, read_poses
from radgs.geometry import RigidTransform
from radgs.images import Volume, write_json, write_transforms, write_volume

CONFIG = load_config({"evaluation": {"points": 50}})
TRUTH = RigidTransform.from_rotation_translation([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], [7, -3, 12])
MATRIX = [f"m{r}{c}" for r in range(3) for c in range(4)]
VECTOR = ["rx_rad", "ry_rad", "rz_rad", "tx_mm", "ty_mm", "tz_mm"]


def off_by(mm):
    return RigidTransform.from_rotation_translation(np.eye(3), [0.6 * mm, 0, -0.8 * mm]) @ TRUTH


def as_matrix(pose):
    return dict(zip(MATRIX, pose.matrix[:3].ravel(), strict=True))


def as_vector(pose):
    numbers = [*Rotation.from_matrix(pose.rotation).as_rotvec(), *pose.translation]
    return dict(zip(VECTOR, numbers, strict=True))


def who(method, level, **more):
    return {"method": method, "patient": "p1", "shot": "s1", "level": level, **more}


@pytest.fixture
def shot(tmp_path, ap_camera, la_camera):
    """Truth of L1 to L4; our own result of L1 alone; the CT cuts L4."""
    patient = tmp_path / "patients/p1"
    labels = np.zeros((40, 20, 20), np.uint8)
    audit = {}
    for label, z in {20: 30, 21: 20, 22: 10, 23: 0}.items():
        labels[z : z + 8, 5:15, 5:15] = label
        cut = label == 23
        audit[f"L{label - 19}"] = {
            "status": "cut" if cut else "ok",
            "reasons": ["cut"] if cut else [],
            "centre_mm": [0, 0, 0],
            "volume_mm3": 800,
        }
    write_volume(patient / "vertebrae.nii.gz", Volume.axis_parallel(labels, 1.0, (0, 0, 0)))
    write_json(patient / "vertebrae.json", {"levels": audit})
    views = {
        name: {"size": [c.width, c.height], "K": c.K.tolist(), "camera_from_world": c.camera_from_world.matrix.tolist()}
        for name, c in {"AP": ap_camera, "LA": la_camera}.items()
    }
    write_json(patient / "s1/cameras.json", {"views": views})
    write_transforms(tmp_path / "truth.json", dict.fromkeys(["L1", "L2", "L3", "L4"], TRUTH))
    write_transforms(patient / "s1/L1/world_from_ct.json", {"L1": off_by(0.5)})
    levels = ["L1", "L2", "L3", "L4"]
    return EvaluatedShot(
        "p1", "s1", patient / "s1", tmp_path / "truth.json", patient / "vertebrae.nii.gz", patient / "ct.nii.gz", levels
    )


def judge(shot, tmp_path, *tables):
    paths = []
    for number, rows in enumerate(tables):
        paths.append(tmp_path / f"{number}.csv")
        pd.DataFrame(rows).to_csv(paths[-1], index=False)
    summary = evaluate_poses(paths, [shot], tmp_path / "e/poses.csv", tmp_path / "e/methods.json", CONFIG)
    assert json.loads((tmp_path / "e/methods.json").read_text()) == summary
    return pd.read_csv(tmp_path / "e/poses.csv"), summary["methods"]


def test_matrices_and_rotation_vectors_are_judged_alike_and_ours_beside_them(shot, tmp_path):
    first = [who("A", f"L{i}", **as_matrix(off_by(mm))) for i, mm in enumerate((0.5, 1.5, 3.0), start=1)]
    second = [who("B", f"L{i}", **as_vector(off_by(mm))) for i, mm in enumerate((0.5, 1.5, 3.0), start=1)]
    table, methods = judge(shot, tmp_path, first, second)
    assert list(methods) == ["A", "B", "radgs"]
    errors = [table[table["method"] == m].sort_values("level")["mtre_mm"] for m in "AB"]
    np.testing.assert_allclose(errors, [[0.5, 1.5, 3.0, np.nan]] * 2, atol=1e-5)
    assert methods["A"]["n"] == 3  # the CT cuts L4
    assert methods["A"]["mtre_mm"]["median"] == pytest.approx(1.5)
    assert methods["A"]["success_2mm"]["value"] == pytest.approx(2 / 3)
    assert methods["A"]["success_1mm"]["value"] == pytest.approx(1 / 3)
    ours = table[table["method"] == "radgs"].set_index("level")
    assert ours["mtre_mm"]["L1"] == pytest.approx(0.5)
    assert methods["radgs"]["success_2mm"]["value"] == pytest.approx(1 / 3)


def test_a_target_that_a_method_leaves_out_is_a_failure_like_one_without_a_pose(shot, tmp_path):
    rows = [who("A", "L1", **as_vector(off_by(0.5))), who("A", "L2", **dict.fromkeys(VECTOR, ""))]
    table, methods = judge(shot, tmp_path, rows)
    assert (methods["A"]["n"], methods["A"]["without_pose"]) == (3, 2)
    assert methods["A"]["success_2mm"]["value"] == pytest.approx(1 / 3)
    assert table[table["method"] == "A"].set_index("level")["excluded"].to_dict()["L4"] == "cut"


def test_starts_give_a_capture_range(shot, tmp_path):
    """Eleven runs a bin of each level: from below 2 mm all succeed, from 2 to 3 mm half of them."""
    rows = [
        who("A", level, run=f"{k}-{i}", start_mtre_mm=k + 0.5, seconds=2, **as_vector(off_by(wrong)))
        for level in ("L1", "L2", "L3")
        for k in range(3)
        for i in range(10)
        for wrong in [4.0 if k == 2 and i % 2 else 0.3]
    ]
    _, methods = judge(shot, tmp_path, rows)
    assert methods["A"]["n"] == 90
    assert methods["A"]["capture_range"] == {"mm": 2.0, "ended_by": "success"}
    assert methods["A"]["start_mtre_mm"]["median"] == 1.5
    assert methods["A"]["seconds"]["mean"] == 2


POSE = as_vector(TRUTH)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([who("A", "L5", **POSE)], "line 2: p1 s1 L5 has no truth"),
        ([who("A", "L1", **POSE), who("A", "L1", **POSE)], "line 3: A has p1 s1 L1 twice"),
        ([who("radgs", "L1", **POSE)], "name of our own poses"),
        ([who("A", "L1", **{**POSE, "tx_mm": "far"})], "tx_mm is 'far', not a number"),
        ([who("A", "L1", **{**POSE, "tx_mm": ""})], "six numbers are missing"),
        ([who("A", "L1", **{**as_matrix(TRUTH), "m00": 2.0})], "line 2: the 3x3 part is not a rotation"),
        ([who("A", "", **POSE)], "line 2: level is empty"),
        ([{"method": "A", "level": "L1", **POSE}], "its columns must be method, patient, shot, level"),
        ([who("A", "L1", **POSE, tz_m=1)], "tz_m is none of them"),
    ],
)
def test_what_cannot_be_judged_is_one_line_and_nothing_is_written(shot, tmp_path, rows, message):
    with pytest.raises((RadgsError, GeometryError), match=message) as error:
        judge(shot, tmp_path, rows)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "e").exists()


def test_files_that_are_no_tables_are_named(tmp_path):
    for content, message in (
        (None, "no such file"),
        ("", "cannot be read"),
        ("a,b\n1,2,3,4\n", "absent|columns|CSV"),
        (",".join(who("A", "L1", **POSE)) + "\n", "no line below"),
    ):
        if content is not None:
            (tmp_path / "t.csv").write_text(content)
        with pytest.raises(RadgsError, match=message):
            read_poses(tmp_path / "t.csv")
