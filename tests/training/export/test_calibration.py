"""Calibration: tiles of training images, and what convolutions read and gave on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.architecture import Architecture
from model.errors import ImageChannelsRefused
from model.intensity import IntensityRule
from tests.training.networks import drawn, manifest_for
from training.data.dataset import AnnotatedImage
from training.data.labels import objects_of
from training.export.calibration import draw_tiles, observe

ONE_LEVEL = manifest_for(drawn(Architecture(depth=1, base_channels=1)))


def dots(seed: int, edge: int = 700) -> AnnotatedImage:
    """Draw one dot, a thousandth of the image, that is brighter than all else."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 100, (1, edge, edge), np.uint8)
    semantic = np.zeros((edge, edge), np.uint8)
    row, column = random.integers(0, edge - 22, 2)
    semantic[row : row + 22, column : column + 22] = 1
    image[0, semantic == 1] = 255
    return AnnotatedImage(f"dots-{seed}", image, semantic, objects_of(semantic))


def test_the_same_tiles_are_drawn_every_time() -> None:
    images = [dots(0), dots(1)]
    first, second = (list(draw_tiles(images, ONE_LEVEL, 5)) for _ in range(2))
    assert len(first) == 5
    np.testing.assert_array_equal(first, second)


def test_tiles_are_of_one_size_and_on_the_scale_of_the_service() -> None:
    for tile in draw_tiles([dots(0), dots(1, edge=40)], ONE_LEVEL, 4):
        assert tile.shape == (1, 1, 572, 572)
        assert tile.dtype == np.float32
        assert (tile.min(), tile.max()) == (-1, 1)


def test_a_tile_reaches_over_the_border_of_its_image_by_mirroring_it() -> None:
    """Every pixel of this image has a value of its own: the one in the centre tells the place."""
    edge, half = 40, 286
    image = np.arange(edge * edge, dtype=np.uint16).reshape(1, edge, edge)
    manifest = ONE_LEVEL.model_copy(update={"intensity": IntensityRule(low=0, high=100)})
    scaled = manifest.intensity.measure(image).apply(image)[0]
    nothing = np.zeros((edge, edge), np.uint8)
    entry = AnnotatedImage("a", image, nothing, nothing.astype(np.int32))
    mirrored = np.pad(scaled, half, "reflect")
    for tile in draw_tiles([entry], manifest, 3):
        (row,), (column,) = np.nonzero(scaled == tile[0, 0, half, half])
        expected = mirrored[row : row + 2 * half, column : column + 2 * half]
        np.testing.assert_array_equal(tile[0, 0], expected)


def test_every_other_tile_is_centred_on_an_object() -> None:
    """By chance, 1 in 1000 would be."""
    images = [dots(seed) for seed in range(6)]
    centres = [tile[0, 0, 286, 286] for tile in draw_tiles(images, ONE_LEVEL, 12)]
    assert centres[::2] == [1] * 6


class Watched(Sequence[AnnotatedImage]):
    """Images that remember which of them were asked for."""

    def __init__(self, images: Sequence[AnnotatedImage]) -> None:
        self.images = images
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        return self.images[index]


@pytest.mark.parametrize(("count", "asked"), [(3, [0, 4, 8]), (18, list(range(9)))])
def test_tiles_are_spread_over_all_images_each_read_once(count: int, asked: list[int]) -> None:
    images = Watched([dots(0, edge=40)] * 9)
    assert len(list(draw_tiles(images, ONE_LEVEL, count))) == count
    assert images.asked == asked


def test_grey_images_are_replicated_for_a_network_of_colour() -> None:
    manifest = manifest_for(drawn(Architecture(in_channels=3, depth=1, base_channels=1)))
    (tile,) = draw_tiles([dots(0)], manifest, 1)
    assert tile.shape[1] == 3
    np.testing.assert_array_equal(tile[0, 0], tile[0, 2])


def test_statistics_are_those_of_the_layers_run_by_hand() -> None:
    network = drawn(Architecture(depth=1, base_channels=2))
    random = torch.Generator().manual_seed(0)
    tiles = [torch.randn(1, 1, 24, 24, generator=random) for _ in range(3)]
    found = observe(network, [tile.numpy() for tile in tiles])
    first, second = (network.get_submodule(f"contracting.0.{place}") for place in (0, 2))
    with torch.no_grad():
        given = torch.cat([first(tile) for tile in tiles]).double()
        behind = second(functional.relu(given.float())).double()
    axes = (0, 2, 3)
    np.testing.assert_allclose(found["contracting.0.0"].lowest, given.amin(axes))
    np.testing.assert_allclose(found["contracting.0.0"].highest, given.amax(axes))
    np.testing.assert_allclose(found["contracting.0.2"].mean_in, given.relu().mean(axes), rtol=1e-5)
    np.testing.assert_allclose(found["contracting.0.2"].highest, behind.amax(axes), rtol=1e-5)


def test_every_convolution_is_observed_and_none_any_more_afterwards() -> None:
    network = drawn(Architecture(depth=2, base_channels=1))
    tile = np.zeros((1, 1, 76, 76), np.float32)
    found = observe(network, [tile])
    assert {f"{name}.weight" for name in found} == {
        name for name, _ in network.named_parameters() if name.endswith("weight")
    }
    assert not any(module._forward_hooks for module in network.modules())


def test_a_tile_that_cannot_be_run_leaves_the_network_unobserved() -> None:
    network = drawn(Architecture(depth=1, base_channels=1))
    with pytest.raises(RuntimeError):
        observe(network, [np.zeros((1, 2, 24, 24), np.float32)])
    assert not any(module._forward_hooks for module in network.modules())


def test_images_of_other_channels_are_refused() -> None:
    image = dots(0)
    two = AnnotatedImage("two", np.concatenate([image.image] * 2), image.semantic, image.objects)
    with pytest.raises(ImageChannelsRefused):
        next(draw_tiles([two], ONE_LEVEL, 1))
