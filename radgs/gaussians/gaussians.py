"""The radiative Gaussians themselves: where they are, how wide, how turned, how dense."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from radgs.errors import GeometryError, RadgsError

_ORTHONORMAL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class RadiativeGaussians:
    """Attenuation as a sum of N Gaussians: ``rho exp(-1/2 (x - p)' S^-1 (x - p))`` each.

    Attributes:
        means: ``[*batch, N, 3]`` mm, in the frame of the owner.
        scales: ``[*batch, N, 3]`` mm, standard deviations along the Gaussian's own axes.
        quaternions: ``[*batch, N, 4]`` (w, x, y, z), from the Gaussian's axes to the owner's; any length but zero.
        densities: ``[*batch, N]`` 1/mm at the centre.

    Raises:
        RadgsError: shapes, types or devices do not belong together.
    """

    means: Float[Tensor, "*batch N 3"]
    scales: Float[Tensor, "*batch N 3"]
    quaternions: Float[Tensor, "*batch N 4"]
    densities: Float[Tensor, "*batch N"]

    def __post_init__(self) -> None:
        if self.means.ndim < 2 or not self.means.is_floating_point():
            raise RadgsError(
                f"means are [*batch, N, 3] floating point, got {tuple(self.means.shape)} {self.means.dtype}"
            )
        base = self.means.shape[:-1]
        for name, width in (("means", (3,)), ("scales", (3,)), ("quaternions", (4,)), ("densities", ())):
            tensor = getattr(self, name)
            if tensor.shape != (*base, *width):
                raise RadgsError(f"{name} must have shape {(*base, *width)} like the means, got {tuple(tensor.shape)}")
            if tensor.dtype != self.means.dtype or tensor.device != self.means.device:
                raise RadgsError(
                    f"{name} is {tensor.dtype} on {tensor.device}, the means are {self.means.dtype} on "
                    f"{self.means.device}"
                )

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """What stands in front of the Gaussians."""
        return tuple(self.densities.shape[:-1])

    @property
    def count(self) -> int:
        """How many Gaussians, N."""
        return self.densities.shape[-1]

    def __getitem__(self, index: Any) -> RadiativeGaussians:
        """Index the batch."""
        if not self.batch_shape:
            raise RadgsError("these Gaussians have no batch to index")
        return RadiativeGaussians(*(getattr(self, f.name)[index] for f in fields(self)))

    def moved(self, a_from_b: Float[Tensor, "*batch 4 4"]) -> RadiativeGaussians:
        """The same Gaussians after a rigid motion: from frame b to frame a; differentiable.

        Args:
            a_from_b: ``[*batch, 4, 4]`` or ``[4, 4]``, mm.

        Raises:
            GeometryError: not rigid, not finite, or of another batch.
        """
        if a_from_b.shape[-2:] != (4, 4) or a_from_b.shape[:-2] not in ((), self.batch_shape):
            raise GeometryError(f"a motion is [4, 4] or {(*self.batch_shape, 4, 4)}, got {tuple(a_from_b.shape)}")
        motion = a_from_b.double()
        rotation, translation = motion[..., :3, :3], motion[..., :3, 3]
        identity = torch.eye(3, dtype=torch.float64, device=motion.device)
        off = (rotation.detach() @ rotation.detach().mT - identity).abs().amax((-1, -2))
        if not ((off < _ORTHONORMAL_TOLERANCE) & (torch.linalg.det(rotation.detach()) > 0)).all():
            raise GeometryError("Gaussians move by rigid transforms only: a rotation and a translation, no NaN")
        dtype = self.means.dtype
        turn = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(rotation)).to(dtype)
        means = self.means.double() @ rotation.mT + translation[..., None, :]
        return RadiativeGaussians(
            means.to(dtype), self.scales, _quaternion_product(turn[..., None, :], self.quaternions), self.densities
        )


def _quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """First b, then a; (w, x, y, z)."""
    aw, bw, av, bv = a[..., :1], b[..., :1], a[..., 1:], b[..., 1:]
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    av, bv = torch.broadcast_tensors(av, bv)
    return torch.cat([w, aw * bv + bw * av + torch.linalg.cross(av, bv)], -1)


def rotations(gaussians: RadiativeGaussians) -> Float[Tensor, "*batch N 3 3"]:
    """Rotation matrices from the Gaussians' own axes to their frame's."""
    q = gaussians.quaternions
    return roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(q / q.norm(dim=-1, keepdim=True)))


def check_values(gaussians: RadiativeGaussians) -> None:
    """Refuse Gaussians that are no Gaussians.

    Raises:
        RadgsError: NaN or infinite numbers, scales that are not positive, quaternions of length zero.
    """
    parts = {f.name: getattr(gaussians, f.name).detach() for f in fields(gaussians)}
    finite = [part.isfinite().all() for part in parts.values()]
    positive, turning = (parts["scales"] > 0).all(), (parts["quaternions"].abs().amax(-1) > 1e-12).all()
    # All answers at once: each question would wait for a GPU.
    *finite, positive, turning = torch.stack([*finite, positive, turning]).tolist()
    for name, good in zip(parts, finite, strict=True):
        if not good:
            raise RadgsError(f"the {name} of the Gaussians hold NaN or infinite numbers")
    if not positive:
        raise RadgsError("the scales of the Gaussians must be positive standard deviations in mm")
    if not turning:
        raise RadgsError("a quaternion of the Gaussians has length zero")
