"""Training tiles against a plain reading of the whole image, and labels against its pixels."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from model.geometry import Geometry
from model.intensity import ChannelScales, IntensityScale
from model.tiling import Region, extract
from tests.training.small import CPU, DEPTH, EDGE, make_plan, make_sampler, stored
from training.tiles import augmentation
from training.tiles.augmentation import (
    ELASTIC_SIGMA,
    Sampler,
    Warp,
    draw_warp,
    generator,
    mirror,
    ridges,
    rotation,
    sample,
    vary_intensity,
    window,
)
from training.tiles.store import IGNORED, StoredImage

GEOMETRY = Geometry(DEPTH)
HALO = GEOMETRY.halo
INNER = np.s_[HALO : EDGE - HALO, HALO : EDGE - HALO]
STILL = torch.zeros(2, 3, 3)
SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70))
ANGLES = st.floats(0, 2 * math.pi)
ZOOMS = st.floats(0.5, 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_image(height: int, width: int, channels: int = 2, seed: int = 0) -> StoredImage:
    """Draw pixels, objects of classes 0 to 3 from pixel to pixel, some ignored, and borders."""
    random = np.random.default_rng(seed)
    classes = [0, 1, 2, 3, 1, 2]
    return stored(
        random.uniform(-1, 1, (channels, height, width)).astype(np.float32),
        random.integers(IGNORED, len(classes), (height, width)).astype(np.int32),
        random.uniform(0, 10, (height, width)).astype(np.float16),
        classes,
    )


def ramps(height: int, width: int) -> StoredImage:
    """Make every pixel say where it lies, and be an object of its own."""
    rows, columns = np.indices((height, width)).astype(np.float32)
    ids = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    image = stored(np.stack([rows, columns]), ids)
    return StoredImage(
        image.pixels, ids, image.borders, image.classes, image.centres, IntensityScale(-500, 500)
    )


def warp_at(
    centre: tuple[float, float], angle: float = 0.0, zoom: float = 1.0, seed: int | None = None
) -> Warp:
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    bend = STILL if seed is None else torch.randn(2, 3, 3, generator=seeded(seed)) * ELASTIC_SIGMA
    return Warp(torch.tensor(centre), torch.tensor([[cosine, -sine], [sine, cosine]]), bend / zoom)


@st.composite
def images_and_warps(draw: st.DrawFn) -> tuple[tuple[int, int], Warp]:
    """Draw the size of an image and a warp whose centre lies in it, often on its border."""
    size = draw(SIZES)
    shares = [draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))) for _ in size]
    centre = tuple(share * (edge - 1) for share, edge in zip(shares, size, strict=True))
    seed = draw(st.one_of(st.none(), st.integers(0, 1000)))
    return size, warp_at((centre[0], centre[1]), draw(ANGLES), draw(ZOOMS), seed)


def keys_weights(offset: float) -> list[float]:
    """Weigh the four nodes around a place by cubic convolution with a = −0.75 (Keys 1981)."""
    a = -0.75
    near = [(a + 2) * d**3 - (a + 3) * d**2 + 1 for d in (offset, 1 - offset)]
    far = [a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a for d in (1 + offset, 2 - offset)]
    return [far[0], near[0], near[1], far[1]]


def naive_places(warp: Warp, edge: int) -> NDArray[np.float64]:
    """Follow a warp pixel by pixel, in double precision."""
    turn, bend = warp.turn.double().numpy(), warp.bend.double().numpy()
    smoothing = np.zeros((edge, 3))
    for place in range(edge):
        node = place * 2 / (edge - 1)
        first = min(math.floor(node), 1)
        for step, weight in enumerate(keys_weights(node - first), first - 1):
            smoothing[place, min(max(step, 0), 2)] += weight
    smooth = np.einsum("ia,jb,kab->ijk", smoothing, smoothing, bend)
    axis = np.arange(edge) - (edge - 1) / 2
    offsets = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    return np.asarray(np.einsum("kl,ijl->ijk", turn, offsets) + smooth + warp.centre.numpy())


def read_whole(array: Any, places: NDArray[np.float64], order: int) -> NDArray[Any]:
    """Read (H, W) at places, all of it mirrored at its border pixels."""
    where = np.moveaxis(places, -1, 0)
    read: Any = ndimage.map_coordinates  # its types know no order but a literal one
    found = read(array, where, order=order, mode="mirror")
    return np.asarray(found)


def naive_weights(labels: NDArray[Any], ids: NDArray[Any], borders: NDArray[Any]) -> NDArray[Any]:
    weights = np.array([0.5, 2, 3, 4])[labels] + np.where(labels == 0, borders, 0)
    return np.where(ids == IGNORED, 0, weights)


def is_halfway(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark places where rounding decides which pixel is the nearest."""
    return np.asarray((np.abs(places % 1 - 0.5) < 1e-3).any(axis=-1))


