"""What the service costs and gains, side by side: `python -m benchmarks [ROWS …]`.

Every family of rows runs in a process of its own, one after the other. What cannot be measured is
a row that says why. A full run of a commit is kept in `benchmarks/results/serving.json`, any other
in `build/bench/`.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.kept import BUILD, NOT_KEPT, keep, write
from benchmarks.machine import commit, describe
from benchmarks.row import Row, table
from benchmarks.subject import ROOT

RESULT = ROOT / "benchmarks" / "results" / "serving.json"
FAMILIES = (
    "requests",
    "encoding",
    "tiling",
    "sliding_window",
    "plain_service",
    "frameworks",
    "precision",
    "matrix_rate",
    "crowd",
    "neighbour",
    "memory",
    "start",
)
"""Modules of `benchmarks.rows`, in the order of the table."""
LIMIT_S = 1200
"""Time for one family, after which it is ended."""
SLOW_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make numpy slower than the processor is."""


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write the result; or be one family.

    Returns:
        3 if a full run was that of no commit, else 1 if a bar was missed or a row failed, else 0.
    """
    arguments = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are ended, too
    if arguments.alone:
        return measure_alone(arguments.alone, quick=arguments.quick)
    BUILD.mkdir(parents=True, exist_ok=True)
    measured = commit()
    chosen = [name for name in FAMILIES if name in (arguments.rows or FAMILIES)]
    found = [measure_apart(name, quick=arguments.quick) for name in chosen]
    rows = [Row.from_fields(row) for family in found for row in family["rows"]]
    print(f"\n{table(rows)}\n")
    result = record(found, quick=arguments.quick)
    if len(chosen) < len(FAMILIES) or arguments.quick:
        write(BUILD / RESULT.name, result)
    elif not keep(RESULT, result, measured):
        return NOT_KEPT
    return int(any(row.verdict in ("missed", "failed") for row in rows))


def measure_apart(name: str, *, quick: bool) -> dict[str, Any]:
    """Measure a family in a process of its own, and give its rows and how long they took."""
    command = [sys.executable, "-m", "benchmarks", "--alone", name, *["--quick"] * quick]
    environment = {key: text for key, text in os.environ.items() if key not in SLOW_KERNELS}
    log = BUILD / f"{name}.log"
    load = os.getloadavg()[0]
    print(f"{name} …  (load before it: {load:.1f})", flush=True)
    began = time.perf_counter()
    with (
        log.open("w") as stderr,
        subprocess.Popen(  # noqa: S603 (our own module)
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        limit = threading.Timer(LIMIT_S, process.terminate)
        limit.start()
        try:
            rows = [json.loads(line) for line in process.stdout or ()]
        finally:
            limit.cancel()
            process.terminate()
            process.wait()
    if process.returncode:
        reason = f"its process ended with {process.returncode}; see {log.relative_to(ROOT)}"
        rows.append(json.loads(Row(name, says=reason).line()))
    seconds = round(time.perf_counter() - began, 1)
    print(f"{name}: {seconds:.0f} s", flush=True)
    return {
        "command": f"python -m benchmarks {name}",
        "seconds": seconds,
        "load": load,
        "rows": rows,
    }


def measure_alone(name: str, *, quick: bool) -> int:
    """Measure a family in this process, and print each row as soon as it is there."""
    try:
        for row in importlib.import_module(f"benchmarks.rows.{name}").measure(quick=quick):
            print(row.line(), flush=True)
    except Exception as exc:  # noqa: BLE001 (whatever it is, it is this row's alone)
        import traceback

        traceback.print_exc()
        print(Row(name, says=f"{type(exc).__name__}: {exc}"[:400]).line(), flush=True)
    return 0


def record(families: Sequence[dict[str, Any]], *, quick: bool) -> dict[str, Any]:
    """Say what was measured, on what, and how."""
    return {
        "command": f"python -m benchmarks{' --quick' * quick}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(),
        "families": list(families),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", choices=[*FAMILIES, []], metavar="ROWS", help=", ".join(FAMILIES)
    )
    parser.add_argument("--quick", action="store_true", help="one round, and no large image")
    parser.add_argument("--alone", choices=FAMILIES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
