"""Seam-free by proof: joined tiles equal one pass over the whole image."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.errors import GeometryError
from model.geometry import Geometry
from model.tiling import (
    Plan,
    Region,
    Tile,
    count_tiles,
    extract,
    lay_tiles,
    place,
    region_of,
    spans_of,
)
from tests.model.joined import image_of, run_double, run_onnx, tiled, whole

PAPER = Geometry(4)
TIE = 1e-4
DEPTHS = st.integers(1, 4)
EDGES = st.integers(1, 48)
RUNGS = st.tuples(st.integers(0, 5), st.integers(0, 5))
"""How far the height and the width of a tile are above the smallest, in strides."""


def tile_of(geometry: Geometry, rungs: tuple[int, int]) -> tuple[int, int]:
    height, width = (geometry.smallest_tiling_edge + rung * geometry.stride for rung in rungs)
    return height, width


@settings(deadline=None, max_examples=60)
@given(DEPTHS, EDGES, EDGES, RUNGS)
def test_tiles_equal_the_whole_image_in_float64(
    depth: int, height: int, width: int, rungs: tuple[int, int]
) -> None:
    geometry, image = Geometry(depth), image_of(height, width)
    plan = lay_tiles((height, width), geometry, tile_of(geometry, rungs))

    difference = tiled(run_double, depth, image, plan) - whole(run_double, depth, image)

    assert np.abs(difference).max() < 1e-10


@settings(deadline=None, max_examples=60)
@given(DEPTHS, EDGES, EDGES, RUNGS)
def test_tiles_equal_the_whole_image_in_onnx_runtime(
    depth: int, height: int, width: int, rungs: tuple[int, int]
) -> None:
    geometry, image = Geometry(depth), image_of(height, width)
    plan = lay_tiles((height, width), geometry, tile_of(geometry, rungs))

    joined, wanted = tiled(run_onnx, depth, image, plan), whole(run_onnx, depth, image)

    assert np.abs(joined - wanted).max() < TIE
    clear = np.abs(wanted[1] - wanted[0]) > TIE
    assert np.array_equal(joined.argmax(0)[clear], wanted.argmax(0)[clear])


@settings(deadline=None, max_examples=25)
@given(DEPTHS, EDGES, EDGES, RUNGS, st.data())
def test_a_region_equals_the_same_pixels_of_the_whole(
    depth: int, height: int, width: int, rungs: tuple[int, int], data: st.DataObject
) -> None:
    geometry, image = Geometry(depth), image_of(height, width)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    region = Region(top, left, bottom, right)
    plan = lay_tiles((height, width), geometry, tile_of(geometry, rungs), region)

    found = tiled(run_double, depth, image, plan)

    wanted = whole(run_double, depth, image)[:, top:bottom, left:right]
    assert np.abs(found - wanted).max() < 1e-10


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (93, 93)])
def test_images_smaller_than_the_halo_are_mirrored_again_and_again(shape: tuple[int, int]) -> None:
    image = image_of(*shape)
    plan = lay_tiles(shape, PAPER, (252, 284))

    difference = tiled(run_double, 4, image, plan) - whole(run_double, 4, image)

    assert np.abs(difference).max() < 1e-10


def test_tiles_laid_edge_to_edge_are_caught() -> None:
    """The figure's 388 px do not divide by 16: the second tile has another pooling phase."""
    image = image_of(400, 400)
    wanted = whole(run_double, 4, image)
    tiles = tuple(
        Tile(
            Region(top - 92, left - 92, top + 480, left + 480),
            Region(top, left, min(top + 388, 400), min(left + 388, 400)),
            halo=92,
        )
        for top in (0, 388)
        for left in (0, 388)
    )
    plan = Plan((400, 400), Region(0, 0, 400, 400), (572, 572), tiles)

    difference = np.abs(tiled(run_double, 4, image, plan) - wanted)

    assert difference[:, :388, :388].max() < 1e-10
    assert difference.max() > 1e-4


def test_a_halo_mirrored_at_the_border_of_a_tile_is_caught() -> None:
    image = image_of(120, 120)
    plan = lay_tiles((120, 120), PAPER, (252, 252))
    canvas = np.zeros((2, 120, 120))
    for tile in plan.tiles:
        region = tile.output_region
        own = image[:, region.top : region.bottom, region.left : region.right]
        padded = extract(own, Region(-92, -92, 160, 160))
        place(plan, tile, run_double(4, padded), canvas)

    assert np.abs(canvas - whole(run_double, 4, image)).max() > 1e-4


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 5), *[st.integers(1, 1000)] * 2, st.tuples(*[st.integers(8, 88)] * 2))
def test_every_pixel_is_written_exactly_once(
    depth: int, height: int, width: int, rungs: tuple[int, int]
) -> None:
    geometry = Geometry(depth)
    plan = lay_tiles((height, width), geometry, tile_of(geometry, rungs))
    rows = {(tile.output_region.top, tile.output_region.bottom) for tile in plan.tiles}
    columns = {(tile.output_region.left, tile.output_region.right) for tile in plan.tiles}

    assert len(plan.tiles) == len(rows) * len(columns)
    for spans, length in ((sorted(rows), height), (sorted(columns), width)):
        assert [span[0] for span in spans] == [0, *(span[1] for span in spans[:-1])]
        assert spans[-1][1] == length


