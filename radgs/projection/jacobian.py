"""How a projection changes with the pose of what is projected: all six derivatives of every pixel in one pass."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.errors import GeometryError
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
    length = mm_per_depth.to(volume.dtype)
    linear = index_from_ct[:3, :3].to(volume.dtype)
    by_source = torch.einsum("ij,vihw->vjhw", linear, gradient[:, :3])
    by_direction = torch.einsum("ij,vihw->vjhw", linear, gradient[:, 3:])
    ct_from_index = torch.linalg.inv_ex(index_from_ct[:3, :3]).inverse
    rows, columns = (torch.arange(n, dtype=torch.float64, device=volume.device) for n in size)
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)])
    along = torch.einsum("vij,jhw->vihw", ct_from_index @ directions, pixels).to(volume.dtype)
    ct_from_camera = torch.linalg.inv_ex(camera_from_ct).inverse
    arm = (ct_from_camera[:, :3, 3] - centre).to(volume.dtype)[:, :, None, None].expand_as(along)
    by_turn = -torch.linalg.cross(arm, by_source, dim=1) - torch.linalg.cross(along, by_direction, dim=1)
    return depth * length, torch.cat([by_turn, -by_source], dim=1) * length[:, None]
