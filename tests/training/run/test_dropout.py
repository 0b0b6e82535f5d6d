"""Dropout whose mask belongs to a tile, not to the batch that the tile is in."""

from typing import Any

import pytest
import torch
from torch import Tensor

from training.run.dropout import CPU, TileDropout
from training.tiles.augmentation import generator

SHAPE = (8, 24, 24)
DEVICES = [CPU] + ([torch.device("cuda", 0)] if torch.cuda.is_available() else [])


def dropped(
    x: Tensor, places: list[int], step: int = 3, seed: int = 0, device: torch.device = CPU
) -> Tensor:
    dropout = TileDropout(0.5, device).train()
    dropout.begin(seed, step, places)
    result: Tensor = dropout(x)
    return result


def ones(tiles: int) -> Tensor:
    return torch.ones(tiles, *SHAPE)


def test_a_tile_alone_drops_what_it_drops_among_others() -> None:
    together = dropped(ones(4), [0, 1, 2, 3])
    for place in range(4):
        assert torch.equal(dropped(ones(1), [place])[0], together[place])


@pytest.mark.parametrize(("seed", "step", "place"), [(1, 3, 0), (0, 4, 0), (0, 3, 1)])
def test_another_seed_step_or_place_drops_other_values(seed: int, step: int, place: int) -> None:
    assert not torch.equal(dropped(ones(1), [place], step, seed), dropped(ones(1), [0]))


def test_two_passes_of_one_step_drop_different_values() -> None:
    """A network drops at two levels; one mask for both would drop the same places twice."""
    dropout = TileDropout(0.5).train()
    dropout.begin(0, 0, [0])
    assert not torch.equal(dropout(ones(1)), dropout(ones(1)))


def test_masks_are_drawn_where_the_values_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, copying them would take longer than a step."""
    drawn: list[tuple[torch.device, torch.device]] = []
    rand = torch.rand

    def note(*size: Any, generator: torch.Generator, device: torch.device) -> Tensor:
        drawn.append((generator.device, device))
        return rand(*size, generator=generator, device=device)

    monkeypatch.setattr(torch, "rand", note)
    for device in DEVICES:
        dropped(ones(2).to(device), [0, 1], device=device)
    assert drawn == [(device, device) for device in DEVICES for _ in range(2)]


def test_on_the_processor_they_are_those_of_the_generator_that_the_numbers_seed() -> None:
    expected = torch.rand(SHAPE, generator=generator(0, 3, 7, 1)) < 0.5
    assert torch.equal(dropped(ones(1), [7])[0] > 0, expected)


def test_what_is_drawn_elsewhere_changes_no_mask() -> None:
    first = dropped(ones(1), [0])
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(dropped(ones(1), [0]), first)


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_the_share_that_is_dropped_is_the_probability(probability: float) -> None:
    dropout = TileDropout(probability).train()
    dropout.begin(0, 0, range(8))
    share = float((dropout(ones(8)) == 0).float().mean())
    assert share == pytest.approx(probability, abs=0.01)


def test_what_is_kept_is_scaled_up_so_that_the_mean_stays() -> None:
    kept = dropped(ones(8), list(range(8)))
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.02)


def test_every_value_has_a_mask_of_its_own() -> None:
    """Not a channel or a tile at a time."""
    kept = dropped(ones(2), [0, 1]) > 0
    assert 0 < float(kept.float().flatten(2).mean(2).std()) < 0.1


def test_nothing_is_dropped_outside_of_training() -> None:
    x = torch.randn(1, *SHAPE)
    assert TileDropout(0.5).eval()(x) is x


def test_gradients_flow_where_values_were_kept() -> None:
    x = ones(1).requires_grad_()
    kept = dropped(x, [0])
    kept.sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert x.grad is not None
    assert torch.equal(x.grad, kept.detach())


def test_the_type_of_the_values_stays() -> None:
    assert dropped(ones(1).bfloat16(), [0]).dtype == torch.bfloat16
