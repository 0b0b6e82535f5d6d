"""Decoding in children: the same pixels and errors, and only the image at fault pays."""

import asyncio
import errno
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import (
    ImagePagesRefused,
    ImageUnreadable,
    ImageValuesInvalid,
    ServiceBusy,
    ServiceNotReady,
    ServiceStopping,
    UNetError,
)
from service.decoding import decoder as decoder_module
from service.decoding import pool
from service.decoding.decoder import WORKER, Decoder
from service.decoding.pool import Decoders
from service.decoding.worker import OPEN_FILES
from service.images import ImageHeader, decode, read_header
from tests.conftest import ROOT
from tests.service.direct import SkippingLoop, run_skipping
from tests.service.images.files import LIMIT, encoded_png, exif_of, jpeg, noise, png, tiff

pytestmark = pytest.mark.anyio

PNG = png(noise(37, 53))
HEAVY = {"asyncio", "fastapi", "onnxruntime", "pydantic", "scipy", "torch"}

CHILD = """
import json, mmap, os, socket
parent = socket.socket(fileno=0)
stream = parent.makefile("rb")
parent.sendall(b"\\n")
_, (memory,), _, _ = socket.recv_fds(parent, 1, 1)
stream.read(json.loads(stream.readline())["data_bytes"])
"""
"""A child that takes an image as ours does; what it answers comes behind."""

