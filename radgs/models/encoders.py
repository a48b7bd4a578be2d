"""Encoders by name: images or volumes to one feature map at a quarter of their size.

All come from MONAI, which takes three seconds to import: it is imported by whoever builds one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radgs.errors import ConfigError

_MODES = {2: "bilinear", 3: "trilinear"}
_CONVOLUTIONS: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_PATCH = 4  # of the ViT: a token for each place of the feature map
_TOKENS = {2: 16, 3: 8}  # along each axis, at most: attention costs the square of their number
_HEADS, _HEAD_CHANNELS = (3, 4, 6, 12), 64  # of a ViT, by its size: ViT-Base has 12, DeiT-Ti 3 (Touvron et al. 2021)
_HIDDEN = 12  # times width


class Encoder(nn.Module):
    """Maps ``[B, in, *size]`` to ``[B, out, *size / 4]``.

    Attributes:
        compute: the type in which the encoder works while it is trained. Its output is of the input's type in any case:
            what follows is geometry in mm, of which bfloat16 keeps three digits.
    """

    compute = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """The feature map."""
        if self.compute == torch.float32 or not self.training:
            return self.encode(x)
        with torch.autocast(x.device.type, self.compute):
            return self.encode(x).to(x.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """The feature map, in whatever type the layers compute in."""
        raise NotImplementedError


class PyramidEncoder(Encoder):
    """The last three stages of a backbone, summed top-down (Lin et al. 2017, feature pyramids).

    The stem halves the size and nothing is pooled after it: on windows of 64 pixels a pose of a few mm is a matter of
    single pixels.
    """

    backbone: Any  # a module whose parts MONAI does not declare

    def __init__(self, backbone: nn.Module, planes: list[int], spatial_dims: int, out_channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.lateral = nn.ModuleList([_CONVOLUTIONS[spatial_dims](p, out_channels, 1) for p in planes])
        self.mode = _MODES[spatial_dims]

    def stages(self, x: Tensor) -> list[Tensor]:
        """The backbone's maps at 1/4, 1/8 and 1/16 of the size."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """See :class:`Encoder`."""
        stages = self.stages(x)
        out = self.lateral[2](stages[2])
        for lateral, stage in ((self.lateral[1], stages[1]), (self.lateral[0], stages[0])):
            out = lateral(stage) + F.interpolate(out, size=stage.shape[2:], mode=self.mode, align_corners=False)
        return out


class ResNetEncoder(PyramidEncoder):
    """He et al. 2016; 18 layers of basic or 50 of bottleneck blocks."""

    def __init__(
        self, block: str, layers: list[int], spatial_dims: int, in_channels: int, out_channels: int, width: int
    ) -> None:
        from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck

        kind: Any = {"basic": ResNetBlock, "bottleneck": ResNetBottleneck}[block]
        planes = [width * 2**i for i in range(4)]
        backbone = ResNet(
            kind,
            layers,
            planes,
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_size=5,
            conv1_t_stride=2,
            no_max_pool=True,
            feed_forward=False,
        )
        super().__init__(backbone, [p * kind.expansion for p in planes[1:]], spatial_dims, out_channels)

    def stages(self, x: Tensor) -> list[Tensor]:
        """See :class:`PyramidEncoder`."""
        b, stages = self.backbone, []
        x = b.layer1(b.act(b.bn1(b.conv1(x))))
        for layer in (b.layer2, b.layer3, b.layer4):
            x = layer(x)
            stages.append(x)
        return stages


