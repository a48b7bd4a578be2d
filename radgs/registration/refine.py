"""Refinement on the X-rays: all views share one pose a vertebra, neighbours are tied by a prior.

The objective is gradient correlation (Penney et al. 1998) near each projected vertebra between the X-ray and the sum
of all visible vertebrae, after the gradients that the CT's soft tissue and ribs would make there are taken out of both
(as far as the X-ray shows them). First the segment moves as one body, then each vertebra on its own, coarse to fine,
by the method of Levenberg and Marquardt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from radgs.config import RefinementSettings
from radgs.errors import GeometryError
from radgs.geometry import RigidTransform, rigid_motion
from radgs.kernels import gradients
from radgs.registration.cameras import CameraCorrections
from radgs.registration.covariance import PoseCovariance, pose_covariances
from radgs.registration.foreign import find_foreign
from radgs.registration.information import information, information_weights
from radgs.registration.layers import find_shifts, shifted, still
from radgs.registration.normal_equations import (
    VISIBLE,
    NormalEquations,
    Target,
    Weights,
    body_from_levels,
    normal_equations,
)
from radgs.registration.scene import Poses, Scene
from radgs.registration.single_views import views_apart
from radgs.registration.view import View, dilated

_DAMPING = 0.01  # at first, of the Hessian's diagonal
_LEAST_GAIN, _MOST_FAILURES = 1e-2, 2  # of the loss: silhouettes come and go with the pose, so it is never still
_SMALLEST_STEP_MM = 0.02  # ends a stage
_BLUR_A_PIXEL = 0.75  # a blur of so many pixels hides what smaller ones would show
_BLUR_A_PIXEL_AT_FIRST = 1.5  # as one body, from far away: with larger pixels, it ends one level off more often
_SOFT_BIN = 2  # soft tissue has nothing as fine as a pixel
_AROUND_MM = 27.0  # of the vertebrae, where soft tissue has to be right
_ARM_MM = 30.0  # a turn moves the rim of a vertebra this many mm a radian


@dataclass(frozen=True)
class Refined:
    """The result for a shot.

    Attributes:
        world_from_ct: by level.
        similarity: by level and view, mean gradient correlation of the two directions, -1 to 1.
        covariance: by level, of the pose; none of levels that no view shows.
        views_apart: by level, how far apart single views would have it, mm; none of levels that fewer than two show.
        cameras: by level and view, the motion of the world before the view's camera that was found with the pose; none
            where calibrations are taken as right.
    """

    world_from_ct: dict[str, RigidTransform]
    similarity: dict[str, dict[str, float]]
    covariance: dict[str, PoseCovariance] = field(default_factory=dict)
    views_apart: dict[str, float] = field(default_factory=dict)
    cameras: dict[str, dict[str, RigidTransform]] = field(default_factory=dict)

    def objective(self, level: str) -> float:
        """What the views say of the level together, see `information`; higher is better."""
        return sum(information(value) for value in self.similarity.get(level, {}).values())


def make_targets(
    scene: Scene, soft: Mapping[str, Float[Tensor, "k H W"]], factor: int, sigma_px: float
) -> dict[str, Target]:
    """What each view is compared with.

    Args:
        scene: with pixels ``factor`` times as large as those of ``soft``.
        soft: by view, what soft tissue may add to the X-ray.
        factor: whole number.
        sigma_px: blur, pixels of the scene; a noisy view is blurred more.
    """
    targets = {}
    for name, view in scene.views.items():
        rows, columns = view.camera.height * factor, view.camera.width * factor
        tissue = F.avg_pool2d(soft[name][:, :rows, :columns], factor)
        blur_px = view.blur_px(sigma_px)
        images = gradients(torch.cat([view.image[None], tissue]), blur_px)
        certainty = view.certainty(images[0], blur_px)
        targets[name] = Target(images * certainty, certainty, view.usable(blur_px) > 0, blur_px)
    return targets


def soft_tissue(scene: Scene, poses: Poses, *, moves: bool) -> tuple[dict[str, Float[Tensor, "k H W"]], Scene]:
    """By view, what is no vertebra: line integrals in layers, and how each changes when it is shifted a little.

    Args:
        scene: the X-rays and the CT.
        poses: of the vertebrae; the tissue is bent with them.
        moves: whether layers are shifted as the X-ray shows them, and what is still much darker than it should be is
            left out.

    Returns:
        Images, and the scene without the pixels of instruments.
    """
    rigid = {level: RigidTransform.nearest(pose.numpy()) for level, pose in poses.items()}
    coarse = scene.coarser(_SOFT_BIN)
    out, views = {}, dict(scene.views)
    for name, view in coarse.views.items():
        bones = coarse.draw_bones(view, poses)
        near = dilated((bones > VISIBLE).float(), round(_AROUND_MM / view.pixel_mm)) > 0
        layers = scene.soft.draw_layers(rigid, view, _widened(near, round(_AROUND_MM / view.pixel_mm)))
        if moves:
            layers = shifted(layers, find_shifts(view, bones, layers, near, still(layers, view)), view)
            foreign = find_foreign(view, bones, layers.sum(dim=0), near)
            views[name] = views[name].without(_finer(foreign[None].float(), views[name])[0] > 0)
        out[name] = _finer(torch.cat([layers, gradients(layers).flatten(0, 1)]), scene.views[name])
    return out, scene.seen_by(views)


def _widened(near: Bool[Tensor, "H W"], by_px: int) -> Bool[Tensor, "H W"]:
    """The rectangle that reaches so many pixels further: shifts and blurs bring in what lies there."""
    out = torch.zeros_like(near)
    for_rows, for_columns = (torch.nonzero(near.any(dim=axis))[:, 0] for axis in (1, 0))
    if len(for_rows):
        (y0, y1), (x0, x1) = ((int(at.min()) - by_px, int(at.max()) + 1 + by_px) for at in (for_rows, for_columns))
        out[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return out


def _finer(images: Float[Tensor, "k h w"], view: View) -> Float[Tensor, "k H W"]:
    """Images of ``_SOFT_BIN`` times the view's pixels, at the view's own."""
    wide = F.interpolate(images[None], scale_factor=_SOFT_BIN, mode="bilinear")
    height, width = view.image.shape
    return F.pad(wide, (0, width - wide.shape[3], 0, height - wide.shape[2]), mode="replicate")[0]


def moved(scene: Scene, poses: Poses, motion: Float64[Tensor, " p"]) -> Poses:
    """Poses after each CT part has turned about its centre and moved."""
    by_level = motion.view(-1, 6)
    centres = torch.stack([scene.parts[level].centre for level in poses])
    moves = rigid_motion(by_level[:, :3], by_level[:, 3:], centres)
    return {level: pose @ move for (level, pose), move in zip(poses.items(), moves, strict=True)}


@dataclass(frozen=True)
class Comparison:
    """The X-rays at one blur, with pixels no finer than it needs, and the soft tissue that they show."""

    scene: Scene
    targets: dict[str, Target]
    settings: RefinementSettings
    joints_let_go: bool
    weights: Weights | None = None

    @classmethod
    def at(
        cls,
        sigma_px: float,
        seen: tuple[dict[str, Float[Tensor, "k H W"]], Scene],
        settings: RefinementSettings,
        *,
        blur_a_pixel: float = _BLUR_A_PIXEL,
        joints_let_go: bool = False,
    ) -> Comparison:
        """At a blur (pixels of the scene), of what `soft_tissue` gives."""
        soft, scene = seen
        factor = max(int(sigma_px / blur_a_pixel), 1)
        coarse, sigma_px = scene.coarser(factor), sigma_px / factor
        settings = settings.model_copy(update={"step_mm": settings.step_mm * factor})
        return cls(coarse, make_targets(coarse, soft, factor, sigma_px), settings, joints_let_go)

    def fit(self, poses: Poses, prior_weight: float, cameras: CameraCorrections | None = None) -> NormalEquations:
        """Loss and its quadratic model."""
        seen, lets_go = (self.scene, poses, self.targets, self.settings), self.joints_let_go
        return normal_equations(*seen, prior_weight, cameras, self.weights, joints_let_go=lets_go)


def minimise(
    seen: Comparison, poses: Poses, steps: int, *, together: bool, cameras: CameraCorrections | None = None
) -> tuple[Poses, CameraCorrections | None, NormalEquations]:
    """Minimise at one blur, over cameras too if any are given; a step that does not help is tried again shorter.

    Levels on their own are weighed by what they say where they are at first: see `information_weights`.
    """
    scene = seen.scene
    weight = 0.0 if together else seen.settings.prior_weight
    spread = body_from_levels([scene.parts[level].centre for level in poses]) if together else None
    own = 6 * len(poses)
    now = seen.fit(poses, weight, cameras)
    if not together:
        seen = replace(seen, weights=information_weights(now.similarity))
        now = seen.fit(poses, weight, cameras)
    if not any(now.similarity.values()):
        raise GeometryError("no vertebra is visible in any X-ray at its estimated pose")
    damping, failed = _DAMPING, 0
    for _ in range(steps):
        step = _step(now, damping, spread)
        motion = step[:own]
        there, then = moved(scene, poses, motion), cameras and cameras.changed(step[own:])
        tried = seen.fit(there, weight, then)
        length = float((motion.view(-1, 2, 3) * torch.tensor([[_ARM_MM], [1.0]])).norm(dim=-1).max())
        gain = now.loss - tried.loss
        if gain > 0:
            poses, cameras, now, damping = there, then, tried, damping / 4
        else:
            damping = max(damping * 6, _DAMPING)
        failed += gain < _LEAST_GAIN
        if failed >= _MOST_FAILURES or length < _SMALLEST_STEP_MM:
            break
    return poses, cameras, now


def _step(now: NormalEquations, damping: float, spread: Float64[Tensor, "p q"] | None) -> Float64[Tensor, " p"]:
    """The damped Gauss-Newton step, of all levels' parameters."""
    hessian, gradient = now.hessian, now.gradient
    if spread is not None:
        hessian, gradient = spread.T @ hessian @ spread, spread.T @ gradient
    diagonal = hessian.diagonal()
    damped = hessian + torch.diag(damping * diagonal + 1e-9 * diagonal.max() + 1e-12)
    step = -torch.linalg.solve(damped, gradient)
    return step if spread is None else spread @ step


