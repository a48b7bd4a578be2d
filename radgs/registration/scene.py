"""The X-rays of a shot beside what the model predicts for them: the sum of all visible vertebrae, each at its pose."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.anatomy import SpineTissue
from radgs.images import Volume
from radgs.projection import project, project_with_jacobian
from radgs.registration.soft_tissue import SoftTissue
from radgs.registration.view import View

Box = tuple[int, int, int, int]  # rows from, to, columns from, to; ends excluded
_BONE_STEP_MM = 1.2


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


def is_empty(box: Box, least: int = 8) -> bool:
    """Whether a window has fewer than ``least`` rows or columns."""
    return box[1] - box[0] < least or box[3] - box[2] < least


class Scene:
    """All views of a shot and all vertebrae that may be seen in them.

    Args:
        views: by name.
        tissue: the CT in parts.
        soft: of the same; made here if it is not at hand.
    """

    def __init__(self, views: Mapping[str, View], tissue: SpineTissue, soft: SoftTissue | None = None) -> None:
        self.views = dict(views)
        self.parts = {level: Part(excess) for level, excess in tissue.excess.items()}
        self.soft = soft or SoftTissue.of(tissue)

    def draw_bones(self, view: View, poses: Mapping[str, Float64[Tensor, "4 4"]]) -> Float[Tensor, "H W"]:
        """Line integrals of all vertebrae; no gradient."""
        image = torch.zeros(view.camera.height, view.camera.width)
        for level, pose in poses.items():
            box = self.parts[level].window(view, pose)
            if not is_empty(box):
                with torch.no_grad():
                    image[box[0] : box[1], box[2] : box[3]] += self.parts[level].draw(view, pose, box, _BONE_STEP_MM)
        return image

    def coarser(self, factor: int) -> Scene:
        """The same with larger pixels."""
        if factor == 1:
            return self
        return self.seen_by({name: view.coarser(factor) for name, view in self.views.items()})

    def seen_by(self, views: Mapping[str, View]) -> Scene:
        """The same with other views."""
        other = copy(self)
        other.views = dict(views)
        return other
