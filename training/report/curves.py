"""Loss, main score and learning rate over the steps of a run."""

from collections.abc import Sequence
from typing import Any

from training.report import charts
from training.report.charts import Point

Log = Sequence[dict[str, Any]]


def curves(log: Log, last: int, score: str) -> str:
    """Draw what the log holds; a curve without a point is left out.

    Args:
        log: Entries of `training.run.loop.Loop`.
        last: The step whose parameters were kept.
        score: What people call the main score.
    """
    drawn = [
        _curve("Loss", "mean loss of the tiles", _points(log, "training", "loss"), last),
        _curve(score, "on validation images", _points(log, "validation", "value"), last),
        _curve("Learning rate", "", _points(log, "training", "learning_rate"), last),
    ]
    return f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else ""


def pace(log: Log) -> str:
    """Say how fast the steps were."""
    rates = sorted(rate for _, rate in _points(log, "training", "steps_per_second"))
    return f"Median pace: {rates[len(rates) // 2]:.2g} steps a second." if rates else ""


def _points(log: Log, kind: str, name: str) -> list[Point]:
    return [(entry["step"], entry[name]) for entry in log if entry["kind"] == kind]


def _curve(title: str, unit: str, points: Sequence[Point], last: int) -> str:
    if not points:
        return ""
    x = charts.across(0, max(step for step, _ in points), "step")
    y = charts.upwards([value for _, value in points], unit)
    drawn = [charts.line(x, y, points), charts.upright(x, y, last, f"kept: step {last:,}")]
    if len(points) <= 100:
        drawn.append(charts.dots(x, y, points))
    return f"<figure><h3>{title}</h3>{charts.chart(title, x, y, *drawn)}</figure>"
