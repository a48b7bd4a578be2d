"""Soft tissue: taken from the CT without the couch, bent with the spine, drawn in layers, shifted as X-rays show."""

import numpy as np
import pytest
import torch

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, Config
from radgs.geometry import RigidTransform
from radgs.images import Volume, hu_to_mu
from radgs.projection import project
from radgs.registration import Scene, View, refine
from radgs.registration.layers import find_shifts, shifted, still
from radgs.registration.soft_tissue import SoftTissue, draw_layers
from radgs.registration.view import blur
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


def bead(volume):
    """Where the dense bead is: centre of what is denser than water."""
    dense = np.clip(np.asarray(volume.array) - 1.05 * WATER, 0, None)
    z, y, x = (np.average(i, weights=dense) for i in np.indices(dense.shape))
    return volume.points(np.array([x, y, z]))


def test_at_rest_nothing_moves_and_one_motion_of_all_is_the_frame_s():
    tissue = SoftTissue(block([(30, 15, 3)]), CENTRES)
    bent, world_from_body = tissue.bent(REST)
    assert world_from_body.matrix == pytest.approx(np.eye(4), abs=1e-6)
    assert np.abs(bent.array - tissue.rest.array).max() < 1e-4
    everywhere = move(10, -20, 300)
    bent, world_from_body = tissue.bent(dict.fromkeys(CENTRES, everywhere))
    assert world_from_body.matrix == pytest.approx(everywhere.matrix, abs=1e-6)
    assert np.abs(bent.array - tissue.rest.array).max() < 1e-4


@pytest.mark.parametrize(("height", "share"), [(40, 1.0), (20, 0.5), (0, 0.0), (-40, 0.0)])
def test_tissue_moves_as_the_vertebra_at_its_height_and_in_between_as_the_mean(height, share):
    place = np.array([30.0, 15.0, height])
    tissue = SoftTissue(block([place]), CENTRES)
    bent, world_from_body = tissue.bent({**REST, "T12": move(0, 9, 0)})
    found = world_from_body.apply(bead(bent)[None])[0] - bead(tissue.rest)
    assert found == pytest.approx([0, 9 * share, 0], abs=0.6)  # the field's grid is 10 mm wide


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


def view_of():
    """112 x 112 pixels, about 2 mm wide at the origin."""
    camera = CArm(CArmSettings(detector_px=112, pixel_mm=3.1)).camera("AP", 0.05, 0.02)
    size = (camera.height, camera.width)
    depth = float(camera.camera_from_world.apply(np.zeros(3))[2])
    return View(torch.zeros(size), torch.ones(size, dtype=torch.bool), camera, depth / float(camera.K[0, 0]))


def test_layers_add_up_to_the_whole_and_each_holds_what_is_at_its_depth():
    volume = block([(0, -35, 0), (10, 35, 0)])
    view = view_of()
    pose = move(0, 0, 0)
    layers = draw_layers(volume, pose, view)
    k = torch.from_numpy(view.camera.K.copy())[None]
    index = torch.from_numpy(volume.index_from_lps.copy())
    at = view.camera.camera_from_world.tensor()[None]
    whole = project(torch.from_numpy(volume.array), index, k, at, tuple(view.image.shape), step_mm=2.0)[0]
    assert len(layers) >= 2
    assert torch.allclose(layers.sum(0), whole, atol=0.02 * float(whole.max()))
    depths = view.camera.camera_from_world.apply(np.array([[0, -35, 0], [10, 35, 0.0]]))[:, 2]
    nearer, farther = view.camera.project(np.array([[0, -35, 0], [10, 35, 0.0]]))[np.argsort(depths)]

    def bead_in(layer, at):
        u, v = np.round(at).astype(int)
        return float(layer[v - 1 : v + 2, u - 1 : u + 2].max() - layer[v, u - 8 : u - 4].mean())

    assert bead_in(layers[0], nearer) > 3 * bead_in(layers[-1], nearer)
    assert bead_in(layers[-1], farther) > 3 * bead_in(layers[0], farther)


def texture(size, seed, sigma=2.0):
    return blur(torch.rand(1, *size, generator=torch.Generator().manual_seed(seed)), sigma)[0] * 5


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
