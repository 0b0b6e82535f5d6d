"""The heap, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.service.conftest import write_artefact

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
    assert (int(said(SCRIPT.format(prepare=prepare))) > 19 << 10) is given_back


LET_GO = """
import gc, sys, weakref
from pathlib import Path
from service import heap
from service.models.models import Models
from service.settings import Settings

models = Models.open(Settings(model_dir=Path(sys.argv[1]), device="cpu"))
heap.keep_small()
gc.disable()  # so that nothing but the end of its last use lets the session go
session = weakref.ref(models.loaded["cells"].runtimes[0])
models.catalogue.remove(models.catalogue.served["cells"].path)
print(gc.get_freeze_count() > 10_000, session() is None)
"""


def test_a_model_that_was_there_from_the_start_is_let_go_nonetheless(tmp_path: Path) -> None:
    write_artefact(tmp_path, name="cells")

    assert said(LET_GO, str(tmp_path)).split() == ["True", "True"]


def said(script: str, *arguments: str) -> str:
    ended = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout
