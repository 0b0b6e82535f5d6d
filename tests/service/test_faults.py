"""What fails: of whom it is the fault, and that nobody else has to suffer."""

import asyncio
import threading
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from model.averaging import begin
from model.errors import InferenceFailed
from model.planner import TileShapes
from model.segmentation import Segmentation
from model.sessions import Provider
from service.engine import Engine, Lack
from service.models.loaded import MOST_FAILURES, TILES_AT_FIRST, Loaded
from service.turn import Segmented, TurnReport
from tests.conftest import square
from tests.service.engines import (
    ServesOne,
    averaged,
    failing_on,
    run_all,
    short_of_memory,
    started,
    two_devices,
)
from tests.service.recording import (
    EDGE,
    MANIFEST,
    Batch,
    RecordingRuntime,
    work,
)


def test_an_image_that_fails_does_not_make_the_tiles_of_another_count_twice() -> None:
    runtime = RecordingRuntime("cuda")
    broken = replace(work(2, tiles=1), canvas=np.zeros((0, 0, 0)), output="foreground")
    segmented, failed = run_all(runtime, averaged(1, tiles=1)[:3], broken)
    assert runtime.runs == [(1, 2, 1, 1)]
    assert isinstance(failed, InferenceFailed)
    np.testing.assert_allclose(segmented.work.canvas, 3 / 8 / (1 + np.exp(-1)), rtol=1e-6)


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
        with started(ServesOne(failing_on(1), square(EDGE))) as engine:
            with pytest.raises(InferenceFailed):
                await engine.run(work(1, tiles=2))
            return await engine.run(work(2, tiles=1))

    assert (asyncio.run(submit()).work.canvas == 1).all()


def broken(runtime: RecordingRuntime) -> RecordingRuntime:
    """Let a runtime fail on whatever it is given."""

    def fail(_: Batch) -> None:
        raise InferenceFailed("The device is lost.")

    runtime.before_run = fail
    return runtime


async def run_one_by_one(engine: Engine, model: Loaded, images: int) -> list[Any]:
    """Segment images of one tile, each after the other."""
    return [
        (await asyncio.gather(engine.segment(model, work(each, 1)), return_exceptions=True))[0]
        for each in range(images)
    ]


def test_what_fails_on_one_device_is_run_on_the_other_and_no_image_fails() -> None:
    """Nor does the one that fails take another turn, once that has happened several times."""
    lost, sound = broken(RecordingRuntime("cuda", "cuda:0")), RecordingRuntime("cuda", "cuda:1")
    engine, model = two_devices(lost, sound)
    assert model.device == "cuda:0,1"

    async def submit() -> list[Any]:
        images = [asyncio.ensure_future(engine.segment(model, work(1, tiles=4))) for _ in range(5)]
        await asyncio.sleep(0)  # all are in the row
        engine._serve(0)  # until it is retired: no other worker is there to take turns
        assert sound.runs == [(1,)] * 4 * MOST_FAILURES  # what failed together, each on its own
        engine._workers[1].start()
        try:
            async with asyncio.timeout(10):
                return await asyncio.gather(*images)
        finally:
            engine.stop()

    assert all((each.work.canvas == 1).all() for each in asyncio.run(submit()))
    assert engine.devices == 1
    assert model.device == "cuda:1"
    assert model.state == "ready"


