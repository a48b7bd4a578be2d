"""The workflow as a user meets it: a patient's sheets in, a report out; nothing but evaluation reads the truth."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml

from radgs.config import export_schema, load_config
from radgs.errors import ConfigError
from radgs.evaluation import EvaluatedShot, evaluate_registrations
from radgs.images import read_json, write_json, write_volume
from radgs.registration import register_shot
from radgs.report import write_report
from radgs.sheets import read_sheets
from radgs.simulation import make_demo_shots
from tests.phantoms import block_spine

ROOT = Path(__file__).parents[1]


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def write_sheets(folder, patients, levels=None):
    """``patients``: by patient, its shots; ``levels``: by patient, its own, if it has any."""
    rows = [
        f"{p}\tincoming/{p}/ct.nii.gz\tincoming/{p}/labels.nii.gz\t{(levels or {}).get(p, '')}\tA phantom."
        for p in patients
    ]
    (folder / "config/patients.tsv").write_text("\n".join(["patient\tct\tlabels\tlevels\tnote", *rows]) + "\n")
    rows = [
        f"{p}\t{s}\t{v}\tincoming/{p}/{s}/{v}.png\tincoming/{p}/{s}/cameras.json\tincoming/{p}/truth/{s}.json"
        f"\tincoming/{p}/{s}/boxes.json"
        for p, shots in patients.items()
        for s in shots
        for v in ("AP", "LA")
    ]
    header = "patient\tshot\tview\timage\tgeometry\ttruth\tboxes"
    (folder / "config/xrays.tsv").write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with one phantom patient, as a lab would set it up."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "config").mkdir()
    shutil.copytree(ROOT / "resources", folder / "resources")
    shutil.copy(ROOT / "tests/tiny.yaml", folder / "config/config.yaml")
    incoming = folder / "incoming/tiny"
    incoming.mkdir(parents=True)
    ct, labels = block_spine()
    write_volume(incoming / "ct.nii.gz", ct)
    write_volume(incoming / "labels.nii.gz", labels)
    config = load_config(folder / "config/config.yaml")
    make_demo_shots(incoming / "ct.nii.gz", incoming / "labels.nii.gz", incoming, incoming / "truth", ["s1"], config)
    write_sheets(folder, {"tiny": ["s1"]})
    return folder


@pytest.fixture(scope="module")
def finished(project):
    """The project after the whole workflow has run."""
    done = snakemake(project)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def jobs(folder, *arguments):
    """The (rule, wildcards) that would run, from Snakemake's own dry run."""
    done = snakemake(folder, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    found, rule = [], None
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
            found.append((rule, ""))
        elif line.strip().startswith("wildcards:"):
            found[-1] = (rule, line.split(":", 1)[1].strip())
    return found


def inputs_by_rule(folder, *arguments):
    """Every job's inputs, from Snakemake's own dry run of everything."""
    done = snakemake(folder, "--dry-run", "--forceall", *arguments)
    assert done.returncode == 0, done.stderr
    found, rule = [], None
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
        elif line.strip().startswith("input:"):
            found += [(rule, path.strip()) for path in line.split(":", 1)[1].split(",")]
    return found


def test_only_evaluation_reads_the_truth(project):
    readers = {rule for rule, path in inputs_by_rule(project) if "truth" in path}
    assert readers == {"evaluate"}


def test_after_preparation_no_rule_reads_what_the_hospital_or_the_simulation_wrote(project):
    allowed = {"prepare_ct", "prepare_xrays", "segment", "detect", "evaluate"}
    readers = {rule for rule, path in inputs_by_rule(project) if path.startswith("incoming/")}
    assert readers == allowed
    assert {path for rule, path in inputs_by_rule(project) if rule == "detect" and "incoming" in path} == {
        "incoming/tiny/s1/boxes.json"
    }


def test_a_population_is_learned_from_before_the_patient(project):
    (project / "config/population.tsv").write_text(
        "subject\tct\tlabels\tleave_out\nother\tincoming/tiny/ct.nii.gz\tincoming/tiny/labels.nii.gz\tL1\n"
    )
    population = {"sheet": "config/population.tsv", "variants": 2}
    read = inputs_by_rule(project, "--config", f"population={json.dumps(population)}")
    shards = [f"results/simulation/population/other-{n}.h5" for n in (0, 1)]
    assert {path for rule, path in read if rule == "train_recm"} >= {*shards, "results/models/p2/card.json"}
    assert {path for rule, path in read if rule == "pass_on_p2"} == {"results/models/p1/joint/card.json"}
    assert "pass_on_p1" not in {rule for rule, _ in read}


TINY_DETECTOR = {"image_px": 64, "width": 0.1, "shots": 8, "training": {"batch": 4, "epochs": 1}}
YOLO = ["--config", f"detection={json.dumps({'backend': 'yolo', 'yolo': TINY_DETECTOR})}"]


def test_the_detector_sees_neither_the_users_boxes_nor_the_truth(project):
    read = inputs_by_rule(project, *YOLO)
    assert {path for rule, path in read if rule == "detect"} == {
        "results/patients/tiny/s1/xrays.nii.gz",
        "results/patients/tiny/s1/cameras.json",
        "results/patients/tiny/ct.nii.gz",
        "results/patients/tiny/vertebrae.nii.gz",
        "results/models/detector/tiny/detector.safetensors",
        "results/models/detector/tiny/card.json",
    }
    assert not [path for _, path in read if "boxes" in path]
    assert {rule for rule, path in read if "truth" in path} == {"evaluate"}


@pytest.mark.slow
def test_the_detector_is_trained_by_rules_of_its_own(finished):
    if find_spec("ultralytics") is None:
        pytest.skip("the extra detect is not installed")
    card = "results/models/detector/tiny/card.json"
    done = snakemake(finished, *YOLO, "--", card)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(read_json(finished / card)["levels"]) == {"T12", "L1", "L2"}


@pytest.mark.slow
def test_the_whole_workflow_runs_and_writes_the_agreed_files(finished):
    results = finished / "results"
    summary = json.loads((results / "evaluation/summary.json").read_text())
    assert summary["n"] == 2
    for key in ("start_mtre_mm", "regm_mtre_mm", "mtre_mm"):
        assert set(summary[key]) >= {"median", "mean", "sd", "p95"}
    for key in ("xray_only", "ct_assisted"):
        assert set(summary[key]) >= {"ssim", "psnr_db", "dice"}
    shot = results / "patients/tiny/s1"
    for name in ("xrays.nii.gz", "cameras.json", "levels.json", "registrations.json"):
        assert (shot / name).is_file()
    for name in ("world_from_ct.json", "ct_from_world.tfm", "gaussians.ply", "registered_ct.nii.gz", "verdict.json"):
        assert (shot / "L1" / name).is_file()
    frame = read_json(results / "patients/tiny/ct.json")["frame_of_reference_uid"]
    verdict = read_json(shot / "L1/verdict.json")
    written = shot / "L1/spatial_registration.dcm"
    assert written.is_file() == (verdict["verdict"] != "rejected")
    if written.is_file():
        assert pydicom.dcmread(written).RegistrationSequence[0].FrameOfReferenceUID == frame
    assert np.shape(verdict["covariance"]["matrix"]) == (6, 6)
    page = (results / "report.html").read_text()
    assert page.index("A phantom.") < page.index("Overview")
    card = json.loads((results / "models/p1/card.json").read_text())
    assert card["trained"] is False
    learned = page[page.index("What the networks learned from") :]
    assert "p2</td><td colspan=4>not trained, its weights were passed on: no real X-rays" in learned
    assert "p3/tiny/joint</td><td>tiny</td>" in learned


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(finished):
    done = snakemake(finished)
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("levels", ["", "T12 L1", "L1 L2"])
def test_a_new_patient_runs_its_own_jobs_only(finished, levels):
    shutil.copytree(finished / "incoming/tiny", finished / "incoming/new", dirs_exist_ok=True)
    write_sheets(finished, {"tiny": ["s1"], "new": ["s1"]}, {"new": levels})
    try:
        found = jobs(finished)
    finally:
        write_sheets(finished, {"tiny": ["s1"]})
    assert ("register", "patient=new, shot=s1") in found
    cropped = [wildcards for rule, wildcards in found if rule == "crop"]
    assert sorted(cropped) == sorted(f"patient=new, level={level}" for level in (levels or "T12 L1").split())
    assert not [job for job in found if "patient=tiny" in job[1]]
    assert {rule for rule, wildcards in found if not wildcards} == {"evaluate", "report", "all"}


@pytest.mark.slow
def test_a_cut_level_is_not_registered_and_a_suspect_one_is_marked_to_the_end(finished, tmp_path):
    """The stages after segmentation with another audit: T12 cut, L1 suspect."""
    shutil.copytree(finished / "results", tmp_path / "results")
    patient = tmp_path / "results/patients/tiny"
    shot = patient / "s1"
    audit = read_json(patient / "vertebrae.json")
    assert {found["status"] for found in audit["levels"].values()} == {"ok"}
    audit["levels"]["T12"] |= {"status": "cut", "reasons": ["cut by the border of the CT"]}
    audit["levels"]["L1"] |= {"status": "suspect", "reasons": ["2 % of it lie apart from the rest"]}
    write_json(patient / "vertebrae.json", audit)
    write_json(shot / "T9/verdict.json", {"verdict": "accepted"})  # of an earlier run with other levels
    config = load_config(finished / "config/config.yaml")
    places = ("crops/{}_excess.nii.gz", "crops/{}_mask.nii.gz", "anchors/{}.ply")
    register_shot(
        patient / "ct.nii.gz",
        patient / "vertebrae.nii.gz",
        patient / "vertebrae.json",
        *({level: patient / place.format(level) for level in config.levels} for place in places),
        shot / "xrays.nii.gz",
        shot / "cameras.json",
        shot / "levels.json",
        tmp_path / "results/models/p3/tiny/joint",
        shot,
        config,
    )
    assert read_json(shot / "registrations.json") == {"registered": ["L1"], "not_registered": ["T12"]}
    assert not (shot / "T12/world_from_ct.json").exists()
    truth = finished / "incoming/tiny/truth/s1.json"
    evaluated = EvaluatedShot(
        "tiny", "s1", shot, truth, patient / "vertebrae.nii.gz", patient / "ct.nii.gz", config.levels
    )
    evaluate_registrations([evaluated], tmp_path / "r.csv", tmp_path / "s.json", config)
    table = pd.read_csv(tmp_path / "r.csv").set_index("level")
    assert table["labels"].to_dict() == {"T12": "cut", "L1": "suspect"}
    assert table["verdict"]["T12"] == "rejected"
    assert read_json(tmp_path / "s.json")["not_registered"] == {"cut": 1, "outside": 0}
    assert not (shot / "T9").exists()
    assert table["verdict"]["L1"] != "accepted"
    write_report(
        tmp_path / "results", [("tiny", "s1")], {}, tmp_path / "r.csv", tmp_path / "s.json", tmp_path / "page.html"
    )
    page = (tmp_path / "page.html").read_text()
    assert "not registered: cut by the border of the CT" in page
    assert "label: 2 % of it lie apart from the rest" in page


def test_totalsegmentators_weights_are_inputs_of_the_rule_and_named_when_absent(project, tmp_path):
    folder = tmp_path / "segmenting"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("results", ".snakemake", "logs"))
    settings = yaml.safe_load((folder / "config/config.yaml").read_text())
    settings["segmentation"] = {"backend": "totalsegmentator", "totalsegmentator": {"weights": "weights"}}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(settings))
    done = snakemake(folder, "--dry-run")
    assert done.returncode != 0
    assert "TOTALSEG_WEIGHTS_PATH=weights totalseg_download_weights -t total" in done.stdout + done.stderr
    expected = set()
    for dataset in ("Dataset292_x", "Dataset298_y"):
        model = Path("weights", dataset, "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth")
        (folder / model).parent.mkdir(parents=True)
        (folder / model).touch()
        expected.add(str(model))
    read = {path for rule, path in inputs_by_rule(folder) if rule == "segment"}
    assert expected <= read
    assert "incoming/tiny/labels.nii.gz" not in read


