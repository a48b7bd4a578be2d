"""Counts: Beer and Lambert, beam hardening, scatter, noise, limits."""

import numpy as np
import pytest

from radgs.config import PhysicsSettings
from radgs.errors import ImageError
from radgs.images import attenuation_of_bone, attenuation_of_water
from radgs.projection import XrayPhysics

CT_KEV, LOW_KEV = np.array(70.0), np.array(50.0)


def _physics(seed=0, **settings):
    base = {"scatter_fraction": 0.0, "detector_blur_px": 0.0}
    return XrayPhysics(PhysicsSettings(**(base | settings)), np.random.default_rng(seed))


def test_one_energy_at_the_cts_own_follows_beer_and_lambert_with_poisson_noise():
    physics = _physics(photons=10000.0, spectrum_kev=[70.0], spectrum_weights=[2.0])
    counts = physics.counts(np.full((200, 200), 1.2), np.full((200, 200), 0.3)).astype(float)
    expected = 10000 * np.exp(-1.5)
    assert physics.i0 == 10000
    assert counts.mean() == pytest.approx(expected, abs=5 * np.sqrt(expected / counts.size))
    assert counts.var() == pytest.approx(expected, rel=0.05)


def test_another_energy_scales_water_and_bone_by_their_own_attenuation():
    physics = _physics(photons=50000.0, spectrum_kev=[50.0], spectrum_weights=[1.0])
    thickness_soft, thickness_bone = 40.0, 12.0  # mm, the bone beside the water
    soft = (thickness_soft + thickness_bone) * attenuation_of_water(CT_KEV)
    bone = thickness_bone * (attenuation_of_bone(CT_KEV) - attenuation_of_water(CT_KEV))
    counts = physics.counts(np.full((100, 100), soft), np.full((100, 100), bone))
    truth = thickness_soft * attenuation_of_water(LOW_KEV) + thickness_bone * attenuation_of_bone(LOW_KEV)
    assert -np.log(counts.mean() / physics.i0) == pytest.approx(float(truth), abs=0.003)


def test_a_spectrum_hardens_behind_bone():
    physics = _physics(photons=60000.0)
    bone = np.zeros((60, 90))
    bone[:, 30:60], bone[:, 60:] = 1.0, 2.0
    counts = physics.counts(np.zeros_like(bone), bone).astype(float)
    thin, thick = (-np.log(counts[:, s].mean() / physics.i0) for s in (slice(30, 60), slice(60, 90)))
    assert thick < 2 * thin - 0.01


def test_scatter_adds_its_share_of_the_primary():
    flat = np.zeros((50, 50))
    without = _physics().counts(flat, flat).mean()
    assert _physics(scatter_fraction=0.3).counts(flat, flat).mean() == pytest.approx(1.3 * without, rel=5e-3)


def test_scatter_reaches_behind_the_absorber_and_blur_softens_its_edge():
    wall = np.zeros((60, 60))
    wall[:, 30:] = 20.0
    zero = np.zeros_like(wall)
    assert _physics().counts(wall, zero)[:, 30:].max() < 5
    assert _physics(scatter_fraction=0.3, scatter_blur_px=20.0).counts(wall, zero)[:, 35:].min() > 500
    edge = _physics(detector_blur_px=2.0).counts(wall, zero).mean(0)
    assert edge[31] > 0.05 * edge[0]
    assert np.all(np.diff(edge[25:36]) < 0)


def test_the_seed_decides_and_counts_stop_at_sixteen_bits():
    flat = np.zeros((20, 20))
    assert np.array_equal(_physics(3).counts(flat, flat), _physics(3).counts(flat, flat))
    assert not np.array_equal(_physics(3).counts(flat, flat), _physics(4).counts(flat, flat))
    bright = _physics(photons=1e6).counts(flat, flat)
    assert bright.dtype == np.uint16
    assert bright.min() == 65535


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ImageError, match="one size"):
        _physics().counts(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ImageError, match="NaN"):
        _physics().counts(np.full((4, 4), np.nan), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="one weight"):
        _physics(spectrum_kev=[50.0, 60.0], spectrum_weights=[1.0])
