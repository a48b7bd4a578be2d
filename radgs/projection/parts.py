"""Parts of a CT, drawn only where an image can show them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from radgs.errors import AnatomyError
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume
from radgs.kernels import depth_integrals
from radgs.projection.project import project


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


def project_parts(
    part: Volume, cameras: Sequence[Camera], world_from_ct: Sequence[RigidTransform], step_mm: float
) -> NDArray[np.float32]:
    """Line integrals of one part in each of n images of one size, at a pose of its own in each, ``[n, H, W]``.

    All are drawn in one call, and of each image only a rectangle that the part cannot leave: one call for each image
    takes longer to begin than to draw a window.

    Raises:
        AnatomyError: the part lies behind an X-ray source.
    """
    size = np.array([cameras[0].width, cameras[0].height])
    K = np.stack([camera.K for camera in cameras])
    poses = np.stack([c.camera_from_world.matrix @ w.matrix for c, w in zip(cameras, world_from_ct, strict=True)])
    seen = part.corners @ poses[:, :3, :3].swapaxes(1, 2) + poses[:, None, :3, 3]
    if (seen[..., 2] <= 0).any():
        raise AnatomyError("a part of the CT lies behind the X-ray source")
    pixel = seen @ K.swapaxes(1, 2)
    uv = pixel[..., :2] / pixel[..., 2:]
    low = np.clip(np.floor(uv.min(axis=1)).astype(int) - 2, 0, size)
    high = np.clip(np.ceil(uv.max(axis=1)).astype(int) + 3, 0, size)
    images = np.zeros((len(cameras), size[1], size[0]), dtype=np.float32)
    reached = np.flatnonzero((high > low).all(axis=1))
    if not len(reached):
        return images
    width, height = (high - low)[reached].max(axis=0).tolist()
    first = np.minimum(low, size - [width, height])
    K[:, :2, 2] -= first
    drawn = project(
        torch.from_numpy(np.ascontiguousarray(part.array, dtype=np.float32)),
        torch.from_numpy(part.index_from_lps),
        torch.from_numpy(K[reached]),
        torch.from_numpy(poses[reached]),
        (height, width),
        step_mm=step_mm,
    )
    for i, one in zip(reached, drawn.numpy(), strict=True):
        u, v = first[i]
        images[i, v : v + height, u : u + width] = one
    return images


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
