"""When the devices would be done with an image, by the arithmetic of fair turns.

Images that wait have turns alike, by work, until each has had its own. What is run at the moment
is not counted: it is one turn at most.
"""

from bisect import bisect_left
from dataclasses import dataclass
from math import ceil

from model import averaging, planner
from model.artefact import Averaging
from service.images import ImageHeader
from service.models.loaded import Loaded


@dataclass(frozen=True, slots=True)
class Demand:
    """What an image still asks of the devices."""

    pixels: int
    """That the image counts as, as often as each is segmented."""
    work: int
    """Floating-point operations."""
    work_a_second: float
    """How fast a device runs its model; 0 is not known, and counts as no time at all."""
    tiles: int = 0
    """That its work is made of, each run by one device; 0 is any number."""
    model: str = ""
    """What is to run it."""
    is_measured: bool = True
    """Whether turns have lately shown how fast that is."""

    @classmethod
    def of(cls, model: Loaded, header: ImageHeader, passes: Averaging) -> "Demand":
        """Count the work of an image's plan, from its header alone."""
        manifest, times = model.manifest, averaging.PASSES[passes]
        shape = header.height, header.width
        plan = planner.plan_tiles(shape, manifest.architecture, model.shapes)
        return cls(
            pixels=times * header.pixels,
            work=times * planner.work(plan, manifest.architecture),
            work_a_second=model.work_a_second,
            tiles=times * len(plan.tiles),
            model=manifest.name,
            is_measured=model.is_measured,
        )

    def seconds(self, work: int) -> float:
        """Give the time of so much work, or of all where that is less."""
        return min(work, self.work) / (self.work_a_second or float("inf"))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What waits at one moment, and what follows from it."""

    waiting: tuple[Demand, ...]
    devices: int = 1

    def awaits(self, model: str) -> bool:
        """Whether an image of a model waits."""
        return any(image.model == model for image in self.waiting)

    def alone(self, image: Demand) -> float:
        """Give the time that an image would take if nothing else waited, in s."""
        if not image.tiles:
            return image.seconds(image.work) / self.devices
        return image.seconds(image.work) * ceil(image.tiles / self.devices) / image.tiles

    def done(self, image: Demand) -> float:
        """Give the time in which an image would be done that came now, in s.

        Every other has as much of the devices meanwhile as this one, or all that it asks for.
        """
        return self._until(image.work) + self.alone(image)

    def fits(self, image: Demand, limit_s: float) -> float:
        """Give the time after which an image that comes would be done within a limit, in s.

        Nothing else is to come meanwhile. Of an image that alone takes longer, it says when
        nothing else waits any more.
        """
        most = max((other.work for other in self.waiting), default=0)

        def fits_after(share: int) -> bool:
            return self._rest(share).done(image) <= limit_s

        return self._until(bisect_left(range(most), True, key=fits_after))

    def free(self, pixels: int) -> float:
        """Give the time after which images of so many pixels, or all, are done, in s."""
        share = 0
        for image in sorted(self.waiting, key=lambda image: image.work):
            if pixels <= 0:
                break
            share = image.work
            pixels -= image.pixels
        return self._until(share)

    def _until(self, share: int) -> float:
        """Give the time until each has had so much work, or all that it asks for."""
        return sum(image.seconds(share) for image in self.waiting) / self.devices

    def _rest(self, share: int) -> "Forecast":
        """Give what is left when each has had so much work."""
        rest = (
            Demand(image.pixels, max(image.work - share, 0), image.work_a_second)
            for image in self.waiting
        )
        return Forecast(tuple(rest), self.devices)
