"""Provided labels in every numbering, and the real TotalSegmentator on models that call bone one vertebra."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from radgs.anatomy import ProvidedLabels, TotalSegmentator, required_weights, segment
from radgs.config import Config, TotalSegmentatorSettings, load_config
from radgs.errors import AnatomyError, ConfigError
from radgs.images import Volume, read_json, read_volume, write_volume
from tests.phantoms import block_spine
from tests.totalsegmentator_weights import write_weights

VERSE = {"T12": 19, "L1": 20, "L2": 21}
TOTALSEGMENTATOR = {"T12": 32, "L1": 31, "L2": 30}


def relabelled(labels, numbers):
    array = np.zeros_like(labels.array)
    for level, number in numbers.items():
        array[labels.array == VERSE[level]] = number
    return labels.with_array(array)


@pytest.mark.parametrize(
    ("numbering", "numbers"), [("verse", VERSE), ("ctspine1k", VERSE), ("totalsegmentator", TOTALSEGMENTATOR)]
)
def test_every_numbering_becomes_verse(tmp_path, numbering, numbers):
    ct, labels = block_spine()
    brought = relabelled(labels, numbers)
    if numbering == "totalsegmentator":
        brought.array[0, 0, 0] = 5  # an organ
    write_volume(tmp_path / "labels.nii.gz", brought)
    found = ProvidedLabels(tmp_path / "labels.nii.gz", numbering).segment(ct)
    assert (found.array == labels.array).all()
    assert found.array.dtype == np.uint8


def test_a_folder_of_masks_becomes_verse(tmp_path):
    ct, labels = block_spine()
    for level, number in VERSE.items():
        write_volume(
            tmp_path / f"vertebrae_{level}.nii.gz", labels.with_array((labels.array == number).astype(np.uint8))
        )
    write_volume(tmp_path / "liver.nii.gz", labels.with_array(np.ones_like(labels.array)))
    assert (ProvidedLabels(tmp_path, "totalsegmentator").segment(ct).array == labels.array).all()
    with pytest.raises(AnatomyError, match="folder of masks needs"):
        ProvidedLabels(tmp_path, "verse").segment(ct)
    write_volume(tmp_path / "vertebrae_L3.nii.gz", labels.with_array((labels.array == 21).astype(np.uint8)))
    with pytest.raises(AnatomyError, match=r"vertebrae_L3\.nii\.gz: overlaps the mask of L2"):
        ProvidedLabels(tmp_path, "totalsegmentator").segment(ct)


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(AnatomyError, match="holds no vertebra"):
        ProvidedLabels(tmp_path, "totalsegmentator").segment(block_spine()[0])


@pytest.mark.parametrize(
    ("numbering", "numbers", "message"),
    [
        ("verse", TOTALSEGMENTATOR, r"\[30, 31, 32\] are no verse numbers; they fit .*: totalsegmentator"),
        ("ctspine1k", {"L1": 28, "L2": 20}, r"\[28\] are no ctspine1k numbers; they fit .*: verse"),
        ("totalsegmentator", VERSE, "no vertebra in totalsegmentator numbers; they fit .*: verse or ctspine1k"),
        ("verse", {"T12": 21, "L1": 20, "L2": 19}, "run from foot to head"),
        ("verse", {"L1": 26}, "holds no vertebra"),
        ("totalsegmentator", {"L1": 31, "L2": 200}, r"\[200\] are no totalsegmentator"),
    ],
)
def test_labels_that_do_not_fit_the_numbering_are_refused_in_one_line(tmp_path, numbering, numbers, message):
    ct, labels = block_spine()
    write_volume(tmp_path / "labels.nii.gz", relabelled(labels, numbers))
    with pytest.raises(AnatomyError, match=message) as caught:
        ProvidedLabels(tmp_path / "labels.nii.gz", numbering).segment(ct)
    assert "\n" not in str(caught.value)
    assert "labels.nii.gz" in str(caught.value)


def test_fractions_are_no_labels(tmp_path):
    ct, labels = block_spine()
    write_volume(tmp_path / "labels.nii.gz", labels.with_array(labels.array * np.float32(0.97)))
    with pytest.raises(AnatomyError, match="are no verse numbers"):
        ProvidedLabels(tmp_path / "labels.nii.gz").segment(ct)


def test_the_audit_is_written_beside_the_labels(tmp_path):
    ct, labels = block_spine()
    write_volume(tmp_path / "ct.nii.gz", ct)
    write_volume(tmp_path / "ts.nii.gz", relabelled(labels, {"T12": 32, "L2": 30}))
    config = load_config({"segmentation": {"numbering": "totalsegmentator"}})
    segment(tmp_path / "ct.nii.gz", tmp_path / "ts.nii.gz", tmp_path / "v.nii.gz", tmp_path / "v.json", config)
    assert set(np.unique(read_volume(tmp_path / "v.nii.gz").array)) == {0, 19, 21}
    levels = read_json(tmp_path / "v.json")["levels"]
    assert {level: found["status"] for level, found in levels.items()} == {"T12": "suspect", "L2": "suspect"}


def test_no_labels_for_the_backend_provided_is_one_line(tmp_path):
    write_volume(tmp_path / "ct.nii.gz", block_spine()[0])
    with pytest.raises(AnatomyError, match="names no labels"):
        segment(tmp_path / "ct.nii.gz", [], tmp_path / "v.nii.gz", tmp_path / "v.json", Config())


def fake_weights(folder, *datasets):
    for dataset in datasets:
        model = folder / f"Dataset{dataset}_x" / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0"
        model.mkdir(parents=True)
        (model / "checkpoint_final.pth").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("settings", "datasets", "command"),
    [
        ({}, (292, 298), "totalseg_download_weights -t total"),
        ({"fast": True}, (297, 298), "totalseg_download_weights -t total_fast"),
        ({"task": "vertebrae_pp"}, (803,), "totalseg_download_weights -t vertebrae_pp"),
    ],
)
def test_weights_are_named_before_the_run_with_the_command_that_fetches_them(tmp_path, settings, datasets, command):
    asked = TotalSegmentatorSettings(weights=tmp_path, **settings)
    fake_weights(tmp_path, *datasets[:-1])
    with pytest.raises(AnatomyError, match=f"Dataset{datasets[-1]}") as caught:
        required_weights(asked)
    assert str(caught.value).endswith(f"TOTALSEG_WEIGHTS_PATH={tmp_path} {command}")
    assert "\n" not in str(caught.value)
    fake_weights(tmp_path, datasets[-1])
    assert [path.parents[2].name for path in required_weights(asked)] == [f"Dataset{d}_x" for d in datasets]
    with pytest.raises(AnatomyError, match="weights is not set"):
        required_weights(TotalSegmentatorSettings(**settings))


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = TotalSegmentatorSettings(weights=fake_weights(tmp_path, 292, 298))
    with pytest.raises(AnatomyError, match=r"not installed: pip install .*radgs\[segment\]"):
        TotalSegmentator(settings, 1).segment(block_spine()[0])


@pytest.mark.parametrize("wrong", [{"device": "cuda"}, {"task": "vertebrae_pp", "fast": True}, {"task": "body"}])
def test_settings_that_totalsegmentator_does_not_have_are_refused(wrong):
    with pytest.raises(ConfigError, match="segmentation"):
        load_config({"segmentation": {"totalsegmentator": wrong}})


needs_totalsegmentator = pytest.mark.skipif(
    importlib.util.find_spec("totalsegmentator") is None, reason="the extra 'segment' is not installed"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Models of all tasks; bone is L1 for those that are to be used, so that nothing else can be mistaken for them."""
    from totalsegmentator.map_to_binary import class_map, class_map_5_parts

    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, "292", "part2", 1.5, class_map_5_parts["class_map_part_vertebrae"], "vertebrae_L1")
    write_weights(folder, "297", "3mm", 3.0, class_map["total"], "vertebrae_L2")
    write_weights(folder, "298", "6mm", 6.0, class_map["total"], "vertebrae_T12")
    write_weights(folder, "803", "inner", 1.5, class_map["vertebrae_pp"], "vertebrae_L3")
    return folder


