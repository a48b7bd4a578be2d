"""Anchors of a population: what a level looks like on average, kept with the weights that were trained on it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor, nn

from radgs.anatomy import LEVELS, cranio_caudal
from radgs.errors import AnatomyError, RadgsError
from radgs.gaussians import RadiativeGaussians

_NAMES = ("means", "scales", "quaternions", "densities")


class PopulationAnchors(nn.Module):
    """Gaussians by level, vertebra frame, mm; a level that the population lacks has those of the nearest that it has.

    They are buffers and so part of the weights: whoever has the weights needs no data of the population.
    """

    means: Tensor
    scales: Tensor
    quaternions: Tensor
    densities: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        for name, width in zip(_NAMES, ((3,), (3,), (4,), ())):
            self.register_buffer(name, torch.zeros(max(LEVELS.values()) + 1, count, *width))

    def fill(self, anchors: Mapping[str, RadiativeGaussians]) -> None:
        """Take over anchors by level.

        Raises:
            AnatomyError: no level, or not as many Gaussians as the network has.
        """
        count = self.densities.shape[1]
        wrong = sorted(level for level, one in anchors.items() if one.count != count)
        if not anchors or wrong:
            raise AnatomyError(
                f"population anchors need at least one level and network.gaussians ({count}) Gaussians each; "
                f"fit them anew{f' for {wrong}' if wrong else ''}"
            )
        order = cranio_caudal(LEVELS)
        for level, number in LEVELS.items():
            nearest = min(anchors, key=lambda other: abs(order.index(other) - order.index(level)))
            for name in _NAMES:
                getattr(self, name)[number] = getattr(anchors[nearest], name)

    def forward(self, level: Int[Tensor, " B"]) -> RadiativeGaussians:
        """Anchors of each level (VerSe numbers), ``[B, N]``.

        Raises:
            RadgsError: they were never filled.
        """
        made = [getattr(self, name)[level] for name in _NAMES]
        if not made[-1].any():
            raise RadgsError(
                "network.anchors: population has no population here: train P1 on one (population.sheet) or start from "
                "weights that were trained with these anchors"
            )
        return RadiativeGaussians(*made)
