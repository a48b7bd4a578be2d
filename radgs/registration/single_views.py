"""Whether the views agree on a pose: where each alone would move it from where all together have it."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from radgs.kernels import LEAST_CURVATURE
from radgs.registration.normal_equations import NormalEquations
from radgs.registration.scene import Part

_SHARED = 0.1  # of all views' curvature: where a view sees nothing, along its rays, it stays with the others


def views_apart(optimum: NormalEquations, parts: dict[str, Part]) -> dict[str, float]:
    """By level, how far apart (mm) the results of single views would be, from one Gauss-Newton step of each.

    Along its own rays a view sees next to nothing; there the curvature of all views together holds its step back.

    Args:
        optimum: normal equations at the refined poses, six parameters a level in the order of ``parts``.
        parts: by level, where it lies in the CT.

    Returns:
        the largest distance between two views' results, mean over the corners of the box around the vertebra; none of
        levels that fewer than two views show.
    """
    steps: dict[str, list[Float64[Tensor, " 6"]]] = {}
    for row, level in enumerate(parts):
        own = slice(6 * row, 6 * row + 6)
        shared = _SHARED * optimum.hessian[own, own]
        for term in (one for one in optimum.terms if one.own == own):
            pull = torch.einsum("dpn,dn->p", term.jacobian, term.residual).double()
            value = term.weight * max(optimum.similarity[level][term.view], LEAST_CURVATURE)
            steps.setdefault(level, []).append(
                torch.linalg.pinv(value * term.curvature[own, own] + shared) @ (term.weight * pull)
            )
    apart = {}
    for level, found in steps.items():
        arm = parts[level].corners - parts[level].centre
        moves = [torch.linalg.cross(step[:3].expand_as(arm), arm) + step[3:] for step in found]
        pairs = [(a - b).norm(dim=1).mean() for i, a in enumerate(moves) for b in moves[:i]]
        if pairs:
            apart[level] = float(max(pairs))
    return apart
