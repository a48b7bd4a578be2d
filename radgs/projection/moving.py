"""Parts of a CT that move each by itself, drawn all at once, only where images can show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from radgs.geometry import Camera
from radgs.images import Volume
from radgs.kernels import Box, MovedRays, moved_line_integrals, pack

_LEAST_PX = 8  # rows or columns of a window: what is narrower is not visible


@dataclass(frozen=True)
class DrawnPart:
    """A part in a view.

    Attributes:
        camera: which one.
        part: which one.
        window: rows from, to, columns from, to, in the view.
        image: ``[7, h, w]`` line integrals and derivatives, or ``[1, h, w]`` line integrals alone.
    """

    camera: int
    part: int
    window: Box
    image: Float[Tensor, "c h w"]


class MovingParts:
    """Volumes of a CT, ready to be drawn again and again, each at a pose of its own.

    Args:
        volumes: 1/mm.
    """

    def __init__(self, volumes: Sequence[Volume]) -> None:
        self._packed = pack([torch.from_numpy(np.ascontiguousarray(v.array, dtype=np.float32)) for v in volumes])
        self._index_from_ct = np.stack([v.index_from_lps for v in volumes])
        self._corners = np.stack([v.corners for v in volumes])
        self.centres: Float64[NDArray, "P 3"] = self._corners.mean(axis=1)

    def draw(
        self,
        cameras: Sequence[Camera],
        parts: Sequence[int],
        world_from_ct: Float64[NDArray, "n 4 4"],
        step_mm: float,
        *,
        margin: int = 0,
        motion: bool = True,
    ) -> list[DrawnPart]:
        """Line integrals (trilinear), and their derivatives by a small motion of each part in its own CT frame.

        The motion takes a point x (CT, mm) to ``x + omega x (x - centre) + shift``, the centre being the part's; it
        goes before the pose.

        Args:
            cameras: of the views.
            parts: which are drawn.
            world_from_ct: their poses.
            step_mm: distance of samples along a ray.
            margin: of zeros around what a part can reach, pixels; it ends at the image's border.
            motion: whether derivatives are wanted: by ``omega`` (1/rad, first three) and ``shift`` (1/mm).

        Returns:
            Every part in every view that shows it, view by view; none that lies behind a source.
        """
        inner, wide, places = [], [], []
        for c, camera in enumerate(cameras):
            for row, (low, high) in enumerate(self._reach(camera, parts, world_from_ct)):
                box = low[1], high[1], low[0], high[0]
                if min(high - low) >= _LEAST_PX:
                    y0, y1, x0, x1 = box
                    top, left = max(0, y0 - margin), max(0, x0 - margin)
                    inner.append(box)
                    wide.append((top, min(camera.height, y1 + margin), left, min(camera.width, x1 + margin)))
                    places.append((c, row))
        if not places:
            return []
        owner = np.array([parts[row] for _, row in places])
        rays = self._rays([cameras[c] for c, _ in places], owner, world_from_ct[[row for _, row in places]])
        images = moved_line_integrals(self._packed, torch.from_numpy(owner), rays, inner, wide, step_mm, motion=motion)
        return [
            DrawnPart(c, parts[row], window, image)
            for (c, row), window, image in zip(places, wide, images, strict=True)
        ]

    def _reach(self, camera: Camera, parts: Sequence[int], world_from_ct: NDArray[np.float64]) -> NDArray[np.int64]:
        """``[n, 2, 2]``: first and one past the last pixel (u, v) of each; none of what reaches behind the source."""
        moved = self._corners[list(parts)] @ world_from_ct[:, :3, :3].swapaxes(1, 2) + world_from_ct[:, None, :3, 3]
        uv = camera.project(moved)
        size = [camera.width, camera.height]
        low, high = np.floor(uv.min(axis=1)), np.ceil(uv.max(axis=1)) + 1
        reach = np.stack([np.clip(low, 0, size), np.clip(high, 0, size)], axis=1)
        found: NDArray[np.int64] = np.nan_to_num(reach).astype(np.int64)
        return found

    def _rays(
        self, cameras: Sequence[Camera], owner: NDArray[np.int64], world_from_ct: NDArray[np.float64]
    ) -> MovedRays:
        camera_from_world = np.stack([camera.camera_from_world.matrix for camera in cameras])
        from_pixel = np.linalg.inv(np.stack([camera.K for camera in cameras]))
        ct_from_camera = np.linalg.inv(camera_from_world @ world_from_ct)
        index_from_ct, source = self._index_from_ct[owner], ct_from_camera[:, :3, 3]
        linear, along = index_from_ct[:, :3, :3], ct_from_camera[:, :3, :3] @ from_pixel
        sources = (linear @ source[:, :, None])[:, :, 0] + index_from_ct[:, :3, 3]
        arrays = sources, linear @ along, from_pixel, source - self.centres[owner], along, linear
        return MovedRays(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
