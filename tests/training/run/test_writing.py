"""Files of a run: whole or as they were, and an error that names them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import CheckpointError
from training.run.writing import replacing, write, write_errors_explained


def is_full(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted() -> Iterator[bytes]:
    yield b"half"
    raise KeyboardInterrupt


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "log.jsonl", b"one")
    write(tmp_path / "log.jsonl", b"other")
    assert (tmp_path / "log.jsonl").read_bytes() == b"other"
    assert list(tmp_path.iterdir()) == [tmp_path / "log.jsonl"]


def test_on_a_full_disk_the_old_file_is_whole_and_the_error_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    write(path, b"one")
    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(CheckpointError) as caught:
        write(path, b"other")
    assert str(caught.value) == (
        f"{path} cannot be written: No space left on device. The last checkpoint is whole; "
        "make room, and go on with --resume."
    )
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_gone_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone/log\.jsonl cannot be written"):
        write(tmp_path / "gone" / "log.jsonl", b"one")


def test_whatever_ends_the_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write(tmp_path / "plan.json", b"one")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "plan.json") as file:
        file.writelines(interrupted())
    assert (tmp_path / "plan.json").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [tmp_path / "plan.json"]


def test_an_error_of_another_file_is_not_said_of_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_errors_explained(tmp_path / "model.draft"):
        (tmp_path / "image.png").read_bytes()
