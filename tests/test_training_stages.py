"""The stages from files to files, on a made-up patient of two vertebrae."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from radgs.config import Config, LossSettings, MachineSettings
from radgs.errors import AnatomyError, ConfigError, ImageError
from radgs.gaussians import Grid, RadiativeGaussians, rasterize, voxelize, write_ply
from radgs.geometry import rigid_motion
from radgs.images import Volume, write_volume
from radgs.models import RecM, RegM, load_recm, load_regm
from radgs.training import loop, pass_on, read_patient, train_joint, train_recm, train_regm
from radgs.training.data import read_vertebrae, views_of
from radgs.training.losses import point_errors
from radgs.training.machine import device_of
from radgs.training.recm_stage import RecMStage, anchors_of
from radgs.training.regm_stage import JointStage, reconstructed

PIXELS, COUNT, SIZE_MM = 32, 48, 112.0
LEVELS = {"T12": 19, "L1": 20}
_TRAINING = {"epochs": 1, "batch": 8, "validation_fraction": 0.1}
CONFIG = Config.model_validate(
    {
        "levels": list(LEVELS),
        "crop": {"voxels": 32},
        "network": {"width": 4, "image_px": PIXELS, "volume_voxels": 16, "gaussians": 27, "attention_maps": 4},
        "training": {"recm": _TRAINING, "regm": _TRAINING, "joint": _TRAINING},
    }
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two pools of threads that wait for each other on a busy machine cost far more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def vertebra(seed: int) -> RadiativeGaussians:
    """A body, and processes at places of their own: no symmetry."""
    g = torch.Generator().manual_seed(seed)
    means = torch.cat([torch.randn(20, 3, generator=g) * 7, torch.tensor([[0.0, 30, -8], [28, 14, 4], [-24, 18, 10]])])
    return RadiativeGaussians(
        means,
        torch.full((23, 3), 5.0),
        torch.tensor([1.0, 0, 0, 0]).repeat(23, 1),
        torch.cat([torch.full((20,), 0.008), torch.full((3,), 0.03)]),
    )


def poses(count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    turn = (torch.rand(count, 3, generator=g, dtype=torch.float64) - 0.5) * 0.6
    shift = (torch.rand(count, 3, generator=g, dtype=torch.float64) - 0.5) * 12
    return rigid_motion(turn, shift, torch.zeros(3, dtype=torch.float64))


def write_pairs(path: Path, count: int = COUNT, seed: int = 0, levels: dict[str, int] = LEVELS) -> None:
    focal = 700 * PIXELS / SIZE_MM
    middle = (PIXELS - 1) / 2
    K = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]], dtype=torch.float64).expand(count, 2, 3, 3)
    ap = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 700], [0, 0, 0, 1]], dtype=torch.float64)
    la = torch.tensor([[0.0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 700], [0, 0, 0, 1]], dtype=torch.float64)
    camera = torch.stack([ap, la]).expand(count, 2, 4, 4)
    level = torch.tensor(list(levels.values()))[torch.arange(count) % len(levels)]
    each = [vertebra(int(n)) for n in level]
    stacked = RadiativeGaussians(
        *(torch.stack([getattr(v, n) for v in each]) for n in ("means", "scales", "quaternions", "densities"))
    )
    truth = poses(count, seed)
    targets = rasterize(stacked.moved(truth), K, camera, (PIXELS, PIXELS))
    with h5py.File(path, "w") as file:
        for name, values in {
            "images": targets + 3,
            "targets": targets,
            "K": K,
            "camera_from_crop": camera,
            "crop_from_vertebra": truth,
            "level": level,
        }.items():
            file[name] = values.numpy()
        file.attrs["patient"] = "made-up"


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """Files of the made-up patient: pairs, crops and anchors."""
    folder = tmp_path_factory.mktemp("patient")
    write_pairs(folder / "pairs.h5")
    crops, anchors = {}, {}
    for level, number in LEVELS.items():
        one = vertebra(number)
        excess = voxelize(one, Grid.centred(SIZE_MM, 32)).numpy()
        excess[excess < 0.002] = 0
        spacing = SIZE_MM / 32
        origin = np.array([40.0, -20, 300]) - SIZE_MM / 2 + spacing / 2
        crops[level], anchors[level] = folder / f"{level}.nii.gz", folder / f"{level}.ply"
        write_volume(crops[level], Volume.axis_parallel(excess, spacing, origin))
        write_ply(anchors[level], one)
    return folder / "pairs.h5", crops, anchors


def data(patient):
    return read_patient(*patient, CONFIG.network.volume_voxels)


@pytest.fixture(scope="module")
def trained(patient, tmp_path_factory):
    """All three stages, one epoch each."""
    folder = tmp_path_factory.mktemp("models")
    train_recm(data(patient), None, folder / "recm", CONFIG, CONFIG.training)
    train_regm(data(patient), folder / "recm", None, folder / "regm", CONFIG, CONFIG.training)
    train_joint(data(patient), folder / "regm", folder / "regm", folder / "joint", CONFIG, CONFIG.training)
    return folder


def test_every_stage_writes_weights_and_a_card_that_load(trained):
    for stage in ("recm", "regm", "joint"):
        card = json.loads((trained / stage / "card.json").read_text())
        assert card["stage"] == stage
        assert card["trained"]
        assert card["data"]["pairs"] == COUNT
        assert len(card["data"]["sha256"]) == 64
        assert card["anchors"] == "patient"
        assert card["metrics"]["validated"] == 5
        assert str(trained) not in json.dumps(card)
        assert (trained / stage / "log.csv").is_file()
        load_recm(trained / stage)
    assert not (trained / "recm" / "regm.safetensors").exists()
    load_regm(trained / "joint")


def test_training_regm_leaves_recm_and_joint_training_keeps_its_best_epoch(trained):
    recm = [load_recm(trained / stage).state_dict() for stage in ("recm", "regm", "joint")]
    assert all(torch.equal(a, b) for a, b in zip(recm[0].values(), recm[1].values(), strict=True))
    errors = np.genfromtxt(trained / "joint" / "log.csv", delimiter=",", names=True)["mtre_mean_mm"]
    same = all(torch.equal(a, b) for a, b in zip(recm[1].values(), recm[2].values(), strict=True))
    assert same == (errors.argmin() == 0)


def test_a_stage_without_data_passes_its_weights_on_and_says_so(trained, tmp_path):
    pass_on(trained / "joint", tmp_path / "p2", CONFIG, "p2", "no real X-rays with poses")
    card = json.loads((tmp_path / "p2" / "card.json").read_text())
    assert card["trained"] is False
    assert card["reason"] == "no real X-rays with poses"
    for name in ("recm.safetensors", "regm.safetensors"):
        assert (tmp_path / "p2" / name).read_bytes() == (trained / "joint" / name).read_bytes()
    pass_on(None, tmp_path / "p1", CONFIG, "p1", "no population")
    start = poses(1, 3)
    volumes = torch.rand(2, 1, 16, 16, 16)
    torch.testing.assert_close(load_regm(tmp_path / "p1")(volumes[0], volumes[1], start), start)


def test_a_card_names_all_that_the_weights_have_learned_from_once(trained, patient, tmp_path):
    for stage in ("recm", "regm", "joint"):  # of one patient, one after the other
        assert json.loads((trained / stage / "card.json").read_text())["started_from"] == []
    first = json.loads((trained / "joint" / "card.json").read_text())["data"]
    pass_on(trained / "joint", tmp_path / "p2", CONFIG, "p2", "no real X-rays with poses")
    write_pairs(tmp_path / "other.h5", seed=9)
    other = read_patient(tmp_path / "other.h5", *patient[1:], CONFIG.network.volume_voxels)
    train_recm(other, tmp_path / "p2", tmp_path / "recm", CONFIG, CONFIG.training)
    train_regm(other, tmp_path / "recm", tmp_path / "p2", tmp_path / "regm", CONFIG, CONFIG.training)
    for stage in ("p2", "recm", "regm"):
        assert json.loads((tmp_path / stage / "card.json").read_text())["started_from"] == [first]


def test_a_card_of_an_earlier_version_is_refused(trained, tmp_path):
    shutil.copytree(trained / "joint", tmp_path / "old")
    card = json.loads((tmp_path / "old/card.json").read_text())
    (tmp_path / "old/card.json").write_text(json.dumps(card | {"started_from": {"data": None}}))
    with pytest.raises(ConfigError, match="earlier version"):
        pass_on(tmp_path / "old", tmp_path / "p2", CONFIG, "p2", "")


def test_a_stage_of_no_epochs_measures_its_weights_and_passes_them_on(trained, patient, tmp_path):
    config = CONFIG.changed({"training": {"recm": {"epochs": 0}}})
    train_recm(data(patient), trained / "joint", tmp_path, config, config.training)
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["trained"], card["reason"], card["steps"]) == (False, "training.recm.epochs is 0", 0)
    assert card["metrics"]["validated"] == 5
    for name in ("recm", "regm"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (trained / f"joint/{name}.safetensors").read_bytes()


def test_without_counterfactuals_only_the_factual_branch_is_taught(patient):
    some = data(patient)
    batch = {name: values[:8] for name, values in some.fields.items()}
    for counterfactual, branches in ((True, {"factual", "effect"}), (False, {"factual"})):
        losses = CONFIG.training.losses.model_copy(update={"counterfactual": counterfactual})
        stages = [
            RecMStage(RecM(CONFIG.network), some.vertebrae, losses),
            JointStage(RecM(CONFIG.network), RegM(CONFIG.network), some.vertebrae, losses, "patient"),
        ]
        for stage in stages:
            stage.progress = 1.0
            terms = [stage(batch) for _ in range(6)]
            assert any("factual.image" in one for one in terms)
            assert {key.split(".")[0] for one in terms for key in one} - {"registration"} == branches


def test_the_motion_is_taught_first_and_alone(patient):
    some = data(patient)
    batch = {name: values[:8] for name, values in some.fields.items()}
    stage = RecMStage(RecM(CONFIG.network), some.vertebrae, LossSettings(pose_first=0.5))
    stage.progress = 0.49
    assert {key for _ in range(6) for key in stage(batch)} == {"factual.anchor", "effect.anchor"}
    stage.progress = 0.5
    assert {"factual.anchor", "factual.density", "factual.image"} <= {key for _ in range(9) for key in stage(batch)}


@pytest.mark.parametrize(("head", "anchor"), [("global", 1.0), ("anchored", 0.0)])
def test_without_a_motion_to_be_taught_all_is_taught_from_the_first_step(patient, head, anchor):
    some = data(patient)
    network = CONFIG.network.model_copy(update={"head": head})
    assert RecMStage(RecM(network), some.vertebrae, LossSettings(pose_first=0.5, anchor=anchor)).whole_from == 0


def test_reconstructions_are_made_where_the_network_is_even_beside_a_gpu(patient, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of(MachineSettings(accelerator=name)) for name in ("cpu", "auto")] == ["cpu", "cuda"]
    some = data(patient)
    few = {name: values[:3] for name, values in some.fields.items()}
    made = reconstructed(RecM(CONFIG.network), few, some.vertebrae, "patient")
    assert made["reconstruction"].shape == (3, 16, 16, 16)


def test_training_goes_on_from_initial_weights(trained, patient, tmp_path):
    settings = {"epochs": 1, "batch": 8, "learning_rate": 1e-12, "weight_decay": 0}
    config = CONFIG.model_copy(
        update={
            "training": CONFIG.training.model_copy(update={"recm": CONFIG.training.recm.model_copy(update=settings)})
        }
    )
    train_recm(data(patient), trained / "joint", tmp_path, config, config.training)
    old, new = load_recm(trained / "joint").state_dict(), load_recm(tmp_path).state_dict()
    torch.testing.assert_close(new["motion_head.0.weight"], old["motion_head.0.weight"], atol=1e-8, rtol=0)
    assert (tmp_path / "regm.safetensors").is_file()


def test_weights_of_another_network_are_refused(trained, patient, tmp_path):
    config = CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update={"width": 8})})
    with pytest.raises(ConfigError, match="another network"):
        train_recm(data(patient), trained / "recm", tmp_path, config, config.training)


def test_a_stopped_stage_goes_on_where_it_was(trained, patient, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    forward, calls = RecMStage.forward, []

    def stops(self, batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(RecMStage, "forward", stops)
    with pytest.raises(KeyboardInterrupt):
        train_recm(data(patient), None, tmp_path, CONFIG, CONFIG.training)
    train_recm(data(patient), None, tmp_path, CONFIG, CONFIG.training)
    assert len(calls) == 6  # three steps, one lost, two more: an epoch has five
    assert (tmp_path / "recm.safetensors").read_bytes() == (trained / "recm" / "recm.safetensors").read_bytes()


def test_the_xray_only_result_does_not_change_when_patients_are_swapped(trained, patient):
    _, crops, anchors = patient
    swapped = read_vertebrae(
        dict(zip(crops, reversed(crops.values()))), dict(zip(anchors, reversed(anchors.values()))), 16
    )
    own = data(patient)
    batch = {name: values[:4] for name, values in own.fields.items()}
    recm = load_recm(trained / "joint")

    volumes = {}
    for kind in ("grid", "patient"):
        for name, vertebrae in (("own", own.vertebrae), ("swapped", swapped)):
            made = recm(views_of(batch), anchors_of(recm, batch["vertebra"], vertebrae, kind))
            volumes[kind, name] = voxelize(made.factual, Grid.centred(SIZE_MM, 16))
    assert torch.equal(volumes["grid", "own"], volumes["grid", "swapped"])
    assert not torch.allclose(volumes["patient", "own"], volumes["patient", "swapped"])


def test_recm_is_never_shown_the_pose_or_the_targets(patient):
    batch = {name: values[:3] for name, values in data(patient).fields.items()}
    seen = views_of(batch)
    other = views_of({**batch, "crop_from_vertebra": batch["crop_from_vertebra"] * 0, "targets": batch["targets"] * 0})
    for name in ("images", "K", "camera_from_crop", "level"):
        assert getattr(seen, name) is getattr(other, name)


def test_points_and_volume_of_a_crop_are_in_the_vertebra_frame(patient):
    _, crops, anchors = patient
    vertebrae = read_vertebrae(crops, anchors, 16)
    row = vertebrae.level.tolist().index(20)
    volume, step = vertebrae.volumes[row], SIZE_MM / 16
    axis = (torch.arange(16) - 7.5) * step
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centroid = torch.stack([(volume * c).sum() / volume.sum() for c in (x, y, z)])
    one = vertebra(20)
    expected = (one.means * one.densities[:, None]).sum(0) / one.densities.sum()
    torch.testing.assert_close(centroid, expected, atol=0.7, rtol=0)
    assert (vertebrae.points[row].mean(0) - one.means.mean(0)).abs().max() < 8
    assert vertebrae.points[row][:, 1].max() > 30  # the process at y = 30 mm


def test_pairs_of_an_unknown_level_and_missing_anchors_are_named(patient, tmp_path):
    _, crops, anchors = patient
    write_pairs(tmp_path / "other.h5", 4, levels={"L5": 24})
    with pytest.raises(AnatomyError, match="L5"):
        read_patient(tmp_path / "other.h5", crops, anchors, 16)
    with pytest.raises(AnatomyError, match="L1"):
        read_vertebrae(crops, {"T12": anchors["T12"]}, 16)
    empty = tmp_path / "empty.nii.gz"
    write_volume(empty, Volume.axis_parallel(np.zeros((8, 8, 8), np.float32), 1.0, [0, 0, 0]))
    with pytest.raises(ImageError, match=r"empty\.nii\.gz"):
        read_vertebrae({"L1": empty}, {"L1": anchors["L1"]}, 16)


def test_recm_learns_a_small_pose_problem_by_heart(patient):
    torch.manual_seed(0)
    small = data(patient)
    batch = {name: values[:16] for name, values in small.fields.items()}
    recm = RecM(CONFIG.network)
    points = small.vertebrae.points[batch["vertebra"]]
    optimizer = torch.optim.AdamW(recm.parameters(), lr=3e-3)

    def errors() -> torch.Tensor:
        return point_errors(recm.observe(views_of(batch)).factual_motion, batch["crop_from_vertebra"], points)

    start = float(errors().detach().mean())
    for _ in range(80):
        optimizer.zero_grad()
        errors().mean().backward()
        optimizer.step()
    assert start > 5
    assert float(errors().detach().mean()) < 0.3 * start