class TestAgainstTheWholeImage:
    @settings(max_examples=60, deadline=None)
    @given(images_and_warps())
    def test_pixels_are_those_of_the_whole_mirrored_image(
        self, drawn: tuple[tuple[int, int], Warp]
    ) -> None:
        size, warp = drawn
        image = noise_image(*size)
        pixels, _, _ = make_sampler([image]).cut(image, warp)
        places = naive_places(warp, EDGE)
        expected = [read_whole(channel, places, order=1) for channel in image.pixels]
        np.testing.assert_allclose(pixels.numpy(), expected, rtol=0, atol=2e-4)

    @settings(max_examples=60, deadline=None)
    @given(images_and_warps())
    def test_labels_and_weights_are_those_of_the_nearest_pixel_of_the_whole_mirrored_image(
        self, drawn: tuple[tuple[int, int], Warp]
    ) -> None:
        size, warp = drawn
        image = noise_image(*size)
        _, labels, weights = make_sampler([image], make_plan(ridges=False)).cut(image, warp)
        places = naive_places(warp, EDGE)[INNER]
        ids, borders = (
            read_whole(array.astype(np.float32), places, order=0)
            for array in (image.ids, image.borders)
        )
        sure = ~is_halfway(places)
        expected = np.where(ids == IGNORED, 0, image.classes[ids.astype(int)])
        np.testing.assert_array_equal(labels.numpy()[sure], expected[sure])
        expected = naive_weights(expected, ids, borders)
        np.testing.assert_allclose(weights.numpy()[sure], expected[sure], rtol=1e-6)

    @settings(max_examples=100, deadline=None)
    @given(images_and_warps())
    def test_the_window_holds_every_place_that_a_tile_reads(
        self, drawn: tuple[tuple[int, int], Warp]
    ) -> None:
        size, warp = drawn
        places = mirror(warp.places(EDGE), size).numpy().reshape(-1, 2)
        for axis, (start, stop) in enumerate(window(warp, EDGE, size)):
            assert 0 <= start <= np.floor(places[:, axis].min())
            assert np.ceil(places[:, axis].max()) < stop <= size[axis]

    def test_the_window_of_a_large_image_is_no_larger_than_the_tile_needs(self) -> None:
        """At the border as well: the mirror image of a window is no wider."""
        for centre in ((0.0, 0.0), (0.0, 5000.0), (9999.0, 9999.0)):
            for start, stop in window(warp_at(centre), EDGE, (10_000, 10_000)):
                assert stop - start <= EDGE + 4

    def test_the_places_of_a_warp_are_those_of_its_definition(self) -> None:
        warp = warp_at((30.0, 20.0), 0.7, 1.2, seed=3)
        np.testing.assert_allclose(warp.places(EDGE), naive_places(warp, EDGE), atol=1e-4)

    @pytest.mark.parametrize(("height", "width"), [(90, 80), (20, 70), (9, 5), (1, 7), (1, 1)])
    def test_a_tile_that_is_not_warped_is_the_crop_of_the_tiler(
        self, height: int, width: int
    ) -> None:
        image = noise_image(height, width)
        top, left = (height - 1) // 2 - EDGE // 2 + 1, (width - 1) // 2 - EDGE // 2 + 1
        centre = (top + (EDGE - 1) / 2, left + (EDGE - 1) / 2)
        pixels, _, _ = make_sampler([image]).cut(image, warp_at(centre))
        region = Region(top, left, top + EDGE, left + EDGE)
        np.testing.assert_allclose(pixels, extract(image.pixels, region), atol=1e-4)

    @pytest.mark.parametrize("turns", range(4))
    def test_a_quarter_turn_gives_the_pixels_back_turned_and_nothing_else(self, turns: int) -> None:
        """A second resampling would blur them."""
        image = noise_image(EDGE, EDGE)
        warp = warp_at(((EDGE - 1) / 2, (EDGE - 1) / 2), turns * math.pi / 2)
        pixels, _, _ = make_sampler([image]).cut(image, warp)
        expected = np.rot90(image.pixels, -turns, axes=(1, 2))
        np.testing.assert_allclose(pixels, expected, atol=2e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("height", "width"), [(120, 90), (21, 40)])
