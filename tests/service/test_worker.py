"""The thread that does one thing after the other, and the end of threads that hang."""

import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import pytest

from service import worker as module
from service.worker import Worker, end
from tests.conftest import ROOT


def test_things_are_done_one_after_the_other_in_one_thread() -> None:
    worker, done = Worker("models"), list[tuple[int, str]]()

    def do(number: int) -> int:
        done.append((number, threading.current_thread().name))
        return number

    futures = [worker.submit(do, number) for number in range(3)]
    assert [future.result(10) for future in futures] == [0, 1, 2]
    assert done == [(number, "models") for number in range(3)]
    worker.stop()


def test_what_goes_wrong_is_told_and_the_next_thing_is_done() -> None:
    worker = Worker("models")
    wrong, right = worker.submit(int, "one"), worker.submit(int, "1")
    assert right.result(10) == 1
    assert isinstance(wrong.exception(), ValueError)
    worker.stop()


def test_what_was_asked_for_before_the_stop_is_done_unless_it_is_taken_back() -> None:
    worker, may_go_on = Worker("models"), threading.Event()
    worker.submit(may_go_on.wait, 10)
    taken_back, kept = worker.submit(int), worker.submit(int)
    assert taken_back.cancel()
    may_go_on.set()
    worker.stop()
    assert (kept.done(), taken_back.cancelled()) == (True, True)


def test_a_worker_that_was_asked_for_nothing_stops() -> None:
    Worker("models").stop()


def test_what_hangs_is_left_behind_with_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    worker, may_go_on = Worker("models"), threading.Event()
    hanging = worker.submit(may_go_on.wait, 10)
    worker.stop()
    assert not hanging.done()
    assert "models did not end within 0 s: left behind" in caplog.text
    may_go_on.set()
    wait([hanging], 10)


def test_threads_that_hang_share_the_time_that_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([100.0, 101.0, 109.0, 115.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    given: list[float | None] = []

    class Hanging(threading.Thread):
        def is_alive(self) -> bool:
            return True

        def join(self, timeout: float | None = None) -> None:
            given.append(timeout)

    end([Hanging() for _ in range(3)])
    assert given == [9.0, 1.0, 0.0]


HANGS = """
import threading
from service import worker
worker.PATIENCE_S = 0.0
hanging = worker.Worker("models")
hanging.submit(threading.Event().wait)
hanging.stop()
"""


def test_a_process_ends_though_a_thread_hangs() -> None:
    ended = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", HANGS], cwd=ROOT, timeout=60, capture_output=True
    )
    assert ended.returncode == 0
