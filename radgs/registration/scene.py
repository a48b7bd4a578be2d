"""The X-rays of a shot beside what the model predicts for them: the sum of all visible vertebrae, each at its pose."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from scipy import ndimage
from torch import Tensor

from radgs.anatomy import SpineTissue
from radgs.errors import GeometryError
from radgs.geometry import Camera
from radgs.images import Volume, Xray
from radgs.projection import project, project_with_jacobian

Box = tuple[int, int, int, int]  # rows from, to, columns from, to; ends excluded
_SOFT_SPACING_MM, _SOFT_STEP_MM = 1.5, 2.0


@dataclass(frozen=True)
class View:
    """One X-ray, binned to the resolution at which poses are compared.

    Attributes:
        image: ``[H, W]`` float32 line integrals, unmeasured pixels filled from the nearest measured one.
        measured: ``[H, W]``.
        camera: of the binned image.
        pixel_mm: size of a binned pixel at the depth of the spine.
    """

    image: Float[Tensor, "H W"]
    measured: Bool[Tensor, "H W"]
    camera: Camera
    pixel_mm: float

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
        return cls(torch.from_numpy(filled), torch.from_numpy(measured), camera, native * factor)

    def coarser(self, factor: int) -> View:
        """Means over blocks of ``factor x factor`` pixels."""
        camera = self.camera.binned(factor)
        rows, columns = camera.height * factor, camera.width * factor
        image = F.avg_pool2d(self.image[None, None, :rows, :columns], factor)[0, 0]
        gaps = F.max_pool2d((~self.measured[None, None, :rows, :columns]).float(), factor)[0, 0]
        return View(image, gaps == 0, camera, self.pixel_mm * factor)

    def usable(self, sigma_px: float) -> Float[Tensor, "H W"]:
        """1 where neither the blur nor the derivative reaches an unmeasured pixel, else 0."""
        reach = int(2 * sigma_px) + 2
        gaps = (~self.measured).float()[None, None]
        return 1 - F.max_pool2d(gaps, 2 * reach + 1, 1, reach)[0, 0]


class Part:
    """One vertebra's excess attenuation, ready to be drawn."""

    def __init__(self, excess: Volume) -> None:
        self.values = torch.from_numpy(np.ascontiguousarray(excess.array, dtype=np.float32))
        self.index_from_ct = torch.from_numpy(excess.index_from_lps)
        self.corners = torch.from_numpy(excess.corners)
        self.centre = self.corners.mean(dim=0)

    def window(self, view: View, world_from_ct: Float64[Tensor, "4 4"]) -> Box:
        """The part of the image that the vertebra can reach; empty (ends before starts) if it is not visible."""
        world = self.corners @ world_from_ct[:3, :3].T + world_from_ct[:3, 3]
        uv = view.camera.project(world.detach().numpy())
        if np.isnan(uv).any():
            return 0, 0, 0, 0
        (u0, v0), (u1, v1) = np.floor(uv.min(axis=0)).astype(int), np.ceil(uv.max(axis=0)).astype(int) + 1
        height, width = view.camera.height, view.camera.width
        return max(0, v0), min(height, v1), max(0, u0), min(width, u1)

    def draw(self, view: View, world_from_ct: Float64[Tensor, "4 4"], box: Box, step_mm: float) -> Float[Tensor, "h w"]:
        """Line integrals in a window of the view; gradient to the pose."""
        y0, y1, x0, x1 = box
        window = view.camera.window(x0, y0, x1 - x0, y1 - y0)
        camera_from_ct = window.camera_from_world.tensor() @ world_from_ct
        k = torch.from_numpy(window.K.copy())[None]
        size = (y1 - y0, x1 - x0)
        return project(self.values, self.index_from_ct, k, camera_from_ct[None], size, step_mm=step_mm)[0]

    def draw_with_jacobian(
        self, view: View, world_from_ct: Float64[Tensor, "4 4"], step_mm: float, margin: int
    ) -> tuple[Box, Float[Tensor, "7 h w"]] | None:
        """Line integrals and their derivatives by a motion about ``centre``, in a window with an empty margin.

        None where the vertebra is not visible. The margin ends at the image's border.
        """
        box = self.window(view, world_from_ct)
        if is_empty(box):
            return None
        y0, y1, x0, x1 = box
        window = view.camera.window(x0, y0, x1 - x0, y1 - y0)
        camera_from_ct = (window.camera_from_world.tensor() @ world_from_ct)[None]
        k, size = torch.from_numpy(window.K.copy())[None], (y1 - y0, x1 - x0)
        image, jacobian = project_with_jacobian(
            self.values, self.index_from_ct, k, camera_from_ct, self.centre, size, step_mm=step_mm
        )
        wide = (
            max(0, y0 - margin),
            min(view.camera.height, y1 + margin),
            max(0, x0 - margin),
            min(view.camera.width, x1 + margin),
        )
        around = (x0 - wide[2], wide[3] - x1, y0 - wide[0], wide[1] - y1)
        return wide, F.pad(torch.cat([image, jacobian[0]]), around)


def coarse(volume: Volume) -> Volume:
    """Means over blocks in plane, for soft tissue: no finer than the binned X-rays."""
    factor = max(round(_SOFT_SPACING_MM / float(volume.spacing[:2].max())), 1)
    return volume.binned_in_plane(factor)


def is_empty(box: Box, least: int = 8) -> bool:
    """Whether a window has fewer than ``least`` rows or columns."""
    return box[1] - box[0] < least or box[3] - box[2] < least


class Scene:
    """All views of a shot and all vertebrae that may be seen in them."""

    def __init__(self, views: Mapping[str, View], tissue: SpineTissue) -> None:
        self.views = dict(views)
        self.parts = {level: Part(excess) for level, excess in tissue.excess.items()}
        self.soft = Part(coarse(tissue.soft))

    def draw_soft(self, view: View, world_from_ct: Float64[Tensor, "4 4"]) -> Float[Tensor, "H W"]:
        """Line integrals of everything that is no vertebra of the scene, over the whole view; no gradient."""
        with torch.no_grad():
            return self.soft.draw(view, world_from_ct, (0, view.camera.height, 0, view.camera.width), _SOFT_STEP_MM)

    def coarser(self, factor: int) -> Scene:
        """The same with larger pixels."""
        if factor == 1:
            return self
        other = copy(self)
        other.views = {name: view.coarser(factor) for name, view in self.views.items()}
        return other


def blur(images: Float[Tensor, "n H W"], sigma_px: float) -> Float[Tensor, "n H W"]:
    """Gaussian blur with repeated edges."""
    reach = int(3 * sigma_px) or 1
    x = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8


def gradients(images: Float[Tensor, "n H W"]) -> Float[Tensor, "n 2 H W"]:
    """Sobel derivatives along u and v with repeated edges."""
    padded = F.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, torch.stack([_SOBEL, _SOBEL.T])[:, None])