def test_labels_lie_on_the_pixels_that_they_were_drawn_on(
    height: int, width: int, seed: int
) -> None:
    """Pixels say where they come from exactly, objects to the nearest pixel."""
    image = ramps(height, width)
    image.classes[:] = np.arange(height * width + 1) % 251
    image.classes[0] = 0
    warp = draw_warp(image, make_plan(), seeded(seed))
    plan = make_plan(ridges=False)
    sampler = make_sampler([image], plan)
    sampler._class_weights = torch.ones(256)
    pixels, labels, _ = sampler.cut(image, warp)
    rows, columns = (pixels * 500).round().long()[(slice(None), *INNER)]
    found = (rows * width + columns + 1) % 251
    distances = (pixels * 500)[(slice(None), *INNER)]
    is_sure = ((distances % 1 - 0.5).abs() > 0.01).all(dim=0)
    assert torch.equal(labels[is_sure], found[is_sure])
    assert is_sure.float().mean() > 0.8


class TestTiles:
    def test_a_step_has_the_shapes_and_types_that_it_needs(self) -> None:
        tiles = make_sampler([noise_image(60, 50)]).draw(0, range(3))
        output_edge = GEOMETRY.output_edge(EDGE)
        assert (tiles.pixels.shape, tiles.pixels.dtype) == ((3, 2, EDGE, EDGE), torch.float32)
        assert (tiles.labels.shape, tiles.labels.dtype) == (
            (3, output_edge, output_edge),
            torch.int64,
        )
        assert (tiles.weights.shape, tiles.weights.dtype) == (tiles.labels.shape, torch.float32)

    def test_a_tile_does_not_depend_on_the_batch_that_it_is_in(self) -> None:
        images = [noise_image(60, 50), noise_image(30, 70, seed=1)]
        whole = make_sampler(images).draw(7, range(4))
        for places in ([2], [3, 1], [0, 1, 2, 3, 4]):
            part = make_sampler(images).draw(7, places)
            for index, place in enumerate(places[:4]):
                assert torch.equal(part.pixels[index], whole.pixels[place])
                assert torch.equal(part.labels[index], whole.labels[place])
                assert torch.equal(part.weights[index], whole.weights[place])

    def test_a_tile_does_not_depend_on_the_steps_drawn_before(self) -> None:
        first, second = (make_sampler([noise_image(60, 50)]) for _ in range(2))
        for step in (5, 0, 9):
            first.draw(step, [0])
        torch.manual_seed(99)
        torch.rand(3)
        np.random.seed(99)  # noqa: NPY002 (the old global state is what is not to matter)
        assert torch.equal(first.draw(2, [1]).pixels, second.draw(2, [1]).pixels)

    @pytest.mark.parametrize(("seed", "step", "place"), [(1, 3, 0), (0, 4, 0), (0, 3, 1)])
    def test_another_seed_step_or_place_gives_another_tile(
        self, seed: int, step: int, place: int
    ) -> None:
        image = noise_image(60, 50)
        one, other = make_sampler([image], seed=0), make_sampler([image], seed=seed)
        assert not torch.equal(one.draw(3, [0]).labels, other.draw(step, [place]).labels)

    def test_numbers_that_add_up_alike_seed_different_generators(self) -> None:
        drawn = {
            float(torch.rand(1, generator=generator(*numbers)))
            for numbers in [
                (0, 1, 2),
                (0, 2, 1),
                (1, 0, 2),
                (0, 0, 3),
                (0, 1, 2, 1),
                (-1, 0, 0),
                (12,),
            ]
        }
        assert len(drawn) == 7

    def test_images_are_drawn_in_proportion_to_the_root_of_their_area(self) -> None:
        """Four times the pixels give twice the chances: small images are not forgotten."""
        ids = np.ones((90, 90), np.int32)
        images = [
            stored(np.zeros((1, edge, edge), np.float32), ids[:edge, :edge], classes=[0, label])
            for edge, label in ((90, 1), (45, 2))
        ]
        sampler = make_sampler(images, make_plan(ridges=False, tile_edge=18))
        labels = sampler.draw(0, range(400)).labels[:, 0, 0]
        assert float((labels == 1).float().mean()) == pytest.approx(2 / 3, abs=0.07)

    def test_grey_among_colour_is_replicated_after_it_was_varied_as_it_is_where_it_is_served(
        self,
    ) -> None:
        colour, grey = noise_image(40, 40, channels=3), noise_image(40, 40, channels=1)
        tiles = make_sampler([colour, grey]).draw(0, range(40)).pixels
        assert tiles.shape == (40, 3, EDGE, EDGE)
        is_grey = [
            torch.equal(tile[0], tile[1]) and torch.equal(tile[0], tile[2]) for tile in tiles
        ]
        assert 5 < sum(is_grey) < 35

    def test_grey_alone_is_replicated_for_a_network_that_reads_colour(self) -> None:
        tiles = make_sampler([noise_image(40, 40, channels=1)], channels=3).draw(0, range(2)).pixels
        assert tiles.shape == (2, 3, EDGE, EDGE)
        assert torch.equal(tiles[:, 0], tiles[:, 2])

    def test_pixels_are_on_the_scale_of_the_whole_image(self) -> None:
        image = noise_image(40, 40, channels=1)
        other = StoredImage(
            (image.pixels * 1000 + 3000).astype(np.uint16),
            image.ids,
            image.borders,
            image.classes,
            image.centres,
            IntensityScale(2000, 4000),
        )
        warp = warp_at((20.0, 20.0), 0.3)
        found = [make_sampler([entry]).cut(entry, warp)[0] for entry in (image, other)]
        np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1.1e-3)

    def test_each_channel_may_have_a_scale_of_its_own(self) -> None:
        image = noise_image(40, 40, channels=2)
        factors = np.array([1, 50], np.float32)[:, np.newaxis, np.newaxis]
        other = replace(
            image,
            pixels=image.pixels * factors,
            scale=ChannelScales((IntensityScale(-1, 1), IntensityScale(-50, 50))),
        )
        warp = warp_at((20.0, 20.0), 0.3)
        found = [make_sampler([entry]).cut(entry, warp)[0] for entry in (image, other)]
        np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5)


