"""64 clients against one, over the same images of mixed sizes.

Throughput is that of the whole list. The fair share of an image is the time at which it would be
done if all images had come at once and the device were shared by work: each other image takes as
much of the device as this one does, or as it needs itself; and one turn more, since a tile that
runs is not taken from the device. The device's speed is that which one client had.
"""

import statistics
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from benchmarks.clients import Sent, send
from benchmarks.images import png, sample
from benchmarks.row import Row
from benchmarks.serving import served
from benchmarks.subject import MODEL
from benchmarks.turns import timed
from model.architecture import Architecture
from model.geometry import flops
from model.planner import plan_tiles
from model.planner import work as work_of
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES

CLIENTS = 64
COUNTS = {256: 32, 512: 20, 768: 8, 1024: 3, 2048: 1}
"""Image edge in px, and how many of them are in the list."""
ROOM = {
    "max_pending_requests": CLIENTS,
    "max_pending_pixels": 10**9,
}
"""Settings that let all in at once: what is measured is how they share, not who is let in."""


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure one client, then all, then one again; one client's time is the mean of its two."""
    edges = mixed(quick=quick)
    bodies = {edge: png(sample(edge)) for edge in COUNTS}
    images = [bodies[edge] for edge in edges]
    with served(**ROOM) as client:
        send(client, [bodies[256]], 1)
        one, all_at_once = (partial(send, client, images, clients) for clients in (1, CLIENTS))
        singles = [timed(one)]
        crowd, sent = timed(all_at_once)
        if not quick:
            singles.append(timed(one))
    alone = statistics.mean(seconds for seconds, _ in singles)
    pixels = sum(edge**2 for edge in edges)
    yield Row(
        f"throughput: {CLIENTS} clients / one client, {len(edges)} images of 256² to {max(edges)}²",
        alone / crowd,
        at_least=0.95,
        says=f"{pixels / 1e6 / crowd:.3g} and {pixels / 1e6 / alone:.3g} Mpx/s",
        numbers={"one_client_s": [seconds for seconds, _ in singles], "all_clients_s": crowd},
    )
    yield latency_row(edges, sent, alone)
    failures = [one.failure for one in sent if one.failure]
    yield Row(f"failures of {len(sent)} requests", len(failures), at_most=0, says=str(failures[:3]))


def latency_row(edges: Sequence[int], sent: Sequence[Sent], alone_s: float) -> Row:
    """Hold the time of every request of the crowd against its fair share."""
    architecture = Runtime(MODEL, "cpu").manifest.architecture
    shares = fair_shares(edges, architecture, alone_s)
    seconds = np.array([one.seconds for one in sent])
    relative = np.array([one.seconds / shares[one.index] for one in sent])
    p50, p99 = np.percentile(seconds, (50, 99))
    return Row(
        f"p99 of latency / fair share, {CLIENTS} clients",
        float(np.percentile(relative, 99)),
        at_most=1,
        says=f"of {len(sent)} requests: latency p50 {p50:.3g} s, p99 {p99:.3g} s, longest "
        f"{seconds.max():.3g} s; of the fair share p50 {np.median(relative):.2f}, longest "
        f"{relative.max():.2f}",
        numbers={"latency_s": seconds.tolist(), "of_fair_share": relative.tolist()},
    )


def fair_shares(edges: Sequence[int], architecture: Architecture, alone_s: float) -> list[float]:
    """Give every image's fair share, in s.

    Args:
        edges: Of the images, in px.
        architecture: Of the network.
        alone_s: What all of them take one client, in s.
    """
    plans = [plan_tiles((edge, edge), architecture, DEFAULT_SHAPES) for edge in edges]
    works = [work_of(plan, architecture) for plan in plans]
    turn = max(flops(architecture, plan.tile_shape) for plan in plans)
    speed = sum(works) / alone_s
    return [(sum(min(work, other) for other in works) + turn) / speed for work in works]


def mixed(*, quick: bool) -> list[int]:
    """Give the edges of all images, large and small mixed, the same each time."""
    counts = {edge: 1 for edge in COUNTS if edge <= 1024} if quick else COUNTS
    edges = np.repeat(list(counts), list(counts.values()))
    shuffled: list[int] = np.random.default_rng(0).permutation(edges).tolist()
    return shuffled
