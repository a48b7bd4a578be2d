"""What may happen to a picture that the level detector learns from, drawn anew each time that it is seen.

The simulated X-rays are few, and each was taken once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_SHIFT, _SCALE = 0.08, 0.1  # of the picture; ratio
_CONTRAST = 0.3
_GRAIN = 2.5  # the most noise, of a picture's local spread; most have little of it
_SPREAD = 0.2  # what the local spread is in a picture, of its range
_FLAT = 0.003  # of the range, from the middle: what was not measured is, and hardly anything else
_HIDDEN_CHANCE, _HIDDEN = 0.3, (0.06, 0.35)  # of a sample; side of the hidden part, of the picture


def augmented(
    images: Float[Tensor, "B 1 n n"], boxes: Float[Tensor, "B L 4"]
) -> tuple[Float[Tensor, "B 1 n n"], Float[Tensor, "B L 4"]]:
    """Pictures (0 to 1) and boxes (pixels; NaN: not seen) of another position and exposure."""
    images, boxes = moved(images, boxes)
    return disturbed(images), boxes


def moved(
    images: Float[Tensor, "B 1 n n"], boxes: Float[Tensor, "B L 4"]
) -> tuple[Float[Tensor, "B 1 n n"], Float[Tensor, "B L 4"]]:
    """Shifted and scaled at random; boxes whose middle leaves the picture become NaN."""
    count, size = len(images), images.shape[-1]
    scale = 1 + (torch.rand(count, device=images.device) * 2 - 1) * _SCALE
    shift = (torch.rand(count, 2, device=images.device) * 2 - 1) * _SHIFT * size
    old_from_new = torch.zeros(count, 2, 3, device=images.device)
    old_from_new[:, 0, 0] = old_from_new[:, 1, 1] = scale
    old_from_new[:, :, 2] = shift * 2 / size
    grid = F.affine_grid(old_from_new, list(images.shape), align_corners=False)
    drawn = F.grid_sample(images - 0.5, grid, align_corners=False) + 0.5
    middle = (size - 1) / 2
    corners = (boxes.view(count, -1, 2, 2) - middle - shift[:, None, None]) / scale[:, None, None, None] + middle
    centre = corners.mean(dim=2)
    inside = ((centre > 0) & (centre < size - 1)).all(dim=-1)
    return drawn, torch.where(inside[..., None], corners.reshape(boxes.shape), torch.nan)


def disturbed(images: Float[Tensor, "B 1 n n"]) -> Float[Tensor, "B 1 n n"]:
    """Another contrast, noise, and here and there a part hidden."""
    count, size = len(images), images.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, device=images.device) * (high - low) + low

    out = grainy((images - 0.5) * uniform(1 - _CONTRAST, 1 + _CONTRAST, 1, 1, 1) + 0.5)
    axis = torch.arange(size, device=images.device)
    low = uniform(0, size, 2)
    high = low + uniform(*_HIDDEN, 2) * size
    within = [(axis >= low[:, i, None]) & (axis < high[:, i, None]) for i in range(2)]
    hidden = within[0][:, :, None] & within[1][:, None, :] & (uniform(0, 1, 1, 1) < _HIDDEN_CHANCE)
    return torch.where(hidden[:, None], 0.5, out)


def grainy(images: Float[Tensor, "B 1 n n"]) -> Float[Tensor, "B 1 n n"]:
    """With the noise of few photons where anything was measured; the local spread stays, so contrast shrinks."""
    grain = _GRAIN * torch.rand(len(images), 1, 1, 1, device=images.device) ** 3
    signal = images - 0.5
    noisy = (signal + _SPREAD * grain * torch.randn_like(images)) / (1 + grain**2).sqrt()
    return (0.5 + torch.where(signal.abs() > _FLAT, noisy, signal)).clamp(0, 1)