class DenseNetEncoder(PyramidEncoder):
    """Huang et al. 2017, 121 layers; ``width`` 64 is the published size (it grows by half of that a layer)."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, width: int) -> None:
        from monai.networks.nets.densenet import DenseNet

        growth, blocks = max(width // 2, 1), (6, 12, 24, 16)
        features = DenseNet(spatial_dims, in_channels, 1, width, growth, blocks).features
        del features.pool0
        planes, channels = [], width
        for i, layers in enumerate(blocks):
            channels += layers * growth
            planes.append(channels)
            channels = channels // 2 if i < len(blocks) - 1 else channels
        super().__init__(features, planes[1:], spatial_dims, out_channels)

    def stages(self, x: Tensor) -> list[Tensor]:
        """See :class:`PyramidEncoder`."""
        b = self.backbone
        x = b.denseblock1(b.relu0(b.norm0(b.conv0(x))))
        fine = b.denseblock2(b.transition1(x))
        middle = b.denseblock3(b.transition2(fine))
        return [fine, middle, F.relu(b.norm5(b.denseblock4(b.transition3(middle))))]


class TransformerEncoder(Encoder):
    """A ViT of 12 layers (Dosovitskiy et al. 2021); ``width`` 64 is ViT-Base."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, width: int, size: int) -> None:
        from monai.networks.nets.vit import ViT

        patch = max(_PATCH, size // _TOKENS[spatial_dims])
        if size % patch:
            raise ConfigError(
                f"network: a vit needs sizes that are multiples of its patch, got {size} and {patch}; "
                f"make image_px a multiple of {_TOKENS[2]} and volume_voxels one of {_TOKENS[3]}"
            )
        super().__init__()
        hidden = _HIDDEN * width
        self.backbone = ViT(
            in_channels,
            size,
            patch,
            hidden,
            4 * hidden,
            num_heads=_heads(hidden),
            pos_embed_type="sincos",
            spatial_dims=spatial_dims,
            qkv_bias=True,
        )
        self.backbone.patch_embedding.position_embeddings.requires_grad_(True)
        blocks: Any = self.backbone.blocks
        for block in blocks:
            block.attn.use_flash_attention = True  # faster, the same but for rounding; MONAI's ViT does not pass it on
            del block.norm_cross_attn  # MONAI makes it for attention to a second input, and never uses it here
        self.lateral = _CONVOLUTIONS[spatial_dims](hidden, out_channels, 1)
        self.mode, self.grid = _MODES[spatial_dims], (size // patch,) * spatial_dims

    def encode(self, x: Tensor) -> Tensor:
        """See :class:`Encoder`."""
        tokens, _ = self.backbone(x)
        out = self.lateral(tokens.mT.unflatten(2, self.grid))
        quarter = [n // _PATCH for n in x.shape[2:]]
        return out if list(self.grid) == quarter else F.interpolate(out, quarter, mode=self.mode, align_corners=False)


def _heads(hidden: int) -> int:
    """As many as leave each at least its usual channels; tiny networks have the fewest."""
    return max(h for h in _HEADS if h == min(_HEADS) or h * _HEAD_CHANNELS <= hidden)


_BUILDERS: dict[str, Callable[[int, int, int, int, int], Encoder]] = {
    "resnet18": lambda dims, ins, outs, width, _: ResNetEncoder("basic", [2, 2, 2, 2], dims, ins, outs, width),
    "resnet50": lambda dims, ins, outs, width, _: ResNetEncoder("bottleneck", [3, 4, 6, 3], dims, ins, outs, width),
    "densenet121": lambda dims, ins, outs, width, _: DenseNetEncoder(dims, ins, outs, width),
    "vit": TransformerEncoder,
}


def build_encoder(name: str, spatial_dims: int, in_channels: int, out_channels: int, width: int, size: int) -> Encoder:
    """An encoder by name.

    Args:
        name: ``resnet18``, ``resnet50``, ``densenet121`` or ``vit``.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: of the input.
        out_channels: of the feature map.
        width: channels of the first stage; 64 is the size that was published under the name.
        size: pixels or voxels of the input along each axis.

    Raises:
        ConfigError: nobody knows the name, or the encoder cannot take this size.
    """
    if name not in _BUILDERS:
        raise ConfigError(f"network.encoder: {name!r} is unknown; known are {', '.join(_BUILDERS)}")
    return _BUILDERS[name](spatial_dims, in_channels, out_channels, width, size)
