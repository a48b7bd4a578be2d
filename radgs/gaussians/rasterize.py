"""Exact line integrals of radiative Gaussians, along the rays of cone or parallel beams.

With B the whitening S^-1/2 of a Gaussian in camera axes times the Jacobian of the pixel's ray, a pixel at offset d from
the projected centre sees the squared distance n/q of its ray from the centre, in standard deviations, as a quotient
of two quadratics in d. No local affine approximation is made, and K may have skew and unequal focal lengths. With
parallel rays the second quadratic is 1.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from radgs.errors import GeometryError, RadgsError
from radgs.gaussians.cutoff import cutoffs
from radgs.gaussians.gaussians import RadiativeGaussians, check_values
from radgs.geometry import check_size, check_views
from radgs.kernels import Backend, rasterize_gaussians

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
    (it lies behind the source, or the source lies within it) has no bounded footprint and is left out. So is, in any
    beam, one that is thinner than 1e-9 pixels. What is left out gets gradients of zero.

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
    # inv would wait for a GPU to say whether a matrix is singular.
    inverse = torch.linalg.inv_ex(intrinsics).inverse
    scenes, batch = math.prod(gaussians.batch_shape), len(gaussians.batch_shape)
    cameras = pack_cameras(intrinsics, inverse, pose).reshape(scenes, K.shape[-3], 24)
    ends = cutoffs(peaks, cutoff, max_error).reshape(scenes, gaussians.count)
    parts = (gaussians.means, gaussians.scales, gaussians.quaternions, gaussians.densities)
    flat = [part.reshape(scenes, *part.shape[batch:]) for part in parts]
    images = rasterize_gaussians(flat, cameras, ends, size, beam == "cone", backend).reshape(*K.shape[:-2], *size)
    return images * _mm_per_depth(inverse, size).to(images.dtype) if beam == "cone" else images


def pack_cameras(
    K: Float[Tensor, "*batch V 3 3"], K_inverse: Float[Tensor, "*batch V 3 3"], pose: Float[Tensor, "*batch V 4 4"]
) -> Float[Tensor, "*batch V 24"]:
    """Cameras as the kernels take them, see `radgs.kernels.rasterize_gaussians`."""
    return torch.cat([x.flatten(-2) for x in (pose[..., :3, :], K[..., :2, :], K_inverse.mT[..., :2, :])], -1)


def _mm_per_depth(K_inverse: Tensor, size: tuple[int, int]) -> Tensor:
    """Length of every pixel's ray per unit of depth, ``[*batch, V, h, w]``."""
    v, u = (torch.arange(n, dtype=K_inverse.dtype, device=K_inverse.device) for n in size)
    of_u, of_v, constant = (K_inverse[..., :2, i, None, None] for i in range(3))
    return (1 + (of_u * u + (of_v * v[:, None] + constant)).square().sum(-3)).sqrt()


def _check_cameras(gaussians: RadiativeGaussians, K: Tensor, camera_from_frame: Tensor, size: tuple[int, int]) -> None:
    views = K.shape[-3] if K.ndim >= 3 else 0
    batch = (*gaussians.batch_shape, views)
    if K.shape != (*batch, 3, 3) or camera_from_frame.shape != (*batch, 4, 4):
        raise GeometryError(
            f"Gaussians of batch {gaussians.batch_shape} need K [*batch, V, 3, 3] and camera_from_frame "
            f"[*batch, V, 4, 4], got {tuple(K.shape)} and {tuple(camera_from_frame.shape)}"
        )
    check_views(K, camera_from_frame, "camera_from_frame")
    check_size(size)
