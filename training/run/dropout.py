"""Dropout that does not depend on which tiles share a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.tiles.augmentation import generator

CPU = torch.device("cpu")


class TileDropout(nn.Module):
    """Dropout whose mask each tile draws for itself, from the numbers that name the tile.

    So a step repeats exactly after a resume, and two processes with one tile each drop what one
    process with two tiles drops.
    """

    def __init__(self, probability: float, device: torch.device = CPU) -> None:
        super().__init__()
        self.probability = probability
        self.device = device
        self._random: list[torch.Generator] = []

    def begin(self, seed: int, step: int, places: Sequence[int]) -> None:
        """Name the tiles of the next forward pass."""
        seeds = (generator(seed, step, place, 1).initial_seed() for place in places)
        self._random = [torch.Generator(self.device).manual_seed(number) for number in seeds]

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of (N, C, H, W) in training, and scale up those that are kept."""
        if not self.training:
            return x
        keep = 1 - self.probability
        masks = [
            torch.rand(x.shape[1:], generator=random, device=self.device) < keep
            for random in self._random
        ]
        return x * torch.stack(masks).to(x.dtype) / keep
