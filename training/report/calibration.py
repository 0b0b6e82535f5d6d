"""The reliability diagram: whether a probability of 0.9 is right nine times in ten."""

import math
from collections.abc import Sequence
from dataclasses import replace

from training.metrics.calibration import Bin
from training.report import charts
from training.report.charts import Axis

EDGE = 260
"""Edge of the diagram's area, in px."""
STRIP = 70
"""Height of the area that shows how many pixels there are, in px."""
SMALLEST_SHARE = 1e-5


def reliability(bins: Sequence[Bin], several: bool) -> str:
    """Draw how often the pixels of each bin of probabilities were what was predicted.

    Args:
        bins: The reliability table.
        several: Whether there are more than two classes: probabilities are then those of the class
            that was chosen.
    """
    filled = [entry for entry in bins if entry.count]
    if not filled:
        return ""
    what = "probability of the class chosen" if several else "probability of foreground"
    x = Axis(0, 1, charts.LEFT, charts.LEFT + EDGE, what)
    return (
        '<div class="beside"><figure>'
        f"{_diagram(x, filled, 'were right' if several else 'are foreground')}"
        f"{_strip(replace(x, name='share of all pixels, on a log scale'), filled)}"
        f"</figure><div>{_table(filled)}</div></div>"
    )


def _diagram(x: Axis, bins: Sequence[Bin], what: str) -> str:
    y = Axis(0, 1, charts.TOP + EDGE, charts.TOP, f"share of pixels that {what}")
    points = [(entry.confidence, entry.accuracy) for entry in bins]
    titles = [
        f"{entry.count:,} pixels of mean probability {entry.confidence:.3f}: "
        f"{entry.accuracy:.1%} {what}"
        for entry in bins
    ]
    gaps = (charts.line(x, y, [(sure, sure), (sure, right)], "gap") for sure, right in points)
    return charts.chart(
        "reliability diagram",
        x,
        y,
        charts.line(x, y, [(0, 0), (1, 1)], "diagonal"),
        *gaps,
        charts.line(x, y, points),
        charts.dots(x, y, points, titles),
    )


def _strip(x: Axis, bins: Sequence[Bin]) -> str:
    lowest = math.log10(SMALLEST_SHARE)
    y = Axis(lowest, 0, charts.TOP + STRIP, charts.TOP, "", _percent)
    total = sum(entry.count for entry in bins)
    bars = (
        f'<rect class="bar" x="{x.place(entry.low) + 0.5:.1f}" y="{top:.1f}" '
        f'width="{x.place(entry.high) - x.place(entry.low) - 1:.1f}" '
        f'height="{y.start - top:.1f}"><title>{share:.2%} of the pixels</title></rect>'
        for entry in bins
        for share in [entry.count / total]
        for top in [y.place(max(math.log10(share), lowest))]
    )
    return charts.chart("share of pixels by probability", x, y, *bars)


def _percent(power: float) -> str:
    return f"{100 * 10**power:g}%" if round(power) % 2 == 0 else ""


def _table(bins: Sequence[Bin]) -> str:
    total = sum(entry.count for entry in bins)
    lines = "".join(
        f"<tr><td>{entry.low:.2f} to {entry.high:.2f}</td><td>{entry.confidence:.3f}</td>"
        f"<td>{entry.accuracy:.3f}</td><td>{entry.count / total:.2%}</td></tr>"
        for entry in bins
    )
    return (
        '<table class="numbers"><thead><tr><th>probability</th><th>mean</th><th>observed</th>'
        f"<th>pixels</th></tr></thead><tbody>{lines}</tbody></table>"
    )