def test_a_wrong_setting_is_one_line_through_snakemake_too(project):
    done = snakemake(project, "--dry-run", "--config", "level=L1")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "radgs: config: unknown setting 'level' (did you mean levels?)"
    assert "Traceback" not in done.stderr
    assert "common.smk" not in done.stderr


@pytest.mark.slow
def test_a_broken_ct_is_one_line_and_leaves_nothing_behind(project, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("results", ".snakemake", "logs"))
    ct = folder / "incoming/tiny/ct.nii.gz"
    ct.write_bytes(ct.read_bytes()[: ct.stat().st_size // 2])
    done = snakemake(folder, "results/patients/tiny/ct.nii.gz")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("radgs: ") and "ct.nii.gz" in line]
    assert not list((folder / "results").rglob("*.nii.gz"))


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("patient\tct\n../x\ta.nii\n", "letters, digits"),
        ("patient\tct\np\ta.nii\np\ta.nii\n", "twice"),
        ("patient\np\n", "separated by tabs"),
        ("patient ct\np a.nii\n", "separated by tabs"),
        ("patient\tnote\np\tx\n", "missing columns"),
        ("patient\tct\np\t\n", "ct is empty"),
        ("patient\tct\tlevels\np\ta.nii\tL1 L9\n", "patient p.*levels"),
        ("patient\tct\tlevels\np\ta.nii\tL1 L1\n", "patient p.*each level once"),
        ("", "is empty"),
    ],
)
def test_sheets_that_cannot_be_right_are_refused_in_one_line(tmp_path, sheet, message):
    (tmp_path / "patients.tsv").write_text(sheet)
    config = load_config({"patients": str(tmp_path / "patients.tsv"), "xrays": str(ROOT / "config/xrays.tsv")})
    with pytest.raises(ConfigError, match=message) as caught:
        read_sheets(config)
    assert "\n" not in str(caught.value)


def test_a_shot_with_one_view_is_refused(tmp_path):
    (tmp_path / "patients.tsv").write_text("patient\tct\np\ta.nii\n")
    (tmp_path / "xrays.tsv").write_text("patient\tshot\tview\timage\tgeometry\np\ts\tAP\ta.png\tc.json\n")
    config = load_config({"patients": str(tmp_path / "patients.tsv"), "xrays": str(tmp_path / "xrays.tsv")})
    with pytest.raises(ConfigError, match="one view"):
        read_sheets(config)


def test_the_shipped_schema_is_that_of_the_settings(tmp_path):
    export_schema(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_text() == (ROOT / "workflow/schemas/config.schema.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "results"), [([], "results"), (["--configfile", "config/paper.yaml"], "results-paper")]
)
def test_the_shipped_configs_plan_the_whole_demo_each_in_its_own_folder(tmp_path, arguments, results):
    for folder in ("config", "resources"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    done = snakemake(tmp_path, "--dry-run", f"{results}/report.html", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"output: {results}/demo/ct.nii.gz" in done.stdout + done.stderr


def test_shipped_configs_are_valid():
    for path in sorted((ROOT / "config").glob("*.yaml")):
        load_config(yaml.safe_load(path.read_text()))
