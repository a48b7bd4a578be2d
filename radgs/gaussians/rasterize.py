"""Exact line integrals of radiative Gaussians, along the rays of cone or parallel beams.

With B the whitening S^-1/2 of a Gaussian in camera axes times the Jacobian of the pixel's ray, a pixel at offset d from
the projected centre sees the squared distance n/q of its ray from the centre, in standard deviations, as a quotient
of two quadratics in d. No local affine approximation is made, and K may have skew and unequal focal lengths. With
parallel rays the second quadratic is 1.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from radgs.errors import GeometryError, RadgsError
from radgs.gaussians.cutoff import cutoffs
from radgs.gaussians.gaussians import RadiativeGaussians, check_values, rotations
from radgs.kernels import Backend, rasterize_coefficients

Beam = Literal["cone", "parallel"]


def rasterize(
    gaussians: RadiativeGaussians,
    K: Float[Tensor, "*batch V 3 3"],
    camera_from_frame: Float[Tensor, "*batch V 4 4"],
    size: tuple[int, int],
    *,
    beam: Beam = "cone",
    cutoff: float = 4.0,
    max_error: float | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "*batch V h w"]:
    """Line integrals along the ray of every pixel, differentiable in the Gaussians, K and the pose.

    In a cone beam, a Gaussian whose cut-off ellipsoid reaches the plane through the source and parallel to the detector
    (it lies behind the source, or the source lies within it) has no bounded footprint and is left out.

    Args:
        gaussians: float32 (``reference`` also takes float64), in any frame.
        K: intrinsics in pixels, ``[[fx, s, cx], [0, fy, cy], [0, 0, 1]]``; pixel (0, 0) is a pixel's centre.
        camera_from_frame: rigid, maps the Gaussians' frame (mm) to camera axes x right, y down, z to the detector.
        size: height and width in pixels.
        beam: ``cone``: all rays meet in the camera's origin; ``parallel``: they run along its z axis, and K takes
            (x, y, 1) in mm to pixels, its focal lengths being pixels per mm.
        cutoff: a Gaussian is cut where a ray passes further than this many standard deviations.
        max_error: line integral; instead of ``cutoff``, each Gaussian is cut where it adds less than this.
        backend: ``numba`` (CPU), ``cuda`` (NVIDIA GPU), ``reference`` (PyTorch) or ``auto``.

    Returns:
        No unit, ``[*batch, V, H, W]``, of the Gaussians' type.

    Raises:
        RadgsError: Gaussians with impossible values, or a cut-off or backend that cannot be used.
        GeometryError: wrong shapes, numbers that are not finite, or impossible intrinsics.
    """
    check_values(gaussians)
    _check_cameras(gaussians, K, camera_from_frame, size)
    if beam not in get_args(Beam):
        raise RadgsError(f"beam must be 'cone' or 'parallel', got {beam!r}")
    device = gaussians.means.device
    intrinsics, pose = K.to(device, torch.float64), camera_from_frame.to(device, torch.float64)
    # No ray meets more of a Gaussian than one along its longest axis.
    peaks = math.sqrt(2 * math.pi) * gaussians.densities * gaussians.scales.amax(-1)
    coefficients, ends = project_gaussians(gaussians, intrinsics, pose, cutoffs(peaks, cutoff, max_error), beam)
    images = rasterize_coefficients(coefficients.flatten(0, -3), ends.flatten(0, -2), size, backend)
    images = images.reshape(*K.shape[:-2], *size)
    return images * _mm_per_depth(intrinsics, size).to(images.dtype) if beam == "cone" else images


def project_gaussians(
    gaussians: RadiativeGaussians,
    K: Float[Tensor, "*batch V 3 3"],
    camera_from_frame: Float[Tensor, "*batch V 4 4"],
    ends: Float[Tensor, "*batch N"],
    beam: Beam = "cone",
) -> tuple[Float[Tensor, "*batch V N 11"], Float[Tensor, "*batch V N"]]:
    """The numbers that describe each Gaussian's image.

    Returns:
        (u, v, a, Gxx, Gxy, Gyy, gx, gy, Qxx, Qxy, Qyy) in pixels, see `radgs.kernels.numba.rasterize`; the cut-offs
        ``ends`` in each view, 0 where the image is not bounded.
    """
    dtype = gaussians.means.dtype
    rotation, translation = camera_from_frame[..., :3, :3], camera_from_frame[..., :3, 3]
    # Centres in float64: the source is a metre away from what is a tenth of a millimetre wide.
    centre = gaussians.means.double().unsqueeze(-3) @ rotation.mT + translation[..., None, :]
    # Rows: the Gaussian's own axes seen from the camera; one large product is faster than many of 3x3.
    own_axes = rotations(gaussians).mT.flatten(-3, -2).unsqueeze(-3)
    axes = (own_axes @ rotation.mT.to(dtype)).unflatten(-2, (-1, 3))
    scales = gaussians.scales.unsqueeze(-3)
    ends = ends.unsqueeze(-2)
    if beam == "cone":
        depth_sigma = (axes[..., 2] * scales).square().sum(-1).sqrt().detach()
        visible = centre[..., 2].detach() > ends * depth_sigma
        ends = torch.where(visible, ends, 0)
        # A stand-in keeps the numbers, and so the gradients, of those left out finite.
        centre = torch.where(visible[..., None], centre, torch.tensor([0.0, 0.0, 1.0], dtype=centre.dtype).to(centre))
        depth = centre[..., 2:]
        ray = centre / depth
        uv = (ray @ K.mT)[..., :2]
    else:
        depth = torch.ones_like(centre[..., 2:])
        ray = torch.cat([torch.zeros_like(centre[..., :2]), depth], -1)
        uv = (torch.cat([centre[..., :2], depth], -1) @ K.mT)[..., :2]
    whitening = axes / scales[..., None]
    w0 = (whitening * ray.to(dtype)[..., None, :]).sum(-1)
    b = (whitening.flatten(-3, -2) @ torch.linalg.inv(K)[..., :2].to(dtype)).unflatten(-2, (-1, 3))
    b1, b2 = b[..., 0], b[..., 1]
    inverse = 1 / w0.square().sum(-1)
    c1, c2 = torch.linalg.cross(w0, b1), torch.linalg.cross(w0, b2)
    k = depth[..., 0].to(dtype).square() * inverse
    of_ray = [
        *(inverse * (w0 * p).sum(-1) for p in (b1, b2)),
        *(inverse * (p * q).sum(-1) for p, q in ((b1, b1), (b1, b2), (b2, b2))),
    ]
    columns = [
        *uv.to(dtype).unbind(-1),
        gaussians.densities.unsqueeze(-2) * (2 * math.pi * inverse).sqrt(),
        *(k * (p * q).sum(-1) for p, q in ((c1, c1), (c1, c2), (c2, c2))),
        *(of_ray if beam == "cone" else [torch.zeros_like(k)] * len(of_ray)),
    ]
    return torch.stack(columns, -1), ends.expand(k.shape)


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
