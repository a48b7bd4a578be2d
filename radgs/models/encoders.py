"""Encoders by name: images or volumes to one feature map at a quarter of their size."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn

from radgs.errors import ConfigError

_LAYERS = {"resnet18": (2, 2, 2, 2)}
_MODES = {2: "bilinear", 3: "trilinear"}


class PyramidEncoder(nn.Module):
    """A MONAI ResNet whose last three stages are summed top-down (Lin et al. 2017, feature pyramids).

    The stem halves the size and nothing is pooled after it: on windows of 64 pixels a pose of a few mm is a matter of
    single pixels.
    """

    def __init__(
        self, layers: Sequence[int], spatial_dims: int, in_channels: int, out_channels: int, width: int
    ) -> None:
        super().__init__()
        planes = [width * 2**i for i in range(4)]
        self.backbone = ResNet(
            ResNetBlock,
            list(layers),
            planes,
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_size=5,
            conv1_t_stride=2,
            no_max_pool=True,
            feed_forward=False,
        )
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        self.lateral = nn.ModuleList([conv(p, out_channels, 1) for p in planes[1:]])
        self.mode = _MODES[spatial_dims]

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in, *size]`` to ``[B, out, *size / 4]``."""
        b = self.backbone
        x = b.layer1(b.act(b.bn1(b.conv1(x))))
        stages = []
        for layer in (b.layer2, b.layer3, b.layer4):
            x = layer(x)
            stages.append(x)
        out = self.lateral[2](stages[2])
        for lateral, stage in ((self.lateral[1], stages[1]), (self.lateral[0], stages[0])):
            out = lateral(stage) + F.interpolate(out, size=stage.shape[2:], mode=self.mode, align_corners=False)
        return out


def build_encoder(name: str, spatial_dims: int, in_channels: int, out_channels: int, width: int) -> PyramidEncoder:
    """An encoder by name.

    Args:
        name: ``resnet18``.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: of the input.
        out_channels: of the feature map.
        width: channels of the first stage; the k-th stage has ``width * 2**k``.

    Returns:
        A module that maps ``[B, in, *size]`` to ``[B, out, *size / 4]``.

    Raises:
        ConfigError: nobody knows the name.
    """
    if name not in _LAYERS:
        raise ConfigError(f"network.encoder: {name!r} is unknown; known are {', '.join(_LAYERS)}")
    return PyramidEncoder(_LAYERS[name], spatial_dims, in_channels, out_channels, width)