class TestObjects:
    def image(self, count: int = 3) -> StoredImage:
        ids = np.zeros((80, 80), np.int32)
        where = [(10, 70), (40, 8), (66, 60)][:count]
        for number, (row, column) in enumerate(where, 1):
            ids[row - 1 : row + 2, column - 1 : column + 2] = number
        pixels = np.zeros((1, 80, 80), np.float32)
        image = stored(pixels, ids)
        centres = (np.array(where, np.float32),) if where else ()
        return StoredImage(pixels, ids, image.borders, image.classes, centres, image.scale)

    def centres(self, share: float, count: int = 3) -> list[tuple[float, ...]]:
        image = self.image(count)
        plan = make_plan(object_share=share)
        return [tuple(draw_warp(image, plan, seeded(seed)).centre.tolist()) for seed in range(400)]

    def test_every_tile_is_centred_on_an_object_where_all_are_to_be(self) -> None:
        assert set(self.centres(1.0)) == {(10, 70), (40, 8), (66, 60)}

    def test_no_object_is_favoured(self) -> None:
        drawn = self.centres(1.0)
        assert min(drawn.count(centre) for centre in set(drawn)) > 100

    def test_a_class_of_few_objects_is_drawn_as_often_as_one_of_many(self) -> None:
        image = self.image()
        many = np.repeat(image.centres[0][:2], 50, axis=0)
        image = replace(image, centres=(many, image.centres[0][2:]))
        plan = make_plan(object_share=1.0)
        drawn = [draw_warp(image, plan, seeded(seed)).centre.tolist() for seed in range(400)]
        assert drawn.count([66, 60]) / 400 == pytest.approx(0.5, abs=0.08)

    def test_the_share_of_the_tiles_on_objects_is_the_one_planned(self) -> None:
        objects = {(10.0, 70.0), (40.0, 8.0), (66.0, 60.0)}
        share = sum(centre in objects for centre in self.centres(0.3)) / 400
        assert share == pytest.approx(0.3, abs=0.07)

    @pytest.mark.parametrize(("share", "count"), [(0.0, 3), (1.0, 0)])
    def test_other_tiles_lie_anywhere_in_the_image(self, share: float, count: int) -> None:
        """As do those of an image without an object."""
        drawn = np.array(self.centres(share, count))
        assert drawn.min() >= 0
        assert drawn.max() <= 79
        counts, _, _ = np.histogram2d(
            drawn[:, 0], drawn[:, 1], bins=2, range=[[0.0, 79.0], [0.0, 79.0]]
        )
        assert counts.min() > 70

    def test_a_tile_centred_on_an_object_has_it_in_its_middle(self) -> None:
        image = self.image(1)
        plan = make_plan(object_share=1.0, elastic=False, largest_zoom=1.0)
        sampler = make_sampler([image], plan)
        labels = sampler.draw(0, range(20)).labels
        middle = slice(labels.shape[1] // 2 - 1, labels.shape[1] // 2 + 1)
        assert labels[:, middle, middle].amax((1, 2)).tolist() == [1] * 20


class TestRidges:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), st.integers(2, 6))
    def test_components_of_what_is_left_hold_one_object_each(self, seed: int, cell: int) -> None:
        """Objects that fill the plane: each touches others all around."""
        random = np.random.default_rng(seed)
        ids = np.kron(random.integers(0, 9, (6, 6)), np.ones((cell, cell), int)).astype(np.int32)
        kept = np.where(ridges(torch.from_numpy(ids)).numpy(), 0, ids)
        components, count = ndimage.label(kept > 0)
        for component in range(1, count + 1):
            assert len(np.unique(kept[components == component])) == 1

    def test_a_ridge_is_one_pixel_wide(self) -> None:
        ids = torch.tensor([[1, 1, 1, 2, 2, 2]] * 3)
        assert ridges(ids).tolist() == [[False, False, True, False, False, False]] * 3

    def test_an_object_that_touches_no_other_keeps_every_pixel(self) -> None:
        ids = torch.tensor([[1, 1, 0, 2], [0, 0, 0, 2], [IGNORED, 3, 3, 0]])
        assert not ridges(ids).any()

    @pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0])
    @pytest.mark.parametrize("angle", [0.0, 0.4])
    def test_touching_objects_are_apart_in_a_tile_of_any_zoom(
        self, zoom: float, angle: float
    ) -> None:
        """Ridges that the data set had drawn would vanish in tiles that are zoomed out."""
        ids = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((9, 9), int)).astype(np.int32)
        image = stored(np.zeros((1, 72, 72), np.float32), ids)
        warp = warp_at((35.5, 35.5), angle, zoom)
        cut = [
            make_sampler([image], make_plan(ridges=drawn, tile_edge=48)).cut(image, warp)[1]
            for drawn in (True, False)
        ]
        places = naive_places(warp, 48)[HALO:-HALO, HALO:-HALO]
        in_tile = read_whole(ids, places, order=0)
        assert cut[1].min() == 1
        count = ndimage.label(cut[0].numpy())[1]
        assert count >= len(np.unique(in_tile[cut[0].numpy() > 0]))
        background = int((cut[0] == 0).sum())
        assert 0 < background < cut[0].numel() * (0.45 if zoom == 0.5 else 0.3)

    def test_ridges_carry_the_border_term_and_the_weight_of_background(self) -> None:
        ids = np.repeat([[1] * 20 + [2] * 20], 40, axis=0).astype(np.int32)
        borders = np.full((40, 40), 7, np.float16)
        image = stored(np.zeros((1, 40, 40), np.float32), ids, borders)
        _, labels, weights = make_sampler([image]).cut(image, warp_at((19.5, 19.5)))
        assert (labels == 0).sum(dim=1).tolist() == [1] * len(labels)
        assert sorted(set(weights[labels == 0].tolist())) == [7.5]
        assert sorted(set(weights[labels == 1].tolist())) == [2.0]


