"""One X-ray at the resolution at which poses are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.errors import GeometryError
from radgs.geometry import Camera
from radgs.images import Xray
from radgs.kernels import gradients

_SPINE_MM = 80.0  # from the middle of the levels: there noise is looked at, in the darker half
_GRAINS = (0.0, 0.8, 1.1, 1.6, 2.3)
_MOST_NOISE = 0.6  # of the energy of gradients


@dataclass(frozen=True)
class View:
    """One X-ray, binned to the resolution at which poses are compared.

    Attributes:
        image: ``[H, W]`` float32 line integrals, unmeasured pixels filled from the nearest measured one.
        measured: ``[H, W]``.
        camera: of the binned image.
        pixel_mm: size of a binned pixel at the depth of the spine.
        grain_px: the blur from which on detail near the spine is more than noise; 0 where nothing tells.
    """

    image: Float[Tensor, "H W"]
    measured: Bool[Tensor, "H W"]
    camera: Camera
    pixel_mm: float
    grain_px: float = 0.0

    @classmethod
    def from_xray(cls, xray: Xray, centre: np.ndarray, pixel_mm: float) -> View:
        """Bin an X-ray so that a pixel is about ``pixel_mm`` wide at the depth of ``centre`` (world, mm).

        Raises:
            GeometryError: the centre is behind the source or outside the image.
        """
        if not xray.camera.sees(centre):
            raise GeometryError(
                f"view {xray.view} does not see the spine at {np.round(centre, 1).tolist()} (world, mm)"
            )
        depth = float(xray.camera.camera_from_world.apply(centre)[2])
        native = depth / float(xray.camera.K[0, 0])
        factor = max(round(pixel_mm / native), 1)
        camera = xray.camera.binned(factor)
        rows, columns = camera.height * factor, camera.width * factor
        blocks = xray.line_integrals[:rows, :columns].reshape(camera.height, factor, camera.width, factor)
        measured = np.isfinite(blocks).all(axis=(1, 3))
        mean = np.where(measured, np.where(np.isfinite(blocks), blocks, 0).mean(axis=(1, 3)), np.nan)
        nearest = ndimage.distance_transform_edt(~measured, return_distances=False, return_indices=True)
        filled = mean[tuple(nearest)].astype(np.float32)
        at = (
            (np.stack(np.mgrid[: camera.height, : camera.width][::-1], axis=-1) - camera.project(centre))
            * native
            * factor
        )
        near = measured & (np.linalg.norm(at, axis=-1) < _SPINE_MM)
        near &= filled >= (np.median(filled[near]) if near.any() else np.inf)
        grain = _grain_px(blocks, filled, near)
        return cls(torch.from_numpy(filled), torch.from_numpy(measured), camera, native * factor, grain)

    def coarser(self, factor: int) -> View:
        """Means over blocks of ``factor x factor`` pixels."""
        camera = self.camera.binned(factor)
        rows, columns = camera.height * factor, camera.width * factor
        image = F.avg_pool2d(self.image[None, None, :rows, :columns], factor)[0, 0]
        gaps = F.max_pool2d((~self.measured[None, None, :rows, :columns]).float(), factor)[0, 0]
        return View(image, gaps == 0, camera, self.pixel_mm * factor, self.grain_px / factor)

    def without(self, pixels: Bool[Tensor, "H W"]) -> View:
        """The same with some pixels not measured."""
        return replace(self, measured=self.measured & ~pixels)

    def blur_px(self, sigma_px: float) -> float:
        """At which the view is compared where all are at ``sigma_px``: a noisy one at no less than its grain."""
        return max(sigma_px, self.grain_px)

    def usable(self, sigma_px: float) -> Float[Tensor, "H W"]:
        """1 where neither the blur nor the derivative reaches an unmeasured pixel, else 0."""
        reach = int(2 * sigma_px) + 2
        return 1 - dilated((~self.measured).float(), reach)


def _grain_px(blocks: NDArray[np.floating], image: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """The least of some blurs after which noise makes up no more than so much of the gradients' energy; else the most.

    The pixels of a bin are dealt into two halves like a chessboard's: what they differ by is as much noise as there is
    in their mean, and hardly anything else.

    Args:
        blocks: ``[H, f, W, f]``, line integrals before they are binned.
        image: ``[H, W]``, binned.
        where: ``[H, W]``, to look.
    """
    factor = blocks.shape[1]
    if factor < 2 or not where.any():
        return 0.0
    black = (np.add.outer(np.arange(factor), np.arange(factor)) % 2 == 0)[None, :, None, :]
    halves = [np.where(half, blocks, 0).sum(axis=(1, 3)) / half.sum() for half in (black, ~black)]
    noise = np.nan_to_num((halves[0] - halves[1]) / 2).astype(np.float32)
    both = torch.from_numpy(np.stack([image, noise]))
    for blur_px in _GRAINS:
        seen, grain = gradients(both, blur_px).square().sum(dim=1)[:, torch.from_numpy(where)].median(dim=1).values
        if grain <= _MOST_NOISE * seen:
            break
    return blur_px


def dilated(image: Float[Tensor, "H W"], reach_px: int) -> Float[Tensor, "H W"]:
    """The largest value in the square that reaches so many pixels to each side."""
    size = 2 * reach_px + 1
    rows = F.max_pool2d(image[None, None], (size, 1), 1, (reach_px, 0))
    return F.max_pool2d(rows, (1, size), 1, (0, reach_px))[0, 0]