class WatchedCondition(threading.Condition):
    """A condition that says when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.awaited.set()
        return super().wait(timeout)


def test_when_a_device_is_retired_the_others_look_at_what_it_leaves() -> None:
    """Nothing else happens that would wake them."""
    engine = Engine(devices=2)
    engine._changed = changed = WatchedCondition()
    model = Loaded([RecordingRuntime("cuda", "cuda:0"), None], square(EDGE), engine.retired)
    model.state = "ready"

    async def submit() -> None:
        left = asyncio.ensure_future(engine.segment(model, work(1, tiles=1)))
        await asyncio.sleep(0)  # it is in the row
        engine._workers[1].start()
        assert await asyncio.to_thread(changed.awaited.wait, 10)
        for _ in range(MOST_FAILURES):
            engine._judge(0, Lack.SOUNDNESS)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(InferenceFailed):
                    await left
        finally:
            engine.stop()

    asyncio.run(submit())


def test_a_device_that_is_short_of_memory_is_not_retired() -> None:
    """Somebody else may have its memory for a while."""
    short = short_of_memory(RecordingRuntime("cuda", "cuda:0"), 0)
    sound = RecordingRuntime("cuda", "cuda:1")
    engine, model = two_devices(short, sound)

    async def submit() -> list[Any]:
        engine._workers[0].start()
        try:
            async with asyncio.timeout(20):
                return await run_one_by_one(engine, model, 2 * MOST_FAILURES)
        finally:
            engine.stop()

    assert [each.device for each in asyncio.run(submit())] == ["cuda:1"] * 2 * MOST_FAILURES
    assert engine.devices == 2


def test_an_image_that_fails_on_several_devices_at_a_time_is_one_failure() -> None:
    both = threading.Barrier(2, timeout=10)

    def fail_together(_: Batch) -> None:
        if engine.backlog().images or not both.broken:
            both.wait()
        raise InferenceFailed("It cannot be run.")

    runtimes = RecordingRuntime(), RecordingRuntime()
    for runtime in runtimes:
        runtime.before_run = fail_together
    engine, model = two_devices(*runtimes)

    async def submit() -> Any:
        engine.start()
        try:
            async with asyncio.timeout(10):
                return await asyncio.gather(
                    engine.segment(model, work(1, tiles=2)), return_exceptions=True
                )
        finally:
            engine.stop()

    assert [type(each) for each in asyncio.run(submit())] == [InferenceFailed]
    assert model._failures == 1


def test_a_device_that_does_not_run_a_model_runs_others_and_is_not_to_blame() -> None:
    engine = Engine(devices=2)
    sound = RecordingRuntime("cuda", "cuda:1")
    partial_, whole = (
        Loaded([first, sound], square(EDGE), engine.retired)
        for first in (None, RecordingRuntime("cuda", "cuda:0"))
    )
    for model in (partial_, whole):
        model.state = "ready"

    async def submit() -> None:
        left = asyncio.ensure_future(engine.segment(partial_, work(1, tiles=1)))
        done = asyncio.ensure_future(engine.segment(whole, work(2, tiles=1)))
        await asyncio.sleep(0)  # both are in the row
        engine._workers[0].start()
        try:
            async with asyncio.timeout(10):
                await done
                assert engine.backlog().images == 1
                engine._workers[1].start()
                await left
        finally:
            engine.stop()

    asyncio.run(submit())
    assert sound.runs == [(1,)]
    assert engine._failures == [0, 0]


def test_what_fails_on_all_devices_is_the_fault_of_the_model() -> None:
    runtimes = broken(RecordingRuntime()), broken(RecordingRuntime())
    engine, model = two_devices(*runtimes)

    async def submit() -> list[Any]:
        engine.start()
        try:
            async with asyncio.timeout(10):
                return await run_one_by_one(engine, model, MOST_FAILURES)
        finally:
            engine.stop()

    assert all(isinstance(each, InferenceFailed) for each in asyncio.run(submit()))
    assert engine.devices == 2
    assert model.state == "failed"


class WatchedLock:
    """A lock that says when somebody waits for it."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.wanted.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_what_is_tried_on_another_device_waits_for_its_turn_to_end() -> None:
    """A session takes one thread at a time."""
    sound = RecordingRuntime("cuda", "cuda:1")
    engine, model = two_devices(broken(RecordingRuntime("cuda", "cuda:0")), sound)
    engine.running[1] = lock = cast("Any", WatchedLock())
    at_a_time, most = 0, 0

    def run(_: Batch) -> None:
        nonlocal at_a_time, most
        at_a_time += 1
        most = max(most, at_a_time)
        assert lock.wanted.wait(10)
        at_a_time -= 1

    sound.before_run = run

    async def submit() -> list[Any]:
        engine.start()
        try:
            async with asyncio.timeout(20):
                both = (engine.segment(model, work(each, tiles=4)) for each in (1, 2))
                return await asyncio.gather(*both)
        finally:
            engine.stop()

    assert all(isinstance(each, Segmented) for each in asyncio.run(submit()))
    assert most == 1


def image_of_large_tiles(tiles: int) -> tuple[Segmentation, int]:
    """Give an image, and the edge of its tiles, which can be divided."""
    edge = MANIFEST.geometry.edge_at_most(3 * EDGE)
    return work(1, tiles, edge), edge


def test_one_shortage_halves_the_largest_tile_once() -> None:
    image, edge = image_of_large_tiles(tiles=4)
    runtime = short_of_memory(RecordingRuntime(), edge**2 - 1)

    async def submit() -> tuple[Segmented, TileShapes]:
        with started(ServesOne(runtime, TileShapes(edge**2))) as engine:
            return await engine.run(image), engine.model.shapes

    segmented, shapes = asyncio.run(submit())
    assert (segmented.work.canvas == 1).all()
    assert shapes.largest_area == edge**2 // 2


