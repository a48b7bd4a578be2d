"""Soft tissue: taken from the CT without the couch, bent with the spine, drawn in layers, shifted as X-rays show."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, Config
from radgs.geometry import RigidTransform
from radgs.images import Volume, hu_to_mu
from radgs.projection import project
from radgs.registration import Scene, View, refine
from radgs.registration.layers import find_shifts, shifted, still
from radgs.registration.soft_tissue import SoftTissue
from radgs.simulation import ArticulatedSpine, CArm, SpinePose
from tests.phantoms import block_spine

WATER = 0.02
CENTRES = {"T12": np.array([0.0, 0.0, 40.0]), "L1": np.zeros(3), "L2": np.array([0.0, 0.0, -40.0])}
REST = dict.fromkeys(CENTRES, RigidTransform.identity())


def move(x, y, z):
    return RigidTransform.from_rotation_translation(np.eye(3), [x, y, z])


def block(beads=(), spacing=3.0):
    """A body of water, 120 x 90 x 150 mm around the origin, with dense beads (LPS mm)."""
    array = np.zeros((54, 40, 48), dtype=np.float32)
    array[2:-2, 5:-5, 4:-4] = WATER
    volume = Volume.axis_parallel(array, spacing, -spacing * (np.array(array.shape[::-1]) - 1) / 2)
    for bead in beads:
        x, y, z = np.round(volume.index_from_lps @ [*bead, 1.0]).astype(int)[:3]
        volume.array[z, y, x] = 1.0
    return volume


def view_of(name="AP", tilt=(0.05, 0.02)):
    """112 x 112 pixels, about 2 mm wide at the origin."""
    camera = CArm(CArmSettings(detector_px=112, pixel_mm=3.1)).camera(name, *tilt)
    size = (camera.height, camera.width)
    depth = float(camera.camera_from_world.apply(np.zeros(3))[2])
    return View(torch.zeros(size), torch.ones(size, dtype=torch.bool), camera, depth / float(camera.K[0, 0]))


def drawn(volume, world_from_body, view, step_mm=0.5):
    """Line integrals of a volume that is not bent."""
    camera = view.camera
    index, k = (torch.from_numpy(m.copy()) for m in (volume.index_from_lps, camera.K))
    at = (camera.camera_from_world @ world_from_body).tensor()[None]
    return project(torch.from_numpy(volume.array), index, k[None], at, tuple(view.image.shape), step_mm=step_mm)[0]


def bead_seen(place, world_from_ct, view):
    """(u, v) of a bead's shadow: the middle of what the picture has more of than that of water alone."""
    with_bead, water = (
        SoftTissue(block(beads), CENTRES).draw_layers(world_from_ct, view).sum(dim=0) for beads in ([place], [])
    )
    shadow = (with_bead - water).numpy()
    v, u = np.indices(shadow.shape)
    assert shadow.max() > 0.5
    return np.array([np.average(u, weights=shadow), np.average(v, weights=shadow)])


@pytest.mark.parametrize("everywhere", [move(0, 0, 0), move(10, -20, 25)], ids=["rest", "elsewhere"])
def test_at_rest_nothing_moves_and_one_motion_of_all_moves_the_whole(everywhere):
    tissue, view = SoftTissue(block([(30, 15, 3)]), CENTRES), view_of()
    layers = tissue.draw_layers(dict.fromkeys(CENTRES, everywhere), view)
    whole = drawn(tissue.rest, everywhere, view)
    assert (layers.sum(dim=0) - whole).abs().max() < 0.06 * whole.max()  # steps of 3 mm
    assert (layers.sum(dim=0) - whole).abs().mean() < 0.005 * whole.max()
    nearly = dict.fromkeys(CENTRES, everywhere) | {"T12": move(0, 0, 2e-4) @ everywhere}
    assert (tissue.draw_layers(nearly, view).sum(dim=0) - layers.sum(dim=0)).abs().max() < 0.01 * whole.max()


@pytest.mark.parametrize("height", [60, 40, 20, 0, -40, -60])
@pytest.mark.parametrize(("name", "motion"), [("AP", (9, 0, 0)), ("LA", (0, 9, 0))])
def test_tissue_moves_as_the_vertebra_at_its_height_and_in_between_as_the_mean(height, name, motion):
    """The bead's shadow lies where the camera sees the place; beyond the ends, all goes with the last vertebra."""
    on_the_axis = np.where(motion, 0.0, 15.0)[:2]  # where heights stay the same when the spine leans that way
    place = block().points(np.round(block().index_from_lps @ [*on_the_axis, height, 1.0])[:3])
    share, view = np.clip(place[2] / 40, 0, 1), view_of(name)
    here, there = view.camera.project(place), view.camera.project(place + share * np.array(motion))
    assert bead_seen(place, REST, view) == pytest.approx(here, abs=0.15)
    assert bead_seen(place, {**REST, "T12": move(*motion)}, view) == pytest.approx(there, abs=0.2)  # of 4.5 pixels