class TestWeights:
    def test_the_border_term_is_added_on_background_alone(self) -> None:
        image = noise_image(40, 40)
        sampler = make_sampler([image], make_plan(ridges=False))
        _, labels, weights = sampler.cut(image, warp_at((20.0, 20.0)))
        bare = StoredImage(
            image.pixels,
            image.ids,
            np.zeros_like(image.borders),
            image.classes,
            image.centres,
            image.scale,
        )
        _, _, without = sampler.cut(bare, warp_at((20.0, 20.0)))
        assert torch.equal(weights[labels > 0], without[labels > 0])
        assert (weights > without).any()

    def test_what_is_ignored_weighs_nothing_whatever_lies_around(self) -> None:
        ids = np.full((40, 40), IGNORED, np.int32)
        ids[:, :20] = 1
        borders = np.full((40, 40), 9, np.float16)
        image = stored(np.zeros((1, 40, 40), np.float32), ids, borders)
        _, labels, weights = make_sampler([image]).cut(image, warp_at((19.5, 19.5)))
        half = labels.shape[1] // 2
        assert set(weights[:, :half].flatten().tolist()) == {2.0}
        assert not weights[:, half:].any()
        assert not labels[:, half:].any()


class TestWarps:
    def drawn(self, count: int = 1000, **changes: Any) -> list[Warp]:
        image, plan = noise_image(50, 60), make_plan(**changes)
        return [draw_warp(image, plan, seeded(seed)) for seed in range(count)]

    def zooms(self, largest: float) -> NDArray[np.float64]:
        turns = torch.stack([warp.turn for warp in self.drawn(largest_zoom=largest)])
        return np.asarray(torch.linalg.det(turns).abs().rsqrt().double())

    def test_zooms_lie_between_the_largest_and_its_inverse(self) -> None:
        zooms = self.zooms(1.5)
        assert zooms.min() == pytest.approx(1 / 1.5, rel=0.01)
        assert zooms.max() == pytest.approx(1.5, rel=0.01)

    def test_as_many_tiles_are_zoomed_in_as_out(self) -> None:
        assert float(np.log(self.zooms(2.0)).mean()) == pytest.approx(0, abs=0.05)

    def test_a_zoom_of_one_leaves_sizes_as_they_are(self) -> None:
        np.testing.assert_allclose(self.zooms(1.0), 1, rtol=1e-6)

    def test_an_object_is_as_much_larger_in_the_tile_as_the_zoom_says(self) -> None:
        ids = np.zeros((80, 80), np.int32)
        ids[36:44, 36:44] = 1
        image = stored(np.zeros((1, 80, 80), np.float32), ids)
        sampler = make_sampler([image], make_plan(tile_edge=48))
        _, labels, _ = sampler.cut(image, warp_at((39.5, 39.5), 0, 2.0))
        assert int(labels.sum()) == 16 * 16

    def test_displacements_have_a_deviation_of_10_px_where_they_are_drawn(self) -> None:
        """In px of the tile: a zoom of the image does not change how bent it looks."""
        warps = self.drawn(2000, largest_zoom=2.0)
        zooms = torch.linalg.det(torch.stack([warp.turn for warp in warps])).abs().rsqrt()
        nodes = torch.stack([warp.bend for warp in warps]) * zooms.view(-1, 1, 1, 1)
        assert ELASTIC_SIGMA == 10.0
        assert float(nodes.std()) == pytest.approx(10.0, rel=0.02)
        assert float(nodes.mean()) == pytest.approx(0.0, abs=0.15)

    def test_displacements_are_smooth_between_the_nine_that_are_drawn(self) -> None:
        warp = warp_at((0.0, 0.0), seed=1)
        shifts = warp.places(101) - warp_at((0.0, 0.0)).places(101)
        steps = torch.cat([shifts.diff(dim=0).flatten(), shifts.diff(dim=1).flatten()])
        assert 0 < float(steps.abs().max()) < 0.1 * ELASTIC_SIGMA * 2

    def test_no_tile_is_bent_where_elastic_deformation_is_off(self) -> None:
        assert not any(warp.bend.any() for warp in self.drawn(20, elastic=False))

    def test_without_it_a_tile_lies_where_it_lies_with_it(self) -> None:
        """So that two runs that differ in it alone see the same places."""
        for bent, plain in zip(self.drawn(20), self.drawn(20, elastic=False), strict=True):
            assert torch.equal(bent.centre, plain.centre)
            assert torch.equal(bent.turn, plain.turn)

    def test_rotations_keep_lengths_and_angles(self) -> None:
        turns = torch.stack([rotation(seeded(seed)) for seed in range(200)])
        np.testing.assert_allclose(turns @ turns.mT, torch.eye(2).expand(200, 2, 2), atol=1e-6)

    def test_half_of_the_rotations_are_flipped(self) -> None:
        signs = torch.linalg.det(torch.stack([rotation(seeded(seed)) for seed in range(1000)]))
        np.testing.assert_allclose(signs.abs(), 1, rtol=1e-6)
        assert float((signs < 0).float().mean()) == pytest.approx(0.5, abs=0.06)

    def test_rotations_turn_by_any_angle(self) -> None:
        turns = torch.stack([rotation(seeded(seed)) for seed in range(2000)])
        angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
        counts = torch.histc(angles, bins=8, min=-math.pi, max=math.pi)
        assert counts.min() > 190


