"""The training images of a run: on the disk of each machine once, for as long as the run lasts."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from model.architecture import Architecture
from training.data.dataset import AnnotatedImage
from training.plan import Plan
from training.run.distributed import World
from training.tiles.store import Layout, Store, write


@contextmanager
def stored(
    place: Path,
    images: Sequence[AnnotatedImage],
    architecture: Architecture,
    plan: Plan,
    world: World,
) -> Iterator[Store]:
    """Let the first process of a machine write training images, and every one map them.

    Args:
        place: The machine's folder for them; made anew, and removed at the end.
        images: Annotated images; one at a time is in memory.
        architecture: Says how many channels the network reads, and how many classes there are.
        plan: Intensity rule and border weights.
        world: The processes of the run.

    Raises:
        TrainingError: if there is no room for them.
    """
    try:
        written = write(place, images, architecture, plan) if world.leads_machine else None
        # Every machine reads the same images; the leading process leads one, and has written them.
        layout = cast("Layout", world.same(written))
        world.wait()  # until the files of all machines are written
        store = layout.mapped(place)
        world.wait()  # until each process has its own mapped: the file may go
        yield store
    finally:
        if world.leads_machine:
            shutil.rmtree(place, ignore_errors=True)
