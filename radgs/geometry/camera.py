"""The pinhole camera of an X-ray: source at the centre, z towards the detector (OpenCV axes)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radgs.errors import GeometryError
from radgs.geometry.transform import RigidTransform


@dataclass(frozen=True)
class Camera:
    """One calibrated X-ray view (Hartley & Zisserman, ``P = K [R | t]``).

    Pixel ``(0, 0)`` is the **centre** of the first pixel; u runs right, v down.

    Attributes:
        K: ``[3, 3]`` float64, pixels.
        camera_from_world: maps world points (mm) to camera axes x right, y down, z source to detector.
        width: pixels along u.
        height: pixels along v.

    Raises:
        GeometryError: singular or non-finite ``K``, or an empty image.
    """

    K: NDArray[np.float64]
    camera_from_world: RigidTransform
    width: int
    height: int

    def __post_init__(self) -> None:
        k = np.array(self.K, dtype=np.float64)
        if k.shape != (3, 3):
            raise GeometryError(f"K is a 3x3 matrix, got shape {k.shape}")
        if not np.isfinite(k).all():
            raise GeometryError(f"K holds finite numbers, got {k.tolist()}")
        if k[0, 0] <= 0 or k[1, 1] <= 0 or not np.allclose(k[2], [0, 0, 1]) or abs(k[1, 0]) > 1e-9:
            raise GeometryError(
                f"K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with positive focal lengths, got {k.tolist()}"
            )
        if not 0.5 <= k[0, 0] / k[1, 1] <= 2:
            raise GeometryError(f"focal lengths {k[0, 0]:g} and {k[1, 1]:g} do not belong to one detector")
        if self.width < 1 or self.height < 1:
            raise GeometryError(f"an image has at least one pixel, got {self.width} x {self.height}")
        k.setflags(write=False)
        object.__setattr__(self, "K", k)

    @property
    def source(self) -> NDArray[np.float64]:
        """The X-ray source in the world, mm."""
        return self.camera_from_world.inverse().translation

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """World points ``[..., 3]`` (mm) to pixels ``[..., 2]`` (u, v); NaN for points behind the source."""
        x = self.camera_from_world.apply(points) @ self.K.T
        depth = np.where(x[..., 2:] > 0, x[..., 2:], np.nan)
        return x[..., :2] / depth

    def sees(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Whether each world point ``[..., 3]`` lies in front of the source and inside the image."""
        uv = self.project(points)
        u, v = uv[..., 0], uv[..., 1]
        with np.errstate(invalid="ignore"):
            return (u >= -0.5) & (u <= self.width - 0.5) & (v >= -0.5) & (v <= self.height - 0.5)

    def window(self, u0: float, v0: float, width: int, height: int, step: float = 1.0) -> Camera:
        """The camera of a resampled window of this image.

        Args:
            u0: coordinate, in this image, of the centre of the window's first pixel.
            v0: the same along v.
            width: pixels of the window along u.
            height: pixels of the window along v.
            step: pixels of this image per pixel of the window.
        """
        new_from_old = np.array([[1 / step, 0, -u0 / step], [0, 1 / step, -v0 / step], [0, 0, 1.0]])
        return replace(self, K=new_from_old @ self.K, width=width, height=height)

    def binned(self, factor: int) -> Camera:
        """The camera after averaging blocks of ``factor x factor`` pixels (what does not fill a block is cut)."""
        first = (factor - 1) / 2
        return self.window(first, first, self.width // factor, self.height // factor, float(factor))


def rays(camera: Camera, depth_mm: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The source and, for every pixel, the point at depth ``depth_mm`` (along z) on its ray.

    Returns:
        source ``[3]`` and points ``[H, W, 3]``, world, mm.
    """
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    in_camera = pixels @ np.linalg.inv(camera.K).T * depth_mm
    return camera.source, camera.camera_from_world.inverse().apply(in_camera)