def test_beyond_the_ends_the_last_slices_go_on_and_the_couch_stays_behind():
    volume = block()
    volume.array[:, 38:, :] = WATER  # touches nothing: air lies between
    rest = SoftTissue(volume, CENTRES).rest
    far = np.round(rest.index_from_lps @ [0, 0, 170, 1.0]).astype(int)[:3]
    assert rest.array.shape[0] > 54 + 2 * 39
    assert rest.array[far[2], far[1], far[0]] == pytest.approx(0.0)  # the body ends two slices before the CT does
    whole = block()
    whole.array[[0, 1, -2, -1]] = whole.array[10]
    rest = SoftTissue(whole, CENTRES).rest
    assert rest.array[far[2], far[1], far[0]] == pytest.approx(WATER)
    assert rest.array[:, 38:, :].max() == 0
    assert volume.array[:, 38:, :].min() == pytest.approx(WATER)  # of the caller, untouched


def test_layers_add_up_to_the_whole_and_each_holds_what_is_at_its_depth():
    volume = block([(0, -35, 0), (10, 35, 0)])
    view = view_of()
    tissue = SoftTissue(volume, CENTRES)
    layers = tissue.draw_layers(REST, view)
    whole = drawn(tissue.rest, REST["L1"], view)
    assert len(layers) >= 2
    assert torch.allclose(layers.sum(0), whole, atol=0.06 * float(whole.max()))  # steps of 3 mm
    wanted = whole > 0.5 * whole.max()
    assert torch.equal(tissue.draw_layers(REST, view, wanted), layers * wanted)
    depths = view.camera.camera_from_world.apply(np.array([[0, -35, 0], [10, 35, 0.0]]))[:, 2]
    nearer, farther = view.camera.project(np.array([[0, -35, 0], [10, 35, 0.0]]))[np.argsort(depths)]

    def bead_in(layer, at):
        u, v = np.round(at).astype(int)
        return float(layer[v - 1 : v + 2, u - 1 : u + 2].max() - layer[v, u - 8 : u - 4].mean())

    assert bead_in(layers[0], nearer) > 3 * bead_in(layers[-1], nearer)
    assert bead_in(layers[-1], farther) > 3 * bead_in(layers[0], farther)


def texture(size, seed, sigma=2.0):
    noise = torch.rand(size, generator=torch.Generator().manual_seed(seed)).numpy()
    return torch.from_numpy(gaussian_filter(noise, sigma, mode="nearest", truncate=3.0)) * 5


def test_a_shift_moves_a_layer_by_so_many_pixels():
    view = view_of()
    layer = texture(view.image.shape, 0)[None]
    shifts = still(layer, view)
    assert torch.allclose(shifted(layer, shifts, view), layer, atol=1e-5)
    shifts[..., 0], shifts[..., 1] = 3.0, -2.0
    moved = shifted(layer, shifts, view)
    assert torch.allclose(moved[0, 10:-10, 10:-10], layer[0, 12:-8, 7:-13], atol=1e-4)


def test_shifts_of_layers_are_found_behind_bones_that_have_not_moved():
    """Known answers: a layer moved by (3, -2) pixels and one that grows wider; bones cover a part of both."""
    view = view_of()
    size = tuple(view.image.shape)
    layer = texture(size, 1)[None]
    bones = torch.zeros(size)
    bones[30:60, 40:70] = texture((30, 30), 2, 1.0)
    near = torch.ones(size, dtype=torch.bool)
    uniform = still(layer, view)
    uniform[..., 0], uniform[..., 1] = 3.0, -2.0
    wider = still(layer, view)
    nodes = torch.arange(wider.shape[2], dtype=torch.float32)
    wider[..., 0] = 2.0 * (nodes - nodes.mean())[None, None]
    for truth in (uniform, wider):
        seen = View(1.3 * bones + 0.8 * shifted(layer, truth, view)[0], view.measured, view.camera, view.pixel_mm)
        found = find_shifts(seen, bones, layer, near, still(layer, view))
        error = (found - truth).norm(dim=-1)
        inner = error[:, 1:-1, 1:-1]
        assert inner.mean() < 0.35 * truth.norm(dim=-1)[:, 1:-1, 1:-1].mean()
        assert inner.mean() < 0.7  # pixels


