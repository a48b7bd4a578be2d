"""CT numbers to attenuation, against tabulated values and the definition of the Hounsfield unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radgs.images import attenuation_of_bone, attenuation_of_water, hu_to_mu


def test_water_at_70_kev():
    assert 0.0193 < hu_to_mu(0.0) < 0.0194


@pytest.mark.parametrize(("kev", "per_cm"), [(50, 0.2269), (60, 0.2059), (80, 0.1837), (100, 0.1707)])
def test_water_is_the_nist_table(kev, per_cm):
    assert hu_to_mu(0.0, kev) == pytest.approx(per_cm / 10, rel=1e-6)
    assert attenuation_of_water(kev) == pytest.approx(per_cm / 10)


def test_bone_is_the_nist_table_times_its_density():
    assert attenuation_of_bone(60) == pytest.approx(0.3148 * 1.92 / 10)


@pytest.mark.parametrize(("hu", "waters"), [(-3024, 0), (-1000, 0), (-500, 0.5), (-100, 0.9), (300, 1.3), (1000, 2)])
def test_at_the_ct_energy_hu_are_what_hounsfield_defined(hu, waters):
    assert hu_to_mu(hu) == pytest.approx(waters * float(hu_to_mu(0)), abs=1e-8, rel=1e-5)


@given(hu=st.floats(-1000, 3000), kev=st.floats(40, 120))
def test_denser_attenuates_more_at_every_energy(hu, kev):
    assert hu_to_mu(hu + 10, kev) > hu_to_mu(hu, kev) >= 0


@given(kev=st.floats(40, 120))
def test_no_step_at_water(kev):
    below, at, above = hu_to_mu([-0.01, 0.0, 0.01], kev)
    assert above - below < 1e-6
    assert below <= at <= above


def test_harder_x_rays_lose_contrast_of_bone_faster_than_of_water():
    bone, water = (hu_to_mu(hu, [100.0][0]) / hu_to_mu(hu, 50.0) for hu in (1200.0, 0.0))
    assert bone < 0.85 * water


def test_values_are_float32_and_the_shape_is_kept():
    mu = hu_to_mu(np.zeros((2, 3, 4), np.int16))
    assert mu.dtype == np.float32
    assert mu.shape == (2, 3, 4)
