"""Stage P2: real X-rays with known poses, here simulated ones declared as such; nobody learns from their own."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from scipy import ndimage

from radgs.config import load_config
from radgs.errors import AnatomyError
from radgs.gaussians import RadiativeGaussians, rasterize
from radgs.images import read_json, write_json, write_volume
from radgs.report.stages import stages_section
from radgs.sheets import Fold, real_folds
from radgs.simulation import ShardedPairs, make_demo_shots
from radgs.training import RealShot, real_pairs
from tests.phantoms import block_spine
from tests.test_workflow import ROOT, inputs_by_rule, snakemake, write_sheets

SHORT = {"batch": 2, "epochs": 1, "validation_fraction": 0.3}
REAL = {"folds": 2, "training": {"recm": SHORT, "regm": SHORT, "joint": SHORT}}
P2 = ["--config", f"real={json.dumps(REAL)}"]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Three phantom patients: a and b with known poses, c without."""
    folder = tmp_path_factory.mktemp("clinic")
    (folder / "config").mkdir()
    shutil.copytree(ROOT / "resources", folder / "resources")
    shutil.copy(ROOT / "tests/tiny.yaml", folder / "config/config.yaml")
    ct, labels = block_spine()
    for number, patient in enumerate("abc"):
        incoming = folder / "incoming" / patient
        incoming.mkdir(parents=True)
        write_volume(incoming / "ct.nii.gz", ct)
        write_volume(incoming / "labels.nii.gz", labels)
        config = load_config(folder / "config/config.yaml").changed({"demo": {"seed": number}})
        files = incoming / "ct.nii.gz", incoming / "labels.nii.gz"
        make_demo_shots(*files, incoming, incoming / "truth", ["s1", "s2"], config)
    sheets(folder, "abc", known="ab")
    return folder


def sheets(folder, patients, known):
    write_sheets(folder, {patient: ["s1", "s2"] for patient in patients})
    path = folder / "config/xrays.tsv"
    lines = path.read_text().splitlines()
    hidden = {f"incoming/{p}/truth/{s}.json" for p in patients if p not in known for s in ("s1", "s2")}
    path.write_text("\n".join("\t".join("" if c in hidden else c for c in line.split("\t")) for line in lines) + "\n")


def test_patients_are_dealt_out_whole_and_those_without_truth_learn_from_all():
    rows = [{"patient": p, "truth": "" if p == "z" else f"{p}.json"} for p in "aabbcz"]
    config = load_config({"real": {"folds": 2}})
    assert real_folds(config, "abcz", rows) == {
        "0": Fold(["a", "c"], ["b"]),
        "1": Fold(["b"], ["a", "c"]),
        "all": Fold(["z"], ["a", "b", "c"]),
    }
    assert real_folds(load_config({}), "abcz", rows) == {}
    for folds in range(2, 7):
        made = real_folds(load_config({"real": {"folds": folds}}), "abcz", rows).values()
        assert sorted(p for fold in made for p in fold.held_out) == list("abcz")
        assert not any(set(fold.held_out) & set(fold.learned) for fold in made)


@pytest.mark.parametrize(("patient", "others"), [("a", "b"), ("c", "ab")])
def test_no_patients_networks_come_from_that_patients_own_xrays(clinic, patient, others):
    read = inputs_by_rule(clinic, *P2, "--", f"results/patients/{patient}/s1/registrations.json")
    assert {path for rule, path in read if path.startswith("results/real/")} == {f"results/real/{o}.h5" for o in others}
    assert {path.split("/")[1] for _, path in read if "truth" in path} == set(others)
    assert {rule for rule, path in read if "truth" in path} == {"real_pairs"}


@pytest.mark.slow
def test_each_fold_learns_from_the_other_patients_and_the_cards_prove_it(clinic):
    cards = {fold: f"results/models/p2/{fold}/recm/card.json" for fold in ("0", "1", "all")}
    last = "results/models/p3/a/recm/card.json"
    done = snakemake(clinic, *P2, "--", *cards.values(), last)
    assert done.returncode == 0, done.stdout + done.stderr
    for fold, others in (("0", "b"), ("1", "a"), ("all", "ab")):
        card = read_json(clinic / cards[fold])
        assert card["trained"]
        assert set(card["data"]["levels_of"]) == set(others)
    assert read_json(clinic / "results/models/p2/0/joint/card.json")["trained"]
    learned = [one.get("levels_of", {}).keys() for one in read_json(clinic / last)["started_from"]]
    assert learned == [{"b"}]


