"""Checkpoints: whole or not at all, and never code."""

import builtins
import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import CheckpointError
from training.run import checkpoint


class RunsCode:
    """A value whose unpickling would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def is_full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    weights = torch.arange(6.0).view(2, 3)
    checkpoint.save(tmp_path / "last.pt", {"model": {"weight": weights}, "step": 7, "best": None})
    found = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(found["model"]["weight"], weights)
    assert (found["step"], found["best"]) == (7, None)


def test_torch_loads_it_without_running_anything(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", {"model": {"weight": torch.zeros(2)}, "log": [{"a": 1}]})
    assert torch.load(tmp_path / "last.pt", weights_only=True)["log"] == [{"a": 1}]


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "last.pt", tmp_path / "trace"
    torch.save({"format": checkpoint.FORMAT, "state": RunsCode(f"touch {trace}")}, path)
    with pytest.raises(CheckpointError, match=r"last\.pt is no checkpoint"):
        checkpoint.load(path)
    assert not trace.exists()


def test_a_finished_write_leaves_nothing_beside_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", {"step": 1})
    checkpoint.save(tmp_path / "last.pt", {"step": 2})
    assert names(tmp_path) == ["last.pt"]


class TestAFullDisk:
    """Each test fills it at another moment of the second save."""

    def fails(self, folder: Path, state: dict[str, Any]) -> str:
        """Save over a checkpoint of step 1; give the message."""
        with pytest.raises(CheckpointError) as caught:
            checkpoint.save(folder / "last.pt", state)
        assert checkpoint.load(folder / "last.pt")["step"] == 1
        assert names(folder) == ["last.pt"]
        return str(caught.value)

    @pytest.fixture(autouse=True)
    def _first(self, tmp_path: Path) -> None:
        checkpoint.save(tmp_path / "last.pt", {"step": 1})

    def test_while_opening(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "open", is_full)
        with pytest.raises(CheckpointError, match="No space left"):
            checkpoint.save(tmp_path / "last.pt", {"step": 2})
        monkeypatch.undo()
        assert checkpoint.load(tmp_path / "last.pt")["step"] == 1

    def test_while_writing_as_torch_reports_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its archive writer turns what the system says into a RuntimeError."""

        class Full:
            def __init__(self, file: Any) -> None:
                self.file = file
                self.room = 1000

            def write(self, data: Any) -> int:
                self.room -= len(data)
                return int(self.file.write(data)) if self.room > 0 else is_full()

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

        save = torch.save
        monkeypatch.setattr(torch, "save", lambda state, file: save(state, Full(file)))
        assert "last.pt cannot be written" in self.fails(
            tmp_path, {"step": 2, "model": torch.zeros(100_000)}
        )

    def test_while_flushing_to_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", is_full)
        message = self.fails(tmp_path, {"step": 2})
        assert "No space left on device" in message
        assert message.endswith("The last checkpoint is whole; make room, and go on with --resume.")

    def test_while_taking_the_place_of_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Path, "replace", is_full)
        self.fails(tmp_path, {"step": 2})


def test_a_device_that_is_always_full_is_a_checkpoint_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the operating system itself says, at the moment that it says it."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    checkpoint.save(tmp_path / "last.pt", {"step": 1})
    original = Path.open

    def onto_full(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.suffix == ".partial":
            original(path, *arguments, **more).close()
            return builtins.open("/dev/full", *arguments, **more)  # noqa: PTH123 (Path.open is replaced)
        return original(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", onto_full)
    for size in (1, 1_000_000):
        with pytest.raises(CheckpointError, match=r"last\.pt cannot be written"):
            checkpoint.save(tmp_path / "last.pt", {"step": 2, "model": torch.zeros(size)})
        assert names(tmp_path) == ["last.pt"]
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 1


def test_a_value_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpoint.save(path, {"step": 2, "large": torch.zeros(100_000), "unwritable": lambda: 0})
    assert checkpoint.load(path)["step"] == 1


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


@pytest.mark.parametrize("state", [{"format": 0}, {"format": 1}, {}, [1, 2]])
def test_a_checkpoint_of_another_form_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of format 2"):
        checkpoint.load(tmp_path / "last.pt")
