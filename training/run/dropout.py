"""Dropout that does not depend on which tiles share a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.tiles.augmentation import generator


class TileDropout(nn.Module):
    """Dropout whose mask each tile draws for itself, from the numbers that name the tile.

    So a step repeats exactly after a resume, and two processes with one tile each drop what one
    process with two tiles drops.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self._random: list[torch.Generator] = []

    def begin(self, seed: int, step: int, places: Sequence[int]) -> None:
        """Name the tiles of the next forward pass."""
        self._random = [generator(seed, step, place, 1) for place in places]

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of (N, C, H, W) in training, and scale up those that are kept."""
        if not self.training:
            return x
        keep = 1 - self.probability
        masks = [torch.rand(x.shape[1:], generator=random) < keep for random in self._random]
        return x * torch.stack(masks).to(x.device, x.dtype) / keep
