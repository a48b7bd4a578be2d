"""Attention maps, what they gather, and what other attention would have gathered."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CounterfactualAttention(nn.Module):
    """M attention maps, bilinear attention pooling, and a counterfactual attention to compare with.

    Maps are normalised to mean 1 over the image, which is the mean of the counterfactual draw U(0, 2) and the value of
    the constant map used at test time. Two channels of pixel coordinates are pooled with the features, so that
    the context also says where each map looks.

    Source: Rao et al. 2021 (counterfactual attention learning); RadGS-Reg, section on the CAL module.
    """

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(channels, maps, 1)
        self.context_size = maps * (channels + 2)

    def maps(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B M h w"]:
        """Attention maps of mean 1."""
        logits = self.logits(features)
        return (logits.flatten(2).softmax(-1) * logits[0, 0].numel()).view_as(logits)

    def counterfactual(self, maps: Float[Tensor, "B M h w"]) -> Float[Tensor, "B M h w"]:
        """Attention that knows nothing of the image: U(0, 2) in training, ones at test time."""
        return torch.rand_like(maps) * 2 if self.training else torch.ones_like(maps)

    def pool(self, features: Float[Tensor, "B C h w"], maps: Float[Tensor, "B M h w"]) -> Float[Tensor, "B context"]:
        """Mean over the image of every feature and coordinate, weighted by every map."""
        h, w = features.shape[2:]
        axes = (torch.linspace(-1, 1, n, dtype=features.dtype, device=features.device) for n in (h, w))
        v, u = torch.meshgrid(*axes, indexing="ij")
        weights = maps.flatten(2)
        parts = [weights @ features.flatten(2).mT, weights @ torch.stack([u, v]).flatten(1).mT]
        return (torch.cat(parts, dim=-1) / (h * w)).flatten(1)
