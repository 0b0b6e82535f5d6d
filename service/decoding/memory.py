"""Memory that a child fills with pixels, and that then changes no more."""

import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import IO

import numpy as np

from service.images.pixels import Pixels


@contextmanager
def shared_memory(size: int) -> Iterator[int]:
    """Hold a file in memory whose size nobody can change; only what is used of it takes room."""
    with _anonymous_file() as file:
        os.ftruncate(file.fileno(), size)
        if sys.platform == "linux":
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield file.fileno()


def write(fd: int, pixels: Pixels) -> None:
    """Copy pixels of any strides to the start of shared memory, and let go of it."""
    with mmap.mmap(fd, pixels.nbytes) as mapping:
        np.copyto(np.frombuffer(mapping, pixels.dtype).reshape(pixels.shape), pixels)


def seal(fd: int) -> None:
    """Let nobody write any more.

    Raises:
        OSError: Somebody still could.
    """
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def view(fd: int, shape: tuple[int, ...], dtype: str) -> Pixels:
    """Map the start of sealed memory as a read-only array, and free it with the array."""
    size = prod(shape) * np.dtype(dtype).itemsize
    # Before 6.7, Linux maps sealed memory in no other way; nothing is copied, since nobody writes.
    mapping = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    return np.frombuffer(mapping, dtype).reshape(shape)


def _anonymous_file() -> IO[bytes]:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b")
    return tempfile.TemporaryFile()