def test_tissue_that_lies_at_a_single_depth_is_drawn_whole():
    sheet = block()
    sheet.array[:] = 0
    sheet.array[:, 20, :] = WATER
    tissue, view = SoftTissue(sheet, CENTRES), view_of(tilt=(0.0, 0.0))
    whole = drawn(tissue.rest, RigidTransform.identity(), view, step_mm=0.1)
    layers = tissue.draw_layers(REST, view)
    assert whole.max() > 0.5 * WATER * 3.0
    assert abs(float(layers.sum()) - float(whole.sum())) < 0.1 * float(whole.sum())


def test_what_a_view_does_not_show_is_not_shifted_and_outliers_pull_little():
    view = view_of()
    size = tuple(view.image.shape)
    layer, bones, near = texture(size, 4)[None], torch.zeros(size), torch.ones(size, dtype=torch.bool)
    image = layer[0].clone()
    image[40:44, :] += 10.0  # a wire
    found = find_shifts(View(image, view.measured, view.camera, view.pixel_mm), bones, layer, near, still(layer, view))
    assert found.norm(dim=-1).max() < 0.5
    unmeasured = View(image, torch.zeros(size, dtype=torch.bool), view.camera, view.pixel_mm)
    assert find_shifts(unmeasured, bones, layer, near, still(layer, view)).abs().max() == 0


def test_a_rim_takes_dense_bone_beside_the_label_and_parts_still_add_up():
    ct, labels = block_spine()
    tight = labels.with_array(np.where(np.roll(labels.array, 1, axis=2) == labels.array, labels.array, 0))
    plain, rimmed = split_tissue(ct, tight), split_tissue(ct, tight, rim_mm=3.0)
    mu = hu_to_mu(ct.array)
    for tissue in (plain, rimmed):
        total = tissue.soft.array.copy()
        for excess in tissue.excess.values():
            first = np.round(tissue.soft.index_from_lps @ [*excess.lps_from_index[:3, 3], 1.0]).astype(int)[:3]
            z, y, x = (slice(a, a + n) for a, n in zip(first[::-1], excess.array.shape, strict=True))
            total[z, y, x] += excess.array
        assert np.abs(total - mu).max() < 1e-5
    for level, excess in rimmed.excess.items():
        assert excess.array.sum() > 1.02 * plain.excess[level].array.sum()
        assert rimmed.masks[level].array.sum() == plain.masks[level].array.sum()


def test_refinement_is_not_drawn_away_by_a_rib_that_has_moved():
    """Ribs (dense bars) 6 mm from where the CT has them: poses stay right because the bars are shifted first."""
    ct, labels = block_spine()
    bars = np.zeros(ct.array.shape, dtype=np.float32)
    for z in range(8, 44, 9):
        bars[z : z + 2, 5:9, 6:-6] = 500.0
    with_ribs = ct.with_array(ct.array + bars)
    tissue = split_tissue(with_ribs, labels)
    spine = ArticulatedSpine(tissue)
    there = move(-11, 7, -40)
    carm = CArm(CArmSettings(detector_px=244, pixel_mm=1.552))
    cameras = {"AP": carm.camera("AP", 0.1, 0.05), "LA": carm.camera("LA", -0.05, 0.1)}
    breathed = split_tissue(ct.with_array(ct.array + np.roll(bars, 2, axis=0)), labels)  # 6 mm up
    moved_ribs = ArticulatedSpine(breathed)
    truth = dict.fromkeys(tissue.excess, there)
    middle = there.apply(tissue.centre("L1"))
    errors = {}
    for name, world in (("still", spine), ("breathed", moved_ribs)):
        views = {}
        for view, camera in cameras.items():
            image = torch.from_numpy(np.sum(world.project(camera, SpinePose(there, truth)), axis=0))
            depth = float(camera.camera_from_world.apply(middle)[2])
            whole = View(image.float(), torch.ones(image.shape, dtype=torch.bool), camera, depth / camera.K[0, 0])
            views[view] = whole
        off = {level: move(1.5, -1.0, 1.0) @ there for level in truth}
        found = refine(Scene(views, tissue), off, Config().refinement).world_from_ct
        apart = [found[level].apply(tissue.points(level)) - there.apply(tissue.points(level)) for level in truth]
        errors[name] = max(float(np.linalg.norm(level, axis=1).mean()) for level in apart)
    assert errors["still"] < 0.5
    assert errors["breathed"] < 0.8
