"""Where else the whole spine might lie: the CT's picture is shifted over each X-ray, and views have to agree.

One picture of the CT and one Fourier transform a view tell how well every shift in the image plane fits; a shift in
space fits as well as its two (or more) shifts in the planes do. Perspective changes little on the way.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.geometry import RigidTransform
from radgs.kernels import gradients
from radgs.registration.normal_equations import VISIBLE
from radgs.registration.scene import Scene
from radgs.registration.view import View, dilated

_BIN = 4  # pixels
_BLUR_PX = 1.0
_AROUND_PX = 3  # of the vertebrae, where pictures are compared
_REACH_MM, _STEP_MM = 40.0, 4.0
_TURN_DEG = 8.0
_APART_MM = 10.0
_LEAST_SEEN = 0.4  # of the vertebrae's surroundings


def search(scene: Scene, body: RigidTransform, count: int) -> list[RigidTransform]:
    """The likeliest poses of the whole spine within 4 cm and one turn of 8 degrees, the likeliest first.

    Args:
        scene: the X-rays and the CT.
        body: world_from_ct of all vertebrae, roughly.
        count: at most so many, whose middles are at least 1 cm apart.
    """
    coarse = scene.coarser(_BIN)
    middle = body.apply(np.stack([part.centre.numpy() for part in scene.parts.values()])).mean(axis=0)
    steps = np.arange(-_REACH_MM, _REACH_MM + 1, _STEP_MM)
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    turned = [RigidTransform.about(middle, turn) @ body for turn in _turns()]
    scores = np.stack([_scores(coarse, pose, middle, shifts) for pose in turned])
    found: list[tuple[int, int]] = []
    for best in np.argsort(-scores, axis=None):
        turn, shift = np.unravel_index(best, scores.shape)
        if all(np.linalg.norm(shifts[shift] - shifts[other]) >= _APART_MM for _, other in found):
            found.append((int(turn), int(shift)))
        if len(found) == count:
            break
    return [RigidTransform.from_rotation_translation(np.eye(3), shifts[s]) @ turned[t] for t, s in found]


def _turns() -> list[NDArray[np.float64]]:
    """No turn, and one about each axis to each side, rotation vectors."""
    return [np.zeros(3), *(np.radians(_TURN_DEG) * np.concatenate([np.eye(3), -np.eye(3)]))]


def _scores(
    coarse: Scene, body: RigidTransform, middle: NDArray[np.float64], shifts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How well each shift (world, mm) of the whole spine fits, summed over views."""
    poses = dict.fromkeys(coarse.parts, body.tensor())
    total = np.zeros(len(shifts))
    for view in coarse.views.values():
        bones = coarse.draw_bones(view, poses)
        window = dilated((bones > VISIBLE).float(), _AROUND_PX)
        soft = coarse.soft.draw_layers(dict.fromkeys(coarse.parts, body), view).sum(dim=0)
        picture = gradients((bones + soft)[None], _BLUR_PX)[0]
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
