"""Admission: how much work the service holds at a time, judged before the work is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from model.errors import DeadlineTooShort, ServiceBusy
from service.estimate import Demand, Forecast

TRUSTED_WITHIN = 2.0
"""Factor that the time of an image may be wrong by where turns have lately shown its speed."""


@dataclass(eq=False, slots=True)
class Place:
    """An image that is held."""

    demand: Demand
    is_queued: bool = False
    """Whether the engine has its tiles, and knows what is left of them."""

    def join(self) -> None:
        """Leave it to the engine to say what is left."""
        self.is_queued = True


class Admission:
    """Counts requests and images that are held. It lives on the event loop, so it needs no lock."""

    def __init__(
        self,
        max_requests: int,
        max_pixels: int,
        queued: Callable[[], Forecast] = lambda: Forecast(()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold nothing yet.

        Args:
            max_requests: That are held at a time.
            max_pixels: Of the images that are held at a time.
            queued: Says what waits in the engine.
            clock: That of deadlines, in s.
        """
        self._max_requests = max_requests
        self._max_pixels = max_pixels
        self._queued = queued
        self._clock = clock
        self._places: list[Place] = []
        self.requests = 0
        """That are held."""

    @property
    def pixels(self) -> int:
        """Of the images that are held, as often as each is segmented."""
        return sum(place.demand.pixels for place in self._places)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a request.

        Raises:
            ServiceBusy: if there are as many as there may be.
        """
        if self.requests >= self._max_requests:
            forecast = self._forecast()
            message = f"{self.requests} requests are waiting; no more are held."
            raise _busy(message, forecast, forecast.free(1))
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def image(self, demand: Demand, deadline: float = float("inf")) -> Iterator[Place]:
        """Hold an image; one alone is held whatever its size.

        An image that would be late even alone is let in where no other of its model waits: until
        its deadline frees the device, its turns show how fast the model is. Where others wait,
        theirs do. So no wrong estimate keeps an image out for good. But where turns have lately
        shown a speed at which it would be far too late, its own would be in vain.

        Args:
            demand: What is to be done.
            deadline: When it is to be done, in s.

        Raises:
            ServiceBusy: if the images that are held have too many pixels together with this one,
                or too much work for it to be done in time.
            DeadlineTooShort: if it could not be done in time even alone, at a speed that turns of
                its model have lately shown; at any other, that is `ServiceBusy`.
        """
        forecast = self._forecast()
        self._refuse_more_pixels(demand, forecast)
        _refuse_late(demand, forecast, deadline - self._clock())
        place = Place(demand)
        self._places.append(place)
        try:
            yield place
        finally:
            self._places.remove(place)

    def _refuse_more_pixels(self, demand: Demand, forecast: Forecast) -> None:
        held = self.pixels
        beyond = held + demand.pixels - self._max_pixels
        if held and beyond > 0:
            queued = sum(image.pixels for image in forecast.waiting)
            message = (
                f"Images of {held:,} pixels are waiting; with this one of {demand.pixels:,} "
                f"there would be more than {self._max_pixels:,}."
            )
            raise _busy(message, forecast, forecast.free(beyond - (held - queued)))

    def _forecast(self) -> Forecast:
        """Say what waits, also what was let in and is on its way to the engine."""
        queued = self._queued()
        coming = (place.demand for place in self._places if not place.is_queued)
        return Forecast((*queued.waiting, *coming), queued.devices)


def _refuse_late(demand: Demand, forecast: Forecast, limit_s: float) -> None:
    alone, done = forecast.alone(demand), forecast.done(demand)
    is_late = alone > limit_s
    is_hopeless = demand.is_measured and alone > TRUSTED_WITHIN * limit_s
    if is_late and not is_hopeless and not forecast.awaits(demand.model):
        return
    if is_late and demand.is_measured:
        raise DeadlineTooShort(
            f"The image alone takes about {alone:.1f} s here, and the request ends in "
            f"{limit_s:.1f} s.",
            **_seconds(estimated_s=alone, deadline_s=limit_s),
        )
    if done > limit_s:
        message = (
            f"The image would be done in about {done:.1f} s, behind what waits, and the request "
            f"ends in {limit_s:.1f} s."
        )
        retry_s = forecast.fits(demand, limit_s)
        raise _busy(message, forecast, retry_s, **_seconds(estimated_s=done, deadline_s=limit_s))


def _busy(message: str, forecast: Forecast, retry_s: float, **numbers: float) -> ServiceBusy:
    return ServiceBusy(
        message,
        queued_images=len(forecast.waiting),
        queued_pixels=sum(image.pixels for image in forecast.waiting),
        **numbers,
        retry_after_s=max(ceil(retry_s), 1),
    )


def _seconds(**numbers: float) -> dict[str, float]:
    """Round for a reader."""
    return {name: round(seconds, 3) for name, seconds in numbers.items()}
