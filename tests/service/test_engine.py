"""The engine: tiles of many requests, run in fair turns."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.artefact import Manifest
from model.averaging import begin
from model.errors import InferenceFailed, ServiceStopping
from model.intensity import IntensityScale
from model.planner import TileShapes
from model.runtime import Provider, Runtime
from model.segmentation import Segmentation
from service.engine import Engine, Segmented
from tests.conftest import manifest_of, square

MANIFEST = manifest_of(Architecture(depth=1, base_channels=1))
EDGE = MANIFEST.geometry.edge_at_most(48)
OTHER_EDGE = EDGE + MANIFEST.geometry.stride
FEW = TileShapes(EDGE * OTHER_EDGE, (EDGE, OTHER_EDGE))

Batch = tuple[int, ...]
"""Which image each tile of a run belongs to."""


class RecordingRuntime(Runtime):
    """Gives class 1 everywhere, and records what it was asked to run."""

    def __init__(self, provider: Provider = "cpu") -> None:
        self.runs: list[Batch] = []
        self.shapes: list[tuple[int, ...]] = []
        self.warmed_up: list[tuple[tuple[int, int], int]] = []
        self.before_run: Callable[[Batch], None] = lambda _: None
        self.before_warm_up: Callable[[], None] = lambda: None
        self._provider = provider

    @property
    def manifest(self) -> Manifest:
        return MANIFEST

    @property
    def provider(self) -> Provider:
        return self._provider

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = tuple(round(100 * float(tile[0, 0, 0])) for tile in tiles)
        self.before_run(batch)
        self.runs.append(batch)
        self.shapes.append(tiles.shape[2:])
        count, _, height, width = tiles.shape
        halo = MANIFEST.geometry.halo
        logits = np.zeros((count, 2, height - 2 * halo, width - 2 * halo), np.float32)
        logits[:, 1] = 1
        return logits

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        self.before_warm_up()
        self.warmed_up.append((tile_shape, batch))


def work(image: int, tiles: int, edge: int = EDGE) -> Segmentation:
    """Give an image of so many tiles, whose pixels are its number."""
    width = tiles * MANIFEST.geometry.share(edge)
    begun = Segmentation.begin(np.full((1, 1, width), image), MANIFEST, square(edge))
    assert len(begun.plan.tiles) == tiles
    return replace(begun, scale=IntensityScale(-100, 100))  # its number reaches the runtime


def held(runtime: RecordingRuntime) -> tuple[threading.Event, threading.Event]:
    """Hold a runtime's runs: one event says that one has begun, the other lets it go on."""
    runs, may_go_on = threading.Event(), threading.Event()

    def hold(_: Batch) -> None:
        runs.set()
        may_go_on.wait(10)

    runtime.before_run = hold
    return runs, may_go_on


@contextmanager
def started(engine: Engine) -> Iterator[Engine]:
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def run_all(
    runtime: RecordingRuntime, *images: Segmentation | tuple[Segmentation, ...]
) -> list[Any]:
    """Let an engine run images that all wait from the start; give results and errors."""

    async def submit() -> list[Any]:
        engine = Engine(runtime, square(EDGE))
        passes = [each if isinstance(each, tuple) else (each,) for each in images]
        tasks = [asyncio.ensure_future(engine.segment(*each)) for each in passes]
        await asyncio.sleep(0)  # all are in the row
        async with asyncio.timeout(20):
            with started(engine):
                return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(submit())


def test_an_image_is_segmented_tile_by_tile() -> None:
    runtime = RecordingRuntime()
    (segmented,) = run_all(runtime, work(7, tiles=3))
    assert runtime.runs == [(7,)] * 3
    assert (segmented.work.canvas == 1).all()


def test_images_take_turns_tile_by_tile() -> None:
    runtime = RecordingRuntime()
    run_all(runtime, work(1, tiles=4), work(2, tiles=2), work(3, tiles=1))
    assert runtime.runs == [(1,), (2,), (3,), (1,), (2,), (1,), (1,)]


