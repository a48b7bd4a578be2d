"""Metal is found, whatever it lies on; bone, skin and noise are not taken for it."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from radgs.geometry import Camera, RigidTransform
from radgs.images import prepare_xrays, read_xrays
from radgs.images.metal import find_metal

PIXEL_MM = 0.25
SIZE = 480


def distance_mm(angle_deg, offset_mm):
    """From a straight line through the image, mm, ``[H, W]``."""
    v, u = np.mgrid[0:SIZE, 0:SIZE] * PIXEL_MM - SIZE * PIXEL_MM / 2
    angle = np.deg2rad(angle_deg)
    return np.abs(u * np.cos(angle) + v * np.sin(angle) - offset_mm)


def chord(distance, radius_mm):
    """Length of a ray in a round rod."""
    return 2 * np.sqrt(np.maximum(radius_mm**2 - distance**2, 0))


def body(rng):
    """Soft tissue with a skin edge, a vertebra of 30 mm with cortex half a millimetre thick, a rib, and noise."""
    x = np.linspace(-1, 1, SIZE)
    tissue = np.broadcast_to(5 * np.sqrt(np.maximum(1 - (x - 0.3) ** 2, 0)), (SIZE, SIZE)).copy()
    side = distance_mm(0, 0)
    block = 0.012 * chord(side, 14.5) + 0.035 * (chord(side, 15.0) - chord(side, 14.5))
    block[:180] = block[300:] = 0
    rib = 0.02 * chord(distance_mm(70, 25), 5.0)
    return ndimage.gaussian_filter(tissue + block + rib, 1.0) + rng.normal(0, 0.05, (SIZE, SIZE))


@pytest.mark.parametrize("angle", [0, 33, 90, 140])
@pytest.mark.parametrize(("radius_mm", "mu"), [(0.8, 0.6), (2.75, 0.2), (3.0, 0.25)])
def test_rods_and_wires_are_found_and_little_else(angle, radius_mm, mu):
    away = distance_mm(angle, -6.0)
    image = body(np.random.default_rng(0)) + ndimage.gaussian_filter(mu * chord(away, radius_mm), 1.0)
    found = find_metal(image.astype(np.float32), PIXEL_MM)
    assert found[away < 0.8 * radius_mm].mean() > 0.97
    assert not found[away > radius_mm + 4.0].any()


@pytest.mark.parametrize("scatter", [0.0, 0.005, 0.01])
def test_a_screw_and_its_wide_head_are_found_where_scatter_flattens_contrast(scatter):
    along, away = distance_mm(60, 0.0), distance_mm(150, 0.0)  # head: a disk of 12 mm; shaft: 5.5 mm wide
    head = 4.0 * (np.hypot(along, away) < 6.0) * 0.3
    shaft = np.where(along < 25, 0.2 * chord(away, 2.75), 0)
    beside = distance_mm(0.0, -54)  # a wire in air, which stands out at once
    wire = 0.5 * chord(beside, 0.8)
    primary = np.exp(-body(np.random.default_rng(0)) - ndimage.gaussian_filter(head + shaft + wire, 1.0))
    image = -np.log((primary + scatter) / (1 + scatter)).astype(np.float32)
    found = find_metal(image, PIXEL_MM)
    metal = (np.hypot(along, away) < 5.0) | ((away < 2.0) & (along < 24))
    assert found[metal].mean() > 0.97
    assert not found[(np.hypot(along, away) > 10.0) & ((away > 7.0) | (along > 30)) & (beside > 5.0)].any()


def test_an_image_without_metal_keeps_all_of_its_pixels():
    assert not find_metal(body(np.random.default_rng(1)).astype(np.float32), PIXEL_MM).any()


def test_hard_edges_of_bone_are_no_metal_where_nothing_stands_out_as_metal_does():
    edges = np.zeros((SIZE, SIZE))
    edges[180:300, 180:186] = edges[180:186, 180:300] = 0.35  # cortex seen along its face: thin, high and sharp
    image = body(np.random.default_rng(1)) + ndimage.gaussian_filter(edges, 1.0)
    assert not find_metal(image.astype(np.float32), PIXEL_MM).any()


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_the_noise_of_too_few_photons_is_no_metal(sigma):
    rng = np.random.default_rng(4)
    image = body(rng) + rng.normal(0, sigma, (SIZE, SIZE)) * np.linspace(0.3, 1, SIZE)
    assert find_metal(image.astype(np.float32), PIXEL_MM).mean() < 0.002


def test_unmeasured_pixels_are_no_metal():
    image = body(np.random.default_rng(2)).astype(np.float32)
    image[:60] = np.nan
    assert not find_metal(image, PIXEL_MM)[80:].any()


def test_prepared_xrays_are_not_measured_behind_a_wire(tmp_path):
    rng = np.random.default_rng(3)
    K = np.array([[2800.0, 0, (SIZE - 1) / 2], [0, 2800, (SIZE - 1) / 2], [0, 0, 1]])
    ap = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 700], [0, 0, 0, 1]])
    la = np.array([[0.0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 700], [0, 0, 0, 1]])
    away = distance_mm(20, 10)
    specs = {}
    for view, pose in (("AP", ap), ("LA", la)):
        wire = 0.6 * chord(away, 0.8) if view == "AP" else 0
        counts = 60000 * np.exp(-np.clip(body(rng) / 2 + wire, 0, None))
        Image.fromarray(counts.astype(np.uint16)).save(tmp_path / f"{view}.png")
        camera = Camera(K, RigidTransform(pose), SIZE, SIZE)
        specs[view] = {"K": K.tolist(), "camera_from_world": camera.camera_from_world.matrix.tolist(), "i0": 60000}
    (tmp_path / "cameras.json").write_text(json.dumps({"views": specs}))
    images = {view: tmp_path / f"{view}.png" for view in specs}
    geometry = dict.fromkeys(specs, tmp_path / "cameras.json")
    prepare_xrays(images, geometry, tmp_path / "x.nii.gz", tmp_path / "c.json")
    read = read_xrays(tmp_path / "x.nii.gz", tmp_path / "c.json")
    lost = ~np.isfinite(read["AP"].line_integrals)
    assert lost[away < 0.6].mean() > 0.97
    assert not lost[away > 6].any()
    assert np.isfinite(read["LA"].line_integrals).all()
