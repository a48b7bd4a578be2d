"""Small corrections of the cameras, found together with the poses: cross-view constraints in their soft form.

A C-arm is never calibrated perfectly: two views that contradict each other by half a millimetre pull every pose apart.
A motion of the world that one view alone sees takes such a contradiction away, at the cost of a Gaussian prior.
X-rays tell only how the views lie against each other. A motion that all corrections have in common costs and gains
nothing, so the prior lets their mean vanish: the world stays where all cameras together say it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from radgs.config import RefinementSettings
from radgs.geometry import RigidTransform, cross_matrix, rigid_motion
from radgs.registration.scene import Scene


@dataclass(frozen=True)
class CameraCorrections:
    """By view, a motion of the world that goes before its camera.

    Attributes:
        amount: ``[V, 6]``: a turn about ``middle``, then a shift, along the world's axes, in the prior's spreads.
        spread: ``[6]``: the prior's standard deviations, radians and mm.
        middle: ``[3]`` world, mm.
    """

    amount: Float64[Tensor, "V 6"]
    spread: Float64[Tensor, " 6"]
    middle: Float64[Tensor, " 3"]

    @classmethod
    def none(
        cls, scene: Scene, poses: Mapping[str, Float64[Tensor, "4 4"]], settings: RefinementSettings
    ) -> CameraCorrections:
        """Cameras as they are calibrated; later turns are about the middle of the scene's vertebrae."""
        middle = torch.stack([_centre(scene, level, pose) for level, pose in poses.items()]).mean(dim=0)
        spread = torch.tensor(
            [math.radians(settings.camera_prior_deg)] * 3 + [settings.camera_prior_mm] * 3, dtype=torch.float64
        )
        return cls(torch.zeros(len(scene.views), 6, dtype=torch.float64), spread, middle)

    def changed(self, by: Float64[Tensor, " p"]) -> CameraCorrections:
        """After a step of all amounts."""
        return replace(self, amount=self.amount + by.view(-1, 6))

    def motions(self, scene: Scene) -> dict[str, RigidTransform]:
        """By view."""
        motion = self.amount * self.spread
        moves = rigid_motion(motion[:, :3], motion[:, 3:], self.middle).numpy()
        return {name: RigidTransform.nearest(move) for name, move in zip(scene.views, moves, strict=True)}

    def apply(self, scene: Scene) -> Scene:
        """The scene as its cameras see it after correction."""
        views = {}
        for name, move in self.motions(scene).items():
            camera = scene.views[name].camera
            corrected = replace(camera, camera_from_world=camera.camera_from_world @ move)
            views[name] = replace(scene.views[name], camera=corrected)
        return scene.seen_by(views)

    def by_amount(
        self, scene: Scene, poses: Mapping[str, Float64[Tensor, "4 4"]], levels: Sequence[str]
    ) -> Float64[Tensor, "p 6"]:
        """How the levels' own parameters would have to change to look like a change of one view's amount.

        Of a world motion by the turn t about the middle m and the shift s, a point x of the CT (centre c, pose R, T)
        sees the turn R' t and the shift R' (s + t x (R c + T - m)).
        """
        blocks = []
        for level in levels:
            to_ct, arm = poses[level][:3, :3].T, _centre(scene, level, poses[level]) - self.middle
            turn = torch.cat([to_ct, torch.zeros(3, 3, dtype=torch.float64)], dim=1)
            shift = torch.cat([-to_ct @ cross_matrix(arm), to_ct], dim=1)
            blocks += [turn, shift]
        return torch.cat(blocks) * self.spread


def _centre(scene: Scene, level: str, pose: Float64[Tensor, "4 4"]) -> Float64[Tensor, " 3"]:
    """Of a vertebra, world, mm."""
    return pose[:3, :3] @ scene.parts[level].centre + pose[:3, 3]
