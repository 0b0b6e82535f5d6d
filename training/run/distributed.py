"""The processes of one run: one alone, or those that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from model.errors import TrainingError

Value = TypeVar("Value")
LONGEST_WAIT = timedelta(days=1)
"""For the leading process, which validates and scores alone."""


@dataclass(frozen=True, slots=True)
class World:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1
    machine: int = 0
    """Number of the machine, of those that share the run."""
    local_rank: int = 0
    """Which process of its machine."""

    @property
    def leads(self) -> bool:
        """Whether this process validates, writes and prints."""
        return self.rank == 0

    @property
    def leads_machine(self) -> bool:
        """Whether this process writes what those of its machine read."""
        return self.local_rank == 0

    def places(self, batch: int) -> range:
        """Give the places of a step's batch that this process computes.

        Raises:
            TrainingError: if the batch cannot be shared evenly.
        """
        if batch % self.size:
            raise TrainingError(
                f"A batch of {batch} tiles cannot be shared by {self.size} processes; "
                f"take --batch {self.size * max(batch // self.size, 1)}."
            )
        return range(self.rank, batch, self.size)

    def total(self, value: Tensor) -> Tensor:
        """Add up a value over all processes."""
        value = value.detach().clone()
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Find out whether it is so in any process."""
        if self.size == 1:
            return flag
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        return bool(self.total(torch.tensor(float(flag), device=device)) > 0)

    def say(self, text: str) -> None:
        """Print in the leading process alone."""
        if self.leads:
            print(text)

    def same(self, value: Value) -> Value:
        """Give every process what the leading one has."""
        shared = [value]
        if self.size > 1:
            distributed.broadcast_object_list(shared)
        return shared[0]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, for as long as the run lasts."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        rank = distributed.get_rank()
        yield World(rank, size, *_machine(rank))
    finally:
        distributed.destroy_process_group()


def _machine(rank: int) -> tuple[int, int]:
    """Give machine and local rank as torchrun tells them; else each process is as on its own."""
    if "GROUP_RANK" not in os.environ:
        return rank, 0
    return int(os.environ["GROUP_RANK"]), int(os.environ["LOCAL_RANK"])
