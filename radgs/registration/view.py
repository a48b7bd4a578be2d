"""One X-ray at the resolution at which poses are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from radgs.errors import GeometryError
from radgs.geometry import Camera
from radgs.images import Xray
from radgs.registration.noise import certainty, noise_and_grain

_SPINE_MM = 80.0  # from the middle of the levels: there noise is looked at


@dataclass(frozen=True)
class View:
    """One X-ray, binned to the resolution at which poses are compared.

    Attributes:
        image: ``[H, W]`` float32 line integrals, unmeasured pixels filled from the nearest measured one.
        measured: ``[H, W]``.
        camera: of the binned image.
        pixel_mm: size of a binned pixel at the depth of the spine.
        noise: ``[H, W]``, the variance of line integrals; absent or 0 where nothing tells.
        grain_px: the blur from which on detail near the spine is more than noise; 0 where nothing tells.
    """

    image: Float[Tensor, "H W"]
    measured: Bool[Tensor, "H W"]
    camera: Camera
    pixel_mm: float
    noise: Float[Tensor, "H W"] | None = None
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
        u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        u0, v0 = camera.project(centre)
        near = measured & (np.hypot(u - u0, v - v0) * native * factor < _SPINE_MM)
        noise, grain = noise_and_grain(blocks, filled, near)
        return cls(
            torch.from_numpy(filled),
            torch.from_numpy(measured),
            camera,
            native * factor,
            torch.from_numpy(noise),
            grain,
        )

    def coarser(self, factor: int) -> View:
        """Means over blocks of ``factor x factor`` pixels."""
        camera = self.camera.binned(factor)
        rows, columns = camera.height * factor, camera.width * factor
        image = F.avg_pool2d(self.image[None, None, :rows, :columns], factor)[0, 0]
        gaps = F.max_pool2d((~self.measured[None, None, :rows, :columns]).float(), factor)[0, 0]
        noise = self.noise
        if noise is not None:
            noise = F.avg_pool2d(noise[None, None, :rows, :columns], factor)[0, 0] / factor**2
        return View(image, gaps == 0, camera, self.pixel_mm * factor, noise, self.grain_px / factor)

    def without(self, pixels: Bool[Tensor, "H W"]) -> View:
        """The same with some pixels not measured."""
        return replace(self, measured=self.measured & ~pixels)

    def blur_px(self, sigma_px: float) -> float:
        """At which the view is compared where all are at ``sigma_px``: a noisy one at no less than its grain."""
        return max(sigma_px, self.grain_px)

    def certainty(self, seen: Float[Tensor, "2 H W"], blur_px: float) -> Float[Tensor, "H W"]:
        """What each pixel's gradient counts beside others', 0 to 1.

        Args:
            seen: gradients of the view after a blur.
            blur_px: the blur.
        """
        usable = self.usable(blur_px) > 0
        if self.noise is None or not usable.any():
            return torch.ones_like(self.image)
        return certainty(self.noise, seen, usable & (self.image >= self.image[usable].median()), blur_px)

    def usable(self, sigma_px: float) -> Float[Tensor, "H W"]:
        """1 where neither the blur nor the derivative reaches an unmeasured pixel, else 0."""
        reach = int(2 * sigma_px) + 2
        return 1 - dilated((~self.measured).float(), reach)


def dilated(image: Float[Tensor, "H W"], reach_px: int) -> Float[Tensor, "H W"]:
    """The largest value in the square that reaches so many pixels to each side."""
    size = 2 * reach_px + 1
    rows = F.max_pool2d(image[None, None], (size, 1), 1, (reach_px, 0))
    return F.max_pool2d(rows, (1, size), 1, (0, reach_px))[0, 0]
