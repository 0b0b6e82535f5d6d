"""What a small image pays for a large one: 512² while 100 megapixels are under way, against idle.

The large request is given up at the end, which frees its tiles.
"""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import httpx
import numpy as np

from benchmarks.images import png, sample
from benchmarks.row import Row
from benchmarks.serving import segment, served
from benchmarks.turns import seconds_of

EDGE, LARGE_EDGE, SAMPLES = 512, 10_000, 15
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
            still = waiting_images(client)
    p99 = {name: float(np.percentile(each, 99)) for name, each in (("idle", idle), ("busy", busy))}
    yield Row(
        f"p99 of {EDGE}² beside {large_edge**2 / 1e6:g} megapixels / idle",
        p99["busy"] / p99["idle"] if still else None,
        at_most=BAR,
        says=f"p99 {p99['busy']:.3g} s against {p99['idle']:.3g} s, median "
        f"{np.median(busy):.3g} s against {np.median(idle):.3g} s, {count} samples each"
        + "; the large image was done before the small ones"
        * (not still),
        numbers={"idle_s": idle, "busy_s": busy},
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
    lines = client.get("/metrics").text.splitlines()
    found = [line.split()[1] for line in lines if line.startswith("unet_queue_images ")]
    return float(found[0])
