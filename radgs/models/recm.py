"""RecM: two X-ray windows to radiative Gaussians and the motion that carries them there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from radgs.anatomy import VertebraViews
from radgs.config import CropSettings, NetworkSettings
from radgs.errors import RadgsError
from radgs.gaussians import RadiativeGaussians
from radgs.geometry import rigid_motion
from radgs.models.anchors import RAW_SIZE, alike_anchors, changed, describe, grid_anchors
from radgs.models.attention import CounterfactualAttention
from radgs.models.encoders import build_encoder
from radgs.models.heads import GlobalHead, LevelShapes
from radgs.models.population import PopulationAnchors

VIEWS = 2
_CHANNELS = 64
_HIDDEN = 256
_ANCHOR_HIDDEN = 64
_LEVELS, _LEVEL_SIZE = 32, 16
_CAMERA_SIZE = 9 + 3 + 4
_CAMERA_DISTANCE_MM = 700.0
_TRANSLATION_UNIT_MM = 10.0
_OCTAVES = 4
_HIGH_PASS_PX = 9
_GRID_REACH = 4.0  # blank anchors have much further to go than fitted ones


@dataclass(frozen=True)
class Reconstruction:
    """What RecM makes of B vertebrae.

    Attributes:
        factual: Gaussians of the head on the context, ``[B, N]``, crop frame, mm.
        effect: Gaussians of the difference that attention makes: head(context) - head(counterfactual context).
        crop_from_vertebra: ``[B, 4, 4]`` float64, the factual rigid motion.
        attention: ``[B, V, M, h, w]``, mean 1 over the image.
    """

    factual: RadiativeGaussians
    effect: RadiativeGaussians
    crop_from_vertebra: Float[Tensor, "B 4 4"]
    attention: Float[Tensor, "B V M h w"]


@dataclass(frozen=True)
class Observation:
    """What RecM saw, before any anchor is moved: ``[B, ...]`` each; index it to go on with some of the batch.

    Attributes:
        features: per view feature maps.
        attention: per view attention maps.
        counterfactual_attention: what they are compared with.
        context: pooled features, cameras and level, under each attention.
        counterfactual_context: see there.
        factual_motion: crop_from_vertebra, float64, mm.
        effect_motion: crop_from_vertebra of the difference of the two raw motions.
    """

    features: Float[Tensor, "B V C h w"]
    attention: Float[Tensor, "B V M h w"]
    counterfactual_attention: Float[Tensor, "B V M h w"]
    context: Float[Tensor, "B c"]
    counterfactual_context: Float[Tensor, "B c"]
    factual_motion: Float[Tensor, "B 4 4"]
    effect_motion: Float[Tensor, "B 4 4"]

    def placed(self, crop_from_vertebra: Float[Tensor, "B 4 4"]) -> Observation:
        """The same with a given motion in both branches, so that shape can be taught apart from pose."""
        return replace(self, factual_motion=crop_from_vertebra, effect_motion=crop_from_vertebra)

    def __getitem__(self, index: slice | Tensor) -> Observation:
        return Observation(*(getattr(self, f.name)[index] for f in fields(self)))


class RecM(nn.Module):
    """One encoder a view, counterfactual attention, and a head that changes anchors.

    The motion comes from the images, cameras and level alone, so it is the same for every set of anchors; it starts at
    the identity, and the changes of the anchors start at none. The anchored head changes anchors in the vertebra frame,
    a grid also by what training learned of the level, and the motion carries them to the crop frame; the global head
    changes them in the crop frame, without the motion.

    Source: RadGS-Reg (MICCAI 2025) for encoder, attention, effect and global head; the anchored head is this project's.
    """

    def __init__(self, settings: NetworkSettings, crop_mm: float = CropSettings().size_mm) -> None:
        super().__init__()
        self.settings, self.crop_mm = settings, crop_mm
        self.encoders = nn.ModuleList(
            [build_encoder(settings.encoder, 2, 2, _CHANNELS, settings.width, settings.image_px) for _ in range(VIEWS)]
        )
        self.attentions = nn.ModuleList(
            [CounterfactualAttention(_CHANNELS, settings.attention_maps) for _ in range(VIEWS)]
        )
        self.level = nn.Embedding(_LEVELS, _LEVEL_SIZE)
        pooled = VIEWS * settings.attention_maps * (_CHANNELS + 2)
        self.fuse = nn.Sequential(
            nn.Linear(pooled + VIEWS * _CAMERA_SIZE + _LEVEL_SIZE, _HIDDEN), nn.LayerNorm(_HIDDEN), nn.ReLU()
        )
        self.motion_head = nn.Sequential(nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 6))
        self.population = PopulationAnchors(settings.gaussians) if settings.anchors == "population" else None
        self.shapes: LevelShapes | None = None
        self.global_head: GlobalHead | None = None
        if settings.head == "global":
            grid = None if self.population else grid_anchors(settings, crop_mm).count
            self.global_head = GlobalHead(_HIDDEN, settings.gaussians, grid, crop_mm / 2)
        else:
            self._build_anchored_head()
        _start_at_zero(self.motion_head[-1])

    def _build_anchored_head(self) -> None:
        self.anchor_in = nn.Linear(3 + 6 * _OCTAVES + 9, _ANCHOR_HIDDEN)
        self.context_in = nn.Linear(_HIDDEN, _ANCHOR_HIDDEN)
        self.local_in = nn.ModuleList([nn.Conv2d(_CHANNELS, _ANCHOR_HIDDEN, 1) for _ in range(VIEWS)])
        self.anchor_hidden = nn.Sequential(nn.ReLU(), nn.Linear(_ANCHOR_HIDDEN, _ANCHOR_HIDDEN), nn.ReLU())
        # A grid has to lose most of its density, fitted anchors hardly any: with one last layer the grid empties both.
        self.grid_out = nn.Linear(_ANCHOR_HIDDEN, RAW_SIZE)
        self.fitted_out = nn.Linear(_ANCHOR_HIDDEN, RAW_SIZE)
        if self.population is None:
            self.shapes = LevelShapes(_LEVELS, grid_anchors(self.settings, self.crop_mm).count)
        _start_at_zero(self.grid_out, self.fitted_out)

    def blank(self, level: Int[Tensor, " B"]) -> RadiativeGaussians:
        """Anchors that know nothing of the patient, ``[B, N]``, vertebra frame: a grid, or those of the population."""
        if self.population is not None:
            anchors: RadiativeGaussians = self.population(level)
            return anchors
        one = grid_anchors(self.settings, self.crop_mm)
        parts = (one.means, one.scales, one.quaternions, one.densities)
        return RadiativeGaussians(*(part.to(level.device).expand(len(level), *part.shape) for part in parts))

    def forward(self, views: VertebraViews, anchors: RadiativeGaussians) -> Reconstruction:
        """Reconstruct B vertebrae.

        Args:
            views: two windows of each.
            anchors: ``[B, N]`` in the vertebra frame, mm. Those of :meth:`blank`: X-ray-only; Gaussians fitted to the
                patient's CT: CT-assisted.

        Raises:
            RadgsError: not two views.
        """
        return self.reconstruct(self.observe(views), views, anchors)

    def observe(self, views: VertebraViews) -> Observation:
        """Encode the images and estimate the motion: most of the work of pose training, and no anchors.

        Raises:
            RadgsError: not two views.
        """
        if views.images.shape[1] != VIEWS:
            raise RadgsError(f"RecM takes {VIEWS} views a vertebra, got {views.images.shape[1]}")
        images = normalised(views.images)
        features, maps, others, pooled, pooled_others = [], [], [], [], []
        for v, (encoder, attention) in enumerate(zip(self.encoders, self.attentions, strict=True)):
            assert isinstance(attention, CounterfactualAttention)
            features.append(encoder(images[:, v]))
            maps.append(attention.maps(features[-1]))
            others.append(attention.counterfactual(maps[-1]))
            pooled.append(attention.pool(features[-1], maps[-1]))
            pooled_others.append(attention.pool(features[-1], others[-1]))
        known = [embed_cameras(views, self.crop_mm), self.level(views.level)]
        context = self.fuse(torch.cat([*pooled, *known], dim=-1))
        counterfactual = self.fuse(torch.cat([*pooled_others, *known], dim=-1))
        raw, raw_other = self.motion_head(context), self.motion_head(counterfactual)
        return Observation(
            torch.stack(features, 1),
            torch.stack(maps, 1),
            torch.stack(others, 1),
            context,
            counterfactual,
            _motion(raw),
            _motion(raw - raw_other),
        )

    def reconstruct(self, seen: Observation, views: VertebraViews, anchors: RadiativeGaussians) -> Reconstruction:
        """Move and change the anchors by what was seen; arguments as in :meth:`forward`."""
        head = self._head(seen, views, anchors)
        raw = head(seen.attention, seen.context)
        other = head(seen.counterfactual_attention, seen.counterfactual_context)
        known = self._known(views, anchors)
        return Reconstruction(
            self._made(anchors, known + raw, seen.factual_motion),
            self._made(anchors, known + (raw - other), seen.effect_motion),
            seen.factual_motion,
            seen.attention,
        )

    def factual(self, seen: Observation, views: VertebraViews, anchors: RadiativeGaussians) -> RadiativeGaussians:
        """The factual Gaussians of :meth:`reconstruct` at half its cost."""
        raw = self._head(seen, views, anchors)(seen.attention, seen.context)
        return self._made(anchors, self._known(views, anchors) + raw, seen.factual_motion)

    def _known(self, views: VertebraViews, anchors: RadiativeGaussians) -> Tensor:
        """Raw changes of a grid that training learned of the level, none of fitted anchors.

        They come in after one branch was subtracted from the other, as the anchors' own parameters do: both have them.
        """
        alike = alike_anchors(anchors)
        if self.shapes is None or not alike.any():
            return anchors.means.new_zeros(())
        return torch.where(alike[:, None, None], self.shapes(views.level), 0.0)

    def _made(self, anchors: RadiativeGaussians, raw: Tensor, motion: Tensor) -> RadiativeGaussians:
        if self.global_head is not None:
            return changed(anchors, raw, self.global_head.reach_mm)
        return changed(anchors, raw).moved(motion)

    def _head(
        self, seen: Observation, views: VertebraViews, anchors: RadiativeGaussians
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The head on these anchors: attention maps and context to raw changes."""
        whole = self.global_head
        if whole is not None:
            return lambda _, context: whole(context, anchors)
        own, alike = self._own(anchors), alike_anchors(anchors)
        # Anchors look at the images where the factual motion puts them, in both branches.
        points = projected(anchors.means, seen.factual_motion, views)
        return lambda maps, context: self._raw_changes(own, alike, points, seen.features, maps, context)

    def _own(self, anchors: RadiativeGaussians) -> Tensor:
        return self.anchor_in(torch.cat([_fourier(anchors.means / (self.crop_mm / 2)), describe(anchors)], dim=-1))

    def _raw_changes(
        self, own: Tensor, alike: Tensor, points: Tensor, features: Tensor, maps: Tensor, context: Tensor
    ) -> Tensor:
        attended = features * maps.mean(2, keepdim=True)
        hidden = own + self.context_in(context)[:, None]
        for v, local in enumerate(self.local_in):
            sampled = F.grid_sample(
                local(attended[:, v]), points[:, v, None], padding_mode="border", align_corners=False
            )
            hidden = hidden + sampled[:, :, 0].mT
        hidden = self.anchor_hidden(hidden)
        return torch.where(alike[:, None, None], _GRID_REACH * self.grid_out(hidden), self.fitted_out(hidden))


