"""Whether the spine's picture fits the X-rays better where it is than a level up or down; nothing is refined.

The whole picture is compared, soft tissue included: the fine detail by which vertebrae are looked for (`search`) fits a
spine that was refined into a wrong place nowhere as well as there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.anatomy import cranio_caudal
from radgs.geometry import RigidTransform
from radgs.kernels import gradients
from radgs.registration.normal_equations import VISIBLE
from radgs.registration.scene import Scene
from radgs.registration.view import View, dilated

_FACTOR = 4  # pixels binned
_BLUR_PX = 1.0
_AROUND_PX = 3  # of the vertebrae, where pictures are compared
_LEAST_SEEN = 0.4  # of the vertebrae's surroundings
_FURTHEST, _HERE, _ELSEWHERE = 1.4, 0.3, 0.6  # levels up and down: looked at, the same name, another name
_ASIDE_MM = 12.0


def lead_over_other_names(scene: Scene, poses: Mapping[str, RigidTransform]) -> float:
    """How much better the spine's picture fits where it is than a level up or down, in correlation, mean over views.

    Nothing is refined, so a lead of some hundredths says much; below zero, the spine may be a level off.

    Args:
        scene: the X-rays and the CT.
        poses: world_from_ct of all levels, at least two, as refined.
    """
    coarse = scene.coarser(_FACTOR)
    centres = np.stack([poses[k].apply(scene.parts[k].centre.numpy()) for k in cranio_caudal(poses)])
    along = np.diff(centres, axis=0).mean(axis=0)
    spacing = float(np.linalg.norm(along))
    across = np.linalg.svd(along[None])[2][1:]
    far, aside = np.arange(-_FURTHEST, _FURTHEST + 0.01, 3 / spacing), np.arange(-_ASIDE_MM, _ASIDE_MM + 0.1, 4.0)
    steps = np.stack(np.meshgrid(far, aside, aside, indexing="ij"), axis=-1).reshape(-1, 3)
    scores = _scores(coarse, poses, centres.mean(axis=0), steps @ np.stack([along, *across])) / len(coarse.views)
    levels = np.abs(steps[:, 0])
    return float(scores[levels < _HERE].max() - scores[levels > _ELSEWHERE].max())


def _scores(
    coarse: Scene, there: Mapping[str, RigidTransform], middle: NDArray[np.float64], shifts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How well each shift (world, mm) fits, summed over views."""
    poses = {level: pose.tensor() for level, pose in there.items()}
    total = np.zeros(len(shifts))
    for view in coarse.views.values():
        bones = coarse.draw_bones(view, poses)
        window = dilated((bones > VISIBLE).float(), _AROUND_PX)
        if there.keys() == coarse.parts.keys():
            bones = bones + coarse.soft.draw_layers(there, view).sum(dim=0)
        picture = gradients(bones[None], _BLUR_PX)[0]
        by = view.camera.project(middle + shifts) - view.camera.project(middle)
        reach = int(np.ceil(np.abs(by).max())) + 1
        fits = match(view, picture, window, reach).numpy()
        total += ndimage.map_coordinates(fits, (by + reach).T[::-1], order=1)
    return total


def match(
    view: View, picture: Float[Tensor, "2 H W"], window: Float[Tensor, "H W"], reach: int
) -> Float[Tensor, "s s"]:
    """Correlation of the view's gradients with shifted ones of a picture, by shift along v and u.

    Args:
        view: the X-ray.
        picture: gradients along u and v.
        window: 1 where the picture counts.
        reach: shifts of -reach ... reach pixels.

    Returns:
        ``[2 reach + 1, 2 reach + 1]``; 0 where too little of the window was measured.
    """
    usable = view.usable(_BLUR_PX)
    seen = gradients(view.image[None], _BLUR_PX)[0] * usable
    size = [n + 2 * reach for n in usable.shape]

    def correlate(a: Tensor, b: Tensor) -> Tensor:
        product = torch.fft.rfft2(a.double(), size).conj() * torch.fft.rfft2(b.double(), size)
        full = torch.fft.irfft2(product, size)
        return full.roll((reach, reach), (-2, -1))[..., : 2 * reach + 1, : 2 * reach + 1]

    both = correlate(picture * window, seen).sum(0)
    of_view = correlate(window, (seen**2).sum(0))
    of_picture = correlate((picture**2).sum(0) * window, usable)
    measured = correlate(window, usable) / window.sum().clamp_min(1)
    fits = both / (of_view * of_picture).clamp_min(1e-12).sqrt()
    return torch.where(measured > _LEAST_SEEN, fits, 0.0)
