"""From what passes the body to 16-bit counts: collimator, scatter, quanta, glare, lag."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from world.cases import World
from world.matter import tube

I0 = 40000.0  # counts of an open pixel: the detector's gain, whatever the exposure
_MOST = np.iinfo(np.uint16).max
_SCATTER_MM = ((12.0, 0.3), (70.0, 0.7))  # widths at the detector and shares, of its two kernels
_GLARE_MM = 25.0
_LAG_SHIFT_MM = (15.0, -6.0)
_LEAF, _PENUMBRA_MM = 0.005, 0.8
_BODY = 0.5  # what passes less is behind the body


def expose(
    lengths_mm: Mapping[str, NDArray[np.float64]],
    pixel_mm: float,
    opening: tuple[float, float, float, float] | None,
    world: World,
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Counts of one view.

    Args:
        lengths_mm: by material, mm at full density along each pixel's ray, ``[H, W]``.
        pixel_mm: of the detector.
        opening: of the collimator, rows from, to, columns from, to; shares of the detector.
        world: strengths.
        rng: noise.
    """
    quanta, signal = tube(world.polyenergetic).through(lengths_mm)
    blades = _blades(quanta.shape, opening, _PENUMBRA_MM / pixel_mm)
    scattered = _scatter(signal, blades, pixel_mm, world.scatter_to_primary)
    before = _before(signal, pixel_mm) * blades + scattered
    quanta, signal = quanta * blades, signal * blades
    # scattered quanta make about as much light each as those that pass
    light_a_quantum = signal / np.maximum(quanta, 1e-12)
    expected = (quanta + scattered / np.maximum(light_a_quantum, 1e-6)) * world.quanta_per_mm2 * pixel_mm**2
    caught = rng.poisson(expected) + rng.normal(0, 1, expected.shape) * world.electronic_noise
    light = caught * light_a_quantum / (world.quanta_per_mm2 * pixel_mm**2)
    seen = _spread((1 - world.lag) * light + world.lag * before, pixel_mm, world)
    return np.clip(np.rint(seen * I0), 0, _MOST).astype(np.uint16)


def _blades(shape: tuple[int, ...], opening: tuple[float, ...] | None, blur_px: float) -> NDArray[np.float64]:
    if opening is None:
        return np.ones(shape)
    rows, columns = (np.arange(n)[:, None] / n for n in shape)
    open_ = ((rows >= opening[0]) & (rows < opening[1])) * ((columns >= opening[2]) & (columns < opening[3])).T
    return gaussian_filter(np.where(open_, 1.0, _LEAF), blur_px)


def _scatter(
    signal: NDArray[np.float64], blades: NDArray[np.float64], pixel_mm: float, to_primary: float
) -> NDArray[np.float64]:
    """Most scatter comes from where much is removed of what still passes: P ln(1/P), spread by two wide kernels.

    The form of Ohnesorge et al. (1999); its size is set by the median ratio over the body, as if it were all exposed.
    """
    if not to_primary:
        return np.zeros_like(signal)
    source = signal * -np.log(np.clip(signal, 1e-6, 1.0))

    def spread(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return sum(share * gaussian_filter(image, mm / pixel_mm, mode="constant") for mm, share in _SCATTER_MM)

    body = signal < _BODY
    whole = spread(source)
    return spread(source * blades) * to_primary / np.median(whole[body] / signal[body])


def _before(signal: NDArray[np.float64], pixel_mm: float) -> NDArray[np.float64]:
    """What passed in the frame before, when the table stood elsewhere."""
    return shift(signal, np.array(_LAG_SHIFT_MM) / pixel_mm, order=1, mode="nearest")


def _spread(light: NDArray[np.float64], pixel_mm: float, world: World) -> NDArray[np.float64]:
    """The detector's own: blur and glare."""
    if world.blur_mm:
        light = gaussian_filter(light, world.blur_mm / pixel_mm, mode="nearest")
    if world.glare:
        light = (1 - world.glare) * light + world.glare * gaussian_filter(light, _GLARE_MM / pixel_mm, mode="nearest")
    return light
