"""What another X-ray system would have changed: drawn anew for every batch, on the training images only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Batch = dict[str, Tensor]

_SHIFT_MM = 3.0
_ROLL = 0.05  # radians
_NOISE = 0.01  # of the image's range, at most; with 0.04 nothing of a vertebra was left to be seen in most images
_GAIN = (0.8, 1.25)
_GAMMA = (0.75, 1.35)
_SHADING = 0.1
_BLUR_CHANCE = 0.5
_WIRE_CHANCE = 0.25
_WIRE_PX = 0.8
_WIRE_DEPTH = 2.5


def augmented(batch: Batch) -> Batch:
    """A batch as another detector, another locating of the centre and another roll of the camera would show it."""
    moved = moved_windows(batch)
    return {**moved, "images": changed_looks(moved["images"])}


def moved_windows(batch: Batch) -> Batch:
    """Turn each image about its own axis and move the crop's centre; cameras and truth follow exactly.

    The window moves with the projected centre, as it does when the centre was located elsewhere. Edges repeat, as they
    do where a window leaves an image. A batch may lack ``targets``.
    """
    pose, K = batch["camera_from_crop"], batch["K"]
    b, views = pose.shape[:2]
    size = batch["images"].shape[-1]
    shift = (torch.rand(b, 3, dtype=pose.dtype, device=pose.device) * 2 - 1) * _SHIFT_MM
    roll = (torch.rand(b, views, dtype=pose.dtype, device=pose.device) * 2 - 1) * _ROLL
    old_from_new = torch.eye(4, dtype=pose.dtype, device=pose.device).repeat(b, 1, 1)
    old_from_new[:, :3, 3] = shift
    before = _project_origin(K, pose)
    after = _project_origin(K, pose @ old_from_new[:, None])
    turn = torch.zeros(b, views, 2, 2, dtype=pose.dtype, device=pose.device)
    turn[..., 0, 0] = turn[..., 1, 1] = roll.cos()
    turn[..., 0, 1], turn[..., 1, 0] = -roll.sin(), roll.sin()
    # pixel_new = turn @ (pixel_old - after) + before; K [R | t] follows with the roll in the camera's pose.
    centre = (turn @ (K[..., :2, 2:] - after[..., None]))[..., 0] + before
    new_K = K.clone()
    new_K[..., :2, 2] = centre
    camera_roll = torch.eye(4, dtype=pose.dtype, device=pose.device).repeat(b, views, 1, 1)
    camera_roll[..., :2, :2] = turn
    old_from_new_pixel = turn.mT
    offset = after - (old_from_new_pixel @ before[..., None])[..., 0]
    names = [name for name in ("images", "targets") if name in batch]
    resampled = _resample(torch.stack([batch[name] for name in names], dim=2), old_from_new_pixel, offset, size)
    return {
        **batch,
        **dict(zip(names, resampled.unbind(2), strict=True)),
        "K": new_K,
        "camera_from_crop": camera_roll @ pose @ old_from_new[:, None],
        "crop_from_vertebra": torch.linalg.inv(old_from_new) @ batch["crop_from_vertebra"],
    }


def changed_looks(images: Float[Tensor, "B V h w"]) -> Float[Tensor, "B V h w"]:
    """Contrast, smooth shading (scatter), blur, noise and wires; each image its own."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    width = (high - low).clamp(min=1e-3)
    out = ((images - low) / width).pow(_between(images, *_GAMMA))
    if torch.rand(()) < _BLUR_CHANCE:
        mix = _between(images, 0, 1)
        out = mix * F.avg_pool2d(out, 3, 1, 1, count_include_pad=False) + (1 - mix) * out
    coarse = torch.randn(*images.shape[:2], 3, 3, device=images.device) * _SHADING
    out = out * _between(images, *_GAIN) + F.interpolate(coarse, images.shape[-2:], mode="bicubic")
    out = out + torch.randn_like(out) * _between(images, 0, _NOISE)
    return out * width + low + _wires(images)


def _project_origin(K: Tensor, pose: Tensor) -> Tensor:
    p = (K @ pose[..., :3, 3:])[..., 0]
    return p[..., :2] / p[..., 2:]


def _resample(images: Tensor, turn: Tensor, offset: Tensor, size: int) -> Tensor:
    """Images ``[B, V, C, h, w]`` at ``old = turn @ new + offset`` (pixels)."""
    turn, offset = turn.float(), offset.float()  # a window has few pixels
    axis = torch.arange(size, dtype=turn.dtype, device=turn.device)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    new = torch.stack([u, v], -1).view(-1, 2)
    old = new @ turn.mT + offset[..., None, :]
    grid = ((2 * old + 1) / size - 1).view(-1, size, size, 2)
    flat = F.grid_sample(images.flatten(0, 1), grid, padding_mode="border", align_corners=False)
    return flat.view_as(images)


def _between(images: Tensor, low: float, high: float) -> Tensor:
    return torch.rand(*images.shape[:2], 1, 1, device=images.device) * (high - low) + low


def _wires(images: Tensor) -> Tensor:
    """A straight, dark line across some of the images."""
    b, views, height, width = images.shape
    angle = torch.rand(b, views, 1, 1, device=images.device) * torch.pi
    v = torch.arange(height, device=images.device).view(-1, 1) - height * torch.rand_like(angle)
    u = torch.arange(width, device=images.device).view(1, -1) - width * torch.rand_like(angle)
    distance = (u * angle.cos() + v * angle.sin()).abs()
    there = (torch.rand_like(angle) < _WIRE_CHANCE) * _between(images, 0.2, 1) * _WIRE_DEPTH
    return there * torch.exp(-0.5 * (distance / _WIRE_PX).square())
