"""The command line: one line or one table, exit code 2 when something is wrong."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from radgs.cli import app
from radgs.config import Config
from radgs.errors import ConfigError
from radgs.images import Volume, read_ct, read_transforms, write_json, write_volume
from radgs.sheets import read_sheets
from tests.dicom_files import ct_values, save, write_series, xa_image
from tests.phantoms import block_spine

ROOT = Path(__file__).parents[1]


def radgs(*arguments, cwd=None):
    command = [sys.executable, "-c", "from radgs.cli import main; main()", *arguments]
    wide = {**os.environ, "COLUMNS": "1000"}  # where a table's lines break must not depend on how long the paths are
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=wide)


def test_a_missing_config_is_one_line_and_exit_2(tmp_path):
    done = radgs("check", "--config", str(tmp_path / "absent.yaml"))
    assert done.returncode == 2
    assert done.stderr.strip() == f"radgs: {tmp_path / 'absent.yaml'}: no such file"


def test_check_names_every_bad_file_at_once(tmp_path):
    (tmp_path / "ct.nii.gz").write_text("no")
    (tmp_path / "ap.png").write_text("no")
    (tmp_path / "patients.tsv").write_text("patient\tct\np\tct.nii.gz\n")
    (tmp_path / "xrays.tsv").write_text(
        "patient\tshot\tview\timage\tgeometry\np\ts\tAP\tap.png\tc.json\np\ts\tLA\tabsent.png\tc.json\n"
    )
    (tmp_path / "config.yaml").write_text("{patients: patients.tsv, xrays: xrays.tsv}")
    done = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    assert done.returncode == 2
    for name in ("ct.nii.gz", "ap.png", "absent.png", "c.json"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_check_reads_dicom_and_completes_it_from_cameras_json(tmp_path):
    write_series(tmp_path / "ct", ct_values())
    counts = np.random.default_rng(0).integers(100, 60000, (20, 30)).astype(np.uint16)
    save(xa_image(counts), tmp_path / "ap.dcm")
    lateral = xa_image(counts, 90, 0, ("A", "F"))
    del lateral.DistanceSourceToDetector
    save(lateral, tmp_path / "la.dcm")
    (tmp_path / "c.json").write_text('{"views": {"LA": {"source_to_detector_mm": 1200}}}')
    ct = read_ct(tmp_path / "ct")
    labels = np.zeros(ct.array.shape, np.uint8)
    labels[2:10, 5:25, 5:25] = 20
    write_volume(tmp_path / "labels.nii.gz", ct.with_array(labels))
    (tmp_path / "patients.tsv").write_text("patient\tct\tlabels\np\tct\tlabels.nii.gz\n")
    (tmp_path / "config.yaml").write_text("{patients: patients.tsv, xrays: xrays.tsv, levels: [L1]}")
    sheet = "patient\tshot\tview\tboxes\timage\tgeometry\np\ts\tAP\tb.json\tap.dcm\tap.dcm\np\ts\tLA\tb.json\tla.dcm\t"
    (tmp_path / "xrays.tsv").write_text(sheet + "c.json\n")
    write_json(tmp_path / "b.json", {"views": {view: {"L1": {"box": [3, 3, 9, 9]}} for view in ("AP", "LA")}})
    done = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "c.json").write_text('{"views": {"LA": {"source_to_detector_mm": 1200, "size": [31, 20]}}}')
    done = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    assert "[30, 20]" in done.stderr  # brackets are not swallowed as markup
    write_volume(tmp_path / "labels.nii.gz", ct.with_array(labels * 2))
    done = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    assert "are no verse numbers" in " ".join(done.stderr.split())
    (tmp_path / "config.yaml").write_text(
        "{patients: patients.tsv, xrays: xrays.tsv, levels: [L1], segmentation: {backend: totalsegmentator}}"
    )
    done = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    assert "totalseg_download_weights" in done.stderr
    (tmp_path / "xrays.tsv").write_text(sheet + "la.dcm\n")
    done = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "source_to_detector_mm" in done.stderr


def test_check_in_a_fresh_clone_passes_over_the_demos_files_only_and_counts_them(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    done = radgs("check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "27 files of the demo are made by the workflow and were not looked at" in done.stdout
    patients = tmp_path / "config/patients.tsv"
    patients.write_text(patients.read_text().replace("demo/ct.nii", "demo/cct.nii"))
    xrays = tmp_path / "config/xrays.tsv"
    xrays.write_text(xrays.read_text().replace("demo/s1/AP.png", "demo/s1/APP.png"))
    done = radgs("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "results/demo/cct.nii.gz" in done.stderr
    assert "results/demo/s1/APP.png" in done.stderr


def test_simulated_x_rays_of_a_ct_go_straight_into_the_sheets(tmp_path):
    (tmp_path / "data/mine").mkdir(parents=True)
    for name, volume in zip(("ct", "labels"), block_spine(), strict=True):
        write_volume(tmp_path / f"data/mine/{name}.nii.gz", volume)
    shutil.copy(ROOT / "tests/tiny.yaml", tmp_path / "config.yaml")
    given = ["data/mine/ct.nii.gz", "data/mine/labels.nii.gz", "--config", "config.yaml"]
    done = radgs("simulate", *given, "--levels", "L1 L2", "--shots", "2", "--out", "data/mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    patients, xrays = done.stdout.split("# for ")[1:]
    (tmp_path / "config").mkdir()
    (tmp_path / "config/patients.tsv").write_text(patients.partition("\n")[2])
    (tmp_path / "config/xrays.tsv").write_text(xrays.partition("\n")[2])
    checked = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    sheets = read_sheets(Config(patients=tmp_path / "config/patients.tsv", xrays=tmp_path / "config/xrays.tsv"))
    assert sheets[0]["mine"]["levels"] == "L1 L2"
    assert [(row["shot"], row["view"]) for row in sheets[1]] == [("s1", "AP"), ("s1", "LA"), ("s2", "AP"), ("s2", "LA")]
    assert set(read_transforms(tmp_path / "data/mine/truth/s2.json")) == {"T12", "L1", "L2"}
    first = (tmp_path / "data/mine/s1/AP.png").read_bytes()
    one_each = ["--levels", "L1", "--levels", "L2"]
    again = radgs("simulate", *given, *one_each, "--seed", "7", "--shots", "1", "--out", "data/other", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "\tL1 L2\t" in again.stdout
    assert (tmp_path / "data/other/s1/AP.png").read_bytes() != first


SHEET = "patient\tshot\tview\timage\tgeometry\tboxes\ttruth\n"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("p\ts\tAP\ta.png\tc\tb\tt\n", "one view"),
        ("p\ts\tLA\ta.png\tc\tb\tt\np\ts\tX\tb.png\tc\tb\tt\n", "AP or PA"),
        ("p\ts\tAP\ta.png\tc\tb\tt\np\ts\tLA\ta.png\tc\tb\tt\n", "same image"),
        ("p\ts\tAP\ta.png\tc\tb\tt\np\ts\tLA\tb.png\tc\tb\tu\n", "file of truth"),
        ("p\ts\tAP\ta.png\tc\tb\tt\np\ts\tLA\tb.png\tc\td\tt\n", "file of boxes"),
        ("p\tcrops\tAP\ta.png\tc\tb\tt\np\tcrops\tLA\tb.png\tc\tb\tt\n", "may not be named"),
        ("p\ts\tAP\ta.png\tc\tb\tt\textra\n", "line 2: 8 cells"),
        ("# a remark\n\np\ts s\tAP\ta.png\tc\tb\tt\n", "line 4: shot"),
        ("q\ts\tAP\ta.png\tc\tb\tt\n", "not in"),
    ],
)
def test_a_sheet_that_contradicts_itself_is_one_line_with_its_place(tmp_path, rows, words):
    (tmp_path / "patients.tsv").write_text("patient\tct\tnote\np\tct#1.nii.gz\tvisit #3\n")
    (tmp_path / "xrays.tsv").write_text(SHEET + rows)
    config = Config(patients=tmp_path / "patients.tsv", xrays=tmp_path / "xrays.tsv")
    with pytest.raises(ConfigError, match=words):
        read_sheets(config)


def test_a_number_sign_inside_a_cell_belongs_to_it_and_bom_and_line_endings_do_not(tmp_path):
    (tmp_path / "patients.tsv").write_bytes("\ufeffpatient\tct\tnote\r\np\tct#1.nii.gz\tvisit #3\r\n".encode())
    (tmp_path / "xrays.tsv").write_text(SHEET)
    patients, xrays = read_sheets(Config(patients=tmp_path / "patients.tsv", xrays=tmp_path / "xrays.tsv"))
    assert (patients["p"]["ct"], patients["p"]["note"]) == ("ct#1.nii.gz", "visit #3")
    assert xrays == []


def test_check_finds_a_level_that_is_not_in_the_labels_and_missing_boxes(tmp_path):
    write_series(tmp_path / "ct", ct_values())
    ct = read_ct(tmp_path / "ct")
    labels = np.zeros(ct.array.shape, np.uint8)
    labels[2:10, 5:25, 5:25] = 20
    write_volume(tmp_path / "labels.nii.gz", ct.with_array(labels))
    (tmp_path / "patients.tsv").write_text("patient\tct\tlabels\np\tct\tlabels.nii.gz\n")
    (tmp_path / "xrays.tsv").write_text(SHEET + "p\ts\tAP\ta.png\tc\t\t\np\ts\tLA\tb.png\tc\t\t\n")
    (tmp_path / "config.yaml").write_text("{patients: patients.tsv, xrays: xrays.tsv, levels: [L1, L2]}")
    done = radgs("check", "--config", "config.yaml", cwd=tmp_path)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "lacks L2 of levels (or they are below" in said
    assert "boxes is empty" in said


def test_a_summary_without_truth_and_what_is_no_summary(tmp_path):
    write_json(tmp_path / "summary.json", {"n": 0})
    done = radgs("summary", str(tmp_path / "summary.json"))
    assert done.returncode == 0
    assert "nothing to sum up" in done.stdout
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "summary.json").rename(tmp_path / "evaluation/summary.json")
    assert "nothing to sum up" in radgs("summary", str(tmp_path)).stdout
    (tmp_path / "r.csv").write_text("a,b\n")
    assert "not the summary.json" in radgs("summary", str(tmp_path / "r.csv")).stderr
    write_json(tmp_path / "summary.json", [1])
    done = radgs("summary", str(tmp_path / "summary.json"))
    assert done.returncode == 2
    assert "not the summary.json" in done.stderr


def test_the_summary_is_a_table_of_the_files_numbers(tmp_path):
    block = {"median": 0.42, "mean": 0.5, "sd": 0.1, "p95": 0.9, "n": 20}
    success = {"value": 0.95, "low": 0.76, "high": 0.99}
    summary = {
        "n": 20,
        "not_registered": {"cut": 3, "outside": 1},
        **dict.fromkeys(("unregistered_mtre_mm", "start_mtre_mm", "regm_mtre_mm", "mtre_mm"), block),
        **dict.fromkeys(("success_2mm", "success_1mm", "better_than_start_regm"), success),
        "accepted": {"count": 18, "fraction": 0.9},
        "false_accepts": 0,
        "seconds_per_registration": 6.5,
        "xray_only": {"ssim": 0.9, "psnr_db": 27.0, "dice": 0.7},
        "ct_assisted": None,
    }
    write_json(tmp_path / "summary.json", summary)
    done = radgs("summary", str(tmp_path / "summary.json"))
    assert done.returncode == 0, done.stderr
    assert "| not registered: cut by the CT; outside the images | 3; 1 |" in done.stdout
    assert "| success at 2 mm | 95.0 % (76.0-99.0) |" in done.stdout
    assert "0.42; 0.50 ± 0.10; 0.90 mm" in done.stdout
    assert "CT-assisted" not in done.stdout


def test_evaluate_reads_the_truth_from_the_sheets_and_prints_every_method(tmp_path, monkeypatch, ap_camera, la_camera):
    """Two methods: one off by 0.5 mm, and ours, which has no result."""
    monkeypatch.chdir(tmp_path)
    patient = tmp_path / "results/patients/p"
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:15, 5:15, 5:15] = 20
    write_volume(patient / "vertebrae.nii.gz", Volume.axis_parallel(labels, 1.0, (0, 0, 0)))
    audit = {"status": "ok", "reasons": [], "centre_mm": [9, 9, 9], "volume_mm3": 1000}
    write_json(patient / "vertebrae.json", {"levels": {"L1": audit}})
    views = {
        name: {"size": [c.width, c.height], "K": c.K.tolist(), "camera_from_world": c.camera_from_world.matrix.tolist()}
        for name, c in {"AP": ap_camera, "LA": la_camera}.items()
    }
    write_json(patient / "s/cameras.json", {"views": views})
    write_json(tmp_path / "t.json", {"world_from_ct": {"L1": np.eye(4).tolist()}})
    (tmp_path / "patients.tsv").write_text("patient\tct\tlevels\np\tct.nii.gz\tL1\n")
    (tmp_path / "xrays.tsv").write_text(SHEET + "p\ts\tAP\ta.png\tc\t\tt.json\np\ts\tLA\tb.png\tc\t\tt.json\n")
    (tmp_path / "config.yaml").write_text("{patients: patients.tsv, xrays: xrays.tsv}")
    columns = "method,patient,shot,level,rx_rad,ry_rad,rz_rad,tx_mm,ty_mm,tz_mm"
    (tmp_path / "other.csv").write_text(f"{columns}\nother,p,s,L1,0,0,0,0.3,0.4,0\n")
    done = CliRunner().invoke(app, ["evaluate", "--poses", "other.csv", "--config", "config.yaml"])
    assert done.exit_code == 0, done.output
    assert "| other | 1 | 0 | - | 0.50; 0.50 ± 0.00; 0.50 mm | 100.0 % (20.7-100.0) |" in done.output
    assert (tmp_path / "results/evaluation/poses.csv").is_file()
    done = CliRunner().invoke(app, ["evaluate", "--config", "config.yaml", "--out", "e"])
    assert done.exit_code == 0, done.output
    assert "| success at 2 mm | 0.0 %" in done.output
    assert (tmp_path / "e/registrations.csv").is_file()


def test_the_version_is_that_of_the_package():
    assert radgs("--version").stdout.strip() == version("radgs")


@pytest.mark.parametrize("command", ["check", "evaluate", "register", "schema", "simulate", "summary"])
def test_every_command_explains_itself(command):
    done = radgs(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 100


def test_view_says_what_became_of_each_vertebra_from_head_to_foot(tmp_path):
    for shot, level, verdict in (("s1", "L1", "accepted"), ("s1", "T12", "review"), ("s2", "L1", "rejected")):
        content = {"verdict": verdict, "probability": 0.5, "reasons": [f"why {shot} {level} [3]"]}
        if verdict == "accepted":
            content["covariance"] = {"rms_mm": 0.129}
        (tmp_path / "p" / shot / level).mkdir(parents=True)
        write_json(tmp_path / "p" / shot / level / "verdict.json", content)
    done = radgs("view", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "why s" in line]
    assert [next(k for k in ("T12", "L1") if k in line) for line in lines] == ["T12", "L1", "L1"]
    assert [next(k for k in ("p/s1", "p/s2") if k in line) for line in lines] == ["p/s1", "p/s1", "p/s2"]
    assert "0.13" in lines[1]
    assert "accepted" in lines[1]
    assert "why s1 L1 [3]" in lines[1]
    of_level = radgs("view", ".", cwd=tmp_path / "p/s2/L1")
    assert "rejected" in of_level.stdout
    assert "accepted" not in of_level.stdout
    nothing = radgs("view", str(tmp_path / "p/s3"))
    assert nothing.returncode == 2
    assert "holds no verdict.json" in nothing.stderr
