"""What a check says of a patient's files: each mistake is made in files that are right without it."""

import numpy as np
import pytest
from PIL import Image

from radgs.check import check_files
from radgs.config import Config, load_config
from radgs.images import read_json, read_volume, write_json, write_volume
from radgs.sheets import examine_sheets
from radgs.simulation import simulate_shots
from tests.phantoms import block_spine


@pytest.fixture
def config(tmp_path) -> Config:
    """A patient with one shot; everything about it is right."""
    ct, labels = block_spine()
    write_volume(tmp_path / "ct.nii.gz", ct)
    write_volume(tmp_path / "labels.nii.gz", labels)
    settings = {
        "patients": str(tmp_path / "patients.tsv"),
        "xrays": str(tmp_path / "xrays.tsv"),
        "levels": ["T12", "L1"],
        "demo": {"carm": {"detector_px": 240, "pixel_mm": 1.6}, "motion": {"translation_mm": 15}},
    }
    config = load_config(settings)
    simulate_shots(ct, labels, tmp_path, tmp_path / "truth", ["s"], config)
    patient = f"p\t{tmp_path}/ct.nii.gz\t{tmp_path}/labels.nii.gz\n"
    (tmp_path / "patients.tsv").write_text("patient\tct\tlabels\n" + patient)
    shot = tmp_path / "s"
    views = [f"p\ts\t{v}\t{shot}/{v}.png\t{shot}/cameras.json\t{shot}/boxes.json\n" for v in ("AP", "LA")]
    (tmp_path / "xrays.tsv").write_text("patient\tshot\tview\timage\tgeometry\tboxes\n" + "".join(views))
    return config


def said(config, kind) -> str:
    found, _ = check_files(config, examine_sheets(config))
    return "; ".join(f"{finding.file}: {finding.what}" for finding in found if finding.kind == kind)


def change_boxes(folder, change) -> None:
    boxes = read_json(folder / "s/boxes.json")
    change(boxes["views"])
    write_json(folder / "s/boxes.json", boxes)


def test_files_that_are_right_have_no_errors(config):
    assert said(config, "error") == ""
    assert "box" not in said(config, "warning")


def test_a_level_without_a_box_is_a_warning(config, tmp_path):
    change_boxes(tmp_path, lambda views: [views[v].pop("L1") for v in views])
    assert "L1 will not be registered: it has no box" in said(config, "warning")
    assert said(config, "error") == ""


def test_boxes_of_no_level_that_is_to_be_registered_are_refused(config, tmp_path):
    change_boxes(tmp_path, lambda views: views.update({v: {"L5": found["L1"]} for v, found in views.items()}))
    assert "no level that is to be registered can be located" in said(config, "error")


def test_a_box_outside_the_image_is_refused(config, tmp_path):
    change_boxes(tmp_path, lambda views: views["LA"]["T12"].update(box=[300, 10, 340, 50]))
    expected = "view LA, T12: box [300.0, 10.0, 340.0, 50.0] is outside the image of 240 x 240 pixels"
    assert expected in said(config, "error")


def test_boxes_whose_rays_never_meet_are_refused_as_swapped(config, tmp_path):
    def raise_lateral(views):
        for found in views["LA"].values():
            found["box"] = np.add(found["box"], [0, -60, 0, -60]).tolist()

    change_boxes(tmp_path, raise_lateral)
    assert "are the boxes of two views swapped?" in said(config, "error")


