"""The memory group, on files as Linux has them, and what watches a loop inside of it."""

import os
from pathlib import Path

import pytest

from benchmarks import memory_group
from benchmarks.memory_group import FORMS, Form, MemoryGroup, NotMeasured, Watch

ROOM = 1000


def group_of(folder: Path, form: Form, used: int = 5000, cache: int = 2000) -> MemoryGroup:
    """Write a group's files."""
    (folder / form.usage).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 17\n{form.cache} {cache}\nsock 0\n")
    return MemoryGroup(folder, form)


def disk(monkeypatch: pytest.MonkeyPatch, read: list[int]) -> None:
    """Let the process have had so many bytes from disks, each time that it asks."""
    sizes = iter(read)
    monkeypatch.setattr(memory_group, "bytes_read", lambda: next(sizes))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_needed_is_all_but_the_page_cache(tmp_path: Path, form: Form) -> None:
    assert group_of(tmp_path, form).needed() == 3000


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_leaves_the_room_beside_what_the_warm_up_needs(
    tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, [70, 70, 70 + 2 * ROOM])
    with Watch(group_of(tmp_path, form), warm_up=2, room=ROOM) as watch:
        watch(0)
        assert not (tmp_path / form.limit).exists()
        watch(1)
        watch(2)

    assert (tmp_path / form.limit).read_text() == "4000"
    assert watch.found() == {
        "limit_bytes": 4000,
        "group_peak_bytes": 5000,
        "room_bytes": ROOM,
        "read_bytes": 2 * ROOM,
    }


def test_what_fits_in_memory_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, [70, 70, 70 + ROOM])
    with Watch(group_of(tmp_path, FORMS[0]), warm_up=1, room=ROOM) as watch:
        watch(0)
        watch(1)

    with pytest.raises(NotMeasured, match="1000 bytes were read from disk, and 1000 fit"):
        watch.found()


def test_where_no_group_can_be_made_nothing_is_left_behind(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="no control group"),
        memory_group.memory_group(tmp_path),
    ):
        pass

    assert list(tmp_path.iterdir()) == []


def test_bytes_read_are_counted() -> None:
    assert memory_group.bytes_read() >= 0


def test_a_file_is_written_out_before_it_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr(os, "fsync", lambda _: done.append("written"))
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *words: done.append(words))
    (tmp_path / "arrays").write_bytes(b"1")

    memory_group.leave_on_disk(tmp_path / "arrays")

    assert done == ["written", (0, 0, os.POSIX_FADV_DONTNEED)]
