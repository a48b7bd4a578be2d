"""Projections of soft tissue that is bent, in layers: what lies near the source, and what lies near the detector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from radgs.errors import GeometryError
from radgs.kernels import depth_integrals_in_layers
from radgs.projection.project import check_projection, pixel_rays


@torch.no_grad()
def project_layers(
    volume: Float[Tensor, "D H W"],
    index_from_ct: Float64[Tensor, "4 4"],
    K: Float64[Tensor, "3 3"],
    camera_from_ct: Float64[Tensor, "k 4 4"],
    axis: Float64[Tensor, " 3"],
    heights: Float64[Tensor, " k"],
    size: tuple[int, int],
    *,
    ends: tuple[float, float],
    layers: int,
    step_mm: float = 1.0,
    wanted: Bool[Tensor, "h w"] | None = None,
) -> Float[Tensor, "layers h w"]:
    """Line integrals (trilinear) of a volume that is bent along an axis, split by depth; CPU only.

    A point at one of the heights came from the volume by the rigid motion that holds there, one between two heights
    from the mean of the places that both motions say, the nearer one counting more; beyond the ends, the last holds.
    A ray is followed from the first to the last depth at which one of the motions alone puts the volume on it. What
    lies between the depths of two layers is shared between them linearly.

    Args:
        volume: attenuation in 1/mm; nothing lies beyond the centres of its outermost voxels.
        index_from_ct: maps CT points (LPS mm) to indices (x, y, z).
        K: intrinsics in pixels.
        camera_from_ct: rigid, one for each height.
        axis: in the camera's frame; the height of a point is its product with it.
        heights: ascending, in the unit of ``axis`` times mm.
        size: height and width in pixels.
        ends: depths of the first and the last layer, mm.
        layers: how many, at least two.
        step_mm: distance of samples along a ray.
        wanted: pixels to draw; others are 0.

    Raises:
        GeometryError: as :func:`project`; heights that do not ascend or are not as many as motions; an axis that is
            none; fewer than two layers or ends that are not in order; ``wanted`` of another size or type.
        ImageError: as :func:`project`.
        RadgsError: as :func:`project`; a volume that is not float32 on the CPU.
    """
    if K.shape != (3, 3):
        raise GeometryError(f"all motions share one K, [3, 3], got {tuple(K.shape)}")
    cameras = K.expand(len(camera_from_ct), 3, 3)
    check_projection(volume, index_from_ct, cameras, camera_from_ct, size, "trilinear", step_mm)
    _check_bend(len(camera_from_ct), axis, heights)
    if wanted is not None and (wanted.shape != tuple(size) or wanted.dtype != torch.bool):
        raise GeometryError(f"wanted is {tuple(size)} bool, as the image, got {tuple(wanted.shape)} {wanted.dtype}")
    if layers < 2 or not -math.inf < ends[0] < ends[1] < math.inf:
        raise GeometryError(f"layers are at least two between ascending depths, got {layers} between {_text(ends)}")
    sources, directions, mm_per_depth = pixel_rays(index_from_ct, cameras, camera_from_ct, size, volume.device)
    rise = axis.double() @ torch.linalg.inv_ex(K.double()).inverse
    shown = torch.ones(size, dtype=torch.bool) if wanted is None else wanted
    depth = depth_integrals_in_layers(
        volume, sources, directions, rise, heights, mm_per_depth[0], step_mm, ends, layers, shown
    )
    return depth * mm_per_depth[0].to(depth.dtype)


def _check_bend(motions: int, axis: Tensor, heights: Tensor) -> None:
    if axis.shape != (3,) or not axis.isfinite().all():
        raise GeometryError(f"the axis of heights is three finite numbers, got {axis.tolist()}")
    ascending = bool((heights.diff() > 0).all()) and bool(heights.isfinite().all())
    if not motions or heights.shape != (motions,) or not ascending:
        raise GeometryError(f"each motion holds at one height, in ascending order, got {heights.tolist()}")


def _text(ends: Sequence[float]) -> str:
    return " and ".join(f"{end:g}" for end in ends)
