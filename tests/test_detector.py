"""The level detector: the real ultralytics network, trained here on pictures whose content is known."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
import torch

if find_spec("ultralytics") is None:  # not imported here: that would change how PIL opens files in every test
    pytest.skip("the extra detect is not installed", allow_module_level=True)

from radgs.anatomy import audit_labels, detect_trained, write_audit
from radgs.anatomy.canvas import canvas_camera, canvas_to_image, inside_image, local_contrast, to_canvas
from radgs.anatomy.yolo import WEIGHTS, Detector, build_detector, detection_loss, find_candidates
from radgs.config import Config
from radgs.errors import AnatomyError, ImageError
from radgs.geometry import Camera, RigidTransform
from radgs.images import Xray, write_volume, write_xrays
from radgs.simulation import simulate_radiographs
from radgs.simulation.instruments import rod
from radgs.simulation.radiographs import RadiographMaker, SimulatedRadiographs
from radgs.training import train_detector
from radgs.training.detector_pictures import grainy, moved
from tests.phantoms import block_spine

LEVELS = ["T12", "L1"]


def squares(rng, count, size=64):
    """Pictures of a bright upper and a dark lower square, their boxes, and nothing else."""
    images, boxes = np.full((count, size, size), 128, np.uint8), np.zeros((count, 2, 4), np.float32)
    for n in range(count):
        u, v = rng.integers(4, 40, 1)[0], rng.integers(4, 24, 1)[0]
        for row, (top, value) in enumerate([(v, 230), (v + 18, 30)]):
            images[n, top : top + 16, u : u + 16] = value
            boxes[n, row] = u - 0.5, top - 0.5, u + 15.5, top + 15.5
    return images, boxes


@pytest.fixture(scope="module")
def learned():
    """A network that has seen squares for some seconds."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = build_detector(LEVELS, 0.1).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=201)
    for _ in range(200):
        images, boxes = squares(rng, 8)
        terms = detection_loss(network, torch.from_numpy(images)[:, None].float() / 255, torch.from_numpy(boxes))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def test_the_network_learns_where_things_are_and_what_they_are(learned):
    images, boxes = squares(np.random.default_rng(1), 10)
    for image, truth in zip(images, boxes, strict=True):
        found = find_candidates(learned, image)
        for row in range(2):
            best = max(found, key=lambda one: one.scores[row])
            assert best.scores[row] > 0.3
            assert best.edges == pytest.approx(truth[row].tolist(), abs=3)


def test_nothing_in_the_picture_is_nothing_found(learned):
    assert not [c for c in find_candidates(learned, np.full((64, 64), 128, np.uint8)) if c.scores.max() > 0.3]


def test_a_picture_is_as_large_as_its_image_and_a_margin():
    camera = Camera(
        np.array([[2000.0, 0, 99.5], [0, 2000, 49.5], [0, 0, 1]]),
        RigidTransform.from_rotation_translation(np.eye(3), [0, 0, 700]),
        200,
        100,
    )
    canvas = canvas_camera(camera, 60)
    corners = canvas_to_image(camera, np.array([[-0.5, -0.5], [59.5, 59.5]]), canvas)
    assert corners == pytest.approx(np.array([[-20.5, -70.5], [219.5, 169.5]]))
    assert inside_image(camera, 60).sum() == 50 * 25
    image = np.add.outer(np.zeros(100), np.arange(200.0)).astype(np.float32)
    drawn = to_canvas(Xray("AP", image, camera), 60)
    assert np.isnan(drawn[0, 0])
    u = canvas_to_image(camera, np.array([[30, 30]]), canvas)[0, 0]
    assert drawn[30, 30] == pytest.approx(u, abs=0.6)


def test_local_contrast_ignores_exposure_and_what_was_not_measured():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(64, 64)).astype(np.float32)
    assert np.abs(local_contrast(image).astype(int) - local_contrast(3 * image + 5)).max() <= 1
    image[:, :20] = np.nan
    assert (local_contrast(image)[:, :20] == 128).all()
    assert (local_contrast(np.full((64, 64), np.nan, np.float32)) == 128).all()


