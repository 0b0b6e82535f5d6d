"""Results that are committed, which are those of a commit or are kept apart."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import commit
from benchmarks.subject import ROOT

BUILD = ROOT / "build" / "bench"
NOT_KEPT = 3
"""Exit status of a run whose result is that of no commit."""


def keep(path: Path, result: Mapping[str, Any], measured: str) -> bool:
    """Write a result where results are committed; what is of no commit goes to `build/`.

    Args:
        path: Where results are committed.
        result: What was found.
        measured: The commit before the measurement began, as `commit` names it.

    Returns:
        Whether it is that of one commit, or there is no git that knows.
    """
    is_one = measured == commit() and not measured.endswith("-dirty")
    if not is_one:
        print("the result is that of no commit: what is measured was changed")
    write(path if is_one else BUILD / path.name, result)
    return is_one


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {path}", flush=True)