@settings(deadline=None, max_examples=100)
@given(DEPTHS, *[st.integers(1, 1000)] * 2, st.tuples(*[st.integers(8, 40)] * 2))
def test_every_tile_lies_on_the_pooling_grid_and_has_the_shape_of_the_plan(
    depth: int, height: int, width: int, rungs: tuple[int, int]
) -> None:
    geometry = Geometry(depth)
    plan = lay_tiles((height, width), geometry, tile_of(geometry, rungs))

    assert plan.tile_shape == tile_of(geometry, rungs)
    for tile in plan.tiles:
        region = tile.input_region
        assert (region.top + geometry.halo) % geometry.stride == 0
        assert (region.left + geometry.halo) % geometry.stride == 0
        assert region.shape == plan.tile_shape


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 3000), st.integers(0, 80))
def test_no_tile_is_more_than_it_takes(depth: int, length: int, rung: int) -> None:
    geometry = Geometry(depth)
    edge, _ = tile_of(geometry, (rung, 0))
    count = count_tiles(length, geometry, edge)

    def reach(tiles: int) -> int:
        return (tiles - 1) * geometry.share(edge) + geometry.output_edge(edge)

    assert reach(count) >= length
    assert count == 1 or reach(count - 1) < length


@given(DEPTHS, st.integers(1, 90), st.integers(0, 90), st.integers(1, 90))
def test_what_tiles_have_to_cover_begins_on_the_grid_and_ends_with_the_region(
    depth: int, height: int, top: int, left: int
) -> None:
    geometry, region = Geometry(depth), Region(top, left, top + height, left + 3)

    (first, rows), (_, columns) = spans_of(region, geometry)

    assert first % geometry.stride == 0
    assert top - geometry.stride < first <= top
    assert first + rows == region.bottom
    assert columns == 3 + left % geometry.stride


def test_the_region_that_is_wanted_of_an_image_is_all_of_it_unless_one_is_named() -> None:
    assert region_of((5, 7), None) == Region(0, 0, 5, 7)
    assert region_of((5, 7), Region(1, 2, 3, 4)) == Region(1, 2, 3, 4)


def test_the_smallest_edge_of_all_holds_a_tiny_image_but_tiles_none() -> None:
    assert len(lay_tiles((4, 4), PAPER, (188, 188)).tiles) == 1
    assert len(lay_tiles((4, 40), PAPER, (188, 204)).tiles) == 3
    for shape in ((5, 4), (4, 5)):
        with pytest.raises(GeometryError, match=r"188 px cannot cover 5 px.* can is 204"):
            lay_tiles(shape, PAPER, (188, 188))


@pytest.mark.parametrize("tile_shape", [(571, 572), (572, 571)])
def test_a_tile_that_the_network_does_not_take_is_refused(tile_shape: tuple[int, int]) -> None:
    with pytest.raises(GeometryError, match="571 px does not fit 4 poolings; 556 and 572 px do"):
        lay_tiles((500, 500), PAPER, tile_shape)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(GeometryError, match="no pixels"):
        lay_tiles(shape, PAPER, (252, 252))


@pytest.mark.parametrize(
    "region", [Region(0, 0, 11, 5), Region(-1, 0, 5, 5), Region(3, 0, 3, 5), Region(0, 6, 5, 5)]
)
def test_a_region_outside_of_the_image_is_refused(region: Region) -> None:
    with pytest.raises(GeometryError, match="region"):
        lay_tiles((10, 10), PAPER, (252, 252), region)


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(-60, 30), st.integers(1, 60))
def test_mirroring_is_numpy_s_reflection(size: int, start: int, length: int) -> None:
    image = np.arange(size, dtype=np.float64).reshape(1, 1, size)
    before, after = max(0, -start), max(0, start + length - size)
    padded = np.pad(image[0, 0], (before, after), mode="reflect")

    found = extract(image, Region(0, start, 1, start + length))[0, 0]

    assert np.array_equal(found, padded[start + before : start + before + length])


def test_extraction_asks_an_image_only_for_the_rows_and_columns_that_it_needs() -> None:
    asked: list[Any] = []

    class Source:
        shape = (1, 10_000, 10_000)

        def __getitem__(self, key: Any) -> NDArray[np.float64]:
            asked.append(key)
            _, rows, columns = key
            return np.zeros((1, rows.stop - rows.start, columns.stop - columns.start))

    extract(Source(), Region(-92, 4000, 160, 4252))

    assert asked == [(slice(None), slice(0, 160), slice(4000, 4252))]
