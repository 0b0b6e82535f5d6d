"""Files of a run, written so that a full disk or a kill at any moment leaves a whole one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from model.errors import CheckpointError


def write(path: Path, data: bytes) -> None:
    """Write a file: first beside the old one, then in its place.

    Raises:
        CheckpointError: if it cannot be written; the old one is whole.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write beside the old one; it takes the old one's place at the end.

    Raises:
        CheckpointError: if it cannot be written; the old one is whole.
    """
    beside = path.with_suffix(".partial")
    with write_errors_explained(path):
        try:
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


@contextmanager
def write_errors_explained(path: Path) -> Iterator[None]:
    """Translate what the system says when a file of a run cannot be written.

    An error that names another file is not of this one, and passes.

    Raises:
        CheckpointError: naming the file, and saying how to go on.
    """
    try:
        yield
    except OSError as exc:
        if exc.filename is not None and Path(str(exc.filename)).stem != path.stem:
            raise
        raise CheckpointError(
            f"{path} cannot be written: {exc.strerror or exc}. The last checkpoint is whole; "
            "make room, and go on with --resume."
        ) from exc