@pytest.fixture
def quiet_machine(tmp_path, monkeypatch):
    """Look-ups of hosts fail and are noted, the home is empty, torchvision for CUDA imports beside a CPU torch."""
    startup = [
        "import pathlib, sys",
        f"calls = pathlib.Path({str(tmp_path / 'network.txt')!r})",
        "def watch(event, arguments):",
        "    if event in ('socket.getaddrinfo', 'socket.gethostbyname'):",
        "        calls.write_text(f'{event} {arguments}')",
        "        raise OSError('no network for tests')",
        "sys.addaudithook(watch)",
    ]
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False).returncode:
        startup += [
            "import torch",
            "library = torch.library.Library('torchvision', 'FRAGMENT')",
            "for name in ('nms', 'qnms'):",
            "    library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')",
        ]
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup/sitecustomize.py").write_text("\n".join(startup))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "startup"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def oblique_spine():
    """The block phantom on a grid that is turned and flipped against LPS."""
    ct, labels = block_spine()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = ct.array.shape[2] - 1
    affine = turn @ ct.lps_from_index @ flip
    return Volume(ct.array[:, :, ::-1].copy(), affine), labels.array[:, :, ::-1]


@needs_totalsegmentator
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "number", "overlap"), [({}, 20, 0.97), ({"fast": True}, 21, 0.85), ({"task": "vertebrae_pp"}, 22, 0.7)]
)
def test_totalsegmentator_labels_bone_where_it_is(weights, quiet_machine, settings, number, overlap):
    ct, truth = oblique_spine()
    found = TotalSegmentator(TotalSegmentatorSettings(weights=weights, **settings), threads=1).segment(ct)
    assert found.same_grid(ct)
    assert set(np.unique(found.array)) == {0, number}
    dice = 2 * ((found.array > 0) & (truth > 0)).sum() / ((found.array > 0).sum() + (truth > 0).sum())
    assert dice > overlap
    assert not (quiet_machine / "home/.totalsegmentator").exists()
    assert not (quiet_machine / "network.txt").exists()


