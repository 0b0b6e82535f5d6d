"""The heap, in a process of its own."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
from pathlib import Path
from service import heap

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

{prepare}
len(b"x" * (20 << 20))  # from now on, glibc keeps blocks of this size in the heap
block = b"x" * (20 << 20)
above = [b"x" * 100_000 for _ in range(10)]  # so that the heap does not end with the block
before = resident()
del block
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc and /proc are Linux's")
@pytest.mark.parametrize(
    ("prepare", "given_back"), [("heap.keep_small()", True), ("", False)], ids=["small", "default"]
)
def test_a_large_block_is_given_back_as_soon_as_it_is_free(prepare: str, given_back: bool) -> None:
    ended = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", SCRIPT.format(prepare=prepare)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (int(ended.stdout) > 19 << 10) is given_back
