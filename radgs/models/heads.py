"""What changes anchors without looking at the place of each: the global head, and what is known of a level."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from radgs.errors import RadgsError
from radgs.gaussians import RadiativeGaussians
from radgs.models.anchors import RAW_SIZE, alike_anchors

_OFFSET_UNIT_MM = 10.0
_SHAPE_RATE = 40.0  # raw units a unit of weight: Adam moves a weight by its learning rate a step, whatever the gradient


class GlobalHead(nn.Module):
    """Linear-ReLU-Linear from the context to N x 11 raw parameters (RadGS-Reg, GSHead).

    Each Gaussian has outputs of its own, so their number is fixed. They are changes of anchors, as those of the
    anchored head, but reach through the whole crop: this head gives places in the crop frame, not in the vertebra's,
    and no rigid motion is applied to them.

    Attributes:
        reach_mm: how far a Gaussian can go along each axis.
    """

    def __init__(self, context_size: int, fitted: int, grid: int | None, reach_mm: float) -> None:
        super().__init__()
        self.reach_mm = reach_mm
        self.hidden = nn.Sequential(nn.Linear(context_size, context_size), nn.ReLU())
        self.fitted_out = nn.Linear(context_size, fitted * RAW_SIZE)
        self.grid_out = nn.Linear(context_size, grid * RAW_SIZE) if grid else None
        for last in filter(None, (self.fitted_out, self.grid_out)):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, context: Float[Tensor, "B c"], anchors: RadiativeGaussians) -> Float[Tensor, "B N 11"]:
        """Raw changes of anchors ``[B, N]``, which are all of one kind.

        Raises:
            RadgsError: another number of anchors than the head was made for.
        """
        last = self.grid_out if self.grid_out is not None and bool(alike_anchors(anchors).all()) else self.fitted_out
        if last.out_features != anchors.count * RAW_SIZE:
            raise RadgsError(
                f"the global head makes {last.out_features // RAW_SIZE} Gaussians, got {anchors.count} anchors; "
                "fit the anchors with the network.gaussians of the weights"
            )
        raw = last(self.hidden(context)).unflatten(1, (anchors.count, RAW_SIZE))
        scale = torch.ones_like(raw[0, 0])
        scale[:3] = _OFFSET_UNIT_MM / self.reach_mm  # one raw unit near the anchor is 10 mm
        return raw * scale


class LevelShapes(nn.Module):
    """Raw changes that turn the grid into a level's vertebra, by level: what training has seen of it.

    They are none before training, and stay none for levels that training does not show. After P1 they hold the mean of
    a population, after P3 this patient's vertebrae: an X-ray-only reconstruction is made without the CT, but not by
    networks that never saw it.

    Source: this project's.
    """

    def __init__(self, levels: int, grid: int) -> None:
        super().__init__()
        self.raw = nn.Embedding(levels, grid * RAW_SIZE)
        nn.init.zeros_(self.raw.weight)
        self.register_load_state_dict_pre_hook(_none_in_older_weights)

    def forward(self, level: Int[Tensor, " B"]) -> Float[Tensor, "B N 11"]:
        """Of each level (VerSe number)."""
        return _SHAPE_RATE * self.raw(level).unflatten(1, (-1, RAW_SIZE))


def _none_in_older_weights(shapes: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights that were trained before there were shapes are those of a network that knows none."""
    assert isinstance(shapes, LevelShapes)
    state.setdefault(f"{prefix}raw.weight", torch.zeros_like(shapes.raw.weight))