def _start_at_zero(*last: nn.Module) -> None:
    for layer in last:
        assert isinstance(layer, nn.Linear)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def normalised(images: Float[Tensor, "B V h w"]) -> Float[Tensor, "B V 2 h w"]:
    """Each window without its own mean and scale, and the same without what is smooth in it (scatter, soft tissue)."""
    n, smooth = _HIGH_PASS_PX, images
    for size, margin in (((n, 1), (n // 2, 0)), ((1, n), (0, n // 2))):  # one axis after the other costs half
        smooth = F.avg_pool2d(smooth, size, 1, margin, count_include_pad=False)
    both = torch.stack([images, images - smooth], dim=2)
    centred = both - both.mean((-2, -1), keepdim=True)
    return centred / (centred.square().mean((-2, -1), keepdim=True).sqrt() + 1e-3)


def embed_cameras(views: VertebraViews, crop_mm: float) -> Float[Tensor, "B n"]:
    """Where the cameras are, as numbers near one: rotation, translation, and the window's scale and centre."""
    pose, K = views.camera_from_crop, views.K
    size = views.images.shape[-1]
    translation = pose[..., :3, 3] / pose.new_tensor([crop_mm, crop_mm, _CAMERA_DISTANCE_MM])
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], -1) * crop_mm / size / _CAMERA_DISTANCE_MM
    origin = (K @ pose[..., :3, 3:])[..., 0]
    centre = (origin[..., :2] / origin[..., 2:] - (size - 1) / 2) / (size / 4)
    parts = [pose[..., :3, :3].flatten(-2), translation, focal, centre]
    return torch.cat(parts, -1).flatten(1).float()


def projected(
    points: Float[Tensor, "B N 3"], crop_from_vertebra: Float[Tensor, "B 4 4"], views: VertebraViews
) -> Float[Tensor, "B V N 2"]:
    """Where points of the vertebra frame fall in each window: -1 and 1 are the outer edges of its border pixels."""
    camera_from_vertebra = views.camera_from_crop @ crop_from_vertebra.double()[:, None]
    camera = points.double()[:, None] @ camera_from_vertebra[..., :3, :3].mT + camera_from_vertebra[..., None, :3, 3]
    pixel = camera @ views.K.mT
    height, width = views.images.shape[-2:]
    size = pixel.new_tensor([width, height])
    return ((2 * (pixel[..., :2] / pixel[..., 2:]) + 1) / size - 1).float()


def _motion(raw: Float[Tensor, "B 6"]) -> Float[Tensor, "B 4 4"]:
    raw = raw.double()
    return rigid_motion(raw[:, :3], raw[:, 3:] * _TRANSLATION_UNIT_MM, raw.new_zeros(3))


def _fourier(x: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N f"]:
    """Sines and cosines of octaves (Tancik et al. 2020)."""
    waves = [x * (torch.pi * 2.0**k) for k in range(_OCTAVES)]
    return torch.cat([x, *(w.sin() for w in waves), *(w.cos() for w in waves)], dim=-1)