@needs_totalsegmentator
@pytest.mark.slow
def test_a_ct_without_bone_and_a_broken_model_are_one_line_each(weights, quiet_machine):
    ct, _ = block_spine()
    air = ct.with_array(np.full_like(ct.array, -1000))
    settings = TotalSegmentatorSettings(weights=weights, fast=True)
    with pytest.raises(AnatomyError, match="TotalSegmentator's result holds no vertebra"):
        TotalSegmentator(settings, 1).segment(air)
    broken = fake_weights(quiet_machine / "broken", 297, 298)
    with pytest.raises(AnatomyError, match="TotalSegmentator failed: ") as caught:
        TotalSegmentator(TotalSegmentatorSettings(weights=broken, fast=True), 1).segment(ct)
    assert "\n" not in str(caught.value)


@needs_totalsegmentator
def test_the_job_has_its_own_home_threads_and_no_telemetry(tmp_path, monkeypatch):
    """What the process is asked to do; the runs above show that it does it."""
    seen = {}

    def record(command, env, **_):
        request = Path(command[-1])
        seen.update(json.loads(request.read_text()), env=env)
        seen["home"] = json.loads((Path(env["TOTALSEG_HOME_DIR"]) / "config.json").read_text())
        return subprocess.CompletedProcess(command, 1, "", "stopped here")

    monkeypatch.setattr(subprocess, "run", record)
    settings = TotalSegmentatorSettings(weights=fake_weights(tmp_path, 292, 298))
    homes = set()
    for _ in range(2):
        with pytest.raises(AnatomyError, match="stopped here"):
            TotalSegmentator(settings, threads=3).segment(block_spine()[0])
        homes.add(seen["env"]["TOTALSEG_HOME_DIR"])
    assert len(homes) == 2
    assert seen["home"]["send_usage_stats"] is False
    assert (seen["threads"], seen["arguments"]["device"]) == (3, "cpu")
    assert (seen["env"]["OMP_NUM_THREADS"], seen["env"]["nnUNet_def_n_proc"]) == ("3", "3")
    assert len(seen["arguments"]["roi_subset"]) == 24
    assert seen["env"]["TOTALSEG_WEIGHTS_PATH"] == str(tmp_path)
    assert not any(Path(home).exists() for home in homes)
    assert os.environ.get("TOTALSEG_HOME_DIR") is None


def test_a_device_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    settings = TotalSegmentatorSettings(weights=fake_weights(tmp_path, 292, 298), device="gpu:1")
    with pytest.raises(AnatomyError, match="there is no gpu:1 here"):
        TotalSegmentator(settings, 1).segment(block_spine()[0])
