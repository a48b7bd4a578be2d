"""One case without Snakemake: from a DICOM series and two images to files that others read."""

import json
import subprocess
import sys

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

import radgs
from radgs.anatomy import crop_vertebrae, detect_provided, fit_anchors, segment
from radgs.config import load_config
from radgs.errors import ConfigError, RadgsError
from radgs.images import prepare_ct, prepare_xrays, read_ct, read_json, read_transforms, write_json, write_volume
from radgs.registration import register_shot
from radgs.simulation import simulate_shots
from radgs.training import pass_on
from tests.dicom_files import SECRETS, write_series
from tests.phantoms import block_spine
from tests.test_workflow import ROOT

FRAME = "1.2.840.113619.2.55.1"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A DICOM series with a patient's name, labels, one shot, and networks that know nothing."""
    folder = tmp_path_factory.mktemp("case")
    config = load_config(ROOT / "tests/tiny.yaml")
    ct, labels = block_spine()

    def on_the_phantoms_grid(_, d):
        d.PixelSpacing, d.FrameOfReferenceUID = [2.5, 2.5], FRAME

    write_series(folder / "ct", (ct.array + 1024).astype(np.uint16), step=(0, 0, 3.0), change=on_the_phantoms_grid)
    volume = read_ct(folder / "ct")
    write_volume(folder / "labels.nii.gz", volume.with_array(labels.array))
    simulate_shots(volume, volume.with_array(labels.array), folder, folder / "truth", ["s"], config)
    pass_on(None, folder / "models", config, "p1", "nothing to learn from")
    return folder, config


@pytest.fixture(scope="module")
def done(case):
    folder, config = case
    given = {"ct": folder / "ct", "labels": folder / "labels.nii.gz", "boxes": folder / "s/boxes.json"}
    told = {"PatientID": "P7"}
    shot = folder / "s/cameras.json", folder / "models", folder / "out"
    return radgs.register(*shot, **given, config=config, subject=told), folder / "out"


def test_every_level_has_a_pose_a_verdict_and_all_its_files(done):
    outcomes, out = done
    assert list(outcomes) == ["T12", "L1"]
    for level, one in outcomes.items():
        assert one.folder == out / level
        assert one.verdict == read_json(out / level / "verdict.json")["verdict"]
        pose = read_transforms(out / level / "world_from_ct.json")[level]
        np.testing.assert_array_equal(one.world_from_ct.matrix, pose.matrix)
        for name in ("ct_from_world.tfm", "gaussians.ply", "reconstruction_xray_only.nii.gz", "registered_ct.nii.gz"):
            assert (out / level / name).is_file()
        assert (out / level / "overlay.png").stat().st_size > 10_000


def test_it_gives_what_the_rules_give_one_job_a_level_in_their_own_folders(case, done, tmp_path):
    folder, config = case
    paths = {n: tmp_path / n for n in ("ct.nii.gz", "ct.json", "labels.nii.gz", "audit.json", "x.nii.gz", "c.json")}
    ct, about, labels, audit, xrays, cameras = paths.values()
    prepare_ct(folder / "ct", ct, about)
    segment(ct, folder / "labels.nii.gz", labels, audit, config)
    files = {level: [tmp_path / f"{level}-{n}" for n in ("e.nii.gz", "m.nii.gz", "a.ply")] for level in config.levels}
    for level, (excess, mask, anchors) in files.items():
        crop_vertebrae(ct, labels, {level: (excess, mask)}, config)
        fit_anchors(excess, anchors, config)
    images = {view: str(folder / f"s/{view}.png") for view in ("AP", "LA")}
    prepare_xrays(images, dict.fromkeys(images, folder / "s/cameras.json"), xrays, cameras)
    detect_provided(cameras, folder / "s/boxes.json", images, tmp_path / "levels.json", config)
    by_level = ({level: found[i] for level, found in files.items()} for i in range(3))
    found = tmp_path / "levels.json", folder / "models", tmp_path / "out"
    register_shot(ct, labels, audit, *by_level, xrays, cameras, *found, config)
    for level, one in done[0].items():
        theirs = read_transforms(tmp_path / "out" / level / "world_from_ct.json")[level]
        np.testing.assert_allclose(one.world_from_ct.matrix, theirs.matrix, atol=1e-9)
        verdict = read_json(tmp_path / "out" / level / "verdict.json")
        assert verdict["probability"] == pytest.approx(one.probability, abs=1e-9)