def test_a_small_image_is_done_before_a_large_one_that_came_first() -> None:
    runtime = RecordingRuntime()
    done: list[int] = []

    async def submit() -> None:
        engine = Engine(runtime, square(EDGE))

        async def segment(image: int, tiles: int) -> None:
            await engine.segment(work(image, tiles))
            done.append(image)

        tasks = [asyncio.ensure_future(segment(1, tiles=50))]
        tasks.append(asyncio.ensure_future(segment(2, tiles=1)))
        await asyncio.sleep(0)
        with started(engine):
            await asyncio.gather(*tasks)

    asyncio.run(submit())
    assert done == [2, 1]


def test_a_cpu_runs_one_tile_at_a_time() -> None:
    runtime = RecordingRuntime("cpu")
    run_all(runtime, work(1, tiles=3), work(2, tiles=3))
    assert {len(batch) for batch in runtime.runs} == {1}


def test_a_gpu_runs_four_tiles_at_a_time() -> None:
    runtime = RecordingRuntime("cuda")
    run_all(runtime, work(1, tiles=6))
    assert runtime.runs == [(1,) * 4, (1,) * 2]


def test_a_gpu_runs_tiles_of_several_images_together() -> None:
    runtime = RecordingRuntime("cuda")
    run_all(runtime, work(1, tiles=1), work(2, tiles=2), work(3, tiles=1))
    assert runtime.runs == [(1, 2, 2, 3)]


def test_tiles_of_different_shapes_are_not_run_together() -> None:
    runtime = RecordingRuntime("cuda")
    run_all(runtime, work(1, tiles=1), work(2, tiles=2, edge=OTHER_EDGE), work(3, tiles=1))
    assert runtime.runs == [(1, 3), (2, 2)]


def averaged(image: int, tiles: int) -> tuple[Segmentation, ...]:
    """Give the passes over an image that is averaged over its rotations."""
    pixels = work(image, tiles).image
    passes = begin(pixels, MANIFEST, square(EDGE), averaging="rotations", output="foreground")
    return tuple(replace(each, scale=IntensityScale(-100, 100)) for each in passes)


def test_the_tiles_of_all_passes_over_an_image_are_run() -> None:
    runtime = RecordingRuntime()
    (segmented,) = run_all(runtime, averaged(1, tiles=2))
    assert runtime.runs == [(1,)] * 16
    np.testing.assert_allclose(segmented.work.canvas, 1 / (1 + np.exp(-1)), rtol=1e-6)


def test_an_image_of_many_passes_takes_turns_as_one() -> None:
    runtime = RecordingRuntime()
    run_all(runtime, averaged(1, tiles=1), work(2, tiles=3))
    assert runtime.runs == [(1,), (2,), (1,), (2,), (1,), (2,)] + [(1,)] * 5


def test_a_gpu_runs_tiles_of_several_passes_together() -> None:
    runtime = RecordingRuntime("cuda")
    run_all(runtime, averaged(1, tiles=1))
    assert runtime.runs == [(1,) * 4] * 2


def averaged_in_rectangles(image: int) -> tuple[Segmentation, ...]:
    """Give passes of one tile each, upright over an upright image and flat over a turned one."""
    pixels = np.full((1, 60, 30), image)
    passes = begin(
        pixels, MANIFEST, TileShapes(80 * 50), averaging="rotations", output="foreground"
    )
    tall, flat = passes[0].plan.tile_shape, passes[0].plan.tile_shape[::-1]
    assert {each.plan.tile_shape for each in passes} == {tall, flat}
    assert tall != flat
    return tuple(replace(each, scale=IntensityScale(-100, 100)) for each in passes)


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_passes_whose_tiles_are_turned_are_all_run_and_never_mixed(provider: Provider) -> None:
    runtime = RecordingRuntime(provider)
    (segmented,) = run_all(runtime, averaged_in_rectangles(1))
    assert sum(map(len, runtime.runs)) == 8
    assert set(runtime.shapes) == {each.plan.tile_shape for each in averaged_in_rectangles(1)}
    np.testing.assert_allclose(segmented.work.canvas, 1 / (1 + np.exp(-1)), rtol=1e-6)


