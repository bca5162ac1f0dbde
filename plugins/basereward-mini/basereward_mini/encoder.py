"""The frozen image encoder: EfficientNet-Lite0 without its classifier, and the views of an image it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from basereward_mini import assets

MEAN, STD = 0.5, 0.5
"""EfficientNet-Lite's own normalization, of pixels in 0 to 1."""
CHANNELS = 1280


class ImageEncoder(nn.Module):
    """EfficientNet-Lite0, its batch norms folded into the convolutions before them; never trained.

    Args:
        state: Weights of the whole network, batch norms and classifier included; None for random ones.
    """

    def __init__(self, state: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.network: Any = EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
        if state is not None:
            self.network.load_state_dict(state, strict=True)
        del self.network._fc
        self._fold()

    @classmethod
    def pretrained(cls) -> ImageEncoder:
        """Return the encoder with the weights of the installed package."""
        return cls(torch.load(assets.EFFICIENTNET.find(), map_location="cpu", weights_only=True))

    def _fold(self) -> None:
        network = self.network
        pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
        for block in network._blocks:
            names = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
            pairs += [(block, conv, norm) for conv, norm in names if conv in block._modules]
        for module, conv, norm in pairs:
            setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
            setattr(module, norm, nn.Identity())
        network.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor, grid: int) -> Tensor:
        """Return the pooled grids [n, grid * grid, channels] of images [n, 3, side, side]."""
        states = self.network.extract_features(pixels)  # [n, channels, height, width]
        return functional.adaptive_avg_pool2d(states, grid).flatten(2).transpose(1, 2)


def views(pixels: Tensor, num_views: int) -> Tensor:  # [side, side, 3] uint8 -> [views, 3, side, side]
    """Return the first views of an image: as it is, enlarged, shifted, mirrored."""
    scaled = (pixels.permute(2, 0, 1)[None].float() / 255 - MEAN) / STD
    return torch.cat([view(scaled) for view in VIEWS[:num_views]]).contiguous(
        memory_format=torch.channels_last
    )


def _same(pixels: Tensor) -> Tensor:
    return pixels


def _mirrored(pixels: Tensor) -> Tensor:
    return pixels.flip(-1)


def _shifted(pixels: Tensor) -> Tensor:
    return pixels.roll((pixels.shape[-2] // 16, -(pixels.shape[-1] // 12)), (-2, -1))


def _enlarged(pixels: Tensor) -> Tensor:
    edge = pixels.shape[-1] // 10
    inner = pixels[..., edge:-edge, edge:-edge]
    return functional.interpolate(inner, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


VIEWS = (_same, _enlarged, _shifted, _mirrored)
