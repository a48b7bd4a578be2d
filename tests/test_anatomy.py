"""Label maps, tissue, crops, boxes and windows against answers known by hand."""

import json

import numpy as np
import pytest

from radgs.anatomy import (
    crop_vertebrae,
    cut_views,
    detect_provided,
    neighbours,
    read_crop,
    segment,
    split_tissue,
    verse_from_totalsegmentator,
    world_from_crop,
)
from radgs.anatomy.views import resample_window, window_camera
from radgs.config import CArmSettings, Config
from radgs.errors import AnatomyError
from radgs.geometry import RigidTransform
from radgs.images import Volume, Xray, hu_to_mu, read_json, write_json, write_volume
from radgs.simulation import CArm
from tests.phantoms import LEVEL_NUMBERS, block_spine


def test_totalsegmentator_ids_become_verse_numbers():
    ids = np.array([0, 25, 26, 27, 31, 32, 43, 44, 50, 51, 92])
    expected = [0, 26, 26, 24, 20, 19, 8, 7, 1, 0, 0]
    assert verse_from_totalsegmentator(ids).tolist() == expected


def test_neighbours_run_from_head_to_foot_and_skip_what_is_absent():
    assert neighbours("T12", 1, {"T11", "T12", "L1", "L2"}) == ["T11", "T12", "L1"]
    assert neighbours("T12", 1, {"T12", "T13", "L1"}) == ["T12", "T13"]


def test_soft_tissue_and_excess_add_up_to_the_ct():
    ct, labels = block_spine()
    tissue = split_tissue(ct, labels)
    total = tissue.soft.array.copy()
    for part in tissue.excess.values():
        start = np.rint(ct.index_from_lps @ [*part.points([0, 0, 0]), 1.0]).astype(int)[:3][::-1]
        total[tuple(slice(a, a + n) for a, n in zip(start, part.array.shape, strict=True))] += part.array
    np.testing.assert_allclose(total, hu_to_mu(ct.array), atol=1e-7)
    assert sorted(tissue.excess) == sorted(LEVEL_NUMBERS)


def test_no_bone_of_a_vertebra_stays_in_the_soft_part():
    ct, labels = block_spine()
    tissue = split_tissue(ct, labels)
    inside = labels.array > 0
    assert tissue.soft.array[inside].max() < float(hu_to_mu(60.0))
    assert hu_to_mu(ct.array)[inside].min() > float(hu_to_mu(300.0))


def test_a_level_that_is_not_in_the_label_map_is_named():
    with pytest.raises(AnatomyError, match="no T5; it has T12, L1, L2"):
        split_tissue(*block_spine(), levels=["T5"])