def test_a_gpu_runs_passes_of_two_images_together_where_their_tiles_have_one_shape() -> None:
    runtime = RecordingRuntime("cuda")
    upright, turned = averaged_in_rectangles(1)[0], averaged_in_rectangles(2)[2]
    run_all(runtime, upright, turned, averaged_in_rectangles(3)[:3])
    assert runtime.runs == [(1, 3, 3), (2, 3)]


def test_an_image_that_fails_does_not_make_the_tiles_of_another_count_twice() -> None:
    runtime = RecordingRuntime("cuda")
    broken = replace(work(2, tiles=1), canvas=np.zeros((0, 0), np.uint8))
    segmented, failed = run_all(runtime, averaged(1, tiles=1)[:3], broken)
    assert runtime.runs == [(1, 1, 1, 2)]
    assert isinstance(failed, InferenceFailed)
    np.testing.assert_allclose(segmented.work.canvas, 3 / 8 / (1 + np.exp(-1)), rtol=1e-6)


def test_an_image_that_is_done_is_not_held_until_the_next_one_comes() -> None:
    async def submit() -> None:
        with started(Engine(RecordingRuntime(), square(EDGE))) as engine:
            begun = work(1, tiles=2)
            pixels = weakref.ref(begun.image)
            await engine.segment(begun)
            del begun
            async with asyncio.timeout(10):
                while pixels() is not None:
                    await asyncio.sleep(0.001)

    asyncio.run(submit())


def test_tiles_of_an_image_that_nobody_waits_for_are_not_run() -> None:
    runtime = RecordingRuntime()
    runs, may_go_on = held(runtime)

    async def submit() -> None:
        with started(Engine(runtime, square(EDGE))) as engine:
            left = asyncio.ensure_future(engine.segment(work(1, tiles=9)))
            await asyncio.to_thread(runs.wait, 10)
            left.cancel()
            stays = asyncio.ensure_future(engine.segment(work(2, tiles=2)))
            await asyncio.sleep(0)
            may_go_on.set()
            await stays

    asyncio.run(submit())
    assert runtime.runs == [(1,), (2,), (2,)]


def failing_on(image: int) -> RecordingRuntime:
    def fail(batch: Batch) -> None:
        if image in batch:
            raise InferenceFailed("The runtime failed.")

    runtime = RecordingRuntime()
    runtime.before_run = fail
    return runtime


def test_an_image_on_which_the_runtime_fails_fails() -> None:
    (outcome,) = run_all(failing_on(1), work(1, tiles=2))
    assert isinstance(outcome, InferenceFailed)


def test_the_other_tiles_of_an_image_that_failed_are_not_run() -> None:
    tried: list[Batch] = []
    runtime = RecordingRuntime()

    def fail(batch: Batch) -> None:
        tried.append(batch)
        raise InferenceFailed("The runtime failed.")

    runtime.before_run = fail
    run_all(runtime, work(1, tiles=5))
    assert tried == [(1,)]


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_an_image_that_fails_fails_alone(provider: Provider) -> None:
    runtime = failing_on(1)
    runtime._provider = provider
    failed, *others = run_all(runtime, work(1, tiles=1), work(2, tiles=2), work(3, tiles=1))
    assert isinstance(failed, InferenceFailed)
    assert [(other.work.canvas == 1).all() for other in others] == [True, True]


def test_an_error_that_nobody_foresaw_fails_its_image_alone() -> None:
    runtime = failing_on(0)
    broken = replace(work(1, tiles=1), canvas=np.zeros((0, 0), np.uint8))
    failed, other = run_all(runtime, broken, work(2, tiles=1))
    assert isinstance(failed, InferenceFailed)
    assert isinstance(other, Segmented)


def test_an_image_that_comes_after_a_failure_is_segmented() -> None:
    async def submit() -> Segmented:
        with started(Engine(failing_on(1), square(EDGE))) as engine:
            with pytest.raises(InferenceFailed):
                await engine.segment(work(1, tiles=2))
            return await engine.segment(work(2, tiles=1))

    assert (asyncio.run(submit()).work.canvas == 1).all()


