"""What is measured of networks, and what benchmarks/reconstruction.py makes of it."""

import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml
from reconstruction import costs, rows_of

from radgs.config import load_config
from radgs.evaluation import measure_networks, write_measured
from radgs.images import read_json, write_json, write_volume
from radgs.models import RecM, RegM
from radgs.training import pass_on, point_errors, read_patient
from tests.phantoms import block_spine
from tests.test_training_stages import CONFIG, patient  # noqa: F401
from tests.test_workflow import ROOT


@pytest.fixture(scope="module")
def pairs(patient):  # noqa: F811
    some = read_patient(*patient, 32)
    return replace(some, fields={name: values[:3] for name, values in some.fields.items()})


def test_untrained_networks_leave_the_vertebra_where_it_was(pairs):
    found = measure_networks(RecM(CONFIG.network).eval(), RegM(CONFIG.network).eval(), pairs)
    truth, row = pairs.fields["crop_from_vertebra"], pairs.fields["vertebra"]
    still = torch.eye(4, dtype=truth.dtype).expand_as(truth)
    expected = point_errors(still, truth, pairs.vertebrae.points[row]).tolist()
    for name in ("start_mm", "recm_mm", "regm_mm"):
        assert found[name].tolist() == pytest.approx(expected, rel=1e-5)
    assert found["level"].tolist() == pairs.fields["level"].tolist()
    assert (found["seconds"] > 0).all()


def test_gaussians_fitted_to_the_ct_are_the_vertebra_if_it_has_not_moved_and_the_grid_is_not(pairs):
    truth = pairs.fields["crop_from_vertebra"]
    unmoved = replace(
        pairs, fields={**pairs.fields, "crop_from_vertebra": torch.eye(4).to(truth).repeat(len(truth), 1, 1)}
    )
    recm, regm = RecM(CONFIG.network).eval(), RegM(CONFIG.network).eval()
    here, there = measure_networks(recm, regm, unmoved), measure_networks(recm, regm, pairs)
    assert (here["ct_assisted_dice"] > 0.85).all()
    assert (here["ct_assisted_dice"] > there["ct_assisted_dice"]).all()
    assert (here["ct_assisted_psnr_db"] > here["xray_only_psnr_db"] + 3).all()


def test_a_models_folder_is_measured_into_a_table(pairs, tmp_path):
    pass_on(None, tmp_path / "models", CONFIG, "p1", "none")
    write_measured(tmp_path / "models", pairs, tmp_path / "m.csv")
    assert len(pd.read_csv(tmp_path / "m.csv")) == 3


def table(count):
    numbers = {
        f"{kind}_{n}": [0.5] * count for kind in ("xray_only", "ct_assisted") for n in ("dice", "ssim", "psnr_db")
    }
    surfaces = {"xray_only_asd_mm": [None] * count, "ct_assisted_asd_mm": [None, *[1.0] * (count - 1)]}
    poses = {"start_mm": [9.0] * count, "recm_mm": [4.0] * count, "regm_mm": [float(k) for k in range(count)]}
    return pd.DataFrame({**numbers, **surfaces, **poses, "seconds": [9.0, 9.0, 9.0, *[0.2] * (count - 3)]})


def test_each_line_of_the_issue_is_a_row_with_its_goal():
    rows = {row.name: row for row in rows_of("p3", table(21))}
    last = rows["after P3 and joint: mTRE after RegM"]
    assert (last.value, last.goal, last.met) == (10, "<= 1.5", False)
    assert rows["after P3 and joint: mTRE after RegM, 95th percentile"].value == pytest.approx(19)
    assert rows["after P3 and joint: X-ray-only asd_mm"].value is None
    partly = rows["after P3 and joint: CT-assisted asd_mm"]
    assert (partly.value, partly.n, partly.note) == (1, 20, "1 of 21 pairs have none")
    assert rows["after P3 and joint: X-ray-only dice"].goal == ">= 0.92"
    assert not rows["after P3 and joint: CT-assisted dice"].goal


def test_costs_are_those_of_the_cards_and_of_warm_pairs(tmp_path):
    for part, seconds in (("recm", 200), ("regm", 30), ("joint", 40)):
        write_json(tmp_path / "p" / part / "card.json", {"seconds": seconds})
    pd.DataFrame({"trained_min": [20.0, 45.0]}).to_csv(tmp_path / "a.csv")
    p3, chain, ablation = costs(tmp_path, {"p1": table(9)}, tmp_path / "a.csv")
    assert (p3.value, p3.met) == (4.5, True)
    assert (chain.value, chain.met) == (0.2, True)
    assert (ablation.value, ablation.met) == (65, False)
    missing = costs(tmp_path / "none", {"p1": table(9)}, None)
    assert [row.value is None for row in missing] == [True, False, True]


@pytest.mark.slow
def test_the_benchmark_goes_on_where_it_stopped_and_does_nothing_twice(tmp_path):
    ct, labels = block_spine()
    write_volume(tmp_path / "ct.nii.gz", ct)
    write_volume(tmp_path / "labels.nii.gz", labels)
    (tmp_path / "sheet.tsv").write_text(
        f"subject\tct\tlabels\tlevels\none\t{tmp_path}/ct.nii.gz\t{tmp_path}/labels.nii.gz\tT12 L1\n"
    )
    config = load_config(ROOT / "tests/tiny.yaml").changed({"population": {"anchor_steps": 5}})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    pass_on(None, tmp_path / "p1", config, "p1", "a test")

    def run():
        command = [sys.executable, str(ROOT / "benchmarks/reconstruction.py"), "--json", "out.json", "--pairs", "4"]
        places = ["--sheet", "sheet.tsv", "--models", "p1", "--config", "config.yaml", "--work", "work"]
        done = subprocess.run([*command, *places], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return read_json(tmp_path / "out.json")

    first = run()
    assert first["patients"] == {"p1": ["one"], "p3": ["one"]}
    rows = {row["name"]: row for row in first["rows"]}
    assert rows["after P3 and joint: mTRE after RegM"]["n"] == 4
    assert rows["P3 and joint training of one patient"]["value"] > 0
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
    (tmp_path / "work/one/p3-4.csv").unlink()
    again = run()
    assert [row["value"] for row in again["rows"][:22]] == pytest.approx([row["value"] for row in first["rows"][:22]])
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert {path.name for path in pieces if pieces[path] != now[path]} == {"p3-4.csv"}
