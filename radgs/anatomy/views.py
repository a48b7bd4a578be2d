"""What the networks see of a vertebra: a window of each X-ray around it, in a frame that is the patient's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor

from radgs.anatomy.levels import LEVELS
from radgs.errors import GeometryError
from radgs.geometry import Camera, RigidTransform, patient_axes
from radgs.images import Xray


@dataclass(frozen=True)
class VertebraViews:
    """Windows of V X-rays around each of B vertebrae.

    Attributes:
        images: ``[B, V, h, w]`` float32, line integrals of everything in the beam.
        K: ``[B, V, 3, 3]`` float64, of the windows.
        camera_from_crop: ``[B, V, 4, 4]`` float64; the crop frame has its origin at the located centre and the
            patient's nominal left, posterior, superior as axes, mm.
        level: ``[B]`` VerSe numbers.
    """

    images: Float[Tensor, "B V h w"]
    K: Float64[Tensor, "B V 3 3"]
    camera_from_crop: Float64[Tensor, "B V 4 4"]
    level: Int[Tensor, " B"]

    def to(self, device: torch.device | str) -> VertebraViews:
        """The same on another device."""
        return VertebraViews(
            self.images.to(device), self.K.to(device), self.camera_from_crop.to(device), self.level.to(device)
        )

    @classmethod
    def cat(cls, parts: Sequence[VertebraViews]) -> VertebraViews:
        """Several vertebrae one after another."""
        return cls(
            torch.cat([p.images for p in parts]),
            torch.cat([p.K for p in parts]),
            torch.cat([p.camera_from_crop for p in parts]),
            torch.cat([p.level for p in parts]),
        )


def world_from_crop(cameras: Mapping[str, Camera], centre: ArrayLike) -> RigidTransform:
    """The crop frame of a vertebra located at ``centre`` (world, mm)."""
    return RigidTransform.from_rotation_translation(patient_axes(cameras), centre)


def window_camera(camera: Camera, centre: ArrayLike, size_mm: float, pixels: int) -> Camera:
    """The camera of a square window that shows ``size_mm`` at the depth of ``centre`` (world, mm), centred on it.

    Raises:
        GeometryError: the centre is behind the source.
    """
    depth = float(camera.camera_from_world.apply(centre)[2])
    if depth <= 0:
        raise GeometryError(
            f"the point {np.round(np.asarray(centre, dtype=float), 1).tolist()} lies behind the X-ray source"
        )
    u, v = camera.project(centre)
    step = size_mm * float(camera.K[0, 0]) / depth / pixels
    half = step * (pixels - 1) / 2
    return camera.window(u - half, v - half, pixels, pixels, step)


def resample_window(image: NDArray[np.float32], camera: Camera, window: Camera) -> NDArray[np.float32]:
    """Average an X-ray (NaN: not measured) over the pixels of a window; edges repeat outside the image."""
    step = float(camera.K[0, 0] / window.K[0, 0])
    u0 = camera.K[0, 2] - window.K[0, 2] * step
    v0 = camera.K[1, 2] - window.K[1, 2] * step
    measured = np.isfinite(image)
    if not measured.any():
        raise GeometryError("an X-ray has no measured pixel")
    width = max(round(step), 1)
    if measured.all():
        smooth = ndimage.uniform_filter(image, width, mode="nearest")
    else:
        weight = ndimage.uniform_filter(measured.astype(np.float32), width, mode="nearest")
        total = ndimage.uniform_filter(np.where(measured, image, 0), width, mode="nearest")
        smooth = np.where(weight > 0.05, total / np.maximum(weight, 0.05), np.nanmedian(image))
    vu = np.meshgrid(v0 + step * np.arange(window.height), u0 + step * np.arange(window.width), indexing="ij")
    return ndimage.map_coordinates(smooth, vu, order=1, mode="nearest").astype(np.float32)


def cut_views(xrays: Mapping[str, Xray], level: str, centre: ArrayLike, size_mm: float, pixels: int) -> VertebraViews:
    """Cut the windows of one vertebra (B = 1) out of a shot's X-rays; views in the order of ``xrays``."""
    cameras = {name: x.camera for name, x in xrays.items()}
    crop = world_from_crop(cameras, centre)
    windows = [window_camera(c, centre, size_mm, pixels) for c in cameras.values()]
    images = [resample_window(x.line_integrals, x.camera, w) for x, w in zip(xrays.values(), windows, strict=True)]
    return VertebraViews(
        torch.from_numpy(np.stack(images))[None],
        torch.from_numpy(np.stack([w.K for w in windows]))[None],
        torch.from_numpy(np.stack([(c.camera_from_world @ crop).matrix for c in cameras.values()]))[None],
        torch.tensor([LEVELS[level]]),
    )
