"""The service against a plain FastAPI + torch service with the paper's tiling, 512²."""

import sys
from collections.abc import Iterator
from functools import partial

import httpx

from benchmarks.clients import send_all
from benchmarks.images import png, sample
from benchmarks.peers.agreement import require_agreement
from benchmarks.row import Row
from benchmarks.serving import free_port, process, served
from benchmarks.subject import MODEL
from benchmarks.turns import described, in_turns_cold, ratio

EDGE = 512
REQUESTS = {1: 3, 16: 16}
"""Clients at a time, and how many images they send in a turn."""
ROUNDS = {1: 2, 16: 1}
BAR = 3


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure the throughput of few and of many clients."""
    body = png(sample(EDGE))
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peers.torch_service:app"]
    command += ["--port", str(port), "--log-level", "warning"]
    theirs = process(command, {"BENCH_MODEL": str(MODEL)}, port, "/health")
    with served() as ours, theirs as (torch, _):
        require_agreement(ours, torch, body)
        for clients, rounds in ROUNDS.items():
            yield row(ours, torch, body, clients, 1 if quick else rounds)


def row(ours: httpx.Client, torch: httpx.Client, body: bytes, clients: int, rounds: int) -> Row:
    """Measure the throughput of so many clients."""
    bodies = [body] * REQUESTS[clients]
    contestants = {
        "FastAPI + torch": partial(send_all, torch, bodies, clients),
        "ours": partial(send_all, ours, bodies, clients),
    }
    seconds = in_turns_cold(contestants, rounds)
    return Row(
        f"throughput: ours / FastAPI + torch, {clients} client(s), {EDGE}²",
        ratio(seconds, "FastAPI + torch", "ours"),
        at_least=BAR,
        says=f"{len(bodies)} requests a turn: {described(seconds)}",
        numbers={"seconds": seconds},
    )
