"""The engine: tiles of many requests, run in fair turns."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import numpy as np
import pytest

from model.averaging import begin
from model.errors import DeadlinePassed, InferenceFailed, ServiceStopping
from model.geometry import flops
from model.intensity import IntensityScale
from model.planner import TileShapes
from model.segmentation import Segmentation
from model.sessions import Provider
from service import engine as module
from service import worker
from service.engine import HANGING_S, HANGING_TIMES, Backlog, Engine
from service.estimate import Demand, Forecast
from service.fair_queue import FairQueue, Job
from service.models.loaded import Loaded
from service.turn import Pass, Segmented, TurnReport, Waiter, write
from tests.conftest import square
from tests.service.engines import (
    ServesOne,
    averaged,
    failing_on,
    held,
    run_all,
    short_of_memory,
    started,
    two_devices,
)
from tests.service.recording import (
    EDGE,
    MANIFEST,
    OTHER_EDGE,
    Batch,
    RecordingRuntime,
    work,
)

T = TypeVar("T")


def test_an_image_is_segmented_tile_by_tile() -> None:
    runtime = RecordingRuntime()
    (segmented,) = run_all(runtime, work(7, tiles=3))
    assert runtime.runs == [(7,)] * 3
    assert (segmented.work.canvas == 1).all()


@pytest.mark.parametrize(
    ("moments", "inference_s"),
    [
        ([("begin", 1), ("end", 3), ("begin", 7), ("end", 8)], 3),
        ([("begin", 1), ("begin", 2), ("end", 3), ("end", 5)], 4),  # whichever of them ends first
    ],
    ids=["one after the other", "at a time"],
)
def test_turns_that_overlap_are_counted_once(
    moments: list[tuple[str, float]], inference_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 9.0)

    async def segment() -> Segmented:
        loop = asyncio.get_running_loop()
        waiter = Waiter((work(1, tiles=2),), loop, loop.create_future(), 2, submitted=0.0)
        for what, moment in moments:
            getattr(waiter, what)(moment)
        assert [waiter.count("cpu"), waiter.count("cpu")] == [False, True]
        waiter.finish()
        return await waiter.future

    segmented = asyncio.run(segment())
    assert (segmented.inference_s, segmented.queue_s) == (inference_s, 9 - inference_s)


def test_images_take_turns_tile_by_tile() -> None:
    runtime = RecordingRuntime()
    run_all(runtime, work(1, tiles=4), work(2, tiles=2), work(3, tiles=1))
    assert runtime.runs == [(1,), (2,), (3,), (1,), (2,), (1,), (1,)]


def test_a_small_image_is_done_before_a_large_one_that_came_first() -> None:
    runtime = RecordingRuntime()
    done: list[int] = []

    async def submit() -> None:
        engine = ServesOne(runtime, square(EDGE))

        async def segment(image: int, tiles: int) -> None:
            await engine.run(work(image, tiles))
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
    assert runtime.runs == [(1, 2, 3, 2)]


def test_tiles_of_different_shapes_are_not_run_together() -> None:
    runtime = RecordingRuntime("cuda")
    run_all(runtime, work(1, tiles=1), work(2, tiles=2, edge=OTHER_EDGE), work(3, tiles=1))
    assert runtime.runs == [(1, 3), (2, 2)]


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
    assert runtime.runs == [(1, 3), (2, 3), (3,)]


def test_an_image_that_is_done_is_not_held_until_the_next_one_comes() -> None:
    async def submit() -> None:
        with started(ServesOne(RecordingRuntime(), square(EDGE))) as engine:
            begun = work(1, tiles=2)
            pixels = weakref.ref(begun.image)
            await engine.run(begun)
            del begun
            async with asyncio.timeout(10):
                while pixels() is not None:
                    await asyncio.sleep(0.001)

    asyncio.run(submit())


def test_tiles_of_an_image_that_nobody_waits_for_are_not_run() -> None:
    runtime = RecordingRuntime()
    runs, may_go_on = held(runtime)

    async def submit() -> None:
        with started(ServesOne(runtime, square(EDGE))) as engine:
            left = asyncio.ensure_future(engine.run(work(1, tiles=9)))
            await asyncio.to_thread(runs.wait, 10)
            left.cancel()
            stays = asyncio.ensure_future(engine.run(work(2, tiles=2)))
            await asyncio.sleep(0)
            may_go_on.set()
            await stays

    asyncio.run(submit())
    assert runtime.runs == [(1,), (2,), (2,)]


def stop_during_a_run(*works: Segmentation) -> list[Any]:
    """Stop an engine while it runs the first tile."""
    runtime = RecordingRuntime()
    runs, may_go_on = held(runtime)

    async def submit() -> list[Any]:
        engine = ServesOne(runtime, square(EDGE))
        tasks = [asyncio.ensure_future(engine.run(each)) for each in works]
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
    engine = ServesOne(RecordingRuntime(), square(EDGE))
    with started(engine):
        pass
    with pytest.raises(ServiceStopping):
        asyncio.run(engine.run(work(1, tiles=1)))


def test_an_image_whose_deadline_passes_is_told_so_and_not_run() -> None:
    runtime = RecordingRuntime()
    runs, may_go_on = held(runtime)

    async def submit() -> list[Any]:
        with started(ServesOne(runtime, square(EDGE))) as engine:
            first = asyncio.ensure_future(engine.run(work(1, tiles=1)))
            await asyncio.to_thread(runs.wait, 10)
            past = time.monotonic() - 1
            late = asyncio.ensure_future(engine.segment(engine.model, work(2, 1), deadline=past))
            await asyncio.sleep(0)
            may_go_on.set()
            return [*await asyncio.gather(first, late, return_exceptions=True)]

    done, late = asyncio.run(submit())
    assert isinstance(done, Segmented)
    assert isinstance(late, DeadlinePassed)
    assert runtime.runs == [(1,)]


def test_a_deadline_is_noticed_though_nothing_else_happens() -> None:
    """The model is warming up, so that the image has to wait."""

    async def submit() -> None:
        with started(ServesOne(RecordingRuntime(), square(EDGE))) as engine:
            engine.model.state = "warming-up"
            soon = time.monotonic() + 0.01
            async with asyncio.timeout(10):
                await engine.segment(engine.model, work(1, tiles=1), deadline=soon)

    with pytest.raises(DeadlinePassed):
        asyncio.run(submit())


def test_who_leaves_is_let_go_though_nothing_else_happens() -> None:
    """The model is warming up, so that the image has to wait."""

    async def submit() -> None:
        with started(ServesOne(RecordingRuntime(), square(EDGE))) as engine:
            engine.model.state = "warming-up"
            waits = asyncio.ensure_future(engine.run(work(1, tiles=1)))
            async with asyncio.timeout(10):
                while not engine.backlog().images:
                    await asyncio.sleep(0)
                waits.cancel()
                while engine.backlog().images:
                    await asyncio.sleep(0)

    asyncio.run(submit())


def test_images_of_a_model_that_warms_up_let_those_of_another_pass() -> None:
    warm, cold = RecordingRuntime(), RecordingRuntime()

    async def submit() -> Segmented:
        with started(ServesOne(warm, square(EDGE))) as engine:
            other = Loaded([cold], square(EDGE))
            waits = asyncio.ensure_future(engine.segment(other, work(1, tiles=1)))
            await asyncio.sleep(0)
            await engine.run(work(2, tiles=1))
            assert cold.runs == []
            other.warm_up(threading.Event())
            engine.wake()
            async with asyncio.timeout(10):
                return await waits

    assert (asyncio.run(submit()).work.canvas == 1).all()
    assert (warm.runs, cold.runs) == ([(2,)], [(1,)])


def test_tiles_of_two_models_are_never_run_together() -> None:
    one, other = RecordingRuntime("cuda"), RecordingRuntime("cuda")

    async def submit() -> None:
        engine = ServesOne(one, square(EDGE))
        second = Loaded([other], square(EDGE))
        second.state = "ready"
        tasks = [asyncio.ensure_future(engine.run(work(1, tiles=2)))]
        tasks.append(asyncio.ensure_future(engine.segment(second, work(2, tiles=2))))
        await asyncio.sleep(0)
        with started(engine):
            await asyncio.gather(*tasks)

    asyncio.run(submit())
    assert (one.runs, other.runs) == ([(1, 1)], [(2, 2)])


def reports_of(runtime: RecordingRuntime, *works: Segmentation) -> list[TurnReport]:
    """Give what an engine tells of its turns, up to the last answer."""

    async def submit() -> list[TurnReport]:
        engine = ServesOne(runtime, square(EDGE))
        reports: list[TurnReport] = []
        engine.observe = reports.append
        tasks = [asyncio.ensure_future(engine.run(each)) for each in works]
        await asyncio.sleep(0)
        with started(engine):
            await asyncio.gather(*tasks, return_exceptions=True)
            return list(reports)

    return asyncio.run(submit())


def test_every_turn_is_told_of_before_anybody_has_its_result() -> None:
    share = MANIFEST.geometry.share(EDGE)
    assert reports_of(RecordingRuntime("cuda"), work(1, tiles=5)) == [
        TurnReport("tiny", "done", 4, 4 * EDGE**2, 4 * share),
        TurnReport("tiny", "done", 1, EDGE**2, share),
    ]


def test_a_turn_that_fails_is_told_of_and_so_are_its_halves() -> None:
    runtime = failing_on(1)
    runtime._provider = "cuda"
    reports = reports_of(runtime, work(1, tiles=1), work(2, tiles=1))
    assert [(report.outcome, report.tiles) for report in reports] == [
        ("failed", 2),
        ("failed", 1),
        ("done", 1),
    ]


def test_a_turn_that_runs_out_of_memory_is_told_of() -> None:
    runtime = short_of_memory(RecordingRuntime("cuda"), 2 * EDGE**2)
    reports = reports_of(runtime, work(1, tiles=4))
    assert [(report.outcome, report.tiles) for report in reports] == [
        ("out-of-memory", 4),
        ("done", 2),
        ("done", 2),
    ]


class Watched(FairQueue[Any, Any]):
    """Notes, whenever it is read, whether another thread could have changed it meanwhile."""

    def __init__(self, lock: threading.Condition) -> None:
        super().__init__(lambda: 0.0)
        self._lock = lock
        self.was_open: list[bool] = []

    def __len__(self) -> int:
        self._look()
        return super().__len__()

    @property
    def work(self) -> int:
        self._look()
        return super().work

    @property
    def oldest_age(self) -> float:
        self._look()
        return super().oldest_age

    def _look(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            self.was_open.append(pool.submit(self._lock.acquire, blocking=False).result())


def test_the_backlog_is_read_while_nobody_changes_it() -> None:
    engine = Engine()
    engine._queue = watched = Watched(engine._changed)
    assert engine.backlog() == Backlog(0, 0, 0.0)
    assert watched.was_open == [False] * 3


def on_a_turn(act: Callable[[ServesOne, Callable[[float], None]], T]) -> T:
    """Do something while an engine runs the only tile of an image that came at 100 s.

    It is given the engine and what moves its clock.
    """
    now = 100.0

    def move(time_: float) -> None:
        nonlocal now
        now = time_

    runtime = RecordingRuntime()
    runs, may_go_on = held(runtime)

    async def submit() -> T:
        engine = ServesOne(runtime, square(EDGE), lambda: now)
        with started(engine):
            running = asyncio.ensure_future(engine.run(work(1, tiles=1)))
            await asyncio.to_thread(runs.wait, 10)
            try:
                return act(engine, move)
            finally:
                may_go_on.set()
                await asyncio.gather(running, return_exceptions=True)

    return asyncio.run(submit())


def test_the_oldest_image_may_be_one_whose_turn_it_is() -> None:
    """Or a device that hangs would not be seen, once it has all tiles of its image."""

    def look(engine: ServesOne, move: Callable[[float], None]) -> tuple[Engine, Backlog]:
        move(107.5)
        return engine, engine.backlog()

    engine, during = on_a_turn(look)
    assert during == Backlog(0, 0, 7.5)
    assert engine.backlog() == Backlog(0, 0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "most_s"), [(0.1, HANGING_S), (30.0, HANGING_TIMES * 30.0), (None, HANGING_S)]
)
def test_a_device_hangs_once_its_turn_is_very_much_longer_than_its_work_takes(
    seconds: float | None, most_s: float
) -> None:
    """A minute at least; where no speed is known, that is all."""

    def look(engine: ServesOne, move: Callable[[float], None]) -> list[dict[int, float]]:
        tile = flops(MANIFEST.architecture, (EDGE, EDGE))
        engine.model.work_a_second = tile / seconds if seconds else 0.0
        found = []
        for time_ in (most_s - 1, most_s + 1):
            move(100 + time_)
            found.append(engine.hanging())
        ended.append(engine)
        return found

    ended: list[Engine] = []
    assert on_a_turn(look) == [{}, {0: most_s + 1}]
    assert ended[0].hanging() == {}


def test_an_engine_with_a_device_that_hangs_stops_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "PATIENCE_S", 0.0)
    runtime = RecordingRuntime()
    runs, may_go_on = held(runtime)

    async def submit() -> None:
        engine = ServesOne(runtime, square(EDGE))
        engine.start()
        image = asyncio.ensure_future(engine.run(work(1, tiles=1)))
        await asyncio.to_thread(runs.wait, 10)
        engine.stop()
        with pytest.raises(ServiceStopping):
            await image
        may_go_on.set()
        engine._workers[0].join(10)

    asyncio.run(submit())
    assert "device 0 did not end within 0 s: left behind" in caplog.text


def test_two_devices_share_one_image() -> None:
    runtimes = RecordingRuntime(), RecordingRuntime()
    both = threading.Barrier(2, timeout=10)

    def wait_for_the_other(_: Batch) -> None:
        both.wait()

    for runtime in runtimes:
        runtime.before_run = wait_for_the_other

    async def submit() -> Segmented:
        engine = Engine(devices=2)
        model = Loaded(runtimes, square(EDGE))
        model.state = "ready"
        engine.start()
        try:
            return await engine.segment(model, work(1, tiles=6))
        finally:
            engine.stop()

    assert (asyncio.run(submit()).work.canvas == 1).all()
    assert [len(runtime.runs) for runtime in runtimes] == [3, 3]


def run_on_two_devices(
    act: Callable[[Engine], None], *passes: Segmentation, first: Callable[[Batch], None]
) -> Segmented:
    """Segment an image while the engine does something, with the workers that it starts."""
    runtimes = [RecordingRuntime("cuda", f"cuda:{number}") for number in range(2)]
    runtimes[0].before_run = first
    engine, model = two_devices(*runtimes)
    assert model.device == "cuda:0,1"

    async def submit() -> Segmented:
        future = asyncio.ensure_future(engine.segment(model, *passes))
        await asyncio.sleep(0)  # it is in the row
        act(engine)
        try:
            async with asyncio.timeout(10):
                return await future
        finally:
            engine.stop()

    return asyncio.run(submit())


@pytest.mark.parametrize("is_averaged", [True, False])
@pytest.mark.parametrize("device", [0, 1])
def test_an_answer_names_the_device_that_ran_all_its_tiles_and_no_other(
    device: int, is_averaged: bool
) -> None:
    passes = averaged(1, tiles=2) if is_averaged else (work(1, tiles=9),)
    segmented = run_on_two_devices(
        lambda engine: engine._workers[device].start(), *passes, first=lambda _: None
    )
    assert segmented.device == f"cuda:{device}"


def test_an_answer_names_a_device_that_was_retired_after_some_of_its_tiles() -> None:
    runs = iter(["goes well"])

    def fail_after_the_first(_: Batch) -> None:
        if next(runs, "") != "goes well":
            raise InferenceFailed("The device is lost.")

    def retire_and_go_on(engine: Engine) -> None:
        engine._serve(0)
        assert engine.retired == {0}
        engine._workers[1].start()

    segmented = run_on_two_devices(retire_and_go_on, work(1, tiles=20), first=fail_after_the_first)
    assert segmented.device == "cuda:0,1"


def test_an_answer_of_a_cpu_names_it() -> None:
    assert [each.device for each in run_all(RecordingRuntime(), work(1, 1))] == ["cpu"]


def test_the_devices_of_an_answer_are_named_in_their_order() -> None:
    async def name() -> str:
        loop = asyncio.get_running_loop()
        waiter = Waiter((work(1, tiles=3),), loop, loop.create_future(), 3)
        for device in ("cuda:10", "cuda:2", "cuda:2"):
            waiter.count(device)
        waiter.finish()
        return (await waiter.future).device

    assert asyncio.run(name()) == "cuda:2,10"


@pytest.mark.parametrize(("at_once", "in_thread"), [(8, False), (7, True)])
def test_steps_of_very_many_tiles_are_made_off_the_event_loop(
    at_once: int, in_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in: list[int] = []

    def making(*arguments: Any) -> Job[Any, Any]:
        made_in.append(threading.get_ident())
        return Job(*arguments)

    monkeypatch.setattr(module, "Job", making)
    monkeypatch.setattr(module, "MOST_TILES_AT_ONCE", at_once)

    async def submit() -> Segmented:
        with started(ServesOne(RecordingRuntime(), square(EDGE))) as engine:
            return await engine.run(*averaged(1, tiles=1))

    np.testing.assert_allclose(asyncio.run(submit()).work.canvas, 1 / (1 + np.exp(-1)), rtol=1e-6)
    assert [each != threading.get_ident() for each in made_in] == [in_thread]


def test_once_an_image_is_said_to_be_queued_the_forecast_knows_of_it() -> None:
    engine = ServesOne(RecordingRuntime(), square(EDGE))
    known: list[int] = []

    async def submit() -> None:
        def look() -> None:
            known.append(len(engine._queue))

        left = asyncio.ensure_future(engine.segment(engine.model, work(1, 2), queued=look))
        await asyncio.sleep(0)
        left.cancel()

    asyncio.run(submit())
    assert known == [1]


def test_tiles_that_wait_are_shared_by_the_devices() -> None:
    engine, model = two_devices(RecordingRuntime("cuda"), RecordingRuntime("cuda"))
    kind = (model, (EDGE, EDGE), "labels")
    assert [engine._most_tiles(kind, waiting) for waiting in (1, 2, 4, 5, 100)] == [1, 1, 2, 2, 4]


def test_where_labels_are_all_that_is_asked_for_the_device_is_asked_for_labels() -> None:
    runtime = RecordingRuntime()
    run_all(
        runtime, work(1, tiles=2), averaged(2, tiles=1)[:1], replace(work(3, 1), output="labels")
    )
    assert sorted(runtime.runs) == [(1,), (1,), (2,), (3,)]
    assert sorted(runtime.decided) == [(1,), (1,), (3,)]


def test_tiles_that_are_asked_different_things_are_not_run_together() -> None:
    runtime = RecordingRuntime("cuda")
    run_all(runtime, work(1, tiles=1), averaged(2, tiles=1)[:2], work(3, tiles=1))
    assert runtime.runs == [(1, 3), (2, 2)]
    assert runtime.decided == [(1, 3)]


def test_a_tile_is_written_by_one_device_at_a_time() -> None:
    """Passes that are averaged share a canvas, and adding to it is no single step."""
    held = list[bool]()

    async def submit() -> None:
        loop = asyncio.get_running_loop()
        waiter = Waiter((), loop, loop.create_future(), tiles_left=1)
        written = SimpleNamespace(
            given="logits", write=lambda *_: held.append(waiter.lock.locked())
        )
        write(Job(waiter, ()), Pass(cast("Segmentation", written), cast("Any", None)), np.zeros(1))

    asyncio.run(submit())
    assert held == [True]


def test_the_forecast_is_what_the_images_that_wait_still_ask_for() -> None:
    runtime = RecordingRuntime()
    tile = flops(MANIFEST.architecture, (EDGE, EDGE))
    share = MANIFEST.geometry.share(EDGE)

    async def submit() -> tuple[Forecast, Forecast]:
        engine = ServesOne(runtime, square(EDGE))
        engine.model.note_turn(1000, 2.0)
        tasks = [
            asyncio.ensure_future(engine.run(*passes))
            for passes in ((work(1, tiles=3),), averaged(2, tiles=1), (work(3, tiles=1),))
        ]
        await asyncio.sleep(0)
        before = engine.forecast()
        tasks[2].cancel()  # nobody waits for it, though it is not dropped yet
        await asyncio.sleep(0)
        engine._queue.take(lambda *_: 1)
        for task in tasks:
            task.cancel()
        return before, engine.forecast()

    def demand(tiles: int, pixels: int) -> Demand:
        return Demand(pixels, tiles * tile, 500.0, model="tiny")

    before, after = asyncio.run(submit())
    assert before == Forecast(
        (demand(3, 3 * share), demand(8, 8 * share), demand(1, share)), devices=1
    )
    assert after == Forecast((demand(2, 3 * share), demand(8, 8 * share)), devices=1)


def test_a_run_has_a_power_of_two_of_tiles_since_others_are_not_warm() -> None:
    runtime = RecordingRuntime("cuda")
    run_all(runtime, work(1, tiles=7))
    assert [len(batch) for batch in runtime.runs] == [4, 2, 1]
