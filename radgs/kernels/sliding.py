"""Where small pictures fit into larger ones: normalised correlations by shift; CPU only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from radgs.kernels.dispatch import operations, resolve_backend


@dataclass(frozen=True)
class SlidPictures:
    """J pictures, each to be compared with one of V images.

    Attributes:
        values: two values a pixel, as the images have; a gradient.
        shown: around which pixels a picture is compared.
        image: which image.
        corner: row and column in it of the picture's first pixel; may lie outside.
        radius: of the shifts, whole pixels.
    """

    values: Float[Tensor, "J 2 h w"]
    shown: Bool[Tensor, "J h w"]
    image: Int64[Tensor, " J"]
    corner: Int64[Tensor, "J 2"]
    radius: Int64[Tensor, " J"]


@torch.no_grad()
def slide(
    pictures: SlidPictures,
    images: Float[Tensor, "V 2 H W"],
    measured: Float[Tensor, "V H W"],
    *,
    rim: int,
    least: float,
) -> Float[Tensor, "J n n"]:
    """Correlations (nothing is centred) by shift along v and u; no shift is in the middle, beyond the radius is 0.

    Args:
        pictures: float32, CPU.
        images: 0 where not measured.
        measured: 1 or 0.
        rim: pixels, steps along u and v, around what is shown that are compared too.
        least: share of a picture's squared values that must fall on measured pixels; else 0.

    Raises:
        RadgsError: they are not float32 on the CPU.
    """
    resolve_backend("numba", pictures.values, images, measured)
    found: Tensor = operations("numba").slide(pictures, images, measured, rim, least)
    return found


@torch.no_grad()
def along_axes(
    slid: Float[Tensor, "J s s"],
    owners: Int64[Tensor, " J"],
    steps: Float64[Tensor, "J 2 3"],
    values: Float64[Tensor, " n"],
    count: int,
) -> Float64[Tensor, "L n n n"]:
    """By shift in space, what is found (bilinear, 0 beyond) where the shift goes in each view, summed over views.

    Args:
        slid: of :func:`slide`.
        owners: to which of the L results each adds.
        steps: pixels along v and u a unit of each axis of space.
        values: of the shifts along each axis.
        count: L.
    """
    resolve_backend("numba", slid)
    found: Tensor = operations("numba").along_axes(slid, owners, steps, values, count)
    return found
