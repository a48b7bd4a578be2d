"""How a projection changes with the pose of what is projected: all six derivatives of every pixel in one pass."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.errors import GeometryError
from radgs.geometry import cross_matrix
from radgs.kernels import Backend, depth_integrals_and_gradients
from radgs.projection.project import check_projection, pixel_rays


@torch.no_grad()
def project_with_jacobian(
    volume: Float[Tensor, "D H W"],
    index_from_ct: Float64[Tensor, "4 4"],
    K: Float64[Tensor, "V 3 3"],
    camera_from_ct: Float64[Tensor, "V 4 4"],
    centre: Float64[Tensor, " 3"],
    size: tuple[int, int],
    *,
    step_mm: float = 1.0,
    backend: Backend = "auto",
) -> tuple[Float[Tensor, "V h w"], Float[Tensor, "V 6 h w"]]:
    """Line integrals (trilinear), and their derivatives by a small motion of the volume in its own CT frame.

    The motion takes a point x (CT, mm) to ``x + omega x (x - centre) + shift``; it goes before the pose.

    Args:
        volume: attenuation in 1/mm.
        index_from_ct: maps CT points (LPS mm) to indices (x, y, z).
        K: intrinsics in pixels.
        camera_from_ct: rigid.
        centre: CT, mm, about which the motion turns.
        size: height and width in pixels.
        step_mm: distance of samples along a ray.
        backend: ``numba``, ``cuda`` or ``auto``.

    Returns:
        line integrals, no unit; their derivatives by ``omega`` (1/rad, first three) and ``shift`` (1/mm).

    Raises:
        GeometryError: as :func:`project`; also a centre that is no finite point.
        RadgsError: as :func:`project`; also for the backend ``reference``.
    """
    check_projection(volume, index_from_ct, K, camera_from_ct, size, "trilinear", step_mm)
    if centre.shape != (3,) or not centre.isfinite().all():
        raise GeometryError(f"centre is one finite point (x, y, z), got {centre.tolist()}")
    sources, directions, mm_per_depth = pixel_rays(index_from_ct, K, camera_from_ct, size, volume.device)
    index_from_ct, camera_from_ct, centre = (
        x.to(volume.device, torch.float64) for x in (index_from_ct, camera_from_ct, centre)
    )
    depth, gradient = depth_integrals_and_gradients(
        volume, sources, directions, mm_per_depth, "trilinear", step_mm, backend
    )
    by_motion = _by_motion(index_from_ct, camera_from_ct, centre, directions)
    length = mm_per_depth.to(volume.dtype)
    columns, rows = (torch.arange(n, dtype=volume.dtype, device=volume.device) for n in (size[1], size[0]))
    along_u, along_v, first = (by_motion.to(volume.dtype) @ gradient.flatten(2)[:, None]).unflatten(-1, size).unbind(1)
    jacobian = (first + along_u * columns + along_v * rows[:, None]) * length[:, None]
    return depth * length, jacobian


def _by_motion(
    index_from_ct: Float64[Tensor, "4 4"],
    camera_from_ct: Float64[Tensor, "V 4 4"],
    centre: Float64[Tensor, " 3"],
    directions: Float64[Tensor, "V 3 3"],
) -> Float64[Tensor, "V 3 6 6"]:
    """What takes a ray's derivatives by its source and direction to those by a motion; times (u, v, 1).

    A motion of the volume is the opposite motion of source and direction: a turn crosses them with what they are in the
    CT's frame, and a shift moves the source alone.
    """
    linear = index_from_ct[:3, :3]
    arm = torch.linalg.inv_ex(camera_from_ct).inverse[:, :3, 3] - centre
    along = torch.linalg.inv_ex(linear).inverse @ directions  # [V, 3, (u, v, 1)]
    out = torch.zeros(len(arm), 3, 6, 6, dtype=torch.float64, device=arm.device)
    out[:, 2, :3, :3] = -cross_matrix(arm) @ linear.T
    out[:, 2, 3:, :3] = -linear.T
    out[:, :, :3, 3:] = -cross_matrix(along.transpose(1, 2)) @ linear.T
    return out
