"""Exposures that vary as those of real X-rays do."""

from __future__ import annotations

import numpy as np

from radgs.config import PhysicsSettings


def random_physics(rng: np.random.Generator, base: PhysicsSettings, pixel_ratio: float) -> PhysicsSettings:
    """The configured physics with photons, scatter and beam quality varied, for pixels ``pixel_ratio`` as wide."""
    shift = rng.uniform(-6, 6)
    return base.model_copy(
        update={
            "photons": base.photons * float(np.exp(rng.uniform(-1.2, 0.5))),
            "scatter_fraction": base.scatter_fraction * float(rng.uniform(0.2, 2.0)),
            "spectrum_kev": [float(np.clip(kev + shift, 25, 140)) for kev in base.spectrum_kev],
            "scatter_blur_px": max(base.scatter_blur_px / pixel_ratio, 1.0),
            "detector_blur_px": base.detector_blur_px / pixel_ratio,
        }
    )