def refine(
    scene: Scene,
    start: Mapping[str, RigidTransform],
    settings: RefinementSettings,
    *,
    as_one_body: bool = True,
) -> Refined:
    """Refine the poses of all vertebrae of a scene together.

    Args:
        scene: the X-rays and the vertebrae that may be seen in them.
        start: world_from_ct by level, for every level of the scene.
        settings: blur and steps of each stage, and the prior.
        as_one_body: whether the segment first moves as one rigid body (when the start is one rigid pose).

    Raises:
        GeometryError: no vertebra is visible.
    """
    poses = {level: start[level].tensor() for level in scene.parts}
    schedule = [(True, *s) for s in settings.one_body_stages] if as_one_body else []
    schedule += [(False, *s) for s in settings.articulated_stages]
    cameras = None
    for number, (together, sigma_px, steps) in enumerate(schedule, 1):
        is_last = number == len(schedule)
        tissue = soft_tissue(scene, poses, moves=not together)
        blur_a_pixel = _BLUR_A_PIXEL_AT_FIRST if together else _BLUR_A_PIXEL
        seen = Comparison.at(sigma_px, tissue, settings, blur_a_pixel=blur_a_pixel, joints_let_go=is_last)
        if settings.corrects_cameras and is_last:
            cameras = CameraCorrections.none(scene, poses, settings)
        poses, cameras, last = minimise(seen, poses, int(steps), together=together, cameras=cameras)
    found = {level: RigidTransform.nearest(pose.numpy()) for level, pose in poses.items()}
    centres = {level: scene.parts[level].centre.numpy() for level in poses}
    covariance = pose_covariances(last, found, centres, settings.prior_weight)
    corrections = dict.fromkeys(found, cameras.motions(scene)) if cameras else {}
    return Refined(found, last.similarity, covariance, views_apart(last, scene.parts), corrections)
