"""Every kind of spoiled input is refused in clear single lines before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from radgs.check import check_files
from radgs.config import Config, load_config
from radgs.errors import RadgsError
from radgs.images import prepare_ct, prepare_xrays, write_volume
from radgs.sheets import examine_sheets, read_sheets
from radgs.simulation import simulate_shots
from tests.malformed_inputs import KINDS
from tests.phantoms import block_spine


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A patient with one shot; everything about it is right."""
    folder = tmp_path_factory.mktemp("right")
    ct, labels = block_spine()
    write_volume(folder / "ct.nii.gz", ct)
    write_volume(folder / "labels.nii.gz", labels)
    config = load_config(
        {
            "levels": ["T12", "L1"],
            "demo": {"carm": {"detector_px": 240, "pixel_mm": 1.6}, "motion": {"translation_mm": 15}},
        }
    )
    simulate_shots(ct, labels, folder, folder / "truth", ["s"], config)
    return folder


def sheets(folder, ct, image) -> Config:
    """The sheets, and a config that names them; a DICOM X-ray brings its own geometry."""
    (folder / "patients.tsv").write_text(f"patient\tct\tlabels\np\t{ct}\t{folder}/labels.nii.gz\n")
    cameras = f"{folder}/s/cameras.json"
    places = {"AP": (image, image if str(image).endswith(".dcm") else cameras), "LA": (f"{folder}/s/LA.png", cameras)}
    rows = [f"p\ts\t{v}\t{i}\t{g}\t{folder}/s/boxes.json\n" for v, (i, g) in places.items()]
    (folder / "xrays.tsv").write_text("patient\tshot\tview\timage\tgeometry\tboxes\n" + "".join(rows))
    return load_config(
        {
            "patients": str(folder / "patients.tsv"),
            "xrays": str(folder / "xrays.tsv"),
            "results": str(folder / "results"),
            "levels": ["T12", "L1"],
        }
    )


def errors(config):
    return [found for found in check_files(config, examine_sheets(config))[0] if found.kind == "error"]


def test_without_a_mistake_there_is_no_error(right, tmp_path):
    shutil.copytree(right, tmp_path / "p")
    assert errors(sheets(tmp_path / "p", tmp_path / "p/ct.nii.gz", tmp_path / "p/s/AP.png")) == []


@pytest.mark.parametrize("name", KINDS)
def test_one_clear_line_each_and_nothing_written(name, right, tmp_path, recwarn):
    folder = tmp_path / "p"
    shutil.copytree(right, folder)
    config = sheets(folder, folder / "ct.nii.gz", folder / "s/AP.png")
    other = KINDS[name](folder)
    if isinstance(other, str):
        about_ct = Path(other).name.startswith("ct")
        config = sheets(folder, *((other, folder / "s/AP.png") if about_ct else (folder / "ct.nii.gz", other)))
    before = set(tmp_path.rglob("*"))
    found = errors(config)
    assert found, "nothing was noticed"
    for one in found:
        assert one.file
        assert one.what
        assert "\n" not in one.what
        assert "Traceback" not in one.what
        assert len(one.what) < 400
    assert run(config, tmp_path / "out"), "the workflow's functions would have gone on"
    assert set(tmp_path.rglob("*")) == before


def run(config, out) -> bool:
    """Whether the functions of the rules, or the sheets before them, refuse; what the check alone knows counts too."""
    try:
        patients, rows = read_sheets(config)
        prepare_ct(patients["p"]["ct"], out / "ct.nii.gz", out / "ct.json")
        shutil.rmtree(out)
        files = {row["view"]: row for row in rows}
        prepare_xrays(
            *({v: row[c] for v, row in files.items()} for c in ("image", "geometry")), out / "x.nii.gz", out / "c.json"
        )
        shutil.rmtree(out)
    except RadgsError as error:
        return "\n" not in str(error)
    return bool(errors(config))
