"""A result is committed only if it is that of a commit."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import kept, machine
from benchmarks.row import Row
from benchmarks.soak import __main__ as soak
from benchmarks.usage import Usage

GIT = shutil.which("git") or ""
needs_git = pytest.mark.skipif(not GIT, reason="there is no git")

FILES = (
    "model/a.py",
    "benchmarks/rows/b.py",
    "benchmarks/results/c.json",
    "model/d.md",
    "README.md",
)
DIRTY, CLEAN = "abc-dirty", "abc"


def git(folder: Path, *words: str) -> None:
    known = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = [GIT, *known, *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603 (our own)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commit some files, and measure there."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--no-verify", "-m", "first")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    return tmp_path


@needs_git
def test_the_commit_is_dirty_where_something_that_is_measured_was_changed(checkout: Path) -> None:
    first = machine.commit()
    assert first
    assert not first.endswith("-dirty")
    for name in FILES:
        (checkout / name).write_text("2")
        is_measured = name.endswith(".py")
        assert machine.commit() == first + "-dirty" * is_measured
        (checkout / name).write_text("1")
    (checkout / "service").mkdir()
    (checkout / "service" / "new.py").write_text("3")
    assert machine.commit() == f"{first}-dirty"


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.commit() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit() == ""


@pytest.mark.parametrize(
    ("before", "after", "is_kept"),
    [(CLEAN, CLEAN, True), ("", "", True), (DIRTY, DIRTY, False), (CLEAN, DIRTY, False)],
)
def test_what_is_of_no_commit_is_not_written_where_results_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, is_kept: bool
) -> None:
    monkeypatch.setattr(kept, "commit", lambda: after)
    monkeypatch.setattr(kept, "BUILD", tmp_path / "build")
    path = tmp_path / "results" / "a.json"

    assert kept.keep(path, {"found": 1}, before) == is_kept

    assert path.exists() == is_kept
    written = path if is_kept else tmp_path / "build" / "a.json"
    assert json.loads(written.read_text()) == {"found": 1}


SetCommit = Callable[[str], None]


@pytest.fixture
def set_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetCommit:
    """Give a function that sets the commit; let what is written lie apart."""
    for module in (kept, bench):
        monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    for module in (bench, soak):
        monkeypatch.setattr(module, "RESULT", tmp_path / "results" / "a.json")

    def set_to(name: str) -> None:
        for module in (bench, soak, kept):
            monkeypatch.setattr(module, "commit", lambda: name)

    return set_to


def test_the_exit_status_of_a_full_run_says_whether_it_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_commit: SetCommit
) -> None:
    def measure(name: str, **_: Any) -> dict[str, Any]:
        return {"rows": [json.loads(Row(name, 1.0, at_most=1).line())]}

    monkeypatch.setattr(bench, "measure_apart", measure)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    set_commit(DIRTY)
    assert bench.main([]) == kept.NOT_KEPT
    assert bench.main(["requests"]) == 0
    assert not (tmp_path / "results").exists()
    set_commit(CLEAN)
    assert bench.main([]) == 0
    assert (tmp_path / "results" / "a.json").exists()


def test_the_exit_status_of_a_full_soak_says_whether_it_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_commit: SetCommit
) -> None:
    samples = [Usage(100, 5, 2, 9)] * 20
    outcome = soak.Outcome({"good": 1}, [], samples, {"unet_requests_held": 0.0}, 0, 0)
    monkeypatch.setattr(soak, "soak", lambda *_: outcome)
    monkeypatch.setattr(soak, "write_artefact", lambda *_: None)
    set_commit(DIRTY)
    assert soak.main([]) == kept.NOT_KEPT
    assert soak.main(["--requests", "1"]) == 0
    assert not (tmp_path / "results").exists()
    set_commit(CLEAN)
    assert soak.main([]) == 0
    assert (tmp_path / "results" / "a.json").exists()
