"""What the convolutions of a network read and give on training images."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.artefact import Manifest
from model.intensity import match_channels
from model.network import UNet
from model.tiling import Region, extract
from training.data.dataset import AnnotatedImage

TILES = 32
"""Tiles to calibrate on."""
TILE_EDGE = 572
"""Figure 1's input edge, in px; at other depths, the next smaller one."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a convolution read and gave, channel by channel."""

    mean_in: NDArray[np.float64]
    """(C_in,) mean of what it read, over all tiles and pixels."""
    lowest: NDArray[np.float64]
    """(C_out,) smallest value that it gave, before its ReLU."""
    highest: NDArray[np.float64]
    """(C_out,) largest value that it gave."""


Calibration = dict[str, Statistics]
"""Of every convolution, by the name that its module has in the network."""


def tile_edge(manifest: Manifest) -> int:
    """Give the input edge of the tiles that a network is calibrated and timed on, in px."""
    return manifest.geometry.edge_at_most(max(TILE_EDGE, manifest.geometry.smallest_edge))


def draw_tiles(
    images: Sequence[AnnotatedImage], manifest: Manifest, count: int = TILES
) -> Iterator[NDArray[np.float32]]:
    """Draw tiles at random, the same ones every time, spread over all images.

    Every other tile is centred on an object, so that small objects in much background count.

    Returns:
        (1, C, h, w) tiles, scaled as the service scales them.
    """
    random = np.random.default_rng(0)
    edge = tile_edge(manifest)
    chosen, counts = np.unique(
        np.linspace(0, len(images) - 1, count).round().astype(int), return_counts=True
    )
    turns = itertools.cycle((True, False))
    for index, times in zip(chosen.tolist(), counts.tolist(), strict=True):
        entry = images[index]
        pixels = match_channels(entry.image, manifest.architecture.in_channels)
        scale = manifest.intensity.measure(pixels)
        places = np.flatnonzero(entry.semantic)
        for on_object in itertools.islice(turns, times):
            anywhere = not (on_object and len(places))
            place = random.integers(entry.semantic.size) if anywhere else random.choice(places)
            row, column = np.unravel_index(place, entry.semantic.shape)
            top, left = int(row) - edge // 2, int(column) - edge // 2
            region = Region(top, left, top + edge, left + edge)
            yield scale.apply(extract(pixels, region))[np.newaxis]


def observe(network: UNet, tiles: Iterable[NDArray[np.float32]]) -> Calibration:
    """Run a network on tiles (1, C, h, w) of one size; keep what its convolutions read and give."""
    seen: dict[str, list[Statistics]] = {}

    def watch(name: str, convolution: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_module: nn.Module, read: tuple[Tensor], given: Tensor) -> None:
            summaries = (read[0].mean((0, 2, 3)), given.amin((0, 2, 3)), given.amax((0, 2, 3)))
            statistics = Statistics(*(summary.double().numpy() for summary in summaries))
            seen.setdefault(name, []).append(statistics)

        return convolution.register_forward_hook(note)

    handles = [
        watch(name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    try:
        with torch.inference_mode():
            for tile in tiles:
                network(torch.from_numpy(tile))
    finally:
        for handle in handles:
            handle.remove()
    return {name: _over_all(statistics) for name, statistics in seen.items()}


def _over_all(statistics: Sequence[Statistics]) -> Statistics:
    return Statistics(
        np.mean([tile.mean_in for tile in statistics], axis=0),
        np.min([tile.lowest for tile in statistics], axis=0),
        np.max([tile.highest for tile in statistics], axis=0),
    )