def test_a_level_that_is_not_in_a_label_file_is_named_with_the_file(tmp_path):
    for name, volume in zip(("ct.nii.gz", "labels.nii.gz"), block_spine(), strict=True):
        write_volume(tmp_path / name, volume)
    targets = {"T5": (tmp_path / "excess.nii.gz", tmp_path / "mask.nii.gz")}
    with pytest.raises(AnatomyError, match=r"labels.nii.gz: the label map has no T5; it has T12, L1, L2$"):
        crop_vertebrae(tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz", targets, Config())


def test_a_label_map_that_lies_elsewhere_is_told_by_how_much(tmp_path):
    ct, labels = block_spine()
    affine = labels.lps_from_index.copy()
    affine[:3, 3] += [0, 3.0, 4.0]
    write_volume(tmp_path / "ct.nii.gz", ct)
    write_volume(tmp_path / "labels.nii.gz", Volume(labels.array, affine))
    with pytest.raises(AnatomyError, match=r"corners are up to 5\.0 mm apart"):
        segment(*(tmp_path / n for n in ("ct.nii.gz", "labels.nii.gz", "out.nii.gz", "audit.json")), Config())


def test_a_crop_keeps_physical_points_of_an_oblique_ct(tmp_path):
    ct, labels = block_spine()
    turn = RigidTransform.from_rotation_translation(
        [[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]], [40.0, -30.0, 12.0]
    )
    affine = turn.matrix @ ct.lps_from_index
    hu = ct.array.copy()
    marked = (26, 16, 17)  # z, y, x in L1's body
    hu[marked] = 3000.0
    write_volume(tmp_path / "ct.nii.gz", Volume(hu, affine))
    write_volume(tmp_path / "labels.nii.gz", Volume(labels.array, affine))
    paths = tmp_path / "excess.nii.gz", tmp_path / "mask.nii.gz"
    crop_vertebrae(tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz", {"L1": paths}, Config())
    crop = read_crop(*paths, "L1")
    brightest = np.array(np.unravel_index(crop.excess.array.argmax(), crop.excess.array.shape))[::-1]
    expected = turn.apply(ct.points(np.array(marked)[::-1]))
    assert np.abs(crop.excess.points(brightest) - expected).max() <= float(crop.excess.spacing[0])
    assert np.ptp(crop.excess.corners, axis=0) == pytest.approx([112 * 127 / 128] * 3)
    voxel = float(np.prod(ct.spacing))
    volume = crop.mask.array.sum() * float(np.prod(crop.mask.spacing))
    assert volume == pytest.approx((labels.array == 20).sum() * voxel, rel=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:-1], "on|resample"),
        (lambda a: np.where(a == 20, 77, a), "77"),
        (lambda a: a * 0, "no vertebra"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused_in_one_line(tmp_path, change, message):
    ct, labels = block_spine()
    write_volume(tmp_path / "ct.nii.gz", ct)
    write_volume(tmp_path / "labels.nii.gz", Volume(change(labels.array).astype(np.uint8), labels.lps_from_index))
    with pytest.raises(AnatomyError, match=message) as caught:
        segment(
            tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz", tmp_path / "out.nii.gz", tmp_path / "a.json", Config()
        )
    assert "\n" not in str(caught.value)
    assert "labels.nii.gz" in str(caught.value)
    assert not (tmp_path / "out.nii.gz").exists()
    assert not (tmp_path / "a.json").exists()


def _cameras_file(path, cameras):
    views = {
        name: {
            "size": [c.width, c.height],
            "K": c.K.tolist(),
            "camera_from_world": c.camera_from_world.matrix.tolist(),
        }
        for name, c in cameras.items()
    }
    write_json(path, {"views": views})


def _boxes(cameras, point, half=40.0):
    return {n: {"L1": {"box": [*(c.project(point) - half), *(c.project(point) + half)]}} for n, c in cameras.items()}


def test_box_centres_triangulate_to_the_point_they_show(tmp_path):
    cameras = CArm(CArmSettings()).sample(np.random.default_rng(4))
    point = np.array([12.0, -20.0, 31.0])
    _cameras_file(tmp_path / "cameras.json", cameras)
    write_json(tmp_path / "boxes.json", {"views": _boxes(cameras, point)})
    detect_provided(tmp_path / "cameras.json", tmp_path / "boxes.json", {}, tmp_path / "levels.json", Config())
    found = read_json(tmp_path / "levels.json")["levels"]["L1"]
    assert found["centre_mm"] == pytest.approx(point.tolist(), abs=1e-6)
    assert found["residual_mm"] == pytest.approx(0.0, abs=1e-6)


def test_boxes_that_do_not_meet_or_lie_outside_are_not_located(tmp_path):
    cameras = CArm(CArmSettings()).sample(np.random.default_rng(4))
    _cameras_file(tmp_path / "cameras.json", cameras)
    apart = _boxes(cameras, np.zeros(3))
    apart["LA"]["L1"]["box"] = np.add(apart["LA"]["L1"]["box"], [0, 150, 0, 150]).tolist()
    write_json(tmp_path / "apart.json", {"views": apart})
    write_json(tmp_path / "outside.json", {"views": _boxes(cameras, np.array([0, 0, 400.0]))})
    for name, why in (("apart", "do not meet"), ("outside", "two are needed")):
        with pytest.raises(AnatomyError, match=why):
            detect_provided(
                tmp_path / "cameras.json", tmp_path / f"{name}.json", {}, tmp_path / "levels.json", Config()
            )
        assert not (tmp_path / "levels.json").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"box": [5, 5, 1, 9]},
        {"box": [1, 2, 3]},
        {},
        {"box": [0, 0, 9, float("nan")]},
        {"box": [0, 0, 9, 9], "score": 7},
    ],
)
def test_entries_that_are_no_boxes_are_named(tmp_path, entry):
    _cameras_file(tmp_path / "cameras.json", CArm(CArmSettings()).sample(np.random.default_rng(0)))
    (tmp_path / "boxes.json").write_text(json.dumps({"views": {"AP": {"L1": entry}}}))
    with pytest.raises(AnatomyError, match=r"boxes\.json: view AP, L1"):
        detect_provided(tmp_path / "cameras.json", tmp_path / "boxes.json", {}, tmp_path / "levels.json", Config())


def test_a_window_is_centred_on_the_point_and_as_wide_as_asked():
    camera = CArm(CArmSettings()).camera("AP", 0.1, -0.05)
    point = np.array([20.0, 5.0, -14.0])
    window = window_camera(camera, point, 112.0, 64)
    assert window.project(point) == pytest.approx([31.5, 31.5])
    right = camera.camera_from_world.rotation[0]
    across = window.project(point + 10.0 * right) - window.project(point)
    assert across == pytest.approx([10.0 * 64 / 112.0, 0.0], abs=1e-9)


def test_a_window_shows_a_spot_where_its_camera_projects_it():
    camera = CArm(CArmSettings()).camera("LA", -0.1, 0.1)
    spot = np.array([-10.0, 14.0, 9.0])
    u, v = camera.project(spot)
    vv, uu = np.mgrid[0:976, 0:976]
    image = np.exp(-((uu - u) ** 2 + (vv - v) ** 2) / (2 * 15.0**2)).astype(np.float32)
    xray = Xray("LA", image, camera)
    front = Xray("AP", np.ones_like(image), CArm(CArmSettings()).camera("AP"))
    views = cut_views({"AP": front, "LA": xray}, "L1", np.zeros(3), 112.0, 64)
    seen = views.images[0, 1].double().numpy()
    rows, columns = np.mgrid[0:64, 0:64]
    middle = [(seen * columns).sum() / seen.sum(), (seen * rows).sum() / seen.sum()]
    crop = world_from_crop({"AP": front.camera, "LA": camera}, np.zeros(3))
    in_camera = views.camera_from_crop[0, 1].numpy() @ np.append(crop.inverse().apply(spot), 1.0)
    uvw = views.K[0, 1].numpy() @ in_camera[:3]
    assert middle == pytest.approx((uvw[:2] / uvw[2]).tolist(), abs=0.05)


def test_unmeasured_pixels_do_not_darken_a_window():
    camera = CArm(CArmSettings()).camera("AP")
    image = np.full((976, 976), 3.0, dtype=np.float32)
    image[:, 480:] = np.nan
    assert resample_window(image, camera, window_camera(camera, np.zeros(3), 112.0, 64)) == pytest.approx(3.0)