PARENT = """
import asyncio, sys
from pathlib import Path
from service.decoding.pool import Decoders
from service.images import read_header

async def main():
    data = Path(sys.argv[1]).read_bytes()
    decoders = Decoders(60, count=1)
    decoders.start()
    await decoders.decode(data, read_header(data, max_image_pixels=10_000))
    print("decoded", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def decoding(
    count: int = 1, *, timeout_s: float = 60, command: tuple[str, ...] = WORKER
) -> AsyncIterator[Decoders]:
    decoders = Decoders(timeout_s, count=count, command=command)
    decoders.start()
    try:
        yield decoders
    finally:
        await decoders.stop()


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    """Give one child that has decoded an image."""
    async with decoding() as decoders:
        await decoders.decode(PNG, header_of(PNG))
        yield decoders


def header_of(data: bytes) -> ImageHeader:
    return read_header(data, max_image_pixels=LIMIT)


def is_decoded(pixels: Any, data: bytes = PNG) -> bool:
    expected = decode(data, header_of(data))
    return pixels.dtype == expected.dtype and np.array_equal(pixels, expected)


def stop_process(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


async def begun(decoders: Decoders, data: bytes = PNG) -> asyncio.Task[Any]:
    """Let a child that stands still be asked for an image."""
    task = asyncio.create_task(decoders.decode(data, header_of(data)))
    await asyncio.sleep(0)
    assert not task.done()
    return task


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


IMAGES = {
    "png of 8 bits": PNG,
    "png of 16-bit colour": encoded_png(noise(37, 53, 3, dtype="uint16")),
    "png with alpha": png(noise(37, 53, 4)),
    "jpeg": jpeg(noise(37, 53, 3)),
    "jpeg that lies on its side": jpeg(noise(37, 53, 3), exif=exif_of(6)),
    "tiff of 8 bits": tiff(noise(37, 53)),
    "tiff of 16 bits": tiff(noise(37, 53, dtype="uint16"), compression="zlib"),
    "tiff of signed numbers": tiff(noise(37, 53, dtype="int16"), byteorder=">"),
    "tiff of float64": tiff(noise(37, 53, dtype="float64")),
    "tiff of two channels": tiff(noise(37, 53, 2, dtype="uint16"), planarconfig="contig"),
    "tiff of 64 channels": tiff(noise(64, 37, 53, dtype="float32"), planarconfig="separate"),
}


async def test_children_give_the_pixels_that_decoding_here_gives(decoders: Decoders) -> None:
    for name, data in IMAGES.items():
        pixels = await decoders.decode(data, header_of(data))

        assert is_decoded(pixels, data), name
        assert pixels.flags.c_contiguous
        assert not pixels.flags.writeable


async def test_children_give_the_errors_that_decoding_here_gives(decoders: Decoders) -> None:
    pid = decoders.pids[0]
    grey = tiff(noise(37, 53, dtype="float32"))
    broken = [
        (PNG, PNG[:-30], ImageUnreadable),
        (jpeg(noise(37, 53)), jpeg(noise(37, 53))[:300], ImageUnreadable),
        (grey, tiff(np.full((37, 53), np.nan, np.float32)), ImageValuesInvalid),
        (grey, tiff(noise(2, 37, 53, dtype="float32")), ImagePagesRefused),
        (PNG, png(noise(53, 37)), ImageUnreadable),
    ]
    for whole, data, kind in broken:
        header = header_of(whole)
        with pytest.raises(UNetError) as here:
            decode(data, header)
        with pytest.raises(UNetError) as there:
            await decoders.decode(data, header)

        assert type(here.value) is type(there.value) is kind
        assert str(here.value) == str(there.value)
    assert decoders.pids == [pid]
    assert decoders.given_up == 0


async def test_pixels_outlive_the_child_that_decoded_them() -> None:
    async with decoding() as decoders:
        pixels = await decoders.decode(PNG, header_of(PNG))

    assert is_decoded(pixels)


@pytest.mark.parametrize(
    ("ended_by", "error"),
    [
        (signal.SIGSEGV, ImageUnreadable("The image crashed its decoder and was given up.")),
        (signal.SIGKILL, ServiceBusy("There was no memory to decode the image for now.")),
    ],
    ids=["crashed", "killed"],
)
async def test_a_child_that_dies_over_an_image_costs_that_image_alone(
    decoders: Decoders, ended_by: signal.Signals, error: Exception
) -> None:
    """Where nobody here killed it, the system did, for want of memory: no fault of the image."""
    pid = decoders.pids[0]
    stop_process(pid)
    lost = await begun(decoders)
    following = asyncio.create_task(decoders.decode(PNG, header_of(PNG)))
    os.kill(pid, ended_by)
    os.kill(pid, signal.SIGCONT)

    with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
        await lost
    assert is_decoded(await following)
    assert decoders.pids != [pid]
    assert decoders.given_up == 1


async def test_a_child_that_died_while_idle_costs_nobody_anything(decoders: Decoders) -> None:
    pid = decoders.pids[0]
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert is_decoded(await decoders.decode(PNG, header_of(PNG)))
    assert decoders.given_up == 0


async def test_an_image_that_takes_too_long_is_given_up() -> None:
    silent = (sys.executable, "-c", CHILD + "parent.recv(1)")
    async with decoding(timeout_s=0.01, command=silent) as decoders:
        pids = decoders.pids
        with pytest.raises(
            ImageUnreadable, match=r"took more than 0\.01 s to decode and was given"
        ):
            await decoders.decode(PNG, header_of(PNG))

        assert decoders.pids != pids
        assert decoders.given_up == 1


async def test_an_image_that_takes_too_much_of_the_processor_is_given_up(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FIRST_GO_S", 60)
    pid = decoders.pids[0]
    stop_process(pid)
    lost = await begun(decoders)
    os.kill(pid, signal.SIGXCPU)
    os.kill(pid, signal.SIGCONT)

    with pytest.raises(ImageUnreadable, match=r"took more than 60 s to decode and was given up"):
        await lost


def test_an_image_that_takes_too_long_at_first_is_begun_again() -> None:
    async def decode_late(loop: SkippingLoop) -> Any:
        async with decoding() as decoders:
            await decoders.decode(PNG, header_of(PNG))
            stop_process(decoders.pids[0])
            late = await begun(decoders)
            loop.skipped_s += 2 * pool.FIRST_GO_S
            return await late

    assert is_decoded(run_skipping(decode_late))


class Clockless(Decoder):
    """A decoder of no child, whose hostile images are out of time when a test says so."""

    def __init__(self, first_is_over: asyncio.Event, second_is_over: asyncio.Event) -> None:
        self._over = first_is_over, second_is_over
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    def end(self) -> asyncio.Future[int]:
        self._has_ended = True
        ended = asyncio.get_running_loop().create_future()
        ended.set_result(0)
        return ended

    async def decode(self, data: bytes, header: ImageHeader, timeout_s: float) -> Any:
        if data == PNG:
            return decode(data, header)
        await self._over[timeout_s == 60].wait()
        self.end()
        raise TimeoutError


@dataclass
class WithoutClock:
    """Decoders of no children, all that were made, and what says that a go is over."""

    decoders: Decoders
    made: list[Clockless]
    first_is_over: asyncio.Event
    second_is_over: asyncio.Event

    def come(self, count: int) -> list[asyncio.Task[Any]]:
        """Let hostile images come."""
        header = header_of(PNG)
        return [asyncio.create_task(self.decoders.decode(b"hostile", header)) for _ in range(count)]

    @property
    def alive(self) -> int:
        return sum(not decoder.has_ended for decoder in self.made)


@pytest.fixture
async def without_clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WithoutClock]:
    """Give two decoders."""
    made: list[Clockless] = []
    over = asyncio.Event(), asyncio.Event()

    def make(_: object) -> Clockless:
        made.append(Clockless(*over))
        return made[-1]

    monkeypatch.setattr(pool, "Decoder", make)
    async with decoding(2) as decoders:
        yield WithoutClock(decoders, made, *over)


async def test_hostile_images_delay_others_by_their_first_go_alone(
    without_clock: WithoutClock,
) -> None:
    decoders = without_clock.decoders
    hostile = without_clock.come(30)
    good = asyncio.create_task(decoders.decode(PNG, header_of(PNG)))
    await asyncio.sleep(0)
    assert not good.done()
    without_clock.first_is_over.set()

    assert is_decoded(await good)
    assert is_decoded(await decoders.decode(PNG, header_of(PNG)))
    assert not any(task.done() for task in hostile)
    without_clock.second_is_over.set()
    for task in hostile:
        with pytest.raises(ImageUnreadable, match="took more than 60 s to decode"):
            await task
    assert decoders.given_up == 60


async def test_there_are_twice_as_many_children_as_images_at_a_time_at_most(
    without_clock: WithoutClock,
) -> None:
    hostile = without_clock.come(2)
    without_clock.first_is_over.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    without_clock.first_is_over.clear()
    hostile += without_clock.come(4)
    for _ in range(10):
        await asyncio.sleep(0)
    assert without_clock.alive == 4

    without_clock.first_is_over.set()
    without_clock.second_is_over.set()
    await asyncio.gather(*hostile, return_exceptions=True)
    assert without_clock.alive == 2


async def test_an_image_that_takes_too_much_memory_is_refused(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = decoders.pids[0]
    monkeypatch.setattr(decoder_module, "BASE_MEMORY_BYTES", 0)
    data = png(noise(700, 700, dtype="uint16"))

    with pytest.raises(ImageUnreadable, match=r"takes more than \d\d,\d{3},\d{3} bytes of memory"):
        await decoders.decode(data, header_of(data))
    monkeypatch.undo()
    assert is_decoded(await decoders.decode(data, header_of(data)), data)
    assert decoders.pids == [pid]


async def test_the_memory_that_is_allowed_grows_with_the_channels(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "MEMORY_BYTES_A_PIXEL", 96)
    pixels = np.zeros((300, 300, 63))
    data = tiff(pixels, planarconfig="contig", compression="zlib", predictor=3, rowsperstrip=300)
    base = int(decoder_module.BASE_MEMORY_BYTES)
    monkeypatch.setattr(decoder_module, "BASE_MEMORY_BYTES", base // 2)

    assert is_decoded(await decoders.decode(data, header_of(data)), data)


async def test_leaving_ends_the_work_and_frees_the_child(decoders: Decoders) -> None:
    pid = decoders.pids[0]
    stop_process(pid)
    left = await begun(decoders)
    following = asyncio.create_task(decoders.decode(PNG, header_of(PNG)))
    left.cancel()

    with pytest.raises(asyncio.CancelledError):
        await left
    assert is_decoded(await following)
    assert decoders.pids != [pid]


async def test_images_are_decoded_in_the_order_in_which_they_came(decoders: Decoders) -> None:
    order = []

    async def note(number: int) -> None:
        await decoders.decode(PNG, header_of(PNG))
        order.append(number)

    await asyncio.gather(*(note(number) for number in range(6)))

    assert order == list(range(6))


async def test_one_image_does_not_wait_for_another_where_there_are_two_children() -> None:
    async with decoding(2) as decoders:
        await asyncio.gather(*(decoders.decode(PNG, header_of(PNG)) for _ in range(2)))
        pid = decoders.pids[0]
        stop_process(pid)
        slow = await begun(decoders)

        assert is_decoded(await decoders.decode(PNG, header_of(PNG)))
        os.kill(pid, signal.SIGCONT)
        assert is_decoded(await slow)


async def test_stopping_ends_all_children_and_tells_those_who_wait() -> None:
    async with decoding(2) as decoders:
        await asyncio.gather(*(decoders.decode(PNG, header_of(PNG)) for _ in range(2)))
        pids = decoders.pids
        stop_process(pids[0])
        stop_process(pids[1])
        images = [await begun(decoders) for _ in range(3)]
        await decoders.stop()

        for image in images:
            with pytest.raises(ServiceStopping):
                await image
        with pytest.raises(ServiceStopping):
            await decoders.decode(PNG, header_of(PNG))
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_neither_images_nor_deaths_leave_files_open(decoders: Decoders) -> None:
    async def one_of_each() -> None:
        await decoders.decode(PNG, header_of(PNG))
        with pytest.raises(ImageUnreadable):
            await decoders.decode(PNG[:-30], header_of(PNG))
        stop_process(decoders.pids[0])
        left = await begun(decoders)
        left.cancel()
        await asyncio.wait([left])
        await decoders.decode(PNG, header_of(PNG))
        stop_process(decoders.pids[0])
        lost = await begun(decoders)
        os.kill(decoders.pids[0], signal.SIGKILL)
        await asyncio.wait([lost])
        assert lost.exception()

    await one_of_each()
    before = open_files()
    for _ in range(3):
        await one_of_each()

    assert open_files() == before


async def test_a_child_gives_up_what_no_image_needs(decoders: Decoders) -> None:
    def limits(kind: int) -> tuple[int, int]:
        return resource.prlimit(decoders.pids[0], kind)

    assert limits(resource.RLIMIT_CORE) == (0, 0)
    assert limits(resource.RLIMIT_FSIZE) == (0, 0)
    assert limits(resource.RLIMIT_NOFILE) == (OPEN_FILES, OPEN_FILES)
    assert pool.FIRST_GO_S < limits(resource.RLIMIT_CPU)[0] < 60
    assert Path(f"/proc/{decoders.pids[0]}/oom_score_adj").read_text() == "1000\n"


async def test_signals_to_the_group_leave_children_to_their_parent(decoders: Decoders) -> None:
    pid = decoders.pids[0]
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)

    assert os.getpgid(pid) != os.getpgid(0)
    assert is_decoded(await decoders.decode(PNG, header_of(PNG)))
    assert decoders.pids == [pid]


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(PNG)
    with subprocess.Popen(  # noqa: S603 (our own command)
        [sys.executable, "-c", PARENT, image],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # the child holds it too
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"decoded\n"
        parent.kill()

        assert parent.communicate(timeout=60) == (b"", b"")


def test_a_child_loads_what_decoding_needs_and_no_more() -> None:
    script = "import service.decoding.worker, sys; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)  # noqa: S603 (our own command)

    assert "imagecodecs" in loaded.split()
    assert not HEAVY & set(loaded.split())


async def test_a_child_that_does_not_start_is_no_fault_of_the_image() -> None:
    async with decoding(command=(sys.executable, "-c", "")) as decoders:
        for _ in range(2):
            with pytest.raises(ServiceNotReady):
                await decoders.decode(PNG, header_of(PNG))


async def test_where_no_child_can_be_started_again_it_is_no_fault_of_the_image(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    assert is_decoded(await decoders.decode(PNG, header_of(PNG)))
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", no_memory)
        with pytest.raises(ServiceNotReady):
            await decoders.decode(PNG, header_of(PNG))
    assert decoders.given_up == 0
    assert is_decoded(await decoders.decode(PNG, header_of(PNG)))


@pytest.mark.parametrize("last_words", ["", "import time; time.sleep(0.2)"])
async def test_a_child_that_ends_by_itself_was_not_killed(last_words: str) -> None:
    """Though its socket closes before it ends."""
    failing = (sys.executable, "-c", CHILD + f"stream.close(); parent.close()\n{last_words}")
    async with decoding(command=failing) as decoders:
        with pytest.raises(ImageUnreadable, match="crashed its decoder"):
            await decoders.decode(PNG, header_of(PNG))


ANSWERS = {
    "objects": """parent.sendall(b'{"dtype": "object"}\\n')""",
    "a number for text": """parent.sendall(b'{"dtype": 8}\\n')""",
    "its own shape": ("""parent.sendall(b'{"dtype": "uint8", "shape": [1, 9, 9]}\\n')"""),
    "another error": """parent.sendall(b'{"code": "service-stopping", "message": ""}\\n')""",
    "two answers": """parent.sendall(b'{"dtype": "uint8"}\\n' * 2)""",
    "no JSON": """parent.sendall(b'cposix\\nsystem\\n')""",
    "no end": """parent.sendall(b' ' * 10_000_000)""",
    "a hand on the pixels": """
pixels = mmap.mmap(memory, 100)
parent.sendall(b'{"dtype": "uint8"}\\n')
parent.recv(1)
""",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_child_that_breaks_the_rules_is_not_believed(answer: str) -> None:
    async with decoding(command=(sys.executable, "-c", CHILD + answer)) as decoders:
        with pytest.raises(ImageUnreadable, match="made its decoder break the rules"):
            await decoders.decode(PNG, header_of(PNG))


async def test_a_child_cannot_take_the_pixels_from_under_their_reader() -> None:
    shrink = """
try:
    os.ftruncate(memory, 0)
except PermissionError:
    parent.sendall(b'{"dtype": "uint8"}\\n')
"""
    async with decoding(command=(sys.executable, "-c", CHILD + shrink)) as decoders:
        assert not (await decoders.decode(PNG, header_of(PNG))).any()
