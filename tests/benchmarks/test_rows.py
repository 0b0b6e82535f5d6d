"""What rows compute beside what they time."""

import imagecodecs
import numpy as np
import pytest
import torch

from benchmarks.clients import Sent
from benchmarks.rows import neighbour
from benchmarks.rows.crowd import fair_shares, latency_row
from benchmarks.rows.encoding import filtered, smallest
from benchmarks.rows.precision import gate_note
from benchmarks.rows.sliding_window import SamePadded
from model.architecture import Architecture
from model.artefact import PrecisionScore
from model.geometry import flops
from model.planner import plan_tiles, work
from model.segmentation import DEFAULT_SHAPES
from service.masks import pack
from tests.conftest import manifest_of, network_of

SMALL = Architecture(base_channels=4)


def test_the_fair_share_of_equal_images_is_the_time_of_all_and_one_turn() -> None:
    assert fair_shares([256] * 4, SMALL, 8.0) == pytest.approx([8.0 + 2.0] * 4)


def test_a_small_image_waits_for_as_much_of_a_large_one_as_it_takes_itself() -> None:
    small, large = (plan_tiles((edge, edge), SMALL, DEFAULT_SHAPES) for edge in (256, 2048))
    works = work(small, SMALL), work(large, SMALL)
    turn = flops(SMALL, large.tile_shape)

    shares = fair_shares([256, 2048], SMALL, 10.0)

    speed = sum(works) / 10
    assert shares == pytest.approx([(2 * works[0] + turn) / speed, (sum(works) + turn) / speed])


def test_every_request_of_the_crowd_is_in_the_percentile_and_they_are_counted() -> None:
    sent = [Sent(index % 4, 1.0 + index) for index in range(64)]
    row = latency_row([256] * 4, sent, 8.0)
    assert row.found == pytest.approx(np.percentile(np.arange(1, 65) / 10, 99))
    assert row.says.startswith("of 64 requests: latency p50 32.5 s, p99 63.4 s, longest 64 s")
    assert row.says.endswith("longest 6.40")


def test_the_longest_requests_beside_a_large_image_are_held_against_the_longest_without() -> None:
    row = neighbour.row([0.5, 1.0, 0.8], [2.0, 2.5, 1.5], 100, still=True)
    assert row.found == 2.5
    assert row.name == "longest of 3 of 512² beside 100 megapixels / of 3 idle"
    assert row.says == "longest 2.5 s against 1 s, median 2 s against 0.8 s"


def test_requests_that_outlast_the_large_image_are_no_measurement() -> None:
    row = neighbour.row([1.0], [1.0], 100, still=False)
    assert row.found is None
    assert "the large image was done before the small ones" in row.says


def test_of_every_model_it_is_said_whether_it_may_compute_in_bfloat16() -> None:
    plain = manifest_of(SMALL)
    passed, lost = (
        manifest_of(SMALL, precisions={"bf16": PrecisionScore(score="dice", fp32=0.9, this=this)})
        for this in (0.9, 0.5)
    )
    note = gate_note({"plain": plain, "passed": passed, "lost": lost})
    assert note.endswith("lost (lost too much), passed (passed), plain (not scored in it)")


def test_with_same_padding_the_weights_give_the_same_logits_far_from_the_border() -> None:
    network = network_of(Architecture(depth=2, base_channels=4))
    tile = torch.randn(1, 1, 140, 140, generator=torch.Generator().manual_seed(0))
    phase = 2  # px by which the pooling grid of valid convolutions lies elsewhere

    with torch.inference_mode():
        padded = SamePadded(network)(tile[:, :, phase:-phase, phase:-phase])
        valid = network(tile)

    assert padded.shape[2:] == (136, 136)
    cut = (padded.shape[2] - valid.shape[2]) // 2
    same = padded[:, :, cut:-cut, cut:-cut]
    far = np.s_[:, :, 4:-4, 4:-4]
    assert torch.allclose(same[far], valid[far], atol=1e-4)


@pytest.mark.parametrize(("kind", "axis"), [(1, 1), (2, 0)])
def test_filtered_rows_are_differences_that_add_up(kind: int, axis: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
    written = np.frombuffer(filtered(rows, kind), np.uint8).reshape(5, 8)
    assert written[:, 0].tolist() == [kind] * 5
    np.testing.assert_array_equal(np.cumsum(written[:, 1:], axis, np.uint8), rows)


def test_the_smallest_is_smaller_than_all_that_is_tried() -> None:
    labels = np.tile(np.random.default_rng(0).integers(0, 2, (1, 400)), (50, 1)).astype(np.uint8)
    tried = [
        imagecodecs.deflate_encode(filtered(pack(labels, bits), kind), level=level)
        for bits in (1, 8)
        for kind in range(3)
        for level in (1, 6)
    ]
    assert smallest(labels) <= min(map(len, tried))