def test_moving_a_picture_moves_its_boxes():
    torch.manual_seed(3)
    images = torch.full((20, 1, 64, 64), 0.5)
    images[:, :, 20:30, 34:44] = 1
    boxes = torch.tensor([33.5, 19.5, 43.5, 29.5]).expand(20, 1, 4).clone()
    drawn, there = moved(images, boxes)
    weight = (drawn[:, 0] - 0.5).clamp(min=0)
    axis = torch.arange(64.0)
    u = (weight.sum(1) * axis).sum(1) / weight.sum((1, 2))
    v = (weight.sum(2) * axis).sum(1) / weight.sum((1, 2))
    assert ((there[:, 0, 0] + there[:, 0, 2]) / 2).tolist() == pytest.approx(u.tolist(), abs=0.05)
    assert ((there[:, 0, 1] + there[:, 0, 3]) / 2).tolist() == pytest.approx(v.tolist(), abs=0.05)
    assert u.std() > 1


def test_noise_of_few_photons_keeps_the_spread_and_leaves_out_what_was_not_measured():
    torch.manual_seed(4)
    clean = 0.5 + 0.1 * torch.randn(300, 1, 64, 64)
    clean[..., :16] = 128 / 255
    drawn = grainy(clean)
    assert torch.equal(drawn[..., :16], clean[..., :16])
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1
    a, b = (x[..., 16:].flatten(1) - 0.5 for x in (clean, drawn))
    alike = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    grain = (1 / alike.clamp(max=1) ** 2 - 1).sqrt() * 0.1 / 0.2  # the pictures have half of the spread that is usual
    assert grain.median() == pytest.approx(2.5 * 0.5**3, rel=0.3)
    assert 1.8 < float(grain.max()) < 2.8
    whole = grainy(0.5 + 0.2 * torch.randn(50, 1, 64, 64)) - 0.5
    assert whole.flatten(1).std(dim=1).tolist() == pytest.approx([0.2] * 50, rel=0.1)


def test_a_rod_attenuates_as_much_as_its_thickness_and_lies_where_it_should():
    from radgs.gaussians import rasterize

    start, end = np.array([-30.0, 5, -10]), np.array([30.0, 5, 40])
    made = rod(start, end, 1.0, 0.6)
    camera = torch.eye(4, dtype=torch.float64)
    camera[2, 3] = 700.0
    k = torch.tensor([[7000.0, 0, 400], [0, 7000, 100], [0, 0, 1]], dtype=torch.float64)
    image = rasterize(made, k[None], camera[None], (200, 800))[0]
    assert float(image[:, 400].max()) == pytest.approx(1.2 / (60 / np.hypot(60, 50)), rel=0.25)  # crossed obliquely
    row = int(image[:, 400].argmax())
    assert row == pytest.approx(100 + 7000 * 5 / 715, abs=2)


@pytest.fixture(scope="module")
def config():
    return Config.model_validate(
        {
            "levels": ["T12", "L1"],
            "simulation": {
                "carm": {"detector_px": 240, "pixel_mm": 1.6},
                "motion": {"rotation_deg": 5, "translation_mm": 10},
            },
            "detection": {
                "backend": "yolo",
                "yolo": {"image_px": 64, "width": 0.1, "shots": 24, "training": {"epochs": 2, "batch": 8}},
            },
        }
    )


@pytest.fixture(scope="module")
def patient(tmp_path_factory, config):
    """CT, labels and simulated radiographs of the phantom."""
    folder = tmp_path_factory.mktemp("detector")
    ct, labels = block_spine()
    write_volume(folder / "ct.nii.gz", ct)
    write_volume(folder / "labels.nii.gz", labels)
    audit = {level: replace(found, status="ok") for level, found in audit_labels(labels, ct).items()}
    audit["L2"] = replace(audit["L2"], status="cut")
    write_audit(folder / "vertebrae.json", audit)
    simulate_radiographs(
        folder / "ct.nii.gz", folder / "labels.nii.gz", folder / "vertebrae.json", folder / "radiographs.h5", config
    )
    return folder


