"""Buffers that stay from run to run; here they lie in the CPU's memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.errors import GeometryError
from model.sessions.bound import MOST_BUFFER_BYTES, BoundSession
from model.sessions.decision import decision
from tests.conftest import manifest_of
from tests.model.sessions.graphs import file_of

MANIFEST = manifest_of(Architecture(depth=1, base_channels=1, in_channels=3, num_classes=3))
HALO = MANIFEST.geometry.halo


def bound(most_bytes: int = MOST_BUFFER_BYTES) -> BoundSession:
    data = file_of(MANIFEST) + decision(MANIFEST)
    architecture = MANIFEST.architecture
    return BoundSession(Path("x.onnx"), data, architecture, ("cpu", 0), most_bytes=most_bytes)


def tiles(seed: int, batch: int = 1, height: int = 32, width: int = 44) -> NDArray[np.float32]:
    shape = (batch, 3, height, width)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def inner(given: NDArray[np.float32]) -> NDArray[np.float32]:
    return 2 * given[:, :, HALO:-HALO, HALO:-HALO]


def test_every_run_gives_its_own_tiles_back_whatever_ran_before() -> None:
    session = bound()
    batches = [tiles(seed, batch, 32 + 2 * batch) for seed, batch in enumerate((1, 2, 1, 4, 2))]
    for given in [*batches, *batches]:
        np.testing.assert_array_equal(session.run(given), inner(given))
        np.testing.assert_array_equal(session.labels(given), inner(given).argmax(axis=1))


def test_a_result_is_not_written_over_by_the_next_run() -> None:
    session = bound()
    first, second = tiles(1), tiles(2)
    logits, labels = session.run(first), session.labels(first)
    session.run(second)
    session.labels(second)
    np.testing.assert_array_equal(logits, inner(first))
    np.testing.assert_array_equal(labels, inner(first).argmax(axis=1))


def test_tiles_may_lie_in_memory_in_any_order() -> None:
    turned = tiles(1, height=44, width=32).swapaxes(2, 3)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(bound().run(turned), inner(turned))


def test_a_shape_that_comes_again_takes_no_more_memory() -> None:
    session = bound()
    session.labels(tiles(1))
    taken = session.buffer_bytes
    for seed in range(20):
        session.labels(tiles(seed))
    assert session.buffer_bytes == taken == 4 * 3 * 32 * 44 + (32 - 2 * HALO) * (44 - 2 * HALO)


def test_buffers_are_bounded_and_the_oldest_given_up() -> None:
    one = 4 * 3 * 32 * 44 + (32 - 2 * HALO) * (44 - 2 * HALO)
    session = bound(most_bytes=2 * one)
    made: list[tuple[int, ...]] = []
    bind = session._bind

    def note(given: Any, shape: tuple[int, ...]) -> Any:
        made.append(shape[2:])
        return bind(given, shape)

    session._bind = note  # type: ignore[method-assign]  # a seam
    for edges in ((32, 44), (44, 32), (32, 44), (30, 32), (32, 44), (44, 32)):
        session.labels(tiles(0, 1, *edges))
        assert session.buffer_bytes <= 2 * one
    assert made == [(32, 44), (44, 32), (30, 32), (44, 32)]


def test_what_is_larger_than_the_bound_is_run_all_the_same() -> None:
    session = bound(most_bytes=1)
    for seed in (1, 2):
        np.testing.assert_array_equal(session.run(tiles(seed)), inner(tiles(seed)))


def test_a_size_that_the_network_does_not_take_is_refused() -> None:
    with pytest.raises(GeometryError, match="33 px"):
        bound().run(tiles(0, height=33))