def test_boxes_that_meet_better_when_exchanged_are_a_warning(config, tmp_path):
    """Vertebrae well beside the middle of turned cameras; their boxes are points projected by hand."""
    cameras, boxes = read_json(tmp_path / "s/cameras.json"), {}
    nominal = {"AP": [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "LA": [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]}
    for view, angle in {"AP": 0.1, "LA": 0.1}.items():
        c, s = np.cos(angle), np.sin(angle)
        pose = np.eye(4)
        pose[:3, :3], pose[2, 3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ nominal[view], 700
        cameras["views"][view]["camera_from_world"] = pose.tolist()
        boxes[view] = {}
        for level, z in (("T12", 15.0), ("L1", -15.0)):
            u, v, w = np.array(cameras["views"][view]["K"]) @ (pose @ [40, 40, z, 1])[:3]
            boxes[view][level] = {"box": [u / w - 15, v / w - 10, u / w + 15, v / w + 10]}
    write_json(tmp_path / "s/cameras.json", cameras)
    write_json(tmp_path / "s/boxes.json", {"views": boxes})
    assert "swapped" not in said(config, "warning")
    write_json(tmp_path / "s/boxes.json", {"views": {"AP": boxes["LA"], "LA": boxes["AP"]}})
    assert "0.0 mm if their boxes are exchanged: are they swapped?" in said(config, "warning")


def test_a_level_that_the_ct_cuts_is_a_warning_and_only_such_levels_an_error(config, tmp_path):
    for name in ("ct", "labels"):
        volume = read_volume(tmp_path / f"{name}.nii.gz")
        write_volume(tmp_path / f"{name}.nii.gz", type(volume)(volume.array[:36], volume.lps_from_index))
    assert "T12: cut by the border of the CT: it will not be registered" in said(config, "warning")
    assert said(config, "error") == ""
    assert "cuts every level" in said(config.with_levels(["T12"]), "error")


def test_an_i0_far_below_the_counts_is_refused_in_the_file_that_names_it(config, tmp_path):
    cameras = read_json(tmp_path / "s/cameras.json")
    median = float(np.median(np.asarray(Image.open(tmp_path / "s/AP.png"))))
    cameras["views"]["AP"]["i0"] = median / 3
    write_json(tmp_path / "s/cameras.json", cameras)
    assert said(config, "error").startswith(f"{tmp_path}/s/cameras.json: view AP: i0 is")


def test_a_ct_masked_to_bone_is_refused_and_one_without_air_a_warning(config, tmp_path):
    ct = read_volume(tmp_path / "ct.nii.gz")
    write_volume(tmp_path / "ct.nii.gz", ct.with_array(np.where(ct.array < 200, np.float32(0), ct.array)))
    assert "no value below 0 HU" in said(config, "error")
    write_volume(tmp_path / "ct.nii.gz", ct.with_array(np.maximum(ct.array, np.float32(-90))))
    assert "no value below -500 HU (the lowest is -90)" in said(config, "warning")
    assert said(config, "error") == ""


def test_mistakes_in_the_sheets_and_in_the_files_behind_them_are_all_said(config, tmp_path):
    sheet = (tmp_path / "xrays.tsv").read_text()
    shot = tmp_path / "s"
    (tmp_path / "xrays.tsv").write_text(
        sheet
        + f"q\ts\tAP\t{shot}/AP.png\t{shot}/cameras.json\t\n"
        + f"p\tlone\tX y\t{shot}/LA.png\t{shot}/cameras.json\t\n"
        + f"p\tlone\tAP\t{shot}/absent.png\t{shot}/cameras.json\t\n"
        + "p\tmore\tAP\t\n"
    )
    (tmp_path / "patients.tsv").write_text((tmp_path / "patients.tsv").read_text() + "p\tother.nii.gz\t\n")
    (tmp_path / "labels.nii.gz").write_text("no")
    found = said(config, "error")
    for words in (
        "patients.tsv: line 3: patient p stands twice",
        "xrays.tsv: line 4: patient q is not in",
        "xrays.tsv: line 5: view 'X y' may hold",
        "xrays.tsv: line 7: image is empty",
        "xrays.tsv: line 7: geometry is empty",
        "xrays.tsv: patient p, shot lone: it has one view",
        "s/absent.png: no such file",
        "labels.nii.gz: cannot be read",
    ):
        assert words in found
