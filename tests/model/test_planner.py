"""The plan is exact, keeps to what tiles may be, and nothing cheaper does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.architecture import Architecture
from model.errors import GeometryError
from model.geometry import Geometry, flops
from model.planner import TileShapes, _Axis, plan_tiles, require_tiling, work
from model.segmentation import DEFAULT_SHAPES, DEFAULT_TILE_EDGE
from model.tiling import Region, lay_tiles
from tests.model.joined import image_of, run_double, small, tiled, whole

PAPER = Geometry(4)
HALF = Architecture(base_channels=32)
LARGEST_EDGE = 1084
FREE = TileShapes(LARGEST_EDGE**2)
FEW = TileShapes.fixed(PAPER, LARGEST_EDGE)
DEPTHS = st.integers(1, 3)
SIZES = st.integers(64, 8192) | st.floats(6, 13).map(lambda power: round(2**power))


def valid_edges(geometry: Geometry, largest: int) -> list[int]:
    return [edge for edge in range(largest + 1) if geometry.is_valid(edge)]


def tiles_along(length: int, geometry: Geometry, edge: int) -> int | None:
    """Lay tiles until the length is covered; none if it never is."""
    output = edge - 2 * geometry.halo
    share = output // geometry.stride * geometry.stride
    count, covered = 1, output
    while covered < length:
        if share == 0:
            return None
        count, covered = count + 1, covered + share
    return count


def cheapest_of_all(
    height: int, width: int, architecture: Architecture, shapes: TileShapes
) -> int | None:
    """Try every tile shape there is; none if no shape covers the height and the width."""
    geometry = Geometry(architecture.depth)
    beyond = geometry.edge_for(max(height, width)) + 2 * geometry.stride
    edges = shapes.edges or valid_edges(geometry, beyond)
    rows = [(edge, tiles_along(height, geometry, edge)) for edge in edges]
    columns = [(edge, tiles_along(width, geometry, edge)) for edge in edges]
    costs = [
        down * across * flops(architecture, (tall, wide))
        for tall, down in rows
        for wide, across in columns
        if down and across and tall * wide <= shapes.largest_area
    ]
    return min(costs, default=None)


@st.composite
def small_shapes(draw: st.DrawFn, geometry: Geometry) -> TileShapes:
    """Draw an area, too small for any tile now and then, with any edges or with a few."""
    smallest = geometry.smallest_edge
    few = st.sets(st.sampled_from(valid_edges(geometry, 3 * smallest)), min_size=1, max_size=4)
    edges = draw(st.just(()) | few.map(sorted).map(tuple))
    return TileShapes(draw(st.integers(smallest**2 - 1, 6 * smallest**2)), edges)


@settings(deadline=None, max_examples=150)
@given(DEPTHS, st.integers(1, 60), st.integers(1, 60), st.data())
def test_the_plan_is_the_cheapest_of_all_tile_shapes(
    depth: int, height: int, width: int, data: st.DataObject
) -> None:
    architecture = Architecture(depth=depth, base_channels=data.draw(st.integers(1, 3)))
    shapes = data.draw(small_shapes(Geometry(depth)))
    wanted = cheapest_of_all(height, width, architecture, shapes)

    if wanted is None:
        with pytest.raises(GeometryError, match=f"at most {shapes.largest_area:,} px"):
            plan_tiles((height, width), architecture, shapes)
    else:
        plan = plan_tiles((height, width), architecture, shapes)
        assert len(plan.tiles) * flops(architecture, plan.tile_shape) == wanted
        assert work(plan, architecture) == wanted


@settings(deadline=None, max_examples=50)
@given(DEPTHS, st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), st.integers(1, 40))
def test_the_plan_of_a_region_is_the_cheapest_for_what_lies_on_the_grid_around_it(
    depth: int, top: int, left: int, height: int, width: int
) -> None:
    architecture, geometry = Architecture(depth=depth, base_channels=2), Geometry(depth)
    shapes = TileShapes(4 * geometry.smallest_edge**2)
    region = Region(top, left, top + height, left + width)

    plan = plan_tiles((80, 80), architecture, shapes, region)

    rows, columns = height + top % geometry.stride, width + left % geometry.stride
    assert plan.region == region
    assert work(plan, architecture) == cheapest_of_all(rows, columns, architecture, shapes)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(204**2, 1500**2))
def test_tiles_of_any_shape_keep_to_the_area_and_the_network(
    height: int, width: int, largest_area: int
) -> None:
    plan = plan_tiles((height, width), HALF, TileShapes(largest_area))

    tall, wide = plan.tile_shape
    assert tall * wide <= largest_area
    assert PAPER.is_valid(tall)
    assert PAPER.is_valid(wide)
    assert plan == lay_tiles((height, width), PAPER, plan.tile_shape)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(204, 1500))
def test_tiles_of_fixed_edges_keep_to_them_and_to_the_area(
    height: int, width: int, largest_edge: int
) -> None:
    shapes = TileShapes.fixed(PAPER, largest_edge)

    plan = plan_tiles((height, width), HALF, shapes)

    assert plan.tile_shape in shapes.all
    assert max(plan.tile_shape) <= largest_edge
    assert plan == lay_tiles((height, width), PAPER, plan.tile_shape)


@settings(max_examples=100)
@given(st.integers(1, 8), st.integers(0, 3000))
def test_fixed_edges_are_few_valid_and_end_with_the_largest(depth: int, beyond: int) -> None:
    geometry = Geometry(depth)
    largest = geometry.smallest_tiling_edge + beyond

    shapes = TileShapes.fixed(geometry, largest)

    assert list(shapes.edges) == sorted(set(shapes.edges))
    assert all(map(geometry.is_valid, shapes.edges))
    assert shapes.edges[-1] == geometry.edge_at_most(largest)
    assert shapes.largest_area == shapes.edges[-1] ** 2
    assert len(shapes.edges) <= 20


def test_all_shapes_of_fixed_edges_are_those_within_the_area_smallest_first() -> None:
    shapes = TileShapes(252 * 572, (252, 284, 572))

    assert shapes.all == ((252, 252), (252, 284), (284, 252), (284, 284), (252, 572), (572, 252))
    assert FREE.all == ()


@pytest.mark.parametrize(("edge", "tile_edge"), [(388, 572), (512, 700), (900, 1084)])
def test_an_image_that_one_tile_holds_takes_the_smallest_that_does(
    edge: int, tile_edge: int
) -> None:
    plan = plan_tiles((edge, edge), Architecture(), FREE)

    assert (plan.tile_shape, len(plan.tiles)) == ((tile_edge, tile_edge), 1)


def test_a_long_image_takes_long_tiles() -> None:
    plan = plan_tiles((2048, 512), HALF, FREE)
    squares = [
        work(lay_tiles((2048, 512), PAPER, (edge, edge)), HALF)
        for edge in valid_edges(PAPER, LARGEST_EDGE)
        if PAPER.share(edge)
    ]

    assert plan.tile_shape[0] > plan.tile_shape[1]
    assert work(plan, HALF) < min(squares)


def over_one_pass(height: int, width: int, base_channels: int, shapes: TileShapes) -> float:
    """Say how much more a plan costs than a single pass over the whole image."""
    architecture = Architecture(base_channels=base_channels)
    plan = plan_tiles((height, width), architecture, shapes)
    single = flops(architecture, (PAPER.edge_for(height), PAPER.edge_for(width)))
    return work(plan, architecture) / single


@pytest.mark.parametrize("base_channels", [32, 64])
@settings(deadline=None, max_examples=200)
@example(5396, 5396)
@given(SIZES, SIZES)
def test_tiles_of_any_shape_cost_at_most_a_quarter_more_than_one_pass(
    base_channels: int, height: int, width: int
) -> None:
    assert over_one_pass(height, width, base_channels, FREE) <= 1.25


@pytest.mark.parametrize("base_channels", [32, 64])
@settings(deadline=None, max_examples=200)
@example(148, 1044)
@example(1044, 1044)
@example(4628, 148)
@given(SIZES, SIZES)
def test_tiles_of_fixed_edges_cost_at_most_half_as_much_again_as_one_pass(
    base_channels: int, height: int, width: int
) -> None:
    assert over_one_pass(height, width, base_channels, FEW) <= 1.5


@pytest.mark.parametrize("shapes", [FREE, FEW])
@settings(deadline=None, max_examples=100)
@given(SIZES, SIZES)
def test_a_turned_image_costs_the_same(shapes: TileShapes, height: int, width: int) -> None:
    upright = plan_tiles((height, width), HALF, shapes)
    turned = plan_tiles((width, height), HALF, shapes)

    assert work(turned, HALF) == work(upright, HALF)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 2), st.integers(1, 90), st.integers(1, 90), st.data())
def test_planned_tiles_equal_the_whole_image(
    depth: int, height: int, width: int, data: st.DataObject
) -> None:
    geometry, image = Geometry(depth), image_of(height, width)
    edge = data.draw(st.integers(geometry.smallest_tiling_edge, 2 * geometry.edge_for(20)))
    shapes = data.draw(st.sampled_from([TileShapes(edge**2), TileShapes.fixed(geometry, edge)]))
    plan = plan_tiles((height, width), small(depth), shapes)

    difference: Any = tiled(run_double, depth, image, plan) - whole(run_double, depth, image)

    assert np.abs(difference).max() < 1e-10


@pytest.mark.parametrize("largest_edge", [1, 188, 203])
def test_an_edge_that_tiles_nothing_is_refused_with_the_smallest_that_does(
    largest_edge: int,
) -> None:
    message = f"Tiles of {largest_edge} px cannot cover .* smallest edge that can is 204"
    with pytest.raises(GeometryError, match=message):
        require_tiling(PAPER, largest_edge)
    with pytest.raises(GeometryError, match=message):
        TileShapes.fixed(PAPER, largest_edge)


def test_the_smallest_edge_that_tiles_is_taken() -> None:
    require_tiling(PAPER, 204)
    assert TileShapes.fixed(PAPER, 204) == TileShapes(204**2, (204,))


@pytest.mark.parametrize(
    "shapes", [TileShapes(204**2 - 1), TileShapes(50_000, (252,)), TileShapes(10**6, (188,))]
)
def test_shapes_that_cannot_cover_an_image_are_refused_by_name(
    shapes: TileShapes,
) -> None:
    edges = f" with edges of {shapes.edges[0]} px" if shapes.edges else ""
    message = (
        f"at most {shapes.largest_area:,} px{edges} covers 512×300 px; from 204×204 px on, tiles"
    )
    with pytest.raises(GeometryError, match=message):
        plan_tiles((512, 300), HALF, shapes)


@pytest.mark.parametrize("shape", [(1, 10**8), (10**8, 1)])
def test_of_a_very_long_image_no_more_tiles_are_tried_than_the_area_allows(
    shape: tuple[int, int],
) -> None:
    plan = plan_tiles(shape, HALF, FREE)

    short, long = sorted(plan.tile_shape)
    assert (short, long) == (188, PAPER.edge_at_most(FREE.largest_area // 188))
    tried = _Axis.of(10**8, HALF, FREE).edges
    assert len(tried) <= FREE.largest_area // 188 // PAPER.stride


def test_edges_may_stand_in_any_order() -> None:
    plans = [
        plan_tiles((388, 388), HALF, TileShapes(10**6, edges)) for edges in ((572, 700), (700, 572))
    ]
    assert plans[0] == plans[1]
    assert plans[0].tile_shape == (572, 572)


def test_a_tile_that_tiles_nothing_still_holds_a_tiny_image() -> None:
    plan = plan_tiles((4, 4), HALF, TileShapes(188**2))

    assert (plan.tile_shape, len(plan.tiles)) == ((188, 188), 1)


def test_an_edge_that_the_network_does_not_take_is_refused() -> None:
    with pytest.raises(GeometryError, match="571 px does not fit 4 poolings; 556 and 572 px do"):
        plan_tiles((500, 500), HALF, TileShapes(10**6, (571,)))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(GeometryError, match="no pixels"):
        plan_tiles(shape, HALF, FREE)


@pytest.mark.parametrize(
    "region", [Region(0, 0, 11, 5), Region(-1, 0, 5, 5), Region(3, 0, 3, 5), Region(0, 6, 5, 5)]
)
def test_a_region_outside_of_the_image_is_refused(region: Region) -> None:
    with pytest.raises(GeometryError, match="region"):
        plan_tiles((10, 10), HALF, FREE, region)


def test_the_default_tile_costs_what_is_said_of_it() -> None:
    def cost(edge: int, shapes: TileShapes = DEFAULT_SHAPES) -> int:
        return work(plan_tiles((edge, edge), HALF, shapes), HALF)

    assert flops(HALF, (DEFAULT_TILE_EDGE, DEFAULT_TILE_EDGE)) < 2 * cost(512)
    assert flops(HALF, (1212, 1212)) / cost(512) == pytest.approx(3.5, abs=0.05)
    saved = 1 - cost(10_000, TileShapes(1212**2)) / cost(10_000)
    assert saved == pytest.approx(0.06, abs=0.005)