@pytest.mark.parametrize("other_has_it", [True, False])
def test_tiles_become_smaller_only_where_no_device_has_the_memory(other_has_it: bool) -> None:
    """A device without any is no reason to give another one smaller tiles, or fewer at once."""
    image, edge = image_of_large_tiles(tiles=4)
    without = short_of_memory(RecordingRuntime("cuda", "cuda:0"), 0)
    other = short_of_memory(RecordingRuntime("cuda", "cuda:1"), edge**2 - 1 + other_has_it)
    engine, model = two_devices(without, other)
    model.shapes = TileShapes(edge**2)

    async def submit() -> Segmented:
        future = asyncio.ensure_future(engine.segment(model, image))
        await asyncio.sleep(0)  # it is in the row
        engine._workers[0].start()  # the one without memory takes all turns
        try:
            async with asyncio.timeout(20):
                return await future
        finally:
            engine.stop()

    assert (asyncio.run(submit()).work.canvas == 1).all()
    assert model.shapes.largest_area == (edge**2 if other_has_it else edge**2 // 2)
    assert model.most_tiles((edge, edge)) == TILES_AT_FIRST["cuda"]


def test_whatever_goes_wrong_around_a_turn_the_worker_lives_on() -> None:
    async def submit() -> list[Any]:
        with started(ServesOne(RecordingRuntime(), square(EDGE))) as engine:

            def fail_once(_: TurnReport) -> None:
                engine.observe = lambda _: None
                raise MemoryError

            engine.observe = fail_once
            async with asyncio.timeout(10):
                with pytest.raises(InferenceFailed):
                    await engine.run(work(1, tiles=1))
                return [await engine.run(work(2, tiles=1))]

    assert all(isinstance(each, Segmented) for each in asyncio.run(submit()))


def test_where_memory_runs_out_fewer_tiles_are_run_together() -> None:
    runtime = short_of_memory(RecordingRuntime("cuda"), 2 * EDGE**2)
    (first,) = run_all(runtime, work(1, tiles=4))
    assert (first.work.canvas == 1).all()
    assert runtime.runs == [(1, 1), (1, 1)]


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_where_one_tile_is_too_much_smaller_ones_cover_just_what_it_writes(
    provider: Provider,
) -> None:
    """The canvas of an image that is averaged would show whatever was written twice."""
    edge = MANIFEST.geometry.edge_at_most(3 * EDGE)
    size, shapes = MANIFEST.geometry.output_edge(edge), TileShapes(edge**2)
    runtime = short_of_memory(RecordingRuntime(provider), edge**2 - 1)
    image = np.full((1, size, size), 1)
    passes = begin(image, MANIFEST, shapes, averaging="rotations", output="foreground")
    assert [len(each.plan.tiles) for each in passes] == [1] * 8

    async def submit() -> tuple[Segmented, TileShapes]:
        with started(ServesOne(runtime, shapes)) as engine:
            return await engine.run(*passes), engine.model.shapes

    segmented, smaller = asyncio.run(submit())
    np.testing.assert_allclose(segmented.work.canvas, 1 / (1 + np.exp(-1)), rtol=1e-6)
    assert smaller.largest_area < edge**2


def test_a_model_without_memory_for_any_tile_fails_and_does_not_try_for_ever() -> None:
    runtime = short_of_memory(RecordingRuntime(), 1)
    (outcome,) = run_all(runtime, work(1, tiles=2))
    assert isinstance(outcome, InferenceFailed)


def test_of_an_image_that_failed_no_part_is_run_any_more() -> None:
    """Where its first tile was divided, all the other parts would fail as well."""
    edge = MANIFEST.geometry.edge_at_most(6 * EDGE)
    size, shapes = MANIFEST.geometry.output_edge(edge), TileShapes(edge**2)
    runtime, tried = RecordingRuntime(), list[int]()

    def too_much(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        tried.append(tiles.size)
        raise MemoryError

    runtime.run = too_much  # type: ignore[method-assign]  # a seam
    passes = begin(
        np.ones((1, size, size)), MANIFEST, shapes, averaging="none", output="foreground"
    )

    async def submit() -> None:
        with started(ServesOne(runtime, shapes)) as engine, pytest.raises(InferenceFailed):
            await engine.run(*passes)

    asyncio.run(submit())
    assert tried == sorted(set(tried), reverse=True)  # each time a smaller one, and one of each


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_one_image_counts_once_however_many_of_its_tiles_fail(provider: Provider) -> None:
    async def submit() -> str:
        with started(ServesOne(failing_on(1, provider), square(EDGE))) as engine:
            with pytest.raises(InferenceFailed):
                await engine.run(work(1, tiles=MOST_FAILURES + 1))
            await engine.run(work(2, tiles=1))  # after all that is left of the other
            return engine.model.state

    assert asyncio.run(submit()) == "ready"


def test_a_model_that_fails_on_image_after_image_is_not_ready() -> None:
    async def submit() -> str:
        with started(ServesOne(failing_on(1), square(EDGE))) as engine:
            for _ in range(MOST_FAILURES):
                with pytest.raises(InferenceFailed):
                    await engine.run(work(1, tiles=1))
            return engine.model.state

    assert asyncio.run(submit()) == "failed"


def test_a_runtime_that_loses_a_tile_fails_its_image_and_not_the_worker() -> None:
    runtime = RecordingRuntime()
    run = runtime.run
    runtime.run = lambda tiles: run(tiles)[:0] if not runtime.runs else run(tiles)  # type: ignore[method-assign]  # a seam

    async def submit() -> Segmented:
        with started(ServesOne(runtime, square(EDGE))) as engine:
            async with asyncio.timeout(10):
                with pytest.raises(InferenceFailed):
                    await engine.run(work(1, tiles=1))
                return await engine.run(work(2, tiles=1))

    assert (asyncio.run(submit()).work.canvas == 1).all()
