"""One part of a CT, drawn only where an image can show it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from radgs.errors import AnatomyError
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume
from radgs.kernels import depth_integrals


def project_part(part: Volume, camera: Camera, world_from_ct: RigidTransform, step_mm: float) -> NDArray[np.float32]:
    """Line integrals of one part, drawn only in the window of the image that it can reach, ``[H, W]``.

    Raises:
        AnatomyError: the part lies behind the source.
    """
    image = np.zeros((camera.height, camera.width), dtype=np.float32)
    uv = camera.project(world_from_ct.apply(part.corners))
    if np.isnan(uv).any():
        raise AnatomyError("a part of the CT lies behind the X-ray source")
    low = np.maximum(np.floor(uv.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(uv.max(axis=0)).astype(int) + 3, [camera.width, camera.height])
    if (high <= low).any():
        return image
    (u0, v0), (width, height) = low.tolist(), (high - low).tolist()
    window = image[v0 : v0 + height, u0 : u0 + width]
    sources, directions, mm_per_depth = _rays(part, camera, world_from_ct, low, window.shape)
    drawn = depth_integrals(
        torch.from_numpy(np.ascontiguousarray(part.array, dtype=np.float32)),
        torch.from_numpy(sources)[None],
        torch.from_numpy(directions)[None],
        torch.from_numpy(mm_per_depth)[None],
        "trilinear",
        step_mm,
    )
    window[:] = drawn[0].numpy() * mm_per_depth
    return image


def _rays(
    part: Volume, camera: Camera, world_from_ct: RigidTransform, low: NDArray[np.int64], size: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """As of :func:`radgs.projection.project.pixel_rays`, of the window from pixel ``low`` (u, v) of one view."""
    camera_from_pixel: NDArray[np.float64] = np.linalg.inv(camera.K).astype(np.float64)
    camera_from_pixel[:, 2] += camera_from_pixel[:, :2] @ low
    camera_from_index = camera.camera_from_world.matrix @ world_from_ct.matrix @ part.lps_from_index
    index_from_camera: NDArray[np.float64] = np.linalg.inv(camera_from_index).astype(np.float64)
    v, u = np.ogrid[: size[0], : size[1]]
    x, y, z = (row[0] * u + row[1] * v + row[2] for row in camera_from_pixel)
    mm_per_depth: NDArray[np.float64] = np.sqrt(x**2 + y**2 + z**2)
    return index_from_camera[:3, 3], index_from_camera[:3, :3] @ camera_from_pixel, mm_per_depth
