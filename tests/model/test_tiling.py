"""Seam-free by proof: joined tiles equal one pass over the whole image."""

import functools
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.architecture import Architecture
from model.errors import GeometryError
from model.geometry import Geometry
from model.tiling import Plan, Region, Tile, extract, place, plan_tiles, stitch, tile_edges
from tests.conftest import graph_of, network_of

PAPER = Geometry(4)
TIE = 1e-4
DEPTHS = st.integers(1, 4)
EDGES = st.integers(1, 48)


@functools.cache
def double_network(depth: int) -> torch.nn.Module:
    return network_of(Architecture(base_channels=2, depth=depth)).double()


@functools.cache
def session(depth: int) -> onnxruntime.InferenceSession:
    graph = graph_of(Architecture(base_channels=2, depth=depth))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_double(depth: int, pixels: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        logits: torch.Tensor = double_network(depth)(torch.from_numpy(pixels[None]).double())
    return logits[0].numpy()


def run_onnx(depth: int, pixels: NDArray[Any]) -> NDArray[Any]:
    (logits,) = session(depth).run(["logits"], {"tile": pixels[None].astype(np.float32)})
    return logits[0]  # type: ignore[no-any-return]


def whole(run: Any, depth: int, image: NDArray[Any]) -> NDArray[Any]:
    """One pass over the whole image, mirrored around it."""
    geometry = Geometry(depth)
    _, height, width = image.shape
    halo = geometry.halo
    region = Region(-halo, -halo, geometry.edge_for(height) - halo, geometry.edge_for(width) - halo)
    return run(depth, extract(image, region))[:, :height, :width]  # type: ignore[no-any-return]


def tiled(run: Any, depth: int, image: NDArray[Any], plan: Plan) -> NDArray[Any]:
    outputs = [run(depth, extract(image, tile.input_region)) for tile in plan.tiles]
    canvas = np.full((2, *plan.region.shape), np.nan, outputs[0].dtype)
    return stitch(plan, outputs, canvas)


def image_of(height: int, width: int) -> NDArray[np.float64]:
    return np.random.default_rng(height * 1009 + width).standard_normal((1, height, width))


def one_edge(geometry: Geometry, rung: int) -> int:
    return geometry.smallest_tiling_edge + rung * geometry.stride


@settings(deadline=None, max_examples=60)
@given(DEPTHS, EDGES, EDGES, st.integers(0, 5))
def test_tiles_equal_the_whole_image_in_float64(
    depth: int, height: int, width: int, rung: int
) -> None:
    geometry, image = Geometry(depth), image_of(height, width)
    plan = plan_tiles((height, width), geometry, [one_edge(geometry, rung)])

    difference = tiled(run_double, depth, image, plan) - whole(run_double, depth, image)

    assert np.abs(difference).max() < 1e-10


@settings(deadline=None, max_examples=60)
@given(DEPTHS, EDGES, EDGES, st.integers(0, 5))
def test_tiles_equal_the_whole_image_in_onnx_runtime(
    depth: int, height: int, width: int, rung: int
) -> None:
    geometry, image = Geometry(depth), image_of(height, width)
    plan = plan_tiles((height, width), geometry, [one_edge(geometry, rung)])

    joined, wanted = tiled(run_onnx, depth, image, plan), whole(run_onnx, depth, image)

    assert np.abs(joined - wanted).max() < TIE
    clear = np.abs(wanted[1] - wanted[0]) > TIE
    assert np.array_equal(joined.argmax(0)[clear], wanted.argmax(0)[clear])


@settings(deadline=None, max_examples=25)
@given(DEPTHS, EDGES, EDGES, st.data())
def test_a_region_equals_the_same_pixels_of_the_whole(
    depth: int, height: int, width: int, data: st.DataObject
) -> None:
    geometry, image = Geometry(depth), image_of(height, width)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    region = Region(top, left, bottom, right)
    plan = plan_tiles((height, width), geometry, [one_edge(geometry, 2)], region)

    found = tiled(run_double, depth, image, plan)

    wanted = whole(run_double, depth, image)[:, top:bottom, left:right]
    assert np.abs(found - wanted).max() < 1e-10


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (93, 93)])
def test_images_smaller_than_the_halo_are_mirrored_again_and_again(shape: tuple[int, int]) -> None:
    image = image_of(*shape)
    plan = plan_tiles(shape, PAPER, [252])

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
    plan = Plan((400, 400), Region(0, 0, 400, 400), 572, tiles)

    difference = np.abs(tiled(run_double, 4, image, plan) - wanted)

    assert difference[:, :388, :388].max() < 1e-10
    assert difference.max() > 1e-4


