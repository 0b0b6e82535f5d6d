"""What a small image pays for a large one: 512² while 100 megapixels are under way, against idle.

A 99th percentile would take hundreds of requests, each hundred some five minutes: what is compared
is the longest of as many as are affordable. The large request is given up at the end, which frees
its tiles.
"""

import http.client
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

import httpx

from benchmarks.images import png, sample
from benchmarks.row import Row
from benchmarks.serving import segment, served
from benchmarks.turns import seconds_of
from benchmarks.usage import held

EDGE, LARGE_EDGE, SAMPLES = 512, 10_000, 50
"""So many samples, idle and not, take three minutes on two cores with AVX2."""
BAR = 3
UNDER_WAY_TIMEOUT_S = 120


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure one row."""
    body = png(sample(EDGE))
    large_edge = LARGE_EDGE // 4 if quick else LARGE_EDGE
    large = png(sample(large_edge))
    count = 3 if quick else SAMPLES
    with served() as client:
        once = partial(seconds_of, partial(segment, client, body))
        once()
        idle = [once() for _ in range(count)]
        with under_way(client, large):
            busy = [once() for _ in range(count)]
            still = waiting_images(client) > 0
    yield row(idle, busy, large_edge**2 / 1e6, still=still)


def row(idle: Sequence[float], busy: Sequence[float], megapixels: float, *, still: bool) -> Row:
    """Hold requests beside a large image against as many without.

    Args:
        idle: Times of those without, in s.
        busy: Times of those beside it, in s.
        megapixels: Of the large image.
        still: Whether it was under way until the last of them had its answer.
    """
    medians = f"{statistics.median(busy):.3g} s against {statistics.median(idle):.3g} s"
    early = "; the large image was done before the small ones" * (not still)
    return Row(
        f"longest of {len(busy)} of {EDGE}² beside {megapixels:g} megapixels / of {len(idle)} idle",
        max(busy) / max(idle) if still else None,
        at_most=BAR,
        says=f"longest {max(busy):.3g} s against {max(idle):.3g} s, median {medians}{early}",
        numbers={"idle_s": list(idle), "busy_s": list(busy)},
    )


@contextmanager
def under_way(client: httpx.Client, body: bytes) -> Iterator[None]:
    """Have an image on the device until the block ends; then its client leaves.

    Raises:
        TimeoutError: if it does not get there.
    """
    url = client.base_url
    with closing(http.client.HTTPConnection(url.host, url.port, timeout=600)) as connection:
        headers = {"Content-Type": "image/png"}
        sending = threading.Thread(
            target=connection.request, args=("POST", "/segment", body, headers), daemon=True
        )
        sending.start()
        deadline = time.monotonic() + UNDER_WAY_TIMEOUT_S
        while not waiting_images(client):
            if time.monotonic() > deadline:
                raise TimeoutError("the large image did not reach the device")
            time.sleep(0.1)
        sending.join()
        yield


def waiting_images(client: httpx.Client) -> float:
    """Give how many images wait for turns."""
    return held(client)["unet_queue_images"]
