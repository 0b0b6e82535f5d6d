"""Admission: how much work the service holds at a time, judged before the work is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from model.errors import ServiceBusy


class Admission:
    """Counts requests and pixels that are held. It lives on the event loop, so it needs no lock."""

    def __init__(self, max_requests: int, max_pixels: int) -> None:
        self._max_requests = max_requests
        self._max_pixels = max_pixels
        self.requests = 0
        """That are held."""
        self.pixels = 0
        """Of the images that are held, as often as each is segmented."""

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a request.

        Raises:
            ServiceBusy: if there are as many as there may be.
        """
        if self.requests >= self._max_requests:
            raise ServiceBusy(f"{self.requests} requests are waiting; no more are held.")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def image(self, pixels: int) -> Iterator[None]:
        """Hold an image; one alone is held whatever its size.

        Args:
            pixels: What is to be done: those of the image, as often as each is segmented.

        Raises:
            ServiceBusy: if the images that are held have too many pixels together with this one.
        """
        if self.pixels and self.pixels + pixels > self._max_pixels:
            raise ServiceBusy(
                f"Images of {self.pixels:,} pixels are waiting; with this one of {pixels:,} "
                f"there would be more than {self._max_pixels:,}."
            )
        self.pixels += pixels
        try:
            yield
        finally:
            self.pixels -= pixels
