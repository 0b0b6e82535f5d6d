"""The child: `python -m service.decoding.worker`, whose standard input is a socket.

It imports what decoding needs and no more, and ends when its parent closes the socket.
"""

import gc
import json
import os
import resource
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from model.errors import ImageUnreadable, UNetError
from service.decoding.memory import write
from service.images import ImageHeader, decode
from service.images.pixels import Pixels

OPEN_FILES = 32
"""Enough to import a codec."""
FIRST_TO_GO = "1000"
"""Where memory runs out, Linux ends this process rather than the server."""


def main() -> None:
    """Decode images until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent drains, and needs its children
        signal.signal(number, signal.SIG_IGN)
    give_up_needless()
    gc.freeze()
    parent = socket.socket(fileno=0)
    with parent, parent.makefile("rb") as stream, suppress(ConnectionError):
        parent.sendall(b"\n")
        while fds := socket.recv_fds(parent, 1, 1)[1]:
            answer = serve(stream, fds[0])
            os.close(fds[0])
            parent.sendall(json.dumps(answer).encode() + b"\n")
            gc.collect()  # tifffile leaves images in cycles


def give_up_needless() -> None:
    """Give up what no image needs: to outlive the server, to dump core, to write files."""
    with suppress(OSError):  # Linux alone has this file
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))


def serve(stream: IO[bytes], fd: int) -> dict[str, Any]:
    """Decode an image into the shared memory; say what lies there, or why nothing does."""
    request = json.loads(stream.readline())
    data = stream.read(request["data_bytes"])
    header = ImageHeader(**request["header"])
    try:
        pixels = decode_within(data, header, request["memory_bytes"], request["cpu_s"])
        write(fd, pixels)
    except UNetError as exc:
        return {"code": exc.code, "message": str(exc)}
    return {"dtype": pixels.dtype.name}


def decode_within(data: bytes, header: ImageHeader, memory_bytes: int, cpu_s: int) -> Pixels:
    """Decode an image in no more address space and time of the processor.

    Raises:
        ImageUnreadable: It takes more memory. With more time, the process ends by SIGXCPU.
        ImageError: As `service.images.decode` does.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    set_soft(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + cpu_s)
    before, _ = resource.getrlimit(resource.RLIMIT_AS)
    set_soft(resource.RLIMIT_AS, memory_bytes)
    try:
        return decode(data, header)
    except (MemoryError, ImageUnreadable) as exc:
        if isinstance(exc, ImageUnreadable) and not isinstance(exc.__cause__, MemoryError):
            raise
        raise ImageUnreadable(
            f"The image takes more than {memory_bytes:,} bytes of memory to decode."
        ) from exc
    finally:
        set_soft(resource.RLIMIT_AS, before)


def set_soft(kind: int, soft: int) -> None:
    """Set a soft limit, unless the hard one is lower anyway."""
    with suppress(ValueError):
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    main()
