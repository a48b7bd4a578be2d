"""Exact cone-beam line integrals of radiative Gaussians.

With B the whitening S^-1/2 of a Gaussian in camera axes times the Jacobian of the pixel's ray, a pixel at offset d from
the projected centre sees the squared distance n/q of its ray from the centre, in standard deviations, as a quotient
of two quadratics in d. No local affine approximation is made, and K may have skew and unequal focal lengths.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from radgs.errors import GeometryError
from radgs.gaussians.gaussians import RadiativeGaussians, check_values, rotations
from radgs.kernels import Backend, rasterize_coefficients


def rasterize(
    gaussians: RadiativeGaussians,
    K: Float[Tensor, "*batch V 3 3"],
    camera_from_frame: Float[Tensor, "*batch V 4 4"],
    size: tuple[int, int],
    *,
    cutoff: float = 4.0,
    backend: Backend = "auto",
) -> Float[Tensor, "*batch V h w"]:
    """Line integrals along the ray of every pixel, differentiable in the Gaussians, K and the pose.

    A Gaussian whose cut-off ellipsoid reaches the plane through the source and parallel to the detector (it lies
    behind the source, or the source lies within it) has no bounded footprint and is left out.

    Args:
        gaussians: float32 (``reference`` also takes float64), in any frame.
        K: intrinsics in pixels, ``[[fx, s, cx], [0, fy, cy], [0, 0, 1]]``; pixel (0, 0) is a pixel's centre.
        camera_from_frame: rigid, maps the Gaussians' frame (mm) to camera axes x right, y down, z to the detector.
        size: height and width in pixels.
        cutoff: a Gaussian is cut where a ray passes further than this many standard deviations.
        backend: ``numba`` (CPU), ``cuda`` (NVIDIA GPU), ``reference`` (PyTorch) or ``auto``.

    Returns:
        No unit, ``[*batch, V, H, W]``, of the Gaussians' type.

    Raises:
        RadgsError: Gaussians with impossible values, or a cut-off or backend that cannot be used.
        GeometryError: wrong shapes, numbers that are not finite, or impossible intrinsics.
    """
    check_values(gaussians)
    _check_cameras(gaussians, K, camera_from_frame, size)
    device = gaussians.means.device
    intrinsics, pose = K.to(device, torch.float64), camera_from_frame.to(device, torch.float64)
    coefficients, visible = project_gaussians(gaussians, intrinsics, pose, cutoff)
    images = rasterize_coefficients(coefficients.flatten(0, -3), visible.flatten(0, -2), size, cutoff, backend)
    mm_per_depth = _mm_per_depth(intrinsics, size).to(images.dtype)
    return images.reshape(mm_per_depth.shape) * mm_per_depth


def project_gaussians(
    gaussians: RadiativeGaussians,
    K: Float[Tensor, "*batch V 3 3"],
    camera_from_frame: Float[Tensor, "*batch V 4 4"],
    cutoff: float,
) -> tuple[Float[Tensor, "*batch V N 11"], Bool[Tensor, "*batch V N"]]:
    """The numbers that describe each Gaussian's image, and whether it has a bounded one.

    Returns:
        (u, v, a, Gxx, Gxy, Gyy, gx, gy, Qxx, Qxy, Qyy) in pixels, see `radgs.kernels.numba.rasterize`; visible.
    """
    dtype = gaussians.means.dtype
    rotation, translation = camera_from_frame[..., :3, :3], camera_from_frame[..., :3, 3]
    # Centres in float64: the source is a metre away from what is a tenth of a millimetre wide.
    centre = gaussians.means.double().unsqueeze(-3) @ rotation.mT + translation[..., None, :]
    # Rows: the Gaussian's own axes seen from the camera; one large product is faster than many of 3x3.
    own_axes = rotations(gaussians).mT.flatten(-3, -2).unsqueeze(-3)
    axes = (own_axes @ rotation.mT.to(dtype)).unflatten(-2, (-1, 3))
    scales = gaussians.scales.unsqueeze(-3)
    depth_sigma = (axes[..., 2] * scales).square().sum(-1).sqrt().detach()
    visible = centre[..., 2].detach() > cutoff * depth_sigma
    # A stand-in keeps the numbers, and so the gradients, of those left out finite.
    safe = torch.where(visible[..., None], centre, torch.tensor([0.0, 0.0, 1.0], dtype=centre.dtype).to(centre))
    depth = safe[..., 2:]
    ray = safe / depth
    uv = (ray @ K.mT)[..., :2]
    whitening = axes / scales[..., None]
    w0 = (whitening * ray.to(dtype)[..., None, :]).sum(-1)
    b = (whitening.flatten(-3, -2) @ torch.linalg.inv(K)[..., :2].to(dtype)).unflatten(-2, (-1, 3))
    b1, b2 = b[..., 0], b[..., 1]
    inverse = 1 / w0.square().sum(-1)
    c1, c2 = torch.linalg.cross(w0, b1), torch.linalg.cross(w0, b2)
    k = depth[..., 0].to(dtype).square() * inverse
    columns = [
        *uv.to(dtype).unbind(-1),
        gaussians.densities.unsqueeze(-2) * (2 * math.pi * inverse).sqrt(),
        *(k * (p * q).sum(-1) for p, q in ((c1, c1), (c1, c2), (c2, c2))),
        *(inverse * (w0 * p).sum(-1) for p in (b1, b2)),
        *(inverse * (p * q).sum(-1) for p, q in ((b1, b1), (b1, b2), (b2, b2))),
    ]
    return torch.stack(columns, -1), visible


def _mm_per_depth(K: Tensor, size: tuple[int, int]) -> Tensor:
    """Length of every pixel's ray per unit of depth, ``[*batch, V, h, w]``."""
    kind: dict[str, Any] = {"dtype": K.dtype, "device": K.device}
    v, u = torch.meshgrid(torch.arange(size[0], **kind), torch.arange(size[1], **kind), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).reshape(-1, 3)
    return (pixels @ torch.linalg.inv(K).mT).norm(dim=-1).unflatten(-1, size)


def _check_cameras(gaussians: RadiativeGaussians, K: Tensor, camera_from_frame: Tensor, size: tuple[int, int]) -> None:
    views = K.shape[-3] if K.ndim >= 3 else 0
    batch = (*gaussians.batch_shape, views)
    if K.shape != (*batch, 3, 3) or camera_from_frame.shape != (*batch, 4, 4):
        raise GeometryError(
            f"Gaussians of batch {gaussians.batch_shape} need K [*batch, V, 3, 3] and camera_from_frame "
            f"[*batch, V, 4, 4], got {tuple(K.shape)} and {tuple(camera_from_frame.shape)}"
        )
    k, pose = K.detach(), camera_from_frame.detach()
    if not (k.isfinite().all() and pose.isfinite().all()):
        raise GeometryError("K or camera_from_frame holds NaN or infinite numbers")
    expected = torch.tensor([0.0, 0.0, 1.0], dtype=k.dtype, device=k.device)
    if not ((k[..., 2, :] == expected).all() and (k[..., 1, 0] == 0).all()) or not (
        (k[..., 0, 0] > 0).all() and (k[..., 1, 1] > 0).all()
    ):
        raise GeometryError("K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with positive focal lengths")
    if (torch.linalg.det(pose[..., :3, :3].double()) - 1).abs().max() > 1e-3:
        raise GeometryError("camera_from_frame must be rigid: a rotation and a translation")
    if len(size) != 2 or min(size) < 1:
        raise GeometryError(f"size is (height, width) of at least one pixel, got {size}")