def test_the_covariance_is_in_the_verdict(done):
    covariance = read_json(done[1] / "L1/verdict.json")["covariance"]
    matrix = np.array(covariance["matrix"])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert covariance["rms_mm"] > 0


def test_itks_and_dicoms_transform_are_each_others_inverse_and_the_frames_are_the_cts_and_one_world(done):
    outcomes, out = done
    worlds = set()
    for level, one in outcomes.items():
        d = pydicom.dcmread(out / level / "spatial_registration.dcm")
        worlds.add(d.FrameOfReferenceUID)
        item = d.RegistrationSequence[0]
        assert (item.FrameOfReferenceUID, d.PatientID) == (FRAME, "P7")
        assert d.ContentDescription.startswith(f"{level}: {one.verdict}, ")
        matrix = item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
        world_from_ct = np.array(matrix, float).reshape(4, 4)
        np.testing.assert_allclose(world_from_ct, one.world_from_ct.matrix, atol=1e-9)
        ct_from_world = sitk.ReadTransform(str(out / level / "ct_from_world.tfm"))
        for point in ([0.0, 0, 0], [31.0, -7, 55]):
            in_world = (world_from_ct @ [*point, 1])[:3]
            np.testing.assert_allclose(ct_from_world.TransformPoint(in_world.tolist()), point, atol=1e-6)
    assert len(worlds) == 1


def test_nothing_of_the_patient_is_in_any_file(done):
    for path in done[1].rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [secret for secret in SECRETS if secret.encode() in content], path


def test_a_rejected_pose_gets_no_dicom_object(case, done, tmp_path):
    """It may be loaded without the verdict being read. The same case, judged more strictly."""
    folder, config = case
    strict = config.judgement.model_copy(update={"reject_probability": 1 - 1e-15, "accept_probability": 1 - 1e-16})
    outcomes = radgs.register(
        folder / "s/cameras.json",
        folder / "models",
        tmp_path,
        prepared=done[1] / "patient",
        boxes=folder / "s/boxes.json",
        config=config.model_copy(update={"judgement": strict}),
    )
    for level, one in outcomes.items():
        assert (one.verdict, done[0][level].verdict) == ("rejected", "accepted")
        assert (tmp_path / level / "world_from_ct.json").is_file()
        assert not (tmp_path / level / "spatial_registration.dcm").exists()
        assert (done[1] / level / "spatial_registration.dcm").is_file()


def test_a_prepared_ct_is_used_and_not_touched_and_gives_the_same_poses(case, done, tmp_path):
    folder, config = case
    outcomes, out = done
    before = {p: p.stat().st_mtime_ns for p in (out / "patient").rglob("*")}
    again = radgs.register(
        folder / "s/cameras.json",
        folder / "models",
        tmp_path,
        prepared=out / "patient",
        boxes=folder / "s/boxes.json",
        config=config,
    )
    assert {p: p.stat().st_mtime_ns for p in (out / "patient").rglob("*")} == before
    assert not (tmp_path / "patient").exists()
    for level, one in outcomes.items():
        np.testing.assert_allclose(again[level].world_from_ct.matrix, one.world_from_ct.matrix, atol=1e-9)


