"""Blades and irises are found in images that do not say they have any; skin and bones are not taken for them."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from radgs.geometry import Camera, RigidTransform
from radgs.images import prepare_xrays, read_xrays
from radgs.images.collimator import find_collimator
from radgs.simulation.collimation import opening

SIZE, I0 = 400, 30000.0
V, U = np.mgrid[0:SIZE, 0:SIZE].astype(float)


def anatomy(kind):
    """Line integrals of something like a trunk: skin, lung above a diaphragm, a column of vertebrae, ribs."""
    rng = np.random.default_rng(7)
    x = (U - SIZE / 2) / SIZE
    tissue = {
        "frontal": 3.5 * np.sqrt(np.clip(1 - (x / 0.75) ** 2, 0, 1)),
        "lateral": 4.5 * np.sqrt(np.clip(1 - ((x + 0.25) / 0.6) ** 2, 0, 1)),  # air at the right
        "dark": 6.0 + 0.5 * x,
        "bright": 1.2 + 0 * x,
    }[kind]
    dome = 190 + 0.002 * (U - 150) ** 2
    lung = 0.45 * tissue / (1 + np.exp((V - dome) / 3))
    column = 0.6 * (np.abs(U - 210 + 0.05 * V) < 30) * (0.8 + 0.2 * (V % 45 > 8))
    ribs = sum(0.25 * (np.abs(V - y - 0.3 * np.abs(U - 200)) < 5) for y in (30, 90, 150, 210))
    texture = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 4) * 1.5
    return ndimage.gaussian_filter(tissue - lung + column + ribs + 0.1 * texture, 1.0)


def exposed(p, open_, seed=0, scatter=0.4, leak=0.005, photons=I0):
    """Counts of ``p`` behind blades: their leak and penumbra, scatter from where the beam passes, noise."""
    rng = np.random.default_rng(seed)
    primary = photons * np.exp(-p) * ndimage.gaussian_filter(np.where(open_, 1.0, leak), 1.0)
    scattered = scatter * ndimage.gaussian_filter(np.exp(-p / 2) * open_, 40) * photons * 0.1
    return (rng.poisson(primary + scattered) * I0 / photons).astype(np.float32)


def overlap(found, open_):
    """Shadow found among the true one, and opening lost."""
    return found[~open_].mean(), found[ndimage.binary_erosion(open_, iterations=8)].mean()


@pytest.mark.parametrize("kind", ["frontal", "lateral", "dark"])
@pytest.mark.parametrize("turn_deg", [0, 8, -20])
def test_four_blades_are_found_however_they_are_turned(kind, turn_deg):
    open_ = opening(U, V, (210.0, 190.0), 230.0, 260.0, np.deg2rad(turn_deg))
    shadow, lost = overlap(find_collimator(exposed(anatomy(kind), open_)), open_)
    assert shadow > 0.97
    assert lost == 0


@pytest.mark.parametrize("sides", [["left"], ["left", "right"], ["top", "left"], ["top", "bottom", "right"]])
def test_as_many_blades_as_there_are(sides):
    open_ = np.ones((SIZE, SIZE), bool)
    for side in sides:
        open_ &= {"left": U > 90, "right": U < 300, "top": V > 70, "bottom": V < 330}[side]
    shadow, lost = overlap(find_collimator(exposed(anatomy("frontal"), open_)), open_)
    assert shadow > 0.97
    assert lost == 0


@pytest.mark.parametrize("radius", [20.0, 30.0])
def test_rounded_corners_cost_a_little_of_the_shadow_only(radius):
    open_ = opening(U, V, (200.0, 200.0), 240.0, 240.0, 0.05, radius)
    shadow, lost = overlap(find_collimator(exposed(anatomy("frontal"), open_)), open_)
    assert shadow > 0.95
    assert lost == 0


@pytest.mark.parametrize("kind", ["frontal", "dark"])
def test_an_iris_is_found(kind):
    open_ = np.hypot(U - 205, V - 195) < 150
    shadow, lost = overlap(find_collimator(exposed(anatomy(kind), open_)), open_)
    assert shadow > 0.95
    assert lost < 0.02


@pytest.mark.parametrize(("scatter", "leak", "photons"), [(0, 0.005, I0), (1.2, 0.005, I0), (0.4, 0.02, 3000)])
def test_whatever_scatter_leaks_and_noise_there_are(scatter, leak, photons):
    open_ = opening(U, V, (210.0, 190.0), 230.0, 260.0)
    counts = exposed(anatomy("frontal"), open_, scatter=scatter, leak=leak, photons=photons)
    shadow, lost = overlap(find_collimator(counts), open_)
    assert shadow > 0.97
    assert lost == 0


@pytest.mark.parametrize("kind", ["frontal", "lateral", "dark", "bright"])
@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_nothing_is_found_in_open_images(kind, turn):
    counts = exposed(np.rot90(anatomy(kind), turn), np.ones((SIZE, SIZE), bool), seed=turn)
    assert not find_collimator(counts).any()


@pytest.mark.parametrize("step", [0.85, 1.0])
def test_a_thick_body_that_ends_in_a_straight_edge_is_no_blade(step):
    """Line integrals rise by less than a blade takes away, and thick tissue shows little detail."""
    thin = anatomy("frontal") / 2
    thick = ndimage.gaussian_filter(thin, 20) + step
    above = ndimage.gaussian_filter((V < 260 - 0.12 * U).astype(float), 3.0)
    counts = exposed(thin + above * (thick - thin), np.ones((SIZE, SIZE), bool), scatter=0.2)
    assert not find_collimator(counts).any()


def test_nothing_is_found_in_noise_or_in_tiny_images():
    rng = np.random.default_rng(0)
    assert not find_collimator(rng.integers(100, 60000, (300, 200)).astype(np.float32)).any()
    assert not find_collimator(np.arange(16, dtype=np.float32).reshape(4, 4)).any()


def test_the_shadow_is_not_measured_in_prepared_views(tmp_path):
    open_ = opening(U, V, (210.0, 190.0), 230.0, 260.0)
    views = {}
    for view, r in {"AP": np.eye(3), "LA": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])}.items():
        through = anatomy("frontal") * (1 if view == "AP" else 0.95)
        Image.fromarray(exposed(through, open_).astype(np.uint16)).save(tmp_path / f"{view}.png")
        pose = RigidTransform.from_rotation_translation(r, [0, 0, 700])
        camera = Camera(np.array([[2000.0, 0, 200], [0, 2000, 200], [0, 0, 1]]), pose, SIZE, SIZE)
        views[view] = {"K": camera.K.tolist(), "camera_from_world": camera.camera_from_world.matrix.tolist(), "i0": I0}
    (tmp_path / "c.json").write_text(json.dumps({"views": views}))
    images = {view: tmp_path / f"{view}.png" for view in views}
    prepare_xrays(images, dict.fromkeys(views, tmp_path / "c.json"), tmp_path / "x.nii.gz", tmp_path / "k.json")
    for xray in read_xrays(tmp_path / "x.nii.gz", tmp_path / "k.json").values():
        assert np.isnan(xray.line_integrals[~open_]).mean() > 0.97
        assert np.isfinite(xray.line_integrals[ndimage.binary_erosion(open_, iterations=8)]).all()
