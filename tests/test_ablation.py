"""The ablation: rows are files of settings, the rules train and measure them, a table and a figure come out."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from radgs.config import ablation_rows, load_config
from radgs.errors import ConfigError
from radgs.report import write_ablation
from tests.test_workflow import ROOT, jobs, project, snakemake  # noqa: F401

SHIPPED = load_config(ROOT / "config/config.yaml").changed(
    {"ablation": {"rows": str(ROOT / "config/ablation"), "scale": 1.0}}
)


def rows_of(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return load_config({"ablation": {"rows": str(folder), "scale": 0.5}, "pretrained": "somewhere"})


def test_eight_rows_ship_and_each_differs_from_the_first():
    rows = ablation_rows(SHIPPED)
    assert len(rows) == 8
    first, *others = rows.values()
    assert first.changes == {}
    assert len({json.dumps(row.changes, sort_keys=True) for row in rows.values()}) == 8
    for row in rows.values():
        assert row.about
        assert SHIPPED.changed(row.changes) == row.config
    for row in others:
        assert row.config != SHIPPED


def test_a_row_changes_what_it_says_and_the_scale_is_times_the_epochs(tmp_path):
    config = rows_of(tmp_path, a="# no joint\ntraining: {joint: {epochs: 0}}\n", b="# random\npretrained: null\n")
    rows = ablation_rows(config)
    assert (rows["a"].about, rows["b"].about) == ("no joint", "random")
    was = config.training
    for row, joint in (("a", 0), ("b", was.joint.epochs / 2)):
        made = rows[row].config.training
        assert (made.recm.epochs, made.regm.epochs) == (was.recm.epochs / 2, was.regm.epochs / 2)
        assert made.joint.epochs == joint
        assert made.joint.batch == was.joint.batch
    assert rows["a"].config.pretrained == Path("somewhere")
    assert rows["b"].config.pretrained is None
    assert ablation_rows(load_config({"ablation": {"rows": str(tmp_path / "none")}})) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# x\nseed: 3\n", "may not change seed"),
        ("# x\nnetwork: {image_px: 32}\n", "may not change image_px"),
        ("training: {}\n", "first line must be a comment"),
        ("", "first line must be a comment"),
        ("# x\ntraining: {jont: {epochs: 0}}\n", "did you mean joint"),
    ],
)
def test_a_row_that_cannot_be_right_is_one_line(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        ablation_rows(rows_of(tmp_path, x=text))
    assert "\n" not in str(caught.value)


def test_the_table_says_what_was_measured(tmp_path):
    measured, numbers = {}, ("dice", "asd_mm", "ssim", "psnr_db")
    for k, row in enumerate(("one", "two")):
        frame = pd.DataFrame({"start_mm": [8.0, 10, 12], "recm_mm": [4.0, 5, 9], "regm_mm": [3.0 + k, 4 + k, 8 + k]})
        for kind, base in (("xray_only", 0.2), ("ct_assisted", 0.6)):
            for name in numbers:
                frame[f"{kind}_{name}"] = [base, base + 0.1, None]
        frame.to_csv(tmp_path / f"{row}.csv", index=False)
        measured[row] = tmp_path / f"{row}.csv"
        for part in ("recm", "regm", "joint"):
            folder = tmp_path / "models" / row / part
            folder.mkdir(parents=True)
            (folder / "card.json").write_text(json.dumps({"seconds": 20 * (k + 1)}))
    about = {"one": "all", "two": "nothing"}
    write_ablation(measured, about, tmp_path / "models", tmp_path / "t.csv", tmp_path / "f.png")
    table = pd.read_csv(tmp_path / "t.csv").set_index("row")
    assert table["trained_min"].to_dict() == {"one": 1, "two": 2}
    assert table.loc["two", ["start_median_mm", "recm_median_mm", "regm_median_mm"]].tolist() == [10, 5, 5]
    assert table.loc["one", "regm_p95_mm"] == pytest.approx(7.6)
    assert table.loc["one", ["xray_only_dice", "ct_assisted_ssim"]].tolist() == pytest.approx([0.25, 0.65])
    with Image.open(tmp_path / "f.png") as figure:
        assert min(figure.size) > 100


@pytest.mark.slow
def test_snakemake_ablation_trains_measures_and_draws(project, tmp_path):  # noqa: F811
    folder = tmp_path / "study"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("results", ".snakemake", "logs"))
    settings = yaml.safe_load((folder / "config/config.yaml").read_text())
    (folder / "config/config.yaml").write_text(yaml.safe_dump(settings | {"ablation": {"pairs": 4}}))
    rows_of(
        folder / "config/ablation",
        full="# everything\n",
        nojoint="# without joint training\ntraining: {joint: {epochs: 0}}\n",
    )
    assert not [job for job in jobs(folder) if "ablation" in job[1] or job[0] == "measure_row"]
    done = snakemake(folder, "ablation")
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(folder / "results/ablation/ablation.csv").set_index("row")
    assert table["about"].to_dict() == {"full": "everything", "nojoint": "without joint training"}
    assert (table["pairs"] == 4).all()
    assert table[["start_median_mm", "regm_median_mm", "xray_only_ssim", "ct_assisted_ssim"]].notna().all(axis=None)
    weights = folder / "results/models/ablation"
    regm, joint = (weights / "nojoint" / part / "recm.safetensors" for part in ("regm", "joint"))
    assert regm.read_bytes() == joint.read_bytes()
    assert (folder / "results/ablation/ablation.png").is_file()
