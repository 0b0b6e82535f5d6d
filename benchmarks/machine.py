"""On what it was measured."""

import platform
import subprocess
from importlib import metadata

from benchmarks.subject import ROOT
from model.cores import usable_cores
from model.sessions.processor import BFLOAT16, CPUINFO, INT8, computes_in

INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Instruction sets that decide how fast a convolution is, as Linux names them."""
PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "monai", "uvicorn")
MEASURED = (
    *("model", "service", "training", "benchmarks/*.py", "pyproject.toml", "docs/samples"),
    ":(exclude)*.md",
)
"""What a measurement depends on, as git is asked about it."""


def describe() -> dict[str, object]:
    """Name the processor, its cores and instruction sets, and the software."""
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "instructions": [name for name in INSTRUCTIONS if computes_in(frozenset({name}))],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": commit(),
    }


def commit() -> str:
    """Name the commit that is measured; nothing where there is no git.

    It ends in `-dirty` where something that is measured is not as it was committed.
    """
    name = _git("describe", "--always")
    is_dirty = bool(name and _git("status", "--porcelain", "--", *MEASURED))
    return name + "-dirty" * is_dirty


def has_vnni() -> bool:
    """Whether it multiplies integers of 8 bits in one instruction."""
    return computes_in(INT8)


def has_bf16() -> bool:
    """Whether it multiplies bfloat16."""
    return computes_in(BFLOAT16)


def _cpuinfo(key: str) -> str:
    if not CPUINFO.exists():
        return ""
    lines = (line.partition(":") for line in CPUINFO.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git(*words: str) -> str:
    """Ask git, which then leaves its index to others; nothing where it fails or is not there."""
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(  # noqa: S603 (our own command)
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