def stop_during_a_run(*works: Segmentation) -> list[Any]:
    """Stop an engine while it runs the first tile."""
    runtime = RecordingRuntime()
    runs, may_go_on = held(runtime)

    async def submit() -> list[Any]:
        engine = Engine(runtime, square(EDGE))
        tasks = [asyncio.ensure_future(engine.segment(each)) for each in works]
        await asyncio.sleep(0)
        engine.start()
        await asyncio.to_thread(runs.wait, 10)
        stop = asyncio.ensure_future(asyncio.to_thread(engine.stop))
        while not engine._stopping:
            await asyncio.sleep(0.001)
        may_go_on.set()
        await stop
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(submit())


def test_a_turn_that_has_begun_is_finished_when_the_engine_stops() -> None:
    (outcome,) = stop_during_a_run(work(1, tiles=1))
    assert isinstance(outcome, Segmented)


def test_images_that_wait_are_told_that_the_engine_stops() -> None:
    _, outcome = stop_during_a_run(work(1, tiles=1), work(2, tiles=1))
    assert isinstance(outcome, ServiceStopping)


def test_an_engine_that_has_stopped_takes_nothing() -> None:
    engine = Engine(RecordingRuntime(), square(EDGE))
    with started(engine):
        pass
    with pytest.raises(ServiceStopping):
        asyncio.run(engine.segment(work(1, tiles=1)))


def wait_for_warm_up(engine: Engine) -> None:
    """Wait until the thread has taken its first image."""
    asyncio.run(engine.segment(work(1, tiles=1)))


def test_an_engine_is_warming_up_before_it_is_started() -> None:
    assert Engine(RecordingRuntime(), square(EDGE)).state == "warming-up"


def test_an_engine_is_ready_once_every_shape_of_few_is_warmed_up() -> None:
    runtime = RecordingRuntime()
    with started(Engine(runtime, FEW)) as engine:
        wait_for_warm_up(engine)
        assert engine.state == "ready"
        assert engine.warm_shapes == FEW.all
    assert runtime.warmed_up == [
        ((EDGE, EDGE), 1),
        ((EDGE, OTHER_EDGE), 1),
        ((OTHER_EDGE, EDGE), 1),
    ]


def test_of_very_many_shapes_the_largest_square_is_warmed_up() -> None:
    runtime = RecordingRuntime()
    with started(Engine(runtime, TileShapes(OTHER_EDGE**2 - 1))) as engine:
        wait_for_warm_up(engine)
        assert engine.state == "ready"
        assert engine.warm_shapes == ((EDGE, EDGE),)
    assert runtime.warmed_up == [((EDGE, EDGE), 1)]


def test_a_gpu_is_warmed_up_with_every_batch_that_it_may_be_given() -> None:
    runtime = RecordingRuntime("cuda")
    with started(Engine(runtime, square(EDGE))) as engine:
        wait_for_warm_up(engine)
    assert runtime.warmed_up == [((EDGE, EDGE), batch) for batch in (1, 2, 3, 4)]


@pytest.mark.parametrize("error", [InferenceFailed("no memory"), MemoryError()])
def test_an_engine_that_cannot_warm_up_has_failed(error: Exception) -> None:
    runtime = RecordingRuntime()

    def fail() -> None:
        raise error

    runtime.before_warm_up = fail
    with started(Engine(runtime, square(EDGE))) as engine:
        wait_for_warm_up(engine)
        assert engine.state == "failed"


def test_an_engine_stops_without_warming_up_what_is_left() -> None:
    runtime = RecordingRuntime()
    engine = Engine(runtime, FEW)

    def begin_to_stop() -> None:
        threading.Thread(target=engine.stop).start()
        while not engine._stopping:
            pass

    runtime.before_warm_up = begin_to_stop
    engine.start()
    engine._thread.join(10)
    assert runtime.warmed_up == [((EDGE, EDGE), 1)]
