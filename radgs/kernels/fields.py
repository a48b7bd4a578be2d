"""Normal equations of fields that are bilinear between the nodes of a lattice."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from radgs.errors import ImageError
from radgs.kernels.dispatch import operations, resolve_backend


@torch.no_grad()
def field_equations(
    derivatives: Float[Tensor, "C d h w"],
    residual: Float[Tensor, "d h w"],
    weights: Float[Tensor, "d h w"],
    rows: Float[Tensor, " h"],
    columns: Float[Tensor, " w"],
    nodes: tuple[int, int],
) -> tuple[Float64[Tensor, "C ny nx C ny nx"], Float64[Tensor, "C ny nx"]]:
    """J^T W J and J^T W r of the values of C fields at the nodes of a lattice, ``ny`` by ``nx``.

    Args:
        derivatives: by field, of what is compared at a pixel (d numbers) by the field's value there.
        residual: what is to be explained.
        weights: of the pixels; those of 0 cost nothing.
        rows: where pixels lie, in units of the lattice: 0.5 is halfway between the first two rows of nodes; ascending.
        columns: likewise.
        nodes: rows and columns of nodes; the last lie beyond all pixels.

    Raises:
        ImageError: sizes that do not fit together, or places that do not ascend or are not in the lattice.
        RadgsError: not float32 on the CPU.
    """
    resolve_backend("numba", derivatives, residual, weights, rows, columns)
    size = (derivatives.shape[1], len(rows), len(columns))
    if derivatives.ndim != 4 or any(tuple(x.shape) != size for x in (derivatives[0], residual, weights)):
        raise ImageError(
            f"derivatives [C, d, h, w], residual and weights [d, h, w] are of {size}, got "
            f"{tuple(derivatives.shape)}, {tuple(residual.shape)} and {tuple(weights.shape)}"
        )
    for at, count in zip((rows, columns), nodes, strict=True):
        if not len(at) or not bool((at.diff() >= 0).all()) or not 0 <= float(at[0]) <= float(at[-1]) < count - 1:
            raise ImageError(f"places in a lattice of {count} nodes ascend from 0 or more to less than {count - 1}")
    found: tuple[Tensor, Tensor] = operations("numba").field_equations(
        derivatives, residual, weights, rows, columns, nodes
    )
    return found
