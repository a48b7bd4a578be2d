"""What noise in one X-ray does to the comparison: it is measured, blurred away, and what is left counts less."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from radgs.anatomy import split_tissue
from radgs.config import CArmSettings, Config
from radgs.geometry import RigidTransform
from radgs.kernels import gradients
from radgs.registration import Scene, View
from radgs.registration.information import information, information_weights
from radgs.registration.noise import certainty
from radgs.registration.normal_equations import normal_equations
from radgs.registration.refine import make_targets, refine, soft_tissue
from tests.phantoms import THERE, block_spine, off, xrays_of


@pytest.fixture(scope="module")
def spine():
    """The block spine in two views whose pixels are half as wide as those that are compared."""
    tissue = split_tissue(*block_spine())
    return tissue, xrays_of(tissue, CArmSettings(detector_px=488, pixel_mm=0.776))


def noisy(xray, deviation, seed=0):
    noise = np.random.default_rng(seed).normal(0, deviation, xray.line_integrals.shape)
    return replace(xray, line_integrals=(xray.line_integrals + noise).astype(np.float32))


def view_of(spine, xray, pixel_mm=0.9):
    return View.from_xray(xray, THERE.apply(spine[0].centre("L1")), pixel_mm)


def test_more_noise_has_more_grain_and_none_has_none(spine):
    xray = spine[1]["LA"]
    grains = [view_of(spine, noisy(xray, deviation)).grain_px for deviation in (0, 0.3, 5.0)]
    assert grains[0] == 0
    assert grains == sorted(grains)
    assert 0 < grains[1] < grains[-1]
    assert view_of(spine, noisy(xray, 5.0)).coarser(2).grain_px == grains[-1] / 2


def test_grain_cannot_be_told_where_pixels_are_not_binned_or_nothing_was_measured(spine):
    xray = noisy(spine[1]["LA"], 5.0)
    assert view_of(spine, xray, pixel_mm=0.45).grain_px == 0
    nothing = replace(xray, line_integrals=np.full_like(xray.line_integrals, np.nan))
    nothing.line_integrals[:4, :4] = 1.0  # far from the spine
    assert view_of(spine, nothing).grain_px == 0


def test_information_grows_from_nothing_and_weights_are_its_slope():
    values = np.linspace(-0.5, 1.0, 31)
    said = [information(value) for value in values]
    assert said[:11] == [0.0] * 11
    assert (np.diff(said[10:]) > 0).all()
    assert np.isfinite(said[-1])
    assert information(0.6) == pytest.approx(-np.log(0.8))
    (weights,) = information_weights({"L1": {"AP": 0.6, "LA": 0.2, "least": -0.3, "most": 0.99}}).values()
    for view, value in (("AP", 0.6), ("LA", 0.2)):
        assert weights[view] == pytest.approx((information(value + 1e-5) - information(value - 1e-5)) / 2e-5, rel=1e-4)
    assert 0 < weights["least"] < weights["LA"]  # a view that says nothing yet may later
    assert weights["AP"] < weights["most"] < 2  # what an exact view lacks is not noise


def test_weights_are_those_of_views_and_levels(spine):
    tissue, xrays = spine
    scene = Scene({name: view_of(spine, xray) for name, xray in xrays.items()}, tissue)
    settings, poses = Config().refinement, {level: THERE.tensor() for level in scene.parts}
    soft, scene = soft_tissue(scene, poses, moves=False)
    targets = make_targets(scene, soft, 1, 1.0)
    off = THERE @ RigidTransform.from_rotation_translation(np.eye(3), [1.0, 0.5, -1.0])
    there = {level: off.tensor() for level in poses}

    def equations(ap, la):
        weights = {level: {"AP": ap, "LA": la} for level in poses}
        return normal_equations(scene, there, targets, settings, 0.0, weights=weights)

    both, ap, la = equations(2.0, 0.5), equations(1.0, 0.0), equations(0.0, 1.0)
    plain = normal_equations(scene, there, targets, settings, 0.0)
    for name in ("loss", "gradient", "hessian"):
        one, other = getattr(ap, name), getattr(la, name)
        assert np.allclose(getattr(both, name), 2 * one + 0.5 * other)
        assert np.allclose(getattr(plain, name), one + other)
    assert both.similarity == plain.similarity
    assert {term.view: term.weight for term in both.terms} == {"AP": 2.0, "LA": 0.5}


def test_a_noisy_view_hardly_spoils_what_a_clear_one_says(spine):
    """Along the patient both views see a level: there the clear one decides."""
    tissue, xrays = spine
    start = dict.fromkeys(tissue.excess, THERE @ RigidTransform.from_rotation_translation(np.eye(3), [1.0, 1.0, 1.5]))
    truth = {level: THERE.apply(tissue.centre(level)) for level in start}
    errors = []
    for seed in range(3):
        views = {"AP": view_of(spine, xrays["AP"]), "LA": view_of(spine, noisy(xrays["LA"], 0.5, seed))}
        assert views["LA"].grain_px > views["AP"].grain_px
        found = refine(Scene(views, tissue), start, Config().refinement, as_one_body=False)
        assert all(by_view["LA"] < by_view["AP"] for by_view in found.similarity.values())
        errors += [abs(found.world_from_ct[k].apply(tissue.centre(k)) - truth[k])[2] for k in start]
    assert max(errors) < 0.35  # 0.45 where both count alike


def poisson(xray, in_air, seed=0):
    return noisy(xray, in_air * np.exp(xray.line_integrals / 2), seed)


def test_noise_is_measured_where_it_is(spine):
    xray = spine[1]["AP"]
    view = view_of(spine, poisson(xray, 0.1))
    factor = xray.line_integrals.shape[1] // view.image.shape[1]
    clean = view_of(spine, xray).image
    inside = (slice(40, -40), slice(40, -40))
    assert float(clean[inside].exp().std() / clean[inside].exp().mean()) > 0.3
    expected = (0.1 / factor) ** 2 * clean.exp()
    assert float((view.noise / expected)[inside].mean()) == pytest.approx(1, abs=0.15)
    assert float((view.noise / expected)[inside].std()) < 0.15
    assert torch.allclose(view.coarser(2).noise[20, 20], view.noise[40:42, 40:42].mean() / 4)


def test_noise_that_does_not_go_by_attenuation_is_measured_too(spine):
    xray = spine[1]["AP"]
    columns = xray.line_integrals.shape[1]
    view = view_of(spine, noisy(xray, np.where(np.arange(columns) < columns // 2, 0.1, 0.2)))
    left, right = (view.noise[60:-60, c - 15 : c + 15].mean() for c in (60, view.image.shape[1] - 60))
    assert 2 < float(right / left) < 5


def test_pixels_count_by_the_spread_of_their_noise_and_all_alike_without(spine):
    seen = torch.randn(2, 40, 40, generator=torch.Generator().manual_seed(0))
    where = torch.ones(40, 40, dtype=torch.bool)
    noise = torch.full((40, 40), 0.5)
    noise[:, 20:] = 200.0
    found = certainty(noise, seen, where, 0.8)
    assert (found <= 1).all()
    grain = noise * (gradients(torch.randn(1, 400, 400), 0.8).square().mean())
    lacks = grain * found**2 / (1 - found**2)  # the same everywhere
    assert torch.allclose(lacks, lacks[0, 0], rtol=0.01)
    half = torch.full((40, 40), 0.5 * float(noise[0, 0] / grain[0, 0]))  # of the energy of what is seen, once blurred
    assert certainty(half, seen, where, 0.8)[0, 0] == pytest.approx(np.sqrt(0.1 / (0.1 + 0.5)), rel=0.1)
    assert torch.equal(certainty(0 * noise, seen, where, 0.8), torch.ones(40, 40))
    assert torch.equal(certainty(noise, seen, ~where, 0.8), torch.ones(40, 40))
    clear = view_of(spine, spine[1]["AP"])
    assert torch.equal(clear.certainty(gradients(clear.image[None], 0.8)[0], 0.8), torch.ones_like(clear.image))


def test_where_an_x_ray_is_noisy_it_pulls_less(spine, monkeypatch):
    tissue, xrays = spine
    start = dict.fromkeys(tissue.excess, THERE @ RigidTransform.from_rotation_translation(np.eye(3), [0.5, 0.5, -0.5]))

    def striped(xray, seed):
        view = view_of(spine, xray)
        deviation = torch.where(torch.arange(len(view.image))[:, None] % 16 < 8, 0.005, 0.4).expand_as(view.image)
        noise = torch.randn(view.image.shape, generator=torch.Generator().manual_seed(seed))
        return replace(view, image=view.image + deviation * noise, noise=deviation**2)

    def error():
        found = []
        for seed in range(3):
            views = {name: striped(xray, 2 * seed + i) for i, (name, xray) in enumerate(xrays.items())}
            poses = refine(Scene(views, tissue), start, Config().refinement, as_one_body=False).world_from_ct
            found += [off(poses[level], tissue, level) for level in start]
        return float(np.mean(found))

    weighed = error()
    monkeypatch.setattr("radgs.registration.view.certainty", lambda noise, *_: torch.ones_like(noise))
    assert weighed < 0.7 * error()
