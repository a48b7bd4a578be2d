"""Files are whole or absent; JSON and poses are refused with the reason."""

import json
import subprocess
import sys

import numpy as np
import pytest

from radgs.errors import GeometryError, RadgsError
from radgs.geometry import RigidTransform
from radgs.images import atomic_path, read_json, read_transforms, write_json, write_transforms


def write_half(path):
    with atomic_path(path) as part:
        part.write_text("half")
        raise ZeroDivisionError


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "deep" / "out.txt")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_write_that_fails_keeps_what_was_there(tmp_path):
    (tmp_path / "out.txt").write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "out.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "old"


def test_nothing_has_the_name_until_the_end_and_the_ending_is_kept(tmp_path):
    with atomic_path(tmp_path / "ct.nii.gz") as part:
        part.write_text("whole")
        assert not (tmp_path / "ct.nii.gz").exists()
        assert part.name.endswith("ct.nii.gz")  # writers choose the format by it
    assert [p.name for p in tmp_path.iterdir()] == ["ct.nii.gz"]
    assert (tmp_path / "ct.nii.gz").stat().st_mode & 0o777 == 0o644


def test_json_with_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"mtre_mm": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", b"\xff\xfe\x00"])
def test_broken_json_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RadgsError, match=r"a\.json: not valid JSON") as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_poses_survive_the_file_with_what_stands_beside_them(tmp_path):
    pose = RigidTransform.from_rotation_translation([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1.25, -2, 1 / 3])
    write_transforms(tmp_path / "p.json", {"L1": pose, "T12": RigidTransform.identity()}, seconds=3.5)
    poses = read_transforms(tmp_path / "p.json")
    np.testing.assert_array_equal(poses["L1"].matrix, pose.matrix)
    assert list(poses) == ["L1", "T12"]
    assert json.loads((tmp_path / "p.json").read_text())["seconds"] == 3.5


def test_the_short_form_of_a_truth_is_read(tmp_path):
    write_json(tmp_path / "t.json", {"L1": np.eye(4).tolist()})
    np.testing.assert_array_equal(read_transforms(tmp_path / "t.json")["L1"].matrix, np.eye(4))


@pytest.mark.parametrize(
    "matrix",
    [np.diag([2.0, 2, 2, 1]).tolist(), np.diag([1.0, 1, -1, 1]).tolist(), np.eye(3).tolist(), [[1, 2], [3]], "x", None],
)
def test_a_pose_that_is_not_rigid_names_file_and_level(tmp_path, matrix):
    write_json(tmp_path / "t.json", {"world_from_ct": {"L1": matrix}})
    with pytest.raises(GeometryError, match=r"t\.json: world_from_ct of L1") as error:
        read_transforms(tmp_path / "t.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[], {}, {"world_from_ct": []}, 3])
def test_a_file_without_poses_is_refused(tmp_path, content):
    write_json(tmp_path / "t.json", content)
    with pytest.raises(RadgsError, match=r"t\.json"):
        read_transforms(tmp_path / "t.json")


def test_a_full_disk_is_one_line_and_leaves_no_half_image(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from pathlib import Path
from radgs.errors import RadgsError
from radgs.images import Volume, write_json, write_volume
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
volume = Volume.axis_parallel(np.random.default_rng(0).random((40, 40, 40), np.float32), 1.0, (0, 0, 0))
for write in (lambda: write_volume("ct.nii.gz", volume), lambda: write_json("a.json", list(range(9999)))):
    try:
        write()
    except RadgsError as error:
        print(error)
print(sorted(p.name for p in Path().iterdir()))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    image, numbers, left = run.stdout.splitlines()
    assert image.startswith("ct.nii.gz: cannot be written")
    assert numbers.startswith("a.json: cannot be written")
    assert left == "[]"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(RadgsError, match=r"x\.json: cannot be written"):
        write_json(tmp_path / "results" / "x.json", {})
