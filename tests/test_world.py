"""The second simulator: where things appear in its images is known by hand, and its truth is what its images show."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from world import rtk
from world.body import Body
from world.carm import SOURCE_TO_DETECTOR_MM, believed, camera_at, sample_cameras
from world.cases import BASE, CASES, World
from world.detector import I0, expose
from world.matter import attenuation, tube
from world.metal import Cylinder, pedicle_screws
from world.shots import PIXEL_MM, Hospital, bend, hand_over, materials

from radgs.anatomy import LEVELS
from radgs.geometry import RigidTransform, frontal_and_lateral, patient_axes
from radgs.images import Volume, read_transforms, read_xray
from radgs.projection import project

CALM = CASES["nothing disturbs"]
TARGETS = ["T11", "T12", "L1"]


def _camera():
    return camera_at(np.array([0.3, -1.0, 0.15]), np.array([1.0, 0.1, 0.05]))


def _world_from_ct():
    rotation = RigidTransform.nearest(
        np.array([[0.9, -0.3, 0.2, 0], [0.35, 0.93, -0.1, 0], [-0.15, 0.16, 0.97, 0], [0, 0, 0, 1]])
    ).rotation
    return RigidTransform.from_rotation_translation(rotation, [14.0, -22.0, 9.0])


def _blob(centre, radius, shape=(60, 70, 80), spacing=1.0):
    grid = Volume.axis_parallel(np.zeros(shape, np.float32), spacing, [-30.0, -25.0, -20.0])
    points = grid.points(np.stack(np.mgrid[tuple(slice(n) for n in shape)][::-1], axis=-1))
    distance = np.linalg.norm(points - centre, axis=-1)
    return grid.with_array(np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32))


def test_rtk_shows_a_ball_where_the_camera_says_and_as_thick_as_it_is():
    camera, pose, centre = _camera(), _world_from_ct(), np.array([11.0, -4.0, 6.0])
    image = rtk.project(rtk.to_itk(_blob(centre, 7.0)), camera, pose, SOURCE_TO_DETECTOR_MM)
    v, u = ndimage.center_of_mass(image)
    assert np.abs(np.array([u, v]) - camera.project(pose.apply(centre))).max() < 0.1
    assert image.max() == pytest.approx(14.0, abs=0.3)


def test_rtk_and_the_projects_own_projector_draw_the_same_picture():
    camera, pose, volume = _camera(), _world_from_ct(), _blob(np.array([11.0, -4.0, 6.0]), 12.0)
    volume = volume.with_array(ndimage.gaussian_filter(volume.array + _blob(np.array([-8, 10, 2]), 6).array, 1.5))
    theirs = rtk.project(rtk.to_itk(volume), camera, pose, SOURCE_TO_DETECTOR_MM)
    ours = project(
        torch.from_numpy(volume.array),
        torch.from_numpy(volume.index_from_lps),
        torch.from_numpy(camera.K.copy())[None],
        (camera.camera_from_world @ pose).tensor()[None],
        (camera.height, camera.width),
        step_mm=0.5,
    )[0].numpy()
    by_v, by_u = np.gradient(ours)
    shift = np.linalg.lstsq(np.stack([by_u.ravel(), by_v.ravel()], 1), (theirs - ours).ravel(), rcond=None)[0]
    assert np.abs(shift).max() < 0.05
    assert np.linalg.norm(theirs - ours) < 0.01 * np.linalg.norm(ours)


def test_a_wire_lies_on_its_projected_line_and_is_as_thick_as_it_is():
    camera = _camera()
    rod = Cylinder(np.array([-40.0, 5.0, -30.0]), np.array([35.0, -10.0, 42.0]), 1.5, "steel")
    lengths = rod.lengths(camera)
    ends = camera.project(np.stack([rod.start, rod.end]))
    rows = np.flatnonzero(lengths.sum(axis=1) > 0)
    rows = rows[20:-20]
    found = (lengths[rows] * np.arange(camera.width)).sum(axis=1) / lengths[rows].sum(axis=1)
    share = (rows - ends[0, 1]) / (ends[1, 1] - ends[0, 1])
    off = found - (ends[0, 0] + share * (ends[1, 0] - ends[0, 0]))  # rows differ: the wire is six pixels wide
    assert np.abs(np.polyval(np.polyfit(rows, off, 1), rows)).max() < 0.05
    axis = (rod.end - rod.start) / np.linalg.norm(rod.end - rod.start)
    towards = (rod.start + rod.end) / 2 - camera.source
    sine = np.linalg.norm(np.cross(axis, towards / np.linalg.norm(towards)))
    u, v = np.round(camera.project((rod.start + rod.end) / 2)).astype(int)
    assert lengths[v - 3 : v + 4, u - 3 : u + 4].max() == pytest.approx(3.0 / sine, rel=0.01)


def test_views_are_named_as_the_library_understands_them_whatever_the_world():
    world_from_room = RigidTransform.nearest(_world_from_ct().matrix)
    cameras = sample_cameras(np.random.default_rng(4), world_from_room)
    assert frontal_and_lateral(cameras) == ("AP", "LA")
    assert np.degrees(RigidTransform.from_rotation_translation(
        patient_axes(cameras) @ world_from_room.rotation.T, [0, 0, 0]).angle()) < 25  # fmt: skip


def _phantom():
    """Soft tissue with three vertebrae, each with a dense ball off its centre; voxels of 1.5 x 1.5 x 2 mm."""
    shape = (70, 70, 80)
    ct = Volume.axis_parallel(np.full(shape, -1000.0, np.float32), [1.5, 1.5, 2.0], [-60.0, -52.0, 100.0])
    points = ct.points(np.stack(np.mgrid[tuple(slice(n) for n in shape)][::-1], axis=-1))
    hu, labels = ct.array.copy(), np.zeros(shape, np.uint8)
    hu[(points[..., 0] / 50) ** 2 + (points[..., 1] / 42) ** 2 < 1] = 40
    balls = {}
    for i, level in enumerate(TARGETS):
        centre = np.array([0.0, 10.0, 205.0 - 36 * i])
        inside = (np.abs(points - centre) < [22, 18, 12]).all(axis=-1)
        hu[inside], labels[inside] = 250, LEVELS[level]
        balls[level] = centre + np.array([9.0, -6.0, 3.0])
        near = np.linalg.norm(points - balls[level], axis=-1) < 4
        hu[near] = 3000
        balls[level] = points[near].mean(axis=0)
    return ct.with_array(hu), ct.with_array(labels), balls


@pytest.fixture(scope="module")
def hospital():
    ct, labels, _ = _phantom()
    return Hospital(ct, labels, TARGETS)


def test_an_unbent_body_is_the_ct_and_its_bent_vertebrae_are_rigid():
    ct, labels, balls = _phantom()
    body = Body(ct, labels, np.array([0.0, 10.0, 169.0]), reach_mm=60.0)
    still = body.bent(dict.fromkeys(TARGETS, RigidTransform.identity()))
    inside = (np.abs(still.points(np.stack(np.mgrid[tuple(slice(n) for n in still.array.shape)][::-1], -1))
                     - [0, 10, 169]) < [25, 20, 50]).all(-1)  # fmt: skip
    again = ct.with_array(ct.array)
    from radgs.images import resample_like

    expected = resample_like(again, still, outside=-1000.0).array
    assert np.abs(still.array - expected)[inside].max() < 1.0
    motions = bend(np.random.default_rng(2), body.centres, body.middle, 8.0, 3.0)
    bent = body.bent(motions)
    for level, ball in balls.items():
        there = motions[level].apply(ball)
        points = bent.points(np.argwhere(bent.array > 1500)[:, ::-1])
        near = points[np.linalg.norm(points - there, axis=-1) < 9]
        assert np.linalg.norm(near.mean(axis=0) - there) < 0.25
    upper, lower = motions["T11"], motions["T12"]
    assert np.degrees((upper.inverse() @ lower).angle()) == pytest.approx(8.0)


@pytest.mark.parametrize("case", ["nothing disturbs", "usual"])
def test_what_is_handed_over_shows_each_vertebra_where_the_truth_says(hospital, tmp_path, case):
    _, _, balls = _phantom()
    world = replace(CASES[case], move_mm=10.0)
    hand_over(tmp_path / "s", tmp_path / "truth.json", hospital, world, (31999, 1))
    truth = read_transforms(tmp_path / "truth.json")
    for view in ("AP", "LA"):
        # prepare_xrays would take the dense balls for metal
        xray = read_xray(view, tmp_path / "s" / f"{view}.png", tmp_path / "s" / "cameras.json")
        for level, ball in balls.items():
            u, v = xray.camera.project(truth[level].apply(ball))
            box = tuple(slice(round(c) - 12, round(c) + 13) for c in (v, u))
            part = xray.line_integrals[box] - ndimage.median_filter(xray.line_integrals[box], 15)
            part = np.where(part > 0.4 * part.max(), part, 0)
            dv, du = ndimage.center_of_mass(part) - np.array([v - box[0].start, u - box[1].start])
            assert np.hypot(du, dv) < 0.8  # 0.4 mm at the spine; the ball's neighbourhood is not flat


def test_a_calibration_error_moves_what_is_believed_by_what_it_says_and_nothing_else(hospital, tmp_path):
    hand_over(tmp_path / "a", tmp_path / "a.json", hospital, CALM, (31999, 2))
    wrong = replace(CALM, calibration_mm=0.388, calibration_deg=0.3)
    hand_over(tmp_path / "b", tmp_path / "b.json", hospital, wrong, (31999, 2))
    a, b = (json.loads((tmp_path / k / "cameras.json").read_text())["views"]["AP"] for k in "ab")
    shift = (np.array(b["K"]) - a["K"])[:2, 2] * PIXEL_MM
    assert 0 < np.abs(shift).max() <= 0.388
    assert np.array_equal(np.array(Image.open(tmp_path / "a/AP.png")), np.array(Image.open(tmp_path / "b/AP.png")))
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_a_patient_who_moves_after_the_first_image_is_elsewhere_in_the_second_only(hospital):
    scene = hospital.arrange(np.random.default_rng(7), replace(CALM, between_mm=6.0))
    still = hospital.arrange(np.random.default_rng(7), CALM)
    assert scene.truth["L1"].matrix == pytest.approx(still.truth["L1"].matrix)
    moved = scene.moves["LA"].translation
    assert list(scene.moves) == ["LA"]
    assert np.linalg.norm(moved) == pytest.approx(6.0)
    point = scene.truth["L1"].apply(np.zeros(3))
    assert scene.taken_by("AP").project(point) == pytest.approx(still.cameras["AP"].project(point))
    assert scene.taken_by("LA").project(point) == pytest.approx(still.cameras["LA"].project(point + moved))
    images, before = (hospital.shoot(one, CALM, np.random.default_rng(1)) for one in (scene, still))
    assert np.array_equal(images["AP"], before["AP"])
    assert not np.array_equal(images["LA"], before["LA"])
    assert scene.cameras["LA"] is not scene.taken_by("LA")  # what is handed over knows nothing of the motion
    assert np.array_equal(scene.cameras["LA"].camera_from_world.matrix, still.cameras["LA"].camera_from_world.matrix)


def test_a_wrong_angle_leaves_the_isocentre_where_it_is():
    camera = _camera()
    wrong = believed(np.random.default_rng(0), camera, np.zeros(3), 0.0, 5.0)
    assert np.allclose(wrong.project(np.zeros(3)), camera.project(np.zeros(3)))
    assert np.linalg.norm(wrong.project([60.0, 0, 40]) - camera.project([60.0, 0, 40])) > 1


@pytest.mark.parametrize(
    ("material", "kev", "per_cm"),
    [("water", 30, 0.3756), ("water", 60, 0.2059), ("bone", 60, 0.3148 * 1.92), ("bone", 80, 0.2229 * 1.92)],
)
def test_attenuation_agrees_with_nist(material, kev, per_cm):
    assert attenuation(material, np.array([float(kev)]))[0] * 10 == pytest.approx(per_cm, rel=0.02)


def test_a_spectrum_hardens_and_one_energy_does_not():
    depth = np.array([10.0, 200.0])
    for polyenergetic, change in ((True, 0.05), (False, 0.0)):
        _, light = tube(polyenergetic).through({"water": depth})
        mu = -np.log(light) / depth
        assert 1 - mu[1] / mu[0] > change - 1e-12
        assert polyenergetic or mu[1] == pytest.approx(mu[0])


OFF = World(
    polyenergetic=False, scatter_to_primary=0, glare=0, lag=0, blur_mm=0, electronic_noise=0, quanta_per_mm2=1e9
)


def _exposed(world, depth=150.0, opening=None):
    lengths = np.zeros((120, 120))
    lengths[:, 20:] = depth
    return expose({"water": lengths}, 1.0, opening, world, np.random.default_rng(3)).astype(float)


def test_switched_off_only_the_beam_is_left_and_open_pixels_hold_i0():
    counts = _exposed(OFF)
    assert counts[:, :20].mean() == pytest.approx(I0, rel=1e-3)
    mu = attenuation("water", np.array([60.0]))[0]
    assert counts[:, 20:].mean() == pytest.approx(I0 * np.exp(-mu * 150), rel=0.005)


def test_fewer_quanta_are_as_much_noisier_as_poisson_says():
    spread = []
    for quanta in (1e5, 1e4):
        counts = _exposed(replace(OFF, quanta_per_mm2=quanta))[:, 20:]
        spread.append(counts.std() / counts.mean())
    assert spread[1] / spread[0] == pytest.approx(10**0.5, rel=0.1)


def test_scatter_adds_what_is_asked_for():
    clean, counts = _exposed(OFF), _exposed(replace(OFF, scatter_to_primary=0.7))
    assert np.median((counts / clean)[:, 20:]) == pytest.approx(1.7, rel=0.02)


def test_glare_and_lag_only_move_light_about():
    clean = _exposed(OFF)
    for world in (replace(OFF, glare=0.3), replace(OFF, lag=0.3)):
        counts = _exposed(world)
        assert np.abs(counts - clean).max() > 100
        assert counts[40:80, 60:].min() >= 0.9 * clean.min()


def test_behind_the_collimator_hardly_anything_arrives():
    counts = _exposed(OFF, 0.0, (0.25, 0.75, 0.25, 0.75))
    assert counts[:20].max() < 0.01 * I0
    assert counts[40:80, 40:80].min() > 0.95 * I0


def test_materials_look_in_a_scanner_of_70_kev_like_the_ct():
    hu = np.linspace(-900, 1500, 25, dtype=np.float32).reshape(1, 5, 5)
    parts = materials(Volume.axis_parallel(hu, 1.0, [0, 0, 0]))
    at = np.array([70.0])
    mu = sum(part.array * attenuation(name, at)[0] for name, part in parts.items())
    again = 1000 * (mu / attenuation("water", at)[0] - 1)
    assert np.abs(again - hu).max() < 60  # soft tissue is counted as 4 % denser than water


def test_every_case_changes_something_and_only_the_metal_cases_have_metal(hospital):
    worlds = list(CASES.values())
    assert len(set(worlds)) == len(worlds)
    assert worlds[0] == BASE
    scene = hospital.arrange(np.random.default_rng(1), CASES["wires and screws"])
    assert sum(c.material == "steel" for c in scene.metal) == 3
    assert sum(c.material == "titanium" for c in scene.metal) == 2 * len(pedicle_screws(np.zeros(3)))
    assert not hospital.arrange(np.random.default_rng(1), BASE).metal
