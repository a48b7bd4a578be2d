"""What X-rays do in matter: a tube's spectrum, attenuation, what the detector catches. Elam's tables, by XrayDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import xraydb
from numpy.typing import NDArray

_KVP, _KEV_STEP = 85.0, 3.0
_MONO_KEV = 60.0
_CM_PER_MM = 0.1
_FILTERS = (("Al", 2.70, 3.0), ("Cu", 8.96, 0.1))  # element, g/cm3, mm
_SCINTILLATOR_MM, _SCINTILLATOR = 0.5, 4.51  # caesium iodide

# Shares of mass and density (g/cm3): ICRU-44 cortical bone; steel 316L and Ti-6Al-4V as implants are made of.
MATERIALS: dict[str, tuple[Mapping[str, float], float]] = {
    "water": ({"H": 0.1119, "O": 0.8881}, 1.0),
    "bone": (
        {"H": 0.034, "C": 0.155, "N": 0.042, "O": 0.435, "Na": 0.001, "Mg": 0.002, "P": 0.103, "S": 0.003, "Ca": 0.225},
        1.92,
    ),
    "steel": ({"Fe": 0.68, "Cr": 0.17, "Ni": 0.125, "Mo": 0.025}, 8.0),
    "titanium": ({"Ti": 0.90, "Al": 0.06, "V": 0.04}, 4.43),
}


def attenuation(material: str, kev: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear attenuation with coherent scattering, 1/mm."""
    shares, density = MATERIALS[material]
    return sum(share * xraydb.mu_elam(name, kev * 1e3) for name, share in shares.items()) * density * _CM_PER_MM


@cache
def bone_hu(kev: float = 70.0) -> float:
    """CT number of solid cortical bone in a scanner of this effective energy."""
    at = np.array([kev])
    return float(1000 * (attenuation("bone", at) / attenuation("water", at) - 1)[0])


@dataclass(frozen=True)
class Beam:
    """Energies, and what an open detector catches at each.

    Attributes:
        kev: energies.
        quanta: share of the quanta caught; sums to 1.
        signal: share of the light that they make, which grows with their energy; sums to 1.
    """

    kev: NDArray[np.float64]
    quanta: NDArray[np.float64]
    signal: NDArray[np.float64]

    def through(self, lengths_mm: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray, NDArray]:
        """Share of quanta and of signal behind these lengths (mm) of materials at their full density."""
        caught = np.zeros_like(next(iter(lengths_mm.values())), dtype=np.float64)
        light = np.zeros_like(caught)
        for i, kev in enumerate(self.kev):
            depth = sum(length * float(attenuation(name, np.array([kev]))[0]) for name, length in lengths_mm.items())
            passed = np.exp(-depth)
            caught += self.quanta[i] * passed
            light += self.signal[i] * passed
        return caught, light


@cache
def tube(polyenergetic: bool) -> Beam:
    """A tungsten tube at 85 kV as by Kramers (1923), filtered by 3 mm Al and 0.1 mm Cu; or one energy."""
    kev = np.arange(20.0, _KVP, _KEV_STEP) if polyenergetic else np.array([_MONO_KEV])
    emitted = _KVP / kev - 1
    for element, density, thickness in _FILTERS:
        emitted = emitted * np.exp(-xraydb.mu_elam(element, kev * 1e3) * density * thickness * _CM_PER_MM)
    shares = {"Cs": 132.9 / 259.8, "I": 126.9 / 259.8}
    mu = sum(share * xraydb.mu_elam(name, kev * 1e3) for name, share in shares.items()) * _SCINTILLATOR * _CM_PER_MM
    caught = emitted * (1 - np.exp(-mu * _SCINTILLATOR_MM))
    return Beam(kev, caught / caught.sum(), caught * kev / (caught * kev).sum())
