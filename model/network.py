"""The network of figure 1, read from top left over the bottom to top right.

                 skip connection, centre crop
    tile ─▶ ▮▮ ─────────────────────────────▶ ▮▮ ─▶ 1×1 ─▶ logits
            ↓ 2×2 max pooling                 ↑ 2×2 up-convolution
             ▮▮ ──────────────────────────▶ ▮▮
              ↓                             ↑
               ▮▮ ───────────────────────▶ ▮▮        ▮▮ two 3×3 valid convolutions,
                ↓                          ↑            each with a ReLU
                 ▮▮ ────────────────────▶ ▮▮
                  ↓                       ↑
                   ────────▶ ▮▮ ──────────

Source: Ronneberger et al. 2015, section 2 and figure 1.
"""

import math

import torch
from torch import Tensor, nn

from model.architecture import Architecture
from model.geometry import Geometry, up_channels

DROPOUT = 0.5


class UNet(nn.Module):
    """A U-Net of valid convolutions."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        depth = architecture.depth
        channels = [architecture.channels(level) for level in range(depth + 1)]
        up = [up_channels(architecture, level) for level in range(depth)]
        incoming = [architecture.in_channels, *channels]

        self.architecture = architecture
        self.crops = Geometry(depth).skip_crops()
        self.contracting = nn.ModuleList(
            double_convolution(incoming[level], channels[level]) for level in range(depth + 1)
        )
        self.pooling = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(DROPOUT)
        self.up_convolutions = nn.ModuleList(
            up_convolution(channels[level + 1], up[level], architecture) for level in range(depth)
        )
        self.expansive = nn.ModuleList(
            double_convolution(channels[level] + up[level], channels[level])
            for level in range(depth)
        )
        self.classifier = nn.Conv2d(channels[0], architecture.num_classes, 1)
        self.apply(initialise)

    def forward(self, tile: Tensor) -> Tensor:
        """Give the logits of the tile's inner part.

        Args:
            tile: (N, C, H, W) float, edges as `Geometry.is_valid` asks.

        Returns:
            (N, K, H − 2·halo, W − 2·halo) float, raw logits in training and evaluation alike.
        """
        depth = self.architecture.depth
        skips: list[Tensor] = []
        x = tile
        for level in range(depth):
            x = self.contracting[level](x)  # 64×568², 128×280², 256×136², 512×64²
            if level == depth - 1:
                x = self.dropout(x)
            skips.append(x)
            x = self.pooling(x)
        x = self.dropout(self.contracting[depth](x))  # 1024×28²
        for level in reversed(range(depth)):
            x = self.up_convolutions[level](x)  # 512×56², 256×104², 128×200², 64×392²
            x = torch.cat([centre_crop(skips[level], self.crops[level]), x], dim=1)
            x = self.expansive[level](x)  # 512×52², 256×100², 128×196², 64×388²
        logits: Tensor = self.classifier(x)  # 2×388²
        return logits


def double_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3 valid convolutions, each with a ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3),
        nn.ReLU(inplace=True),
    )


def up_convolution(in_channels: int, out_channels: int, architecture: Architecture) -> nn.Module:
    """A 2×2 up-convolution; the authors' release has a ReLU after it."""
    convolution = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
    if architecture.variant == "paper":
        return convolution
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


def centre_crop(skip: Tensor, crop: int) -> Tensor:
    """Cut `crop` px from every side of (N, C, H, W)."""
    return skip[:, :, crop:-crop, crop:-crop]


def initialise(module: nn.Module) -> None:
    """Draw weights from a Gaussian of standard deviation √(2/N), N incoming nodes a neuron.

    In a 2×2 up-convolution of stride 2 every output pixel sees one input pixel, so N is the number
    of its input channels.

    Source: Ronneberger et al. 2015, section 3; He et al. 2015.
    """
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return
    nodes = module.in_channels
    if isinstance(module, nn.Conv2d):
        nodes *= math.prod(module.kernel_size)
    nn.init.normal_(module.weight, std=math.sqrt(2 / nodes))
    if module.bias is not None:
        nn.init.zeros_(module.bias)
