"""An environment for peers, so that what they need never meets what we need."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.subject import ROOT

FOLDER = ROOT / "build" / "peers"
PYTHON = FOLDER / "bin" / "python"
SAME = ("numpy", "pillow", "pydantic", "scipy")
"""Packages that they have in the version that we have, besides the runtime."""
PEERS = ("bentoml", "litserve")
INSTALL_TIMEOUT_S = 600


class PeerMissingError(Exception):
    """A peer cannot be installed."""


def python() -> Path:
    """Give the interpreter that has all peers, installed if need be.

    Raises:
        PeerMissingError: if they cannot be.
    """
    wanted = (*PEERS, *(f"{name}=={metadata.version(name)}" for name in SAME), runtime())
    stamp = FOLDER / "installed.txt"
    if stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return PYTHON
    _run([sys.executable, "-m", "venv", str(FOLDER)])
    _run([str(PYTHON), "-m", "pip", "install", "--quiet", *wanted])
    stamp.write_text("\n".join(wanted))
    return PYTHON


def runtime() -> str:
    """Name the runtime that we have, for the CPU."""
    name = next(
        found.metadata["Name"]
        for found in metadata.distributions()
        if found.metadata["Name"] in ("onnxruntime", "onnxruntime-gpu")
    )
    return f"onnxruntime=={metadata.version(name)}"


def version(peer: str) -> str:
    """Give the version of a peer that is installed."""
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return _run([str(PYTHON), "-c", code, peer]).strip()


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 (our own command)
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PeerMissingError(f"{command[0]}: {exc}") from exc
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise PeerMissingError(f"{' '.join(command[1:4])} failed: {last}")
    return done.stdout