class TestMirror:
    def test_the_border_pixel_is_not_repeated(self) -> None:
        places = torch.tensor([[-2.0], [-1.0], [0.0], [3.0], [4.0], [6.0], [7.0]])
        assert mirror(places, (4,)).flatten().tolist() == [2, 1, 0, 3, 2, 0, 1]  # type: ignore[arg-type]  # one axis

    @settings(deadline=None)
    @given(st.integers(1, 9), st.floats(-100, 100))
    def test_every_place_falls_into_the_image(self, edge: int, place: float) -> None:
        found = float(mirror(torch.tensor([[place, 0.0]]), (edge, 3))[0, 0])
        assert 0 <= found <= edge - 1

    def test_reading_at_the_pixels_gives_them_back(self) -> None:
        pixels = torch.rand(2, 5, 7, generator=seeded())
        rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
        places = torch.stack([rows, columns], dim=-1)
        np.testing.assert_allclose(sample(pixels, places, "bilinear"), pixels, rtol=1e-5)


class TestIntensity:
    def varied(self, channels: int = 1, count: int = 300) -> torch.Tensor:
        """Vary tiles whose halves are −1 and 1."""
        tile = torch.tensor([-1.0, 1.0]).view(1, 1, 2).repeat(channels, 24, 12)
        return torch.stack(
            [vary_intensity(tile, seeded(seed), seeded(seed + 9999)) for seed in range(count)]
        )

    def test_brightness_varies_from_tile_to_tile(self) -> None:
        means = self.varied().mean(dim=(1, 2, 3))
        assert float(means.std()) == pytest.approx(augmentation.BRIGHTNESS_SIGMA, rel=0.15)

    def test_contrast_varies_from_tile_to_tile_and_keeps_its_sign(self) -> None:
        tiles = self.varied()
        contrast = (tiles[..., 1::2].mean(dim=(1, 2, 3)) - tiles[..., ::2].mean(dim=(1, 2, 3))) / 2
        assert float(contrast.log().std()) == pytest.approx(augmentation.CONTRAST_SIGMA, rel=0.15)

    def test_noise_is_never_stronger_than_the_largest(self) -> None:
        deviations = self.varied()[..., ::2].std(dim=(1, 2, 3))
        assert float(deviations.max()) == pytest.approx(augmentation.LARGEST_NOISE, rel=0.1)
        assert float(deviations.min()) < 0.1 * augmentation.LARGEST_NOISE

    def test_the_colours_of_an_image_vary_apart(self) -> None:
        means = self.varied(channels=3).mean(dim=(2, 3))
        spread = (means - means.mean(dim=1, keepdim=True)).std() * math.sqrt(3 / 2)
        assert float(spread) == pytest.approx(augmentation.COLOUR_SIGMA, rel=0.15)

    def test_a_tile_of_the_sampler_is_the_cut_one_varied(self) -> None:
        """Contrast and brightness are one line through all pixels; noise lies around it."""
        image = noise_image(60, 60, channels=1)
        sampler: Sampler = make_sampler([image])
        random = generator(0, 4, 1)
        torch.multinomial(sampler._chances, 1, generator=random)
        plain, labels, weights = sampler.cut(image, draw_warp(image, sampler.plan, random))
        drawn = sampler.draw(4, [1])
        assert torch.equal(drawn.labels[0], labels)
        assert torch.equal(drawn.weights[0], weights)
        slope, shift = np.polyfit(plain.flatten(), drawn.pixels[0].flatten(), 1)
        rest = drawn.pixels[0] - (plain * slope + shift)
        assert float(rest.abs().max()) < 5 * augmentation.LARGEST_NOISE
        assert slope > 0


def test_tiles_are_on_the_device_of_the_sampler() -> None:
    assert make_sampler([noise_image(30, 30)]).draw(0, [0]).pixels.device == CPU
