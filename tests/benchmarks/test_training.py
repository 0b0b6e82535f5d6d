"""What the training's benchmark makes of its contestants, and how its large set is laid out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory_group, training
from benchmarks.memory_group import FORMS, MemoryGroup, NotMeasured
from model.architecture import Architecture
from model.geometry import Geometry
from training.settings import FitSettings
from training.tiles.store import Store, prepare

ROOM = 1 << 15


def rates(*values: float) -> list[dict[str, Any]]:
    return [{"steps_per_second": value, "peak_bytes": 10**9} for value in values]


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    found = {"large": rates(2.0, 40.0, 9.0), "ours": rates(1.0, 10.0, 3.0)}

    row = training.ratio("large / ours", 0.9, found)

    assert (row.found, row.verdict) == (3.0, "met")
    assert row.numbers == {"rounds": [2.0, 4.0, 3.0]}


def test_a_contestant_that_failed_in_one_round_is_not_measured_and_says_why() -> None:
    found = {"large": [*rates(2.0), {"failed": "it fits"}], "ours": rates(1.0, 1.0)}

    row = training.ratio("large / ours", 0.9, found)

    assert (row.found, row.verdict, row.says) == (None, "failed", "not measured: it fits")
    assert training.summary(found["large"]) == {"failed": "it fits"}
    assert "not measured: it fits" in training.table({"large": {"failed": "it fits"}}, [row])


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [
        (1, "Traceback\nNotMeasured: it fits\n", "NotMeasured: it fits"),
        (-9, "  0%| 1/7", "ended by SIGKILL"),
        (3, "", "ended with 3"),
    ],
)
def test_a_process_that_fails_says_why(code: int, stderr: str, said: str) -> None:
    assert training.reason(code, stderr) == said


def test_a_contestant_that_ends_with_an_error_is_a_row_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho NotMeasured: it fits >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    assert training.start("large") == {"failed": "NotMeasured: it fits"}


@pytest.mark.usefixtures("events")
def test_the_record_names_the_machine() -> None:
    found = {name: rates(1.0) for name in training.CONTESTANTS}

    result = training.record(found, [training.ratio("ours / bare", 0.95, found)], 1)

    assert {"processor", "cores", "versions", "commit"} <= set(result["machine"])
    assert result["ratios"][0]["found"] == 1.0


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Make all small, and note in which order the memory group and the set come."""
    noted: list[str] = []
    folder = tmp_path / "group"
    folder.mkdir()
    (folder / FORMS[0].usage).write_text("5000")
    (folder / "memory.stat").write_text("cache 2000\n")

    @contextmanager
    def entered() -> Iterator[MemoryGroup]:
        noted.append("enter")
        yield MemoryGroup(folder, FORMS[0])

    def leave_on_disk(path: Path) -> None:
        noted.append(f"drop {path.name}")
        assert path.stat().st_size >= training.LARGE_FACTOR * ROOM

    def write(*words: Any) -> Store:
        noted.append("write")
        return prepare(*words)

    changes: dict[str, object] = {
        "ARCHITECTURE": Architecture(depth=1, base_channels=2),
        "GEOMETRY": Geometry(1),
        "EDGE": 28,
        "IMAGE_EDGE": 128,
        "WARM_UP": 1,
        "LARGE_STEPS": 2,
        "LARGE_ROOM": ROOM,
        "memory_group": entered,
        "leave_on_disk": leave_on_disk,
        "prepare": write,
        "settings": lambda out, steps=2: FitSettings(
            out=out, steps=1 + steps, depth=1, tile_edge=28, batch=1, device="cpu"
        ),
    }
    for name, value in changes.items():
        monkeypatch.setattr(training, name, value)
    return noted


def test_the_large_set_is_written_inside_the_group_and_then_comes_from_disk(
    events: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = iter([0, 0, ROOM, 2 * ROOM])
    monkeypatch.setattr(memory_group, "bytes_read", lambda: next(sizes))

    found = training.large(tmp_path)

    assert events == ["enter", "write", "drop arrays"]
    assert found["read_bytes"] == 2 * ROOM
    assert found["set_bytes"] >= training.LARGE_FACTOR * ROOM
    assert found["limit_bytes"] == 3000 + ROOM


@pytest.mark.usefixtures("events")
def test_a_large_set_that_is_read_from_memory_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_group, "bytes_read", lambda: 0)

    with pytest.raises(NotMeasured):
        training.large(tmp_path)
