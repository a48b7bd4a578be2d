"""The report's drawings are where the bone is, and the page says first what a reader must know."""

import json

import numpy as np
import pandas as pd
from PIL import Image

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings
from radgs.geometry import RigidTransform
from radgs.images import Xray
from radgs.projection import project_part
from radgs.registration import ViewAttention
from radgs.report import draw_attention, draw_overlay, draw_steps, silhouette, write_report
from radgs.simulation import CArm
from tests.phantoms import block_spine

POSE = RigidTransform.from_rotation_translation(np.eye(3), [-11.0, 7.0, -40.0])


def test_the_silhouette_covers_the_pixels_whose_rays_meet_the_vertebra():
    tissue = split_tissue(*block_spine())
    camera = CArm(CArmSettings(detector_px=244, pixel_mm=1.552)).camera("AP", 0.1, 0.2)
    drawn = project_part(tissue.excess["L1"], camera, POSE, 0.5) > 0.02
    outline = silhouette(camera, tissue.points("L1"), POSE)
    assert (drawn & outline).sum() / (drawn | outline).sum() > 0.8


def test_an_overlay_marks_both_poses(tmp_path):
    tissue = split_tissue(*block_spine())
    camera = CArm(CArmSettings(detector_px=244, pixel_mm=1.552)).camera("AP")
    image = project_part(tissue.excess["L1"], camera, POSE, 0.5)
    before = RigidTransform.from_rotation_translation(np.eye(3), [20.0, 0, 0]) @ POSE
    draw_overlay({"AP": Xray("AP", image, camera)}, tissue.masks["L1"], before, POSE, "L1", tmp_path / "overlay.png")
    pixels = np.asarray(Image.open(tmp_path / "overlay.png").convert("RGB")).astype(int)
    orange = (pixels[..., 0] > 200) & (pixels[..., 2] < 80)
    cyan = (pixels[..., 2] > 200) & (pixels[..., 0] < 80)
    assert orange.sum() > 50
    assert cyan.sum() > 50
    # the start lies 20 mm to the patient's left: further right in the picture
    assert np.argwhere(orange)[:, 1].mean() > np.argwhere(cyan)[:, 1].mean() + 20


def test_the_page_says_first_that_x_rays_are_simulated(tmp_path):
    table = pd.DataFrame(
        {
            "patient": ["p", "p"],
            "shot": ["s", "s"],
            "level": ["L1", "<b>"],
            "unregistered_mtre_mm": [40.0, 41.0],
            "start_mtre_mm": [8.0, 9.0],
            "regm_mtre_mm": [3.0, 4.0],
            "mtre_mm": [0.4321, np.nan],
            "verdict": ["accepted", "rejected"],
            "probability": [0.99, 0.0],
            "seconds": [5.0, 5.0],
            "labels": ["suspect", "cut"],
        }
    )
    table.to_csv(tmp_path / "r.csv", index=False)
    block = {"median": 1.0, "mean": 1.0, "sd": None, "p95": None, "n": 0}
    success = {"value": 0.5, "low": 0.1, "high": 0.9}
    summary = {
        "n": 2,
        "not_registered": {"cut": 1, "outside": 0},
        **dict.fromkeys(("start_mtre_mm", "regm_mtre_mm", "mtre_mm"), block),
        "success_2mm": success,
        "success_1mm": success,
        "accepted": {"count": 1, "fraction": 0.5},
        "false_accepts": 0,
        "seconds_per_registration": None,
        "xray_only": None,
        "ct_assisted": {"ssim": 0.91, "psnr_db": 27.0, "dice": 0.8},
    }
    (tmp_path / "s.json").write_text(json.dumps(summary))
    notes = {"p": "The X-rays are simulated & the CT is real."}
    write_report(tmp_path, [], notes, tmp_path / "r.csv", tmp_path / "s.json", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.index("simulated &amp; the CT is real") < page.index("<table>")
    assert "0.43" in page
    assert "<th>start</th>" in page
    assert "detected</th>" not in page
    assert "not registered, cut by the CT (counted nowhere else)</td><td>1<" in page
    assert "outside the images" not in page
    assert "&lt;b&gt;" in page
    assert "<td>suspect</td>" in page
    assert "<td>cut</td>" in page
    assert "10.0 to 90.0" in page


def test_a_patient_without_truth_gets_a_page_that_says_so(tmp_path):
    (tmp_path / "r.csv").write_text("patient,shot,level,mtre_mm,verdict,probability,labels\n")
    (tmp_path / "s.json").write_text('{"n": 0}')
    write_report(tmp_path, [], {}, tmp_path / "r.csv", tmp_path / "s.json", tmp_path / "report.html")
    assert "No true pose is known" in (tmp_path / "report.html").read_text()


def test_steps_of_no_registration_can_be_drawn(tmp_path):
    draw_steps(pd.DataFrame({"mtre_mm": []}), tmp_path / "steps.png")
    assert Image.open(tmp_path / "steps.png").size[0] > 100


def test_attention_is_drawn_where_the_map_is_high(tmp_path):
    maps = np.zeros((4, 8, 8), np.float32)
    maps[:, 1, 6] = 64  # up and to the right
    window = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    views = {name: ViewAttention(window, maps, 112.0) for name in ("AP", "LA")}
    draw_attention(views, "shot", tmp_path / "attention.png")
    pixels = np.asarray(Image.open(tmp_path / "attention.png").convert("RGB")).astype(int)
    grey = (np.ptp(pixels, axis=-1) < 12) & (pixels.sum(-1) < 600)
    rows, columns = np.nonzero(grey[: len(pixels) // 2, : pixels.shape[1] // 3])
    top, left, size = rows.min(), columns.min(), np.ptp(columns)
    bright = np.argwhere((pixels[..., 0] > 220) & (pixels[..., 2] < 170))
    of_mean = bright[(bright[:, 1] < left + size) & (bright[:, 0] < len(pixels) // 2)]
    assert len(of_mean) > 50
    place = (of_mean.mean(axis=0) - [top, left]) / size
    np.testing.assert_allclose(place, [1.5 / 8, 6.5 / 8], atol=0.08)