def test_a_halo_mirrored_at_the_border_of_a_tile_is_caught() -> None:
    image = image_of(120, 120)
    plan = plan_tiles((120, 120), PAPER, [252])
    canvas = np.zeros((2, 120, 120))
    for tile in plan.tiles:
        region = tile.output_region
        own = image[:, region.top : region.bottom, region.left : region.right]
        padded = extract(own, Region(-92, -92, 160, 160))
        place(plan, tile, run_double(4, padded), canvas)

    assert np.abs(canvas - whole(run_double, 4, image)).max() > 1e-4


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 80))
def test_every_pixel_is_written_exactly_once(
    depth: int, height: int, width: int, rung: int
) -> None:
    geometry = Geometry(depth)
    edges = tile_edges(geometry, one_edge(geometry, 8 + rung))
    plan = plan_tiles((height, width), geometry, edges)
    rows = {(tile.output_region.top, tile.output_region.bottom) for tile in plan.tiles}
    columns = {(tile.output_region.left, tile.output_region.right) for tile in plan.tiles}

    assert len(plan.tiles) == len(rows) * len(columns)
    for spans, length in ((sorted(rows), height), (sorted(columns), width)):
        assert [span[0] for span in spans] == [0, *(span[1] for span in spans[:-1])]
        assert spans[-1][1] == length


@settings(max_examples=100)
@given(DEPTHS, st.integers(1, 2000), st.integers(1, 2000))
def test_every_tile_lies_on_the_pooling_grid_and_has_a_valid_edge(
    depth: int, height: int, width: int
) -> None:
    geometry = Geometry(depth)
    plan = plan_tiles((height, width), geometry, tile_edges(geometry, 572))

    for tile in plan.tiles:
        region = tile.input_region
        assert (region.top + geometry.halo) % geometry.stride == 0
        assert (region.left + geometry.halo) % geometry.stride == 0
        assert geometry.is_valid(plan.edge)
        assert region.shape == (plan.edge, plan.edge)


def test_the_plan_is_the_cheapest_of_all_edges() -> None:
    edges = tile_edges(PAPER, 1212)
    for shape in ((512, 512), (600, 600), (1022, 1024), (260, 347)):
        works = [
            len(plan.tiles) * plan.edge**2
            for plan in (plan_tiles(shape, PAPER, [edge]) for edge in edges)
        ]
        chosen = plan_tiles(shape, PAPER, edges)
        assert len(chosen.tiles) * chosen.edge**2 == min(works)


def test_an_image_of_512_px_takes_one_tile_of_700() -> None:
    plan = plan_tiles((512, 512), PAPER, tile_edges(PAPER, 1212))

    assert (plan.edge, len(plan.tiles)) == (700, 1)


def test_the_smallest_edge_of_all_holds_a_tiny_image_but_tiles_none() -> None:
    assert len(plan_tiles((4, 4), PAPER, [188]).tiles) == 1
    with pytest.raises(GeometryError, match="smallest edge that can is 204"):
        plan_tiles((5, 4), PAPER, [188])
    with pytest.raises(GeometryError, match="smallest edge that can is 204"):
        tile_edges(PAPER, 188)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(GeometryError, match="no pixels"):
        plan_tiles(shape, PAPER, [252])


@pytest.mark.parametrize(
    "region", [Region(0, 0, 11, 5), Region(-1, 0, 5, 5), Region(3, 0, 3, 5), Region(0, 6, 5, 5)]
)
def test_a_region_outside_of_the_image_is_refused(region: Region) -> None:
    with pytest.raises(GeometryError, match="region"):
        plan_tiles((10, 10), PAPER, [252], region)


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