def test_rough_centres_or_a_prepared_shot_will_do_and_a_level_without_crops_gets_them(case, done, tmp_path):
    folder, config = case
    truth = read_transforms(folder / "truth/s.json")
    centre = truth["L2"].apply(read_ct(folder / "ct").points([19, 17, 16]))
    write_json(tmp_path / "centres.json", {"L2": centre.tolist()})
    shot = done[1] / "cameras.json", folder / "models", tmp_path / "out"
    stale = tmp_path / "out/patient/crops/L2_excess.nii.gz"  # of another patient who was registered to this folder
    stale.parent.mkdir(parents=True)
    stale.write_text("another patient's")
    outcomes = radgs.register(
        *shot, prepared=done[1] / "patient", centres=tmp_path / "centres.json", levels=["L2"], config=config
    )
    assert list(outcomes) == ["L2"]
    assert outcomes["L2"].world_from_ct is not None
    made = {p.name for p in (tmp_path / "out/patient").rglob("*") if p.is_file()}
    assert made == {"L2_excess.nii.gz", "L2_mask.nii.gz", "L2.ply"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected the levels' centres"),
        ({"L9": [0, 0, 0]}, "L9"),
        ({"L1": [0, 0]}, "not a vertebra with its centre"),
        ({"L1": [0, 0, 5000]}, "image of 0 view"),
    ],
)
def test_centres_that_cannot_be_right_are_refused(case, done, tmp_path, content, message):
    folder, config = case
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(RadgsError, match=message):
        radgs.register(
            folder / "s/cameras.json",
            folder / "models",
            tmp_path / "out",
            prepared=done[1] / "patient",
            centres=tmp_path / "c.json",
            config=config,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prepared": "p"}, "not both"),
        ({"ct": None}, "not both"),
        ({"centres": "c"}, "one of boxes, detector and centres"),
        ({"boxes": None}, "one of boxes, detector and centres"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(tmp_path, change, message):
    given = {"ct": "ct", "labels": "labels", "boxes": "b"} | change
    with pytest.raises(ConfigError, match=message):
        radgs.register("c.json", tmp_path, tmp_path, **given)


def test_a_dicom_element_that_may_not_be_given_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(RadgsError, match="PatientAge cannot be given"):
        radgs.register("c.json", "m", tmp_path / "o", ct="ct", boxes="b", subject={"PatientAge": "70"})
    assert not (tmp_path / "o").exists()


def test_a_view_without_its_image_is_named(case, tmp_path):
    folder, config = case
    cameras = read_json(folder / "s/cameras.json")
    del cameras["views"]["LA"]["image"]
    write_json(tmp_path / "cameras.json", cameras)
    given = {"ct": folder / "ct", "labels": folder / "labels.nii.gz", "boxes": folder / "s/boxes.json"}
    with pytest.raises(ConfigError, match=r"view LA names no image"):
        radgs.register(tmp_path / "cameras.json", folder / "models", tmp_path / "o", **given, config=config)


def test_an_image_that_is_no_name_is_refused(case, tmp_path):
    folder, config = case
    cameras = read_json(folder / "s/cameras.json")
    cameras["views"]["LA"]["image"] = 5
    write_json(tmp_path / "cameras.json", cameras)
    given = {"ct": folder / "ct", "labels": folder / "labels.nii.gz", "boxes": folder / "s/boxes.json"}
    with pytest.raises(ConfigError, match=r"view LA: image 5 is no name of a file"):
        radgs.register(tmp_path / "cameras.json", folder / "models", tmp_path / "o", **given, config=config)


def test_the_command_takes_the_network_from_the_models_and_says_what_became_of_each_level(case, tmp_path):
    folder, _ = case
    command = [sys.executable, "-c", "from radgs.cli import main; main()", "register"]
    given = {
        "--ct": folder / "ct",
        "--labels": folder / "labels.nii.gz",
        "--xrays": folder / "s/cameras.json",
        "--models": folder / "models",
        "--boxes": folder / "s/boxes.json",
        "--out": tmp_path / "out",
        "--levels": "L1",
    }
    arguments = [str(a) for pair in given.items() for a in pair]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "L1" in ended.stdout
    assert read_json(tmp_path / "out/L1/verdict.json")["verdict"] in ended.stdout
    ended = subprocess.run([*command, *arguments, "--dicom", "PatientID"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "KEYWORD=VALUE" in ended.stderr
