"""Memory is counted as a container has it, not as its host does."""

import os
from pathlib import Path

import pytest

from model import cgroups, memory
from model.memory import usable_memory

MEMINFO = "MemTotal: 8000000 kB\nMemFree: 100000 kB\nMemAvailable: 7000000 kB\nCached: 6900000 kB\n"
AVAILABLE = 7_000_000 * 1024


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend a machine whose process is in the group `app` of both versions."""
    (tmp_path / "membership").write_text("3:memory:/app\n0::/app\n")
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "app").mkdir()
    (tmp_path / "memory" / "app").mkdir(parents=True)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    return tmp_path


def test_memory_that_holds_copies_of_files_is_usable(machine: Path) -> None:
    assert usable_memory() == AVAILABLE


@pytest.mark.parametrize("file", ["app/memory.max", "memory/app/memory.limit_in_bytes"])
@pytest.mark.parametrize(("limit", "usable"), [(1 << 30, 1 << 30), (1 << 40, AVAILABLE)])
def test_a_limit_of_either_version_counts(
    machine: Path, file: str, limit: int, usable: int
) -> None:
    (machine / file).write_text(f"{limit}\n")
    assert usable_memory() == usable


def test_the_least_limit_of_a_group_and_those_above_it_counts(machine: Path) -> None:
    (machine / "app" / "memory.max").write_text("3000000\n")
    (machine / "memory.max").write_text("2000000\n")
    assert usable_memory() == 2_000_000


def test_a_group_without_a_limit_has_none(machine: Path) -> None:
    (machine / "app" / "memory.max").write_text("max\n")
    assert usable_memory() == AVAILABLE


def test_where_a_system_does_not_say_what_is_available_half_of_its_memory_is(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "meminfo").unlink()
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert usable_memory() == 2_048_000
