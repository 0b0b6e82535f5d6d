"""A child process that decodes one image at a time, seen from its parent."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from signal import SIGKILL, SIGXCPU

from model.errors import ImageUnreadable, ServiceBusy, ServiceNotReady
from service.decoding.answer import ANSWER, MAX_ANSWER_BYTES, Answer, Refused
from service.decoding.memory import seal, shared_memory, view
from service.images import ImageHeader
from service.images.pixels import Pixels

WORKER = (sys.executable, "-m", "service.decoding.worker")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**20),  # glibc gives back what an image took
}
START_TIMEOUT_S = 60.0
"""Time for a child to import what it needs."""

IMAGE_BYTES_A_PIXEL = 3 * 4
"""The most that a decoded image takes for each that it counts as: three float32."""
MEMORY_BYTES_A_PIXEL = 128
"""What a child may take for each; RGBA of float64 with a predictor takes 96, or 24 a sample."""
FILE_COPIES = 8
"""How often a child may hold the file; the formats hold it up to five times."""
BASE_MEMORY_BYTES = 512 * 2**20
"""What a child may take besides: its libraries, and what the tiles of a TIFF jut out."""

NOT_STARTED = "No process to decode the image could be started."
ENDING_S = 5.0
"""Time for a child to end that closed its socket: how it ended says whose fault it was."""

log = logging.getLogger(__name__)


class Decoder:
    """One child, from its start to its end. It lives on the event loop, and has one user."""

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        """Start the child. It imports what it needs while others work.

        Raises:
            OSError: if the system has no room for it.
        """
        self._is_ready = False
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 (our own command)
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd=ROOT,
                    env=os.environ | ENVIRONMENT,
                    process_group=0,  # Ctrl-C is for the parent alone
                )
        except OSError:
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the child was ended, or ended by itself."""
        return self._socket.fileno() < 0 or self._process.poll() is not None

    def kill(self) -> None:
        """End the child's work; whoever waits for it is told."""
        self._process.kill()

    def end(self) -> asyncio.Future[int]:
        """End the child for good; give how it ended, once it has."""
        self._socket.close()
        self._process.kill()
        return asyncio.get_running_loop().run_in_executor(None, self._process.wait)

    async def decode(self, data: bytes, header: ImageHeader, timeout_s: float) -> Pixels:
        """Have the child decode an image. Unless it answers in order, it is ended.

        Args:
            data: The whole file.
            header: What `read_header` said about it.
            timeout_s: Time that it may take, once the child is ready.

        Raises:
            TimeoutError: It took longer.
            ImageError: The image cannot be decoded, or not within the limits.
            ServiceBusy: The system killed the child, as it does where memory is short.
            ServiceNotReady: There is no child.
        """
        if self.has_ended:
            raise ServiceNotReady(NOT_STARTED)
        with shared_memory(IMAGE_BYTES_A_PIXEL * header.pixels) as fd:
            try:
                await self._wait_until_ready()
                answer = await self._ask(data, header, fd, timeout_s)
            except BaseException:
                self.end()
                raise
            if isinstance(answer, Refused):
                raise answer.error
            return view(fd, (header.channels, header.height, header.width), answer.dtype)

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if not self._is_ready:
                    await self._receive()
        except (EOFError, OSError, ValueError) as exc:
            raise ServiceNotReady(NOT_STARTED) from exc
        self._is_ready = True

    async def _ask(self, data: bytes, header: ImageHeader, fd: int, timeout_s: float) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(data, header, fd, timeout_s)
                answer = ANSWER.validate_json(await self._receive())
                seal(fd)
                return answer
        except TimeoutError:
            raise self._out_of_time(timeout_s) from None
        except (EOFError, ConnectionError):
            failure = "crashed its decoder"
            ended = await asyncio.to_thread(self._wait)
            if ended == -SIGXCPU:
                raise self._out_of_time(timeout_s) from None
            if ended == -SIGKILL:
                log.warning("process %d was killed by the system: is memory short?", self.pid)
                raise ServiceBusy("There was no memory to decode the image for now.") from None
        except (OSError, ValueError):
            failure = "made its decoder break the rules"
        log.warning("process %d was given up: the image %s", self.pid, failure)
        raise ImageUnreadable(f"The image {failure} and was given up.")

    def _out_of_time(self, timeout_s: float) -> TimeoutError:
        failure = f"took more than {timeout_s:g} s to decode"
        log.warning("process %d was given up: the image %s", self.pid, failure)
        return TimeoutError(failure)

    def _wait(self) -> int | None:
        """Wait for a child that is about to end; give how it did, or None if it does not."""
        try:
            return self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            return None

    async def _send(self, data: bytes, header: ImageHeader, fd: int, timeout_s: float) -> None:
        request = {
            "header": asdict(header),
            "data_bytes": len(data),
            "memory_bytes": BASE_MEMORY_BYTES
            + MEMORY_BYTES_A_PIXEL * header.pixels
            + FILE_COPIES * len(data),
            "cpu_s": ceil(timeout_s) + 1,
        }
        loop = asyncio.get_running_loop()
        socket.send_fds(self._socket, [b"\n"], [fd])
        await loop.sock_sendall(self._socket, json.dumps(request).encode() + b"\n")
        await loop.sock_sendall(self._socket, data)

    async def _receive(self) -> bytes:
        """Read a line.

        Raises:
            EOFError: There is no child any more.
            ValueError: It talks too much.
        """
        line = b""
        while not line.endswith(b"\n"):
            if len(line) > MAX_ANSWER_BYTES:
                raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
            part = await asyncio.get_running_loop().sock_recv(self._socket, MAX_ANSWER_BYTES)
            if not part:
                raise EOFError
            line += part
        return line
