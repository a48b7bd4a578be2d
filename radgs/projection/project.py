"""Digitally reconstructed radiographs: line integrals of a CT along the rays of calibrated cameras."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.kernels import Backend, Method, depth_integrals


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
            one value.
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
        GeometryError: wrong shapes, numbers that are not finite, or singular matrices.
        RadgsError: an unknown method or backend, or a step that is not positive.
    """
    if volume.ndim > 3:
        if not volume.shape[0] == len(K) == len(camera_from_ct):
            raise GeometryError(
                f"a batch of {volume.shape[0]} volumes needs K and camera_from_ct for each, got {len(K)} and "
                f"{len(camera_from_ct)}"
            )
        placed = index_from_ct if index_from_ct.ndim > 2 else index_from_ct.expand(len(volume), 4, 4)
        scenes = zip(volume, placed, K, camera_from_ct, strict=True)
        how: dict[str, Any] = {"method": method, "step_mm": step_mm, "backend": backend}
        return torch.stack([project(*scene, size, **how) for scene in scenes])
    check_projection(volume, index_from_ct, K, camera_from_ct, size, method, step_mm)
    sources, directions, mm_per_depth = pixel_rays(index_from_ct, K, camera_from_ct, size)
    integrals = depth_integrals(volume, sources, directions, mm_per_depth.detach(), method, step_mm, backend)
    return integrals * mm_per_depth.to(volume.dtype)


def pixel_rays(
    index_from_ct: Float[Tensor, "4 4"],
    K: Float[Tensor, "V 3 3"],
    camera_from_ct: Float[Tensor, "V 4 4"],
    size: tuple[int, int],
) -> tuple[Float64[Tensor, "V 3"], Float64[Tensor, "V 3 3"], Float64[Tensor, "V h w"]]:
    """Sources and directions (times (u, v, 1)) in indices per mm of depth, and each ray's length per mm of depth."""
    kind: dict[str, Any] = {"dtype": torch.float64, "device": K.device}
    camera_from_pixel = torch.linalg.inv(K.to(**kind))
    index_from_camera = index_from_ct.to(**kind) @ torch.linalg.inv(camera_from_ct.to(**kind))
    v, u = torch.meshgrid(torch.arange(size[0], **kind), torch.arange(size[1], **kind), indexing="ij")
    in_camera = torch.einsum("vij,hwj->vhwi", camera_from_pixel, torch.stack([u, v, torch.ones_like(u)], -1))
    return index_from_camera[:, :3, 3], index_from_camera[:, :3, :3] @ camera_from_pixel, in_camera.norm(dim=-1)


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
    for name, matrix in (("index_from_ct", index_from_ct), ("K", K), ("camera_from_ct", camera_from_ct)):
        numbers = matrix.detach().double()
        if not numbers.isfinite().all():
            raise GeometryError(f"{name} holds NaN or infinite numbers")
        if (torch.linalg.det(numbers).abs() < 1e-12).any():
            raise GeometryError(f"{name} is singular")
    if len(size) != 2 or min(size) < 1:
        raise GeometryError(f"size is (height, width) of at least one pixel, got {size}")
    if method not in ("trilinear", "siddon"):
        raise RadgsError(f"method must be 'trilinear' or 'siddon', got {method!r}")
    if not step_mm > 0:
        raise RadgsError(f"step_mm must be positive, got {step_mm}")