@pytest.mark.slow
def test_a_fold_without_other_patients_passes_its_weights_on(clinic, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(clinic, folder, ignore=shutil.ignore_patterns("results", ".snakemake", "logs"))
    sheets(folder, "a", known="a")
    done = snakemake(folder, *P2, "--", "results/models/p2/0/joint/card.json")
    assert done.returncode == 0, done.stdout + done.stderr
    card = read_json(folder / "results/models/p2/0/joint/card.json")
    assert (card["trained"], card["reason"]) == (False, "no other patient has X-rays with known poses")


def test_the_report_says_what_was_learned_from_and_what_was_passed_on(tmp_path):
    write_json(tmp_path / "p2.json", {"trained": False, "reason": "no other <patient>"})
    data = {"levels_of": {"b": {}, "c": {}}, "pairs": 40}
    write_json(
        tmp_path / "p3.json",
        {"trained": True, "data": data, "seconds": 90.0, "metrics": {"mtre_mean_mm": 3.456}},
    )
    page = stages_section({"a": [("p2/0/joint", tmp_path / "p2.json"), ("p3/a/recm", tmp_path / "p3.json")]})
    assert "p2/0/joint</td><td colspan=4>not trained, its weights were passed on: no other &lt;patient&gt;" in page
    row = page.split("p3/a/recm")[1]
    assert re.findall(r">([^<]+)<", row) == ["b, c", "40", "1.5", "3.46"]


def shot(clinic, name="s1"):
    folder = clinic / "results/patients/a" / name
    return RealShot(
        folder / "xrays.nii.gz",
        folder / "cameras.json",
        folder / "levels.json",
        clinic / f"incoming/a/truth/{name}.json",
    )


def files(clinic):
    patient = clinic / "results/patients/a"
    places = ("crops/{}_excess.nii.gz", "crops/{}_mask.nii.gz", "anchors/{}.ply")
    return [{level: patient / place.format(level) for level in ("T12", "L1")} for place in places]


@pytest.fixture(scope="module")
def prepared(clinic):
    done = snakemake(clinic, *P2, "--", "results/real/a.h5")
    assert done.returncode == 0, done.stdout + done.stderr
    return clinic


@pytest.mark.slow
def test_real_pairs_are_where_the_truth_says(prepared):
    pairs = ShardedPairs([prepared / "results/real/a.h5"])
    assert len(pairs) == 4  # two shots, two levels
    row = pairs.fields["vertebra"][:]
    assert torch.equal(pairs.vertebrae["level"][row], pairs.fields["level"][:])
    fitted = RadiativeGaussians(
        *(pairs.vertebrae[name][row] for name in ("means", "scales", "quaternions", "densities"))
    )
    placed = fitted.moved(pairs.fields["crop_from_vertebra"][:])
    drawn = rasterize(placed, pairs.fields["K"][:], pairs.fields["camera_from_crop"][:], (32, 32))
    targets, images = (pairs.fields[name][:].flatten(0, 1).numpy() for name in ("targets", "images"))
    for one, other in zip(drawn.flatten(0, 1).numpy(), targets, strict=True):
        assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9
    found = [seen_at(target, image) for target, image in zip(targets, images, strict=True)]
    assert sum(max(map(abs, shift)) <= 1 for shift in found) >= 6  # of 8; by chance 1.5


def seen_at(target, image):
    """By how many pixels the target must be shifted, at most 3 each way, to look most like the X-ray there."""
    fine, shown = (one - ndimage.gaussian_filter(one, 3.0) for one in (target, image))
    near = ndimage.binary_dilation(target > 0.2 * target.max(), iterations=2)

    def alike(shift):
        there = np.roll(near, shift, (0, 1))
        return np.corrcoef(np.roll(fine, shift, (0, 1))[there], shown[there])[0, 1]

    return max(((v, u) for v in range(-3, 4) for u in range(-3, 4)), key=alike)


@pytest.mark.slow
def test_a_level_found_far_from_its_truth_is_not_learned_from(prepared, tmp_path):
    config = load_config(prepared / "config/config.yaml")
    located = read_json(shot(prepared).levels)
    located["levels"]["L1"]["centre_mm"][2] += 35.0
    write_json(tmp_path / "levels.json", located)
    wrong = RealShot(shot(prepared).xrays, shot(prepared).cameras, tmp_path / "levels.json", shot(prepared).truth)
    real_pairs([wrong], *files(prepared), tmp_path / "a.h5", config, "a")
    assert ShardedPairs([tmp_path / "a.h5"]).fields["level"][:].tolist() == [19]
    write_json(tmp_path / "levels.json", {"levels": {}, "not_seen": {}})
    with pytest.raises(AnatomyError, match="patient a: no level of T12, L1 has a true pose and was found near it"):
        real_pairs([wrong], *files(prepared), tmp_path / "b.h5", config, "a")
    assert not (tmp_path / "b.h5").exists()
