"""CT numbers to linear attenuation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Mass attenuation coefficients with coherent scattering, cm^2/g, at keV (NIST XAAMDI, Hubbell & Seltzer 1995):
# liquid water (1.00 g/cm^3) and ICRU-44 cortical bone (1.92 g/cm^3).
_KEV = np.array([20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0])
_WATER = np.array([0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505])
_BONE = np.array([4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480])
_BONE_DENSITY = 1.92
_CM_PER_MM = 0.1
_CHUNK = 1 << 16  # voxels: what is made on the way stays in the cache
CT_KEV = 70.0  # effective energy at which CT numbers are read


def _interpolate(table: NDArray[np.float64], kev: ArrayLike) -> NDArray[np.float64]:
    return np.exp(np.interp(np.log(kev), np.log(_KEV), np.log(table)))


def attenuation_of_water(kev: ArrayLike) -> NDArray[np.float64]:
    """Linear attenuation of water, 1/mm, at photon energies in keV (20-150)."""
    return _interpolate(_WATER, kev) * _CM_PER_MM


def attenuation_of_bone(kev: ArrayLike) -> NDArray[np.float64]:
    """Linear attenuation of cortical bone, 1/mm, at photon energies in keV (20-150)."""
    return _interpolate(_BONE, kev) * _BONE_DENSITY * _CM_PER_MM


def hu_to_mu(hu: ArrayLike, kev: float = CT_KEV) -> NDArray[np.float32]:
    """Hounsfield units to linear attenuation in 1/mm.

    Below 0 HU tissue is water mixed with nothing; above, water mixed with cortical bone in the proportion that
    gives the measured HU at the CT's own effective energy (70 keV). Never below 0.

    Args:
        hu: any shape.
        kev: effective energy of the X-rays for which mu is wanted.
    """
    hu = np.asarray(hu)
    water, bone = float(attenuation_of_water(kev)), float(attenuation_of_bone(kev))
    bone_hu = 1000.0 * (float(attenuation_of_bone(CT_KEV)) / float(attenuation_of_water(CT_KEV)) - 1.0)
    flat, mu = hu.reshape(-1), np.empty(hu.size, dtype=np.float32)
    for first in range(0, hu.size, _CHUNK):
        values = flat[first : first + _CHUNK].astype(np.float32)
        below = water * np.maximum(1.0 + np.minimum(values, 0.0) / 1000.0, 0.0)
        mu[first : first + _CHUNK] = below + (bone - water) / bone_hu * np.maximum(values, 0.0)
    return mu.reshape(hu.shape)
