"""Line integrals of many volumes that move each by itself; CPU only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from radgs.kernels.dispatch import operations, resolve_backend

Box = tuple[int, int, int, int]  # rows from, to, columns from, to; ends excluded


@dataclass(frozen=True)
class Packed:
    """Volumes one after the other and where they are not empty, as the kernel wants them: see :func:`pack`."""

    arrays: tuple[Any, ...]


@dataclass(frozen=True)
class MovedRays:
    """The rays of J windows; what is called directions is to be multiplied by a pixel's (u, v, 1).

    Attributes:
        sources: in index coordinates of the window's volume.
        directions: there, per mm of depth.
        from_pixel: the same in camera axes, whose lengths are the mm per mm of depth.
        arms: from the centre of turns to the source, CT, mm.
        along: directions in the CT.
        linear: of index_from_ct.
    """

    sources: Float64[Tensor, "J 3"]
    directions: Float64[Tensor, "J 3 3"]
    from_pixel: Float64[Tensor, "J 3 3"]
    arms: Float64[Tensor, "J 3"]
    along: Float64[Tensor, "J 3 3"]
    linear: Float64[Tensor, "J 3 3"]

    def all(self) -> tuple[Tensor, ...]:
        """In the order above."""
        return self.sources, self.directions, self.from_pixel, self.arms, self.along, self.linear


def pack(volumes: Sequence[Float[Tensor, "D H W"]]) -> Packed:
    """Volumes, float32 on the CPU, ready to be drawn again and again."""
    resolve_backend("numba", *volumes)
    return Packed(operations("numba").pack(volumes))


@torch.no_grad()
def moved_line_integrals(
    packed: Packed,
    owner: Int64[Tensor, " J"],
    rays: MovedRays,
    drawn: Sequence[Box],
    windows: Sequence[Box],
    step_mm: float,
    *,
    motion: bool,
) -> list[Float[Tensor, "c h w"]]:
    """Line integrals (trilinear) in J windows, and their six derivatives if ``motion``, see `radgs.projection`.

    Args:
        packed: the volumes.
        owner: which of them each window shows.
        rays: of the windows.
        drawn: what the volume can reach of the image.
        windows: the same or wider; the rest is 0.
        step_mm: distance of samples along a ray.
        motion: whether derivatives by a turn (three) and a shift (three) are wanted.
    """
    out: list[Tensor] = operations("numba").moved_line_integrals(
        packed.arrays, owner, rays.all(), drawn, windows, step_mm, motion
    )
    return out
