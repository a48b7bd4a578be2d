"""From line integrals to the counts of a detector: spectrum, scatter, blur, quantum noise."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt16
from scipy.ndimage import gaussian_filter

from radgs.config import PhysicsSettings
from radgs.errors import ImageError
from radgs.images.attenuation import CT_KEV, attenuation_of_bone, attenuation_of_water

_MAXIMUM_COUNT = np.iinfo(np.uint16).max


class XrayPhysics:
    """A polyenergetic X-ray with scatter, detector blur and Poisson noise.

    Args:
        settings: spectrum, photons a pixel, scatter and blur.
        rng: where the noise comes from; the same state gives the same counts.
    """

    def __init__(self, settings: PhysicsSettings, rng: np.random.Generator) -> None:
        weights = np.asarray(settings.spectrum_weights, dtype=np.float64)
        if len(weights) != len(settings.spectrum_kev) or not len(weights):
            raise ImageError(
                f"a spectrum needs one weight an energy, got {len(settings.spectrum_kev)} energies "
                f"and {len(weights)} weights"
            )
        kev = np.asarray(settings.spectrum_kev, dtype=np.float64)
        ct = np.array(CT_KEV)
        water, excess = attenuation_of_water(kev), attenuation_of_bone(kev) - attenuation_of_water(kev)
        self._settings = settings
        self._rng = rng
        self._weights = weights / weights.sum()
        self._soft = water / attenuation_of_water(ct)
        self._bone = excess / (attenuation_of_bone(ct) - attenuation_of_water(ct))

    @property
    def i0(self) -> float:
        """Expected counts a pixel without an object and without scatter."""
        return float(self._settings.photons)

    def expected(self, soft: Float[np.ndarray, "H W"], bone: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        """Expected counts of each pixel, scatter and blur included.

        Args:
            soft: line integrals of soft tissue at `CT_KEV`, no unit.
            bone: line integrals of what bone has above soft tissue, at `CT_KEV`, no unit.

        Raises:
            ImageError: the two differ in shape or are not finite images.
        """
        soft, bone = np.asarray(soft, dtype=np.float64), np.asarray(bone, dtype=np.float64)
        if soft.shape != bone.shape or soft.ndim != 2:
            raise ImageError(f"soft tissue and bone are two images of one size, got {soft.shape} and {bone.shape}")
        if not (np.isfinite(soft).all() and np.isfinite(bone).all()):
            raise ImageError("line integrals hold NaN or infinite values")
        primary = np.zeros_like(soft)
        for weight, soft_scale, bone_scale in zip(self._weights, self._soft, self._bone, strict=True):
            primary += self.i0 * weight * np.exp(-(soft_scale * soft + bone_scale * bone))
        settings = self._settings
        expected = primary + settings.scatter_fraction * gaussian_filter(
            primary, settings.scatter_blur_px, mode="nearest"
        )
        if settings.detector_blur_px > 0:
            expected = gaussian_filter(expected, settings.detector_blur_px, mode="nearest")
        return expected

    def counts(self, soft: Float[np.ndarray, "H W"], bone: Float[np.ndarray, "H W"]) -> UInt16[np.ndarray, "H W"]:
        """Simulate the image of one view; counts, cut at 65535. Arguments and errors as in :meth:`expected`."""
        return np.minimum(self._rng.poisson(self.expected(soft, bone)), _MAXIMUM_COUNT).astype(np.uint16)

    def line_integrals(
        self, soft: Float[np.ndarray, "H W"], bone: Float[np.ndarray, "H W"], averaged: float
    ) -> Float[np.ndarray, "H W"]:
        """Simulate -ln(I / I0) of an image whose pixels are means over ``averaged`` pixels of the detector.

        Other arguments and errors as in :meth:`expected`.
        """
        mean = self._rng.poisson(self.expected(soft, bone) * averaged) / averaged
        return -np.log(np.maximum(mean, 1) / self.i0)
