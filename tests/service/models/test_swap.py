"""Models that come, change and go under the requests that use them."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from model.errors import ServiceStopping, UNetError
from service import worker
from service.models.loaded import Loaded
from service.models.models import Models
from service.models.served import Change
from tests.conftest import square
from tests.service.models.shelf import Shelf
from tests.service.recording import EDGE, Batch, RecordingRuntime, work

T = TypeVar("T")

ONE = Loaded([RecordingRuntime()], square(EDGE)).memory_bytes
TILES = 3


class Gate:
    """Holds a thread until it is opened."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()

    def __call__(self, _: Batch = ()) -> None:
        self._reached.set()
        assert self._opened.wait(10)

    def open(self) -> None:
        self._opened.set()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 10)


class Requests:
    """Requests to the models on a shelf."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.answers: dict[int, str] = {}
        """Which digest each image's answer names."""

    async def segment(self, image: int, name: str = "cells") -> None:
        async with self.models.use(name) as model:
            await self.models.engine.segment(model, work(image, TILES))
            self.answers[image] = model.artefact.sha256

    def begin(self, *images: int, name: str = "cells") -> list[asyncio.Future[None]]:
        return [asyncio.ensure_future(self.segment(image, name)) for image in images]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Give a folder of one model, `cells`, in `1.onnx`, that is served."""
    shelf = Shelf(tmp_path)
    shelf.write("1", "cells")
    shelf.serve()
    return shelf


def run(shelf: Shelf, act: Callable[[Requests], Awaitable[T]]) -> T:
    """Do something while the shelf is served."""

    async def serve() -> T:
        async with serving(shelf) as models, asyncio.timeout(20):
            return await act(Requests(models))

    return asyncio.run(serve())


@asynccontextmanager
async def serving(shelf: Shelf) -> AsyncIterator[Models]:
    with shelf.models() as models:
        yield models


def kinds(changes: list[Change]) -> list[str]:
    return [change.kind for change in changes]


async def turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_end_on_the_model_that_they_began_with_and_new_ones_take_the_new(
    shelf: Shelf,
) -> None:
    (old,) = shelf.digests().values()
    gate = Gate()
    shelf.opened[0].before_run = gate

    async def swap(requests: Requests) -> str:
        before = requests.begin(1, 2, 3)
        await gate.reached()
        new = shelf.write("1", "cells", version=2)
        assert kinds(await requests.models.reload()) == ["swapped"]
        after = requests.begin(4, 5, 6)
        await turns()
        gate.open()
        await asyncio.gather(*before, *after)
        assert requests.answers == dict.fromkeys((1, 2, 3), old) | dict.fromkeys((4, 5, 6), new)
        return new

    new = run(shelf, swap)
    ran = {each.artefact.sha256: sorted(sum(each.runs, ())) for each in shelf.opened}
    assert ran == {old: sorted([1, 2, 3] * TILES), new: sorted([4, 5, 6] * TILES)}


def test_many_swaps_under_load_fail_and_mix_no_request(shelf: Shelf) -> None:
    images = range(1, 41)

    async def swap(requests: Requests) -> None:
        tasks = []
        for image in images:
            tasks += requests.begin(image)
            if image % 4 == 0:
                shelf.write("1", "cells", version=image)
                assert kinds(await requests.models.reload()) == ["swapped"]
        await asyncio.gather(*tasks)
        assert set(requests.answers) == set(images)
        for each in shelf.opened:
            named = [image for image in images if requests.answers[image] == each.artefact.sha256]
            assert sorted(sum(each.runs, ())) == sorted(named * TILES)

    run(shelf, swap)
    assert len(shelf.opened) == 11


def test_a_bad_file_fails_no_request(shelf: Shelf) -> None:
    old = shelf.digests()["cells"]

    async def spoil(requests: Requests) -> None:
        tasks = requests.begin(1, 2)
        shelf.write("1", "cells", version=2, length=9)
        assert kinds(await requests.models.reload()) == ["refused"]
        await asyncio.gather(*tasks, *requests.begin(3))
        assert requests.answers == dict.fromkeys((1, 2, 3), old)
        described = requests.models.refused()
        assert [each.file for each in described] == ["1.onnx"]
        assert [each.state for each in requests.models.ready_states()] == ["ready"]

    run(shelf, spoil)


def test_a_request_ends_on_a_model_that_went_out_of_service(shelf: Shelf) -> None:
    gate = Gate()
    shelf.opened[0].before_run = gate
    shelf.write("2", "nuclei")

    async def remove(requests: Requests) -> None:
        (task,) = requests.begin(1)
        await gate.reached()
        shelf.remove("1")
        assert kinds(await requests.models.reload()) == ["added", "removed"]
        gate.open()
        await task
        assert list(requests.answers) == [1]

    run(shelf, remove)


def test_an_old_model_is_let_go_with_the_last_request_that_uses_it(shelf: Shelf) -> None:
    gate = Gate()
    shelf.opened[0].before_run = gate
    old = weakref.ref(shelf.opened[0])

    async def swap(requests: Requests) -> tuple[bool, bool]:
        tasks = requests.begin(1, 2)
        await gate.reached()
        shelf.write("1", "cells", version=2)
        await requests.models.reload()
        shelf.opened.clear()
        gc.collect()
        during = old() is not None
        gate.open()
        await asyncio.gather(*tasks)
        await requests.segment(3)
        tasks.clear()
        gc.collect()
        return during, old() is not None

    assert run(shelf, swap) == (True, False)


def test_the_service_is_ready_while_a_model_is_replaced_and_another_comes(shelf: Shelf) -> None:
    gate = Gate()
    shelf.before_warm_up = gate
    shelf.write("1", "cells", version=2)
    shelf.write("2", "nuclei")

    async def look(requests: Requests) -> None:
        reload = asyncio.ensure_future(requests.models.reload())
        await gate.reached()
        assert [each.name for each in requests.models.ready_states()] == ["cells"]
        await requests.segment(1)
        gate.open()
        assert kinds(await reload) == ["swapped", "added"]
        assert [each.name for each in requests.models.ready_states()] == ["cells", "nuclei"]

    run(shelf, look)


def test_looks_that_are_asked_for_together_are_one(shelf: Shelf) -> None:
    gate = Gate()
    shelf.before_open = gate
    looks: list[bool] = []
    look = shelf.reload.look

    def counted(settled: bool = False) -> list[Change]:
        looks.append(settled)
        return look(settled)

    shelf.reload.look = counted  # type: ignore[method-assign]  # to count them
    shelf.write("1", "cells", version=2)

    async def ask(requests: Requests) -> None:
        first = asyncio.ensure_future(requests.models.reload())
        await gate.reached()
        shelf.write("2", "nuclei")  # the first may have passed it
        others = [asyncio.ensure_future(requests.models.reload()) for _ in range(5)]
        await turns()
        others[0].cancel()
        gate.open()
        assert kinds(await first) == ["swapped"]
        assert [kinds(await each) for each in others[1:]] == [["added"]] * 4

    run(shelf, ask)
    assert looks == [False, False]


def test_many_requests_wait_for_one_opening_of_what_was_let_go(shelf: Shelf) -> None:
    shelf.let_go("cells")
    gate = Gate()
    shelf.before_warm_up = gate

    async def wait(requests: Requests) -> None:
        states = [each.state for each in requests.models.ready_states()]
        tasks = requests.begin(*range(1, 9))
        await gate.reached()
        await turns()
        assert not any(task.done() for task in tasks)
        gate.open()
        await asyncio.gather(*tasks)
        assert states == ["unloaded"]
        assert set(requests.answers) == set(range(1, 9))

    run(shelf, wait)
    assert len(shelf.opened) == 2


def test_what_nobody_waits_for_any_more_is_not_opened(shelf: Shelf) -> None:
    shelf.write("2", "nuclei")
    shelf.let_go("cells")
    gate = Gate()
    shelf.before_open = gate

    async def leave(requests: Requests) -> None:
        reload = asyncio.ensure_future(requests.models.reload())
        await gate.reached()
        (task,) = requests.begin(1)
        await turns()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gate.open()
        await reload
        await requests.models.reload()
        assert shelf.catalogue.uses.unused(["cells"]) == ["cells"]

    run(shelf, leave)
    assert shelf.states()["cells"] == "unloaded"


def two_within_the_memory_of_one(folder: Path) -> Shelf:
    shelf = Shelf(folder, memory_bytes=ONE)
    shelf.write("1", "cells")
    shelf.write("2", "nuclei")
    shelf.serve()
    shelf.catalogue.make_room()
    assert shelf.states() == {"cells": "unloaded", "nuclei": "ready"}
    return shelf


def test_models_take_turns_in_the_memory_of_one(tmp_path: Path) -> None:
    shelf = two_within_the_memory_of_one(tmp_path)

    async def alternate(requests: Requests) -> list[dict[str, str]]:
        states = []
        for image, name in enumerate(["nuclei", "cells", "nuclei"], 1):
            await requests.segment(image, name)
            states.append(shelf.states())
        return states

    first = {"cells": "unloaded", "nuclei": "ready"}
    second = {"cells": "ready", "nuclei": "unloaded"}
    assert run(shelf, alternate) == [first, second, first]
    assert len(shelf.opened) == 4


def test_what_was_more_than_the_memory_while_it_was_in_use_is_let_go_after_it(
    tmp_path: Path,
) -> None:
    shelf = two_within_the_memory_of_one(tmp_path)
    gate = Gate()
    shelf.opened[1].before_run = gate

    async def overlap(requests: Requests) -> None:
        (first,) = requests.begin(1, name="nuclei")
        await gate.reached()
        async with requests.models.use("cells"):
            assert shelf.states() == {"cells": "ready", "nuclei": "ready"}
        gate.open()
        await first
        await requests.models.reload()  # what was begun before it is done
        assert list(shelf.states().values()).count("ready") == 1

    run(shelf, overlap)


def test_a_stop_gives_up_what_is_warmed_up_and_serves_it_never(shelf: Shelf) -> None:
    old = shelf.digests()
    gate = Gate()
    shelf.before_warm_up = gate
    shelf.write("1", "cells", version=2)

    async def stop(requests: Requests) -> None:
        models = requests.models
        reload = asyncio.ensure_future(models.reload())
        await gate.reached()
        waiting = asyncio.ensure_future(models.reload())
        await turns()
        stopping = asyncio.ensure_future(asyncio.to_thread(models.stop))
        assert await asyncio.to_thread(shelf.reload.stopping.wait, 10)
        gate.open()
        await stopping
        ends = await asyncio.gather(reload, waiting, models.reload(), return_exceptions=True)
        assert [type(end) for end in ends] == [ServiceStopping] * 3

    run(shelf, stop)
    assert shelf.digests() == old


def test_a_stop_leaves_behind_what_hangs_as_it_is_warmed_up(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "PATIENCE_S", 0.0)
    gate = Gate()
    shelf.before_warm_up = gate
    shelf.write("1", "cells", version=2)

    async def stop(requests: Requests) -> None:
        reload = asyncio.ensure_future(requests.models.reload())
        await gate.reached()
        requests.models.stop()
        assert "models did not end within 0 s: left behind" in caplog.text
        gate.open()
        with pytest.raises(ServiceStopping):
            await reload

    run(shelf, stop)


class Watch:
    """Lets a watch go on, one look at a time."""

    def __init__(self, models: Models) -> None:
        self._pauses = asyncio.Queue[None]()
        self._looked = asyncio.Semaphore(0)
        self.task = asyncio.ensure_future(models.watch(self._pause))

    async def _pause(self) -> None:
        self._looked.release()
        await self._pauses.get()

    async def look(self) -> None:
        await self._looked.acquire()
        self._pauses.put_nowait(None)
        await self._looked.acquire()
        self._looked.release()


def watching(act: Callable[[Watch], Coroutine[Any, Any, T]]) -> Callable[[Requests], Awaitable[T]]:
    async def watch(requests: Requests) -> T:
        watch = Watch(requests.models)
        try:
            return await act(watch)
        finally:
            watch.task.cancel()

    return watch


def test_a_watch_takes_a_new_file_at_the_second_look(shelf: Shelf) -> None:
    shelf.write("2", "nuclei")

    async def look(watch: Watch) -> list[int]:
        counts = []
        for _ in range(3):
            await watch.look()
            counts.append(len(shelf.digests()))
        return counts

    assert run(shelf, watching(look)) == [1, 2, 2]


def test_a_watch_outlives_a_lost_folder_and_whatever_else(
    shelf: Shelf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(watch: Watch) -> None:
        shelf.remove("1")
        await watch.look()
        await watch.look()
        with monkeypatch.context() as patch:
            patch.setattr("service.models.reload.look", None)
            await watch.look()
        shelf.write("1", "cells", version=2)
        await watch.look()
        await watch.look()

    old = shelf.digests()
    run(shelf, watching(look))
    assert shelf.digests() != old
    assert caplog.text.count("holds no .onnx artefact") == 1


def test_a_model_that_is_not_there_is_an_error_and_no_use(shelf: Shelf) -> None:
    async def use(requests: Requests) -> None:
        with pytest.raises(UNetError, match="no model 'nuclei'"):
            await requests.segment(1, "nuclei")

    run(shelf, use)
    assert shelf.catalogue.uses.unused(["nuclei"]) == ["nuclei"]


def test_the_default_follows_its_rule_when_models_come_and_go(shelf: Shelf) -> None:
    async def change(requests: Requests) -> list[str]:
        names = [requests.models.find(None).name]
        for file, name in (("0", "bone"), ("2", "nuclei")):
            shelf.write(file, name)
            await requests.models.reload()
            names.append(requests.models.find(None).name)
        shelf.remove("2")
        await requests.models.reload()
        return [*names, requests.models.find(None).name]

    assert run(shelf, change) == ["cells", "bone", "nuclei", "bone"]
