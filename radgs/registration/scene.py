"""The X-rays of a shot beside what the model predicts for them: the sum of all visible vertebrae, each at its pose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from radgs.anatomy import Band, Matcher, SpineTissue
from radgs.images import Volume
from radgs.projection import DrawnPart, MovingParts
from radgs.registration.soft_tissue import SoftTissue
from radgs.registration.view import View

_BONE_STEP_MM = 1.2
_DETAIL_MM = 1.3, 4.4  # Gaussians between which lies what vertebrae are looked for by

Poses = dict[str, Float64[Tensor, "4 4"]]  # by level, world_from_ct


@dataclass(frozen=True)
class Part:
    """Where one vertebra lies in the CT: corners ``[8, 3]`` of the box around it, and their middle; LPS mm."""

    corners: Float64[Tensor, "8 3"]
    centre: Float64[Tensor, " 3"]

    @classmethod
    def of(cls, excess: Volume) -> Part:
        """A vertebra whose excess attenuation this is."""
        corners = torch.from_numpy(excess.corners)
        return cls(corners, corners.mean(dim=0))


class Scene:
    """All views of a shot and all vertebrae that may be seen in them.

    Args:
        views: by name.
        tissue: the CT in parts.
        soft: of the same; made here if it is not at hand.
    """

    def __init__(self, views: Mapping[str, View], tissue: SpineTissue, soft: SoftTissue | None = None) -> None:
        self.views = dict(views)
        self.parts = {level: Part.of(excess) for level, excess in tissue.excess.items()}
        self.soft = soft or SoftTissue.of(tissue)
        self._bones = MovingParts(list(tissue.excess.values()))

    @cached_property
    def matcher(self) -> Matcher:
        """Says where the vertebrae might lie in these views."""
        pixel_mm = float(np.mean([view.pixel_mm for view in self.views.values()]))
        images = [(v.camera, torch.where(v.measured, v.image, torch.nan).numpy()) for v in self.views.values()]
        centres = {level: part.centre.numpy() for level, part in self.parts.items()}
        return Matcher(images, self._bones, centres, Band(*(mm / pixel_mm for mm in _DETAIL_MM)))

    def draw(
        self, poses: Mapping[str, Float64[Tensor, "4 4"]], step_mm: float, margin: int
    ) -> dict[str, list[tuple[int, DrawnPart]]]:
        """By view, the visible vertebrae with their derivatives by the pose, and their rows among ``poses``."""
        drawn = self._bones.draw(
            [view.camera for view in self.views.values()], self._numbers(poses), _stacked(poses), step_mm, margin=margin
        )
        row = {part: row for row, part in enumerate(self._numbers(poses))}
        return {
            name: [(row[one.part], one) for one in drawn if one.camera == camera]
            for camera, name in enumerate(self.views)
        }

    def draw_bones(self, view: View, poses: Mapping[str, Float64[Tensor, "4 4"]]) -> Float[Tensor, "H W"]:
        """Line integrals of all vertebrae; no gradient."""
        image = torch.zeros(view.camera.height, view.camera.width)
        numbers = self._numbers(poses)
        for one in self._bones.draw([view.camera], numbers, _stacked(poses), _BONE_STEP_MM, motion=False):
            y0, y1, x0, x1 = one.window
            image[y0:y1, x0:x1] += one.image[0]
        return image

    def _numbers(self, poses: Iterable[str]) -> list[int]:
        levels = list(self.parts)
        return [levels.index(level) for level in poses]

    def coarser(self, factor: int) -> Scene:
        """The same with larger pixels."""
        if factor == 1:
            return self
        return self.seen_by({name: view.coarser(factor) for name, view in self.views.items()})

    def seen_by(self, views: Mapping[str, View]) -> Scene:
        """The same with other views."""
        other = copy(self)
        other.__dict__.pop("matcher", None)  # of other views
        other.views = dict(views)
        return other


def _stacked(poses: Mapping[str, Float64[Tensor, "4 4"]]) -> Float64[NDArray, "n 4 4"]:
    found: NDArray[np.float64] = torch.stack(list(poses.values())).numpy()
    return found
