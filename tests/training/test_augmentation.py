"""Training tiles against the tiler's crops, and labels against the pixels they were drawn on."""

import math

import numpy as np
import pytest
import torch

from model.geometry import Geometry
from model.tiling import Region, extract
from training import augmentation
from training.augmentation import (
    ELASTIC_SIGMA,
    Batch,
    TrainingImage,
    compose,
    displacements,
    draw_batch,
    rotations,
    vary_intensity,
)

GEOMETRY = Geometry(2)
EDGE = 60


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unvaried(tiles: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Stand in for the variation of intensity."""
    return tiles


def noise_image(height: int, width: int, seed: int = 0) -> TrainingImage:
    """Draw pixels of two channels, classes 0, 1 and 4, and weights 0.5 and 2."""
    random = seeded(seed)
    pixels = torch.rand(2, height, width, generator=random) * 2 - 1
    classes = torch.tensor([0.0, 1.0, 4.0])[torch.randint(3, (height, width), generator=random)]
    weights = torch.tensor([0.5, 2.0])[torch.randint(2, (height, width), generator=random)]
    return TrainingImage(pixels, torch.stack([classes, weights]))


def coordinate_image(height: int, width: int) -> TrainingImage:
    """Make every pixel say where it lies: row and column, in the pixels and in the targets."""
    rows, columns = torch.meshgrid(
        torch.arange(height).float(), torch.arange(width).float(), indexing="ij"
    )
    where = torch.stack([rows, columns])
    return TrainingImage(where, where.clone())


def draw(image: TrainingImage, size: int = 4, seed: int = 0) -> Batch:
    return draw_batch([image], size, EDGE, GEOMETRY, seeded(seed))


@pytest.mark.parametrize(
    ("height", "width"), [(90, 80), (50, 70), (13, 90), (9, 5), (1, 7), (1, 1)]
)
def test_a_tile_that_is_not_warped_is_the_crop_of_the_tiler(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    """The crop reaches over the border of all but the largest image, some of them many times."""
    image = noise_image(height, width)
    region = Region(-11, 3, EDGE - 11, EDGE + 3)
    middle = torch.tensor([[region.top + EDGE / 2 - 0.5, region.left + EDGE / 2 - 0.5]])
    still = compose(middle, torch.eye(2)[None], torch.zeros(1, EDGE, EDGE, 2))
    monkeypatch.setattr(augmentation, "warp", lambda *_: still)
    monkeypatch.setattr(augmentation, "vary_intensity", unvaried)
    batch = draw(image, size=1)
    halo = slice(GEOMETRY.halo, EDGE - GEOMETRY.halo)
    targets = extract(image.targets.numpy(), region)[:, halo, halo]
    np.testing.assert_allclose(batch.tiles[0], extract(image.pixels.numpy(), region), atol=1e-4)
    np.testing.assert_array_equal(batch.labels[0], targets[0])
    np.testing.assert_array_equal(batch.weights[0], targets[1])


def test_a_quarter_turn_reads_down_the_columns_and_a_displacement_is_not_turned() -> None:
    quarter = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])
    shifts = torch.zeros(1, 3, 3, 2)
    shifts[0, 0, 0] = torch.tensor([0.25, 0.0])
    (places,) = compose(torch.tensor([[10.0, 20.0]]), quarter, shifts)
    assert places[0].tolist() == [[9.25, 21.0], [10.0, 21.0], [11.0, 21.0]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("height", "width"), [(200, 150), (40, 90)])
def test_labels_and_weights_lie_on_the_pixels_that_they_were_drawn_on(
    monkeypatch: pytest.MonkeyPatch, seed: int, height: int, width: int
) -> None:
    """Pixels say where they come from exactly, labels to the nearest pixel."""
    monkeypatch.setattr(augmentation, "vary_intensity", unvaried)
    batch = draw(coordinate_image(height, width), seed=seed)
    inner = batch.tiles[:, :, GEOMETRY.halo : -GEOMETRY.halo, GEOMETRY.halo : -GEOMETRY.halo]
    assert (inner[:, 0] - batch.labels).abs().max() <= 0.5 + 1e-3
    assert (inner[:, 1] - batch.weights).abs().max() <= 0.5 + 1e-3


def test_a_batch_has_the_shapes_and_types_that_a_step_needs() -> None:
    batch = draw(noise_image(90, 80))
    output_edge = GEOMETRY.output_edge(EDGE)
    assert (batch.tiles.shape, batch.tiles.dtype) == ((4, 2, EDGE, EDGE), torch.float32)
    assert (batch.labels.shape, batch.labels.dtype) == ((4, output_edge, output_edge), torch.int64)
    assert (batch.weights.shape, batch.weights.dtype) == (batch.labels.shape, torch.float32)


@pytest.mark.parametrize("seed", range(5))
def test_a_warp_makes_no_class_and_no_weight_that_the_image_does_not_have(seed: int) -> None:
    batch = draw(noise_image(30, 80), seed=seed)
    assert set(batch.labels.flatten().tolist()) == {0, 1, 4}
    assert set(batch.weights.flatten().tolist()) == {0.5, 2.0}


def test_the_same_seed_gives_the_same_batch() -> None:
    images = [noise_image(90, 80), noise_image(50, 70, seed=1)]
    first, second = (draw_batch(images, 4, EDGE, GEOMETRY, seeded(3)) for _ in range(2))
    assert torch.equal(first.tiles, second.tiles)
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.weights, second.weights)


def test_another_seed_gives_another_batch() -> None:
    image = noise_image(90, 80)
    assert not torch.equal(draw(image, seed=3).labels, draw(image, seed=4).labels)


def test_tiles_are_drawn_from_every_image() -> None:
    images = [
        TrainingImage(torch.zeros(1, 30, 30), torch.full((2, 30, 30), float(label)))
        for label in range(3)
    ]
    labels = draw_batch(images, 60, EDGE, GEOMETRY, seeded()).labels
    counts = torch.bincount(labels[:, 0, 0], minlength=3)
    assert counts.min() >= 10


def test_displacements_have_a_deviation_of_10_px_where_they_are_drawn() -> None:
    nodes = displacements(4000, 5, seeded())[:, ::2, ::2]
    assert ELASTIC_SIGMA == 10.0
    assert float(nodes.std()) == pytest.approx(10.0, rel=0.02)
    assert float(nodes.mean()) == pytest.approx(0.0, abs=0.15)


def test_displacements_are_smooth_between_the_nine_that_are_drawn() -> None:
    shifts = displacements(50, 101, seeded())
    steps = torch.cat([shifts.diff(dim=1).flatten(), shifts.diff(dim=2).flatten()])
    assert float(steps.abs().max()) < 0.1 * ELASTIC_SIGMA * 4


def test_rotations_keep_lengths_and_angles() -> None:
    turns = rotations(500, seeded())
    torch.testing.assert_close(turns @ turns.mT, torch.eye(2).expand(500, 2, 2))


def test_half_of_the_rotations_are_flipped() -> None:
    signs = torch.linalg.det(rotations(2000, seeded()))
    torch.testing.assert_close(signs.abs(), torch.ones(2000))
    assert float((signs < 0).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_rotations_turn_by_any_angle() -> None:
    turns = rotations(4000, seeded())
    angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
    counts = torch.histc(angles, bins=8, min=-math.pi, max=math.pi)
    assert counts.min() > 400


def test_brightness_varies_from_tile_to_tile() -> None:
    means = vary_intensity(torch.zeros(200, 1, 8, 8), seeded()).mean(dim=(1, 2, 3))
    assert float(means.std()) == pytest.approx(augmentation.BRIGHTNESS_SIGMA, rel=0.2)


def test_contrast_varies_from_tile_to_tile_and_keeps_its_sign() -> None:
    tiles = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).repeat(200, 1, 16, 16)
    varied = vary_intensity(tiles, seeded())
    contrast = (varied[..., 1::2].mean(dim=(1, 2, 3)) - varied[..., ::2].mean(dim=(1, 2, 3))) / 2
    assert float(contrast.log().std()) == pytest.approx(augmentation.CONTRAST_SIGMA, rel=0.2)