def test_boxes_lie_on_the_vertebrae_of_simulated_radiographs(config):
    """Centres of the boxes triangulate to the middle of the vertebra, and bone is denser inside than beside."""
    ct, labels = block_spine()
    maker = RadiographMaker(ct, labels, ["T12", "L1"], config)
    for seed in range(4):
        scene = maker.scene(np.random.default_rng(seed))
        for view in range(2):
            for row in range(2):
                camera = Camera(scene["K"][view], RigidTransform(scene["camera_from_world"][view]), 64, 64)
                box = scene["boxes"][view, row]
                if not np.isnan(box).any():
                    middle = (box[:2] + box[2:]) / 2
                    assert camera.project(scene["centres"][row]) == pytest.approx(middle, abs=1.5)


def test_levels_that_the_ct_cuts_are_not_taught(patient):
    assert SimulatedRadiographs(patient / "radiographs.h5").levels == ["T12", "L1"]


def test_training_writes_weights_that_detect(patient, config, tmp_path):
    train_detector(patient / "radiographs.h5", patient / "detector", config)
    card = json.loads((patient / "detector/card.json").read_text())
    assert card["levels"] == ["T12", "L1"]
    assert 0 <= card["metrics"]["named_right"] <= 1
    assert set(Detector(patient / "detector").network.state_dict())
    data = SimulatedRadiographs(patient / "radiographs.h5")
    views = {}
    for view, name in enumerate(data.views):
        camera = Camera(data.K[0, view], RigidTransform(data.camera_from_world[0, view]), 64, 64)
        views[name] = Xray(name, np.nan_to_num(data.images[0, view].astype(np.float32)), camera, i0=1000.0)
    write_xrays(tmp_path / "xrays.nii.gz", tmp_path / "cameras.json", views)
    arguments = (
        tmp_path / "xrays.nii.gz",
        tmp_path / "cameras.json",
        patient / "ct.nii.gz",
        patient / "labels.nii.gz",
        patient / "detector",
    )
    with pytest.raises(AnatomyError, match="no vertebra is seen in two views"):  # two epochs teach little
        detect_trained(*arguments, tmp_path / "levels.json", config)
    assert not (tmp_path / "levels.json").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("card.json", b"{}", "not the card of a detector"),
        ("card.json", b'{"levels": ["heart"], "image_px": 64, "width": 0.1}', "are no levels"),
        (WEIGHTS, b"not safetensors", "not the weights"),
        (WEIGHTS, None, "not the weights"),
    ],
)
def test_a_damaged_detector_is_refused_in_one_line(tmp_path, file, content, message):
    from radgs.models import write_weights

    write_weights(tmp_path / WEIGHTS, build_detector(LEVELS, 0.1))
    (tmp_path / "card.json").write_text('{"levels": ["T12", "L1"], "image_px": 64, "width": 0.1}')
    assert Detector(tmp_path).levels == LEVELS
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(AnatomyError, match=message) as caught:
        Detector(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_no_radiographs_is_refused(tmp_path, config):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.zeros(3)
    for name in ("x.h5", "absent.h5"):
        with pytest.raises(ImageError, match="not a file of simulated radiographs"):
            train_detector(tmp_path / name, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_ultralytics_calls_nobody_and_leaves_the_process_as_it_was(tmp_path):
    """In a process of its own, with a home of its own: no connection, no settings file, no changed environment."""
    script = """
import os, socket
def refuse(*a, **k): raise SystemExit("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
before = dict(os.environ)
import torch, PIL.Image
threads, read, save = torch.get_num_threads(), PIL.Image.open, torch.save
from radgs.anatomy.yolo import build_detector, import_ultralytics
build_detector(["L1"], 0.1)
from ultralytics.utils import ONLINE, AUTOINSTALL
assert not ONLINE and not AUTOINSTALL
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert torch.get_num_threads() == threads
assert PIL.Image.open is read and torch.save is save
"""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if "ltralytics" in path.name]
