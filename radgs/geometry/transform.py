"""Rigid transforms, named by what they do: ``a_from_c = a_from_b @ b_from_c``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import roma
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from radgs.errors import GeometryError

_ORTHONORMAL_TOLERANCE = 1e-4


_LAST_ROW, _ROW_TOLERANCE = np.array([0.0, 0, 0, 1]), np.array([1e-9, 1e-9, 1e-9, 1e-5])


@dataclass(frozen=True)
class RigidTransform:
    """A rotation and a translation that map points of one frame to another.

    Attributes:
        matrix: ``[4, 4]`` float64, homogeneous, mm.

    Raises:
        GeometryError: the matrix is not finite, not 4x4, or not a rotation with a translation.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        m = np.array(self.matrix, dtype=np.float64)
        if m.shape != (4, 4):
            raise GeometryError(f"a rigid transform is a 4x4 matrix, got shape {m.shape}")
        if not np.isfinite(m).all():
            raise GeometryError(f"a rigid transform holds finite numbers, got {m.tolist()}")
        if (np.abs(m[3] - _LAST_ROW) > _ROW_TOLERANCE).any():
            raise GeometryError(f"the last row of a rigid transform is 0 0 0 1, got {m[3].tolist()}")
        error = np.abs(m[:3, :3] @ m[:3, :3].T - np.eye(3)).max()
        if error > _ORTHONORMAL_TOLERANCE or np.linalg.det(m[:3, :3]) < 0:
            raise GeometryError(
                f"the 3x3 part is not a rotation (off by {error:.2g}, determinant "
                f"{np.linalg.det(m[:3, :3]):.3f}); radgs needs rigid transforms without scale or mirror"
            )
        m.setflags(write=False)
        object.__setattr__(self, "matrix", m)

    @classmethod
    def identity(cls) -> RigidTransform:
        """The transform that leaves every point where it is."""
        return cls(np.eye(4))

    @classmethod
    def from_rotation_translation(cls, rotation: ArrayLike, translation: ArrayLike) -> RigidTransform:
        """Build from a 3x3 rotation and a translation in mm."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, translation
        return cls(matrix)

    @classmethod
    def about(cls, centre: ArrayLike, rotvec: ArrayLike, shift: ArrayLike = (0.0, 0.0, 0.0)) -> RigidTransform:
        """Turn by ``rotvec`` (``[3]``, radians) about ``centre`` (``[3]``, mm), then move by ``shift`` (mm)."""
        middle = np.asarray(centre, dtype=np.float64)
        rotation = Rotation.from_rotvec(rotvec).as_matrix()
        return cls.from_rotation_translation(rotation, middle - rotation @ middle + np.asarray(shift))

    @classmethod
    def nearest(cls, matrix: ArrayLike) -> RigidTransform:
        """The rigid transform nearest to an almost rigid 4x4 matrix (rotation by SVD)."""
        m = np.array(matrix, dtype=np.float64)
        u, _, vt = np.linalg.svd(m[:3, :3])
        rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        return cls.from_rotation_translation(rotation, m[:3, 3])

    @property
    def rotation(self) -> NDArray[np.float64]:
        """The 3x3 rotation."""
        return self.matrix[:3, :3]

    @property
    def translation(self) -> NDArray[np.float64]:
        """The translation in mm."""
        return self.matrix[:3, 3]

    def __matmul__(self, other: RigidTransform) -> RigidTransform:
        return RigidTransform.nearest(self.matrix @ other.matrix)

    def inverse(self) -> RigidTransform:
        """The transform the other way round."""
        return RigidTransform.from_rotation_translation(self.rotation.T, -self.rotation.T @ self.translation)

    def apply(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points ``[..., 3]`` in mm."""
        return np.asarray(points, dtype=np.float64) @ self.rotation.T + self.translation

    def angle(self) -> float:
        """The angle of the rotation, radians."""
        return float(roma.rotmat_to_rotvec(torch.from_numpy(self.rotation.copy())).norm())

    def tensor(self) -> Float[Tensor, "4 4"]:
        """The matrix as a float64 tensor."""
        return torch.from_numpy(self.matrix.copy())


def rigid_motion(
    rotvec: Float[Tensor, "*batch 3"], translation: Float[Tensor, "*batch 3"], centre: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Turn by ``rotvec`` (radians) about ``centre`` (mm), then move by ``translation`` (mm); differentiable."""
    rotation = roma.rotvec_to_rotmat(rotvec)
    offset = centre - (rotation @ centre[..., None])[..., 0] + translation
    top = torch.cat([rotation, offset[..., None]], dim=-1)
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=top.dtype, device=top.device)
    return torch.cat([top, last.expand(*top.shape[:-2], 1, 4)], dim=-2)


def cross_matrix(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix whose product with a vector is ``v x`` it."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
