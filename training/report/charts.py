"""Axes, ticks and marks, as SVG inside the page; colours come from its style sheet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 14, 40
"""Margins around the area that is drawn in, in px."""
MOST_TICKS = 6

Point = tuple[float, float]
Words = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Axis:
    """Where values of one kind lie on a chart."""

    low: float
    high: float
    start: float
    """Place of `low`, in px."""
    stop: float
    """Place of `high`, in px."""
    name: str
    words: Words | None = None
    """How a tick is written; None takes as many digits as tell ticks apart."""
    shortest_step: float = 0.0
    """Ticks are no closer than this."""

    def place(self, value: float) -> float:
        """Give the place of a value, in px."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    @property
    def step(self) -> float:
        """Distance between two ticks."""
        return max(round_step((self.high - self.low) / MOST_TICKS), self.shortest_step)

    def written(self, tick: float) -> str:
        """Write a tick."""
        if self.words is not None:
            return self.words(tick)
        digits = max(-math.floor(math.log10(self.step) + 1e-9), 0)
        return f"{tick:,.{digits}f}"

    def ticks(self) -> list[float]:
        """Give round values between the ends."""
        step = self.step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(count * step, 12) for count in range(first, last + 1)]


def across(low: float, high: float, name: str) -> Axis:
    """Give an axis of whole numbers from left to right."""
    return Axis(low, max(high, low + 1), LEFT, WIDTH - RIGHT, name, shortest_step=1)


def upwards(values: Sequence[float], name: str) -> Axis:
    """Give an axis from the bottom to the top that holds all values, with round ends."""
    low, high = min(values), max(values)
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0) or 1.0
    step = round_step((high - low) / MOST_TICKS)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Axis(low, high, HEIGHT - BOTTOM, TOP, name)


def round_step(length: float) -> float:
    """Give the shortest of 1, 2 and 5 times a power of ten that is no shorter than this."""
    power = 10.0 ** math.floor(math.log10(length))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= length * (1 - 1e-9))


def chart(label: str, x: Axis, y: Axis, *drawn: str) -> str:
    """Give a whole chart: axes, and what was drawn over them.

    Args:
        label: What it shows, for readers who do not see it.
        x: The axis from left to right.
        y: The axis from the bottom to the top.
        drawn: SVG elements.
    """
    return (
        f'<svg class="chart" viewBox="0 0 {x.stop + RIGHT:.0f} {y.start + BOTTOM:.0f}" role="img" '
        f'aria-label="{escape(label)}">{_across(x, y)}{_upwards(x, y)}{"".join(drawn)}</svg>'
    )


def line(x: Axis, y: Axis, points: Sequence[Point], style: str = "line") -> str:
    """Join points by a line."""
    places = " ".join(f"{x.place(a):.1f},{y.place(b):.1f}" for a, b in points)
    return f'<polyline class="{style}" points="{places}"/>'


def dots(x: Axis, y: Axis, points: Sequence[Point], titles: Sequence[str] = ()) -> str:
    """Draw points, each with a title that shows under the pointer."""
    named = titles or [f"{x.written(a)}: {b:.4g}" for a, b in points]
    return "".join(
        f'<circle class="dot" cx="{x.place(a):.1f}" cy="{y.place(b):.1f}" r="3">'
        f"<title>{escape(title)}</title></circle>"
        for (a, b), title in zip(points, named, strict=True)
    )


def upright(x: Axis, y: Axis, value: float, words: str) -> str:
    """Mark a value of the lower axis by an upright line."""
    place = x.place(value)
    end = place > (x.start + x.stop) / 2
    return (
        f'<path class="mark" d="M{place:.1f} {y.start:.1f}V{y.stop:.1f}"/>'
        f'<text class="marked" x="{place + (-6 if end else 6):.1f}" y="{y.stop + 11:.1f}" '
        f'text-anchor="{"end" if end else "start"}">{escape(words)}</text>'
    )


def level(x: Axis, y: Axis, value: float, words: str) -> str:
    """Mark a value of the upright axis by a line across."""
    place = y.place(value)
    return (
        f'<path class="mark" d="M{x.start:.1f} {place:.1f}H{x.stop:.1f}"/>'
        f'<text class="marked" x="{x.stop:.1f}" y="{place + 14:.1f}" text-anchor="end">'
        f"{escape(words)}</text>"
    )


def _across(x: Axis, y: Axis) -> str:
    ticks = "".join(
        f'<text x="{x.place(tick):.1f}" y="{y.start + 17:.1f}" text-anchor="middle">'
        f"{escape(x.written(tick))}</text>"
        for tick in x.ticks()
    )
    middle = (x.start + x.stop) / 2
    name = f'<text class="name" x="{middle:.1f}" y="{y.start + 34:.1f}" text-anchor="middle">'
    return f"{ticks}{name}{escape(x.name)}</text>"


def _upwards(x: Axis, y: Axis) -> str:
    ticks = "".join(
        f'<path class="grid" d="M{x.start:.1f} {y.place(tick):.1f}H{x.stop:.1f}"/>'
        f'<text x="{x.start - 8:.1f}" y="{y.place(tick) + 4:.1f}" text-anchor="end">'
        f"{escape(y.written(tick))}</text>"
        for tick in y.ticks()
    )
    middle = (y.start + y.stop) / 2
    turned = f'transform="translate(11 {middle:.1f}) rotate(-90)" text-anchor="middle"'
    return f'{ticks}<text class="name" {turned}>{escape(y.name)}</text>'
