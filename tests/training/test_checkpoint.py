"""Checkpoints: whole or not at all, and never code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import CheckpointError
from training import checkpoint


class RunsCode:
    """A value whose unpickling would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.arange(6.0).view(2, 3)}, "step": 7, "best": None}
    checkpoint.save(tmp_path / "last.pt", state)
    found = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])  # type: ignore[index]
    assert (found["step"], found["best"]) == (7, None)


def test_a_write_that_fails_leaves_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpoint.save(path, {"step": 2, "large": torch.zeros(100_000), "unwritable": lambda: 0})
    assert checkpoint.load(path)["step"] == 1


def test_a_disk_that_is_full_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path)["step"] == 1


def test_a_finished_write_leaves_nothing_beside_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", {"step": 1})
    checkpoint.save(tmp_path / "last.pt", {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "last.pt", tmp_path / "trace"
    torch.save({"format": checkpoint.FORMAT, "state": RunsCode(f"touch {trace}")}, path)
    with pytest.raises(CheckpointError, match=r"last\.pt is no checkpoint"):
        checkpoint.load(path)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 10, 500])
def test_a_damaged_file_is_a_checkpoint_error(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"last\.pt is no checkpoint"):
        checkpoint.load(path)


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint .*last\.pt"):
        checkpoint.load(tmp_path / "last.pt")


@pytest.mark.parametrize("state", [{"format": 0}, {}, [1, 2]])
def test_a_checkpoint_of_another_form_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of format 1"):
        checkpoint.load(tmp_path / "last.pt")
