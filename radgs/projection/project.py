"""Digitally reconstructed radiographs: line integrals of a CT along the rays of calibrated cameras."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.geometry import check_size, check_views
from radgs.kernels import Backend, Method, depth_integrals

_SINGULAR = 1e-12
_AFFINE_TOLERANCE = 1e-6


def project(
    volume: Float[Tensor, "*batch D H W"],
    index_from_ct: Float[Tensor, "*#batch 4 4"],
    K: Float[Tensor, "*batch V 3 3"],
    camera_from_ct: Float[Tensor, "*batch V 4 4"],
    size: tuple[int, int],
    *,
    method: Method = "trilinear",
    step_mm: float = 1.0,
    backend: Backend = "auto",
) -> Float[Tensor, "*batch V h w"]:
    """Line integrals of a volume, differentiable in the pose, the intrinsics and the volume.

    Rays run from the source to beyond the volume: the detector is taken to lie behind it.

    Args:
        volume: attenuation in 1/mm, ``[*batch, D, H, W]`` as (z, y, x), float32 (``reference`` also takes float64);
            a batch needs K and camera_from_ct of the same batch. ``trilinear`` takes values to sit at voxel centres
            and to fall to zero within one voxel beyond the outermost ones; ``siddon`` takes each voxel for a box of
            one value. Voxels are not searched for NaN: the pixels that see one are NaN.
        index_from_ct: maps CT points (LPS mm) to indices (x, y, z); may be oblique and anisotropic.
        K: intrinsics in pixels; pixel (0, 0) is the centre of the first one.
        camera_from_ct: rigid, maps CT points (mm) to camera axes x right, y down, z source to detector.
        size: height and width of the images in pixels.
        method: how the volume is read.
        step_mm: distance of samples along a ray, ``trilinear`` only.
        backend: ``numba`` (CPU), ``cuda`` (NVIDIA GPU), ``reference`` (PyTorch) or ``auto``.

    Returns:
        Line integrals, no unit, ``[*batch, V, H, W]`` as (view, v, u), of the volume's type.

    Raises:
        ImageError: the volume is not a three-dimensional floating-point array.
        GeometryError: wrong shapes, numbers that are not finite, cameras that are none, a singular index_from_ct.
        RadgsError: an unknown method or backend, or a step that is not positive and finite.
    """
    if volume.ndim > 3:
        placed = index_from_ct.expand(len(volume), 4, 4) if index_from_ct.ndim == 2 else index_from_ct
        if not 0 < len(volume) == len(placed) == len(K) == len(camera_from_ct):
            raise GeometryError(
                f"a batch of {len(volume)} volumes needs K, camera_from_ct and index_from_ct for each, got {len(K)}, "
                f"{len(camera_from_ct)} and {len(placed)}"
            )
        scenes = zip(volume, placed, K, camera_from_ct, strict=True)
        how: dict[str, Any] = {"method": method, "step_mm": step_mm, "backend": backend}
        return torch.stack([project(*scene, size, **how) for scene in scenes])
    check_projection(volume, index_from_ct, K, camera_from_ct, size, method, step_mm)
    sources, directions, mm_per_depth = pixel_rays(index_from_ct, K, camera_from_ct, size, volume.device)
    integrals = depth_integrals(volume, sources, directions, mm_per_depth.detach(), method, step_mm, backend)
    return integrals * mm_per_depth.to(volume.dtype)


def pixel_rays(
    index_from_ct: Float[Tensor, "4 4"],
    K: Float[Tensor, "V 3 3"],
    camera_from_ct: Float[Tensor, "V 4 4"],
    size: tuple[int, int],
    device: torch.device,
) -> tuple[Float64[Tensor, "V 3"], Float64[Tensor, "V 3 3"], Float64[Tensor, "V h w"]]:
    """Sources and directions (times (u, v, 1)) in indices per mm of depth, and each ray's length per mm of depth.

    Matrices may live anywhere; the results live on ``device``.
    """
    kind: dict[str, Any] = {"dtype": torch.float64, "device": device}
    # Each matrix is inverted where it lives: a GPU is slow at one. inv would wait for it to say whether it is singular.
    camera_from_pixel = torch.linalg.inv_ex(K.double()).inverse.to(device)
    index_from_camera = index_from_ct.to(**kind) @ torch.linalg.inv_ex(camera_from_ct.double()).inverse.to(device)
    v, u = torch.meshgrid(torch.arange(size[0], **kind), torch.arange(size[1], **kind), indexing="ij")
    along_u, along_v, first = (camera_from_pixel[:, :, k, None, None] for k in range(3))
    in_camera = along_u * u + along_v * v + first
    # Pixels last: a sum over three neighbours in memory takes as long as drawing a vertebra does.
    length = in_camera.square().sum(dim=1).sqrt()
    return index_from_camera[:, :3, 3], index_from_camera[:, :3, :3] @ camera_from_pixel, length


def check_projection(
    volume: Tensor,
    index_from_ct: Tensor,
    K: Tensor,
    camera_from_ct: Tensor,
    size: tuple[int, int],
    method: str,
    step_mm: float,
) -> None:
    """Refuse what no kernel should see; errors as of :func:`project`."""
    if volume.ndim != 3 or not volume.is_floating_point() or volume.numel() == 0:
        raise ImageError(f"a volume is [D, H, W] floating point, got {tuple(volume.shape)} {volume.dtype}")
    if index_from_ct.shape != (4, 4):
        raise GeometryError(f"index_from_ct is one 4x4 matrix, got {tuple(index_from_ct.shape)}")
    views = len(camera_from_ct) if camera_from_ct.ndim == 3 else -1
    if camera_from_ct.shape != (views, 4, 4) or K.shape != (views, 3, 3):
        raise GeometryError(
            f"each view needs one K and one camera_from_ct, [V, 3, 3] and [V, 4, 4], "
            f"got {tuple(K.shape)} and {tuple(camera_from_ct.shape)}"
        )
    check_views(K, camera_from_ct, "camera_from_ct")
    check_size(size)
    placed = index_from_ct.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(placed).all():
        raise GeometryError("index_from_ct holds NaN or infinite numbers")
    if abs(np.linalg.det(placed)) < _SINGULAR:
        raise GeometryError("index_from_ct is singular")
    if np.abs(placed[3] - (0, 0, 0, 1)).max() > _AFFINE_TOLERANCE:
        raise GeometryError(f"the last row of index_from_ct is 0 0 0 1, got {placed[3].tolist()}")
    if method not in ("trilinear", "siddon"):
        raise RadgsError(f"method must be 'trilinear' or 'siddon', got {method!r}")
    if not 0 < step_mm < math.inf:
        raise RadgsError(f"step_mm must be positive and finite, got {step_mm}")
