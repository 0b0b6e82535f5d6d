"""The arithmetic of valid convolutions, against figure 1 of the paper."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.architecture import Architecture, Variant
from model.errors import GeometryError
from model.geometry import Geometry, convolutions, flops
from model.network import UNet

PAPER = Geometry(depth=4)
DEPTHS = (1, 2, 3, 4, 5)


def test_the_paper_s_tile_of_572_px_gives_388() -> None:
    assert PAPER.output_edge(572) == 388


@pytest.mark.parametrize(("input_edge", "output_edge"), [(188, 4), (204, 20), (700, 516)])
def test_other_tiles_lose_184_px_too(input_edge: int, output_edge: int) -> None:
    assert PAPER.output_edge(input_edge) == output_edge


def test_the_halo_is_92_px_a_side() -> None:
    assert PAPER.halo == 92


def test_the_skip_crops_are_those_of_figure_1() -> None:
    assert PAPER.skip_crops() == (88, 40, 16, 4)


def test_the_levels_have_the_edges_of_figure_1() -> None:
    assert PAPER.contracting_edges(572) == (568, 280, 136, 64, 28)
    assert PAPER.expansive_edges(572) == (52, 100, 196, 388)


def test_valid_edges_at_depth_4_are_16_k_plus_60() -> None:
    valid = [edge for edge in range(600) if PAPER.is_valid(edge)]

    assert valid == [16 * k + 60 for k in range(8, 34)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_edge_is_valid_exactly_if_every_level_divides(depth: int) -> None:
    geometry = Geometry(depth)

    def passes(edge: int) -> bool:
        for _ in range(depth):
            edge -= 4
            if edge <= 0 or edge % 2:
                return False
            edge //= 2
        edge -= 4
        for _ in range(depth):
            edge = 2 * edge - 4
        return edge > 0

    assert [e for e in range(900) if geometry.is_valid(e)] == [e for e in range(900) if passes(e)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_last_expansive_edge_is_the_output_edge(depth: int) -> None:
    geometry = Geometry(depth)
    edge = geometry.edge_for(100)

    assert geometry.expansive_edges(edge)[-1] == geometry.output_edge(edge)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_smallest_tiling_edge_is_the_first_with_a_share(depth: int) -> None:
    geometry = Geometry(depth)
    edge = geometry.smallest_tiling_edge

    assert geometry.share(edge) >= geometry.stride
    below = edge - geometry.stride
    assert below < geometry.smallest_edge or geometry.share(below) == 0


def test_a_share_is_a_multiple_of_the_stride() -> None:
    assert PAPER.share(572) == 384


def test_an_edge_that_does_not_fit_is_named_with_those_that_do() -> None:
    with pytest.raises(GeometryError, match="571 px does not fit 4 poolings; 556 and 572 px do"):
        PAPER.output_edge(571)


def test_an_edge_below_the_smallest_is_refused() -> None:
    with pytest.raises(GeometryError, match="the smallest is 188"):
        PAPER.output_edge(172)
    with pytest.raises(GeometryError, match="No input edge fits 100 px"):
        PAPER.edge_at_most(100)


@pytest.mark.parametrize("limit", [188, 203, 204, 1000])
def test_the_edge_at_most_is_the_largest_valid_one(limit: int) -> None:
    assert PAPER.edge_at_most(limit) == max(e for e in range(limit + 1) if PAPER.is_valid(e))


@pytest.mark.parametrize("wanted", [1, 4, 5, 388, 389])
def test_the_edge_for_an_output_is_the_smallest_that_gives_it(wanted: int) -> None:
    edge = PAPER.edge_for(wanted)

    assert PAPER.output_edge(edge) >= wanted
    assert edge == PAPER.smallest_edge or PAPER.output_edge(edge - 16) < wanted


@pytest.mark.parametrize(("base_channels", "gflop"), [(64, 300.9), (32, 75.3), (16, 18.9)])
def test_the_work_of_the_paper_s_tile(base_channels: int, gflop: float) -> None:
    architecture = Architecture(base_channels=base_channels)

    assert flops(architecture, (572, 572)) / 1e9 == pytest.approx(gflop, abs=0.05)


def test_the_release_costs_more_than_the_paper() -> None:
    assert flops(Architecture(variant="release"), (572, 572)) > flops(Architecture(), (572, 572))


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("rungs", [(0, 3), (2, 0), (1, 1)])
def test_the_work_of_a_tile_is_what_torch_counts_in_the_network(
    depth: int, variant: Variant, rungs: tuple[int, int]
) -> None:
    architecture = Architecture(3, num_classes=5, depth=depth, base_channels=2, variant=variant)
    geometry = Geometry(depth)
    height, width = (geometry.smallest_edge + rung * geometry.stride for rung in rungs)

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(architecture)(torch.empty(1, 3, height, width))

    assert flops(architecture, (height, width)) == counter.get_total_flops()


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_convolutions_have_the_edges_of_their_levels(depth: int) -> None:
    geometry = Geometry(depth)
    edge = geometry.edge_for(100)
    found = {layer.edge(edge) for layer in convolutions(Architecture(depth=depth))}

    assert {*geometry.contracting_edges(edge), *geometry.expansive_edges(edge)} <= found


@pytest.mark.parametrize(
    ("field", "value"), [("depth", 0), ("depth", 9), ("num_classes", 1), ("in_channels", 0)]
)
def test_an_architecture_that_cannot_be_is_refused_by_name(field: str, value: int) -> None:
    with pytest.raises(GeometryError, match=field):
        Architecture(**{field: value})  # type: ignore[arg-type]
