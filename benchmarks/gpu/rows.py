"""Rows of a part: what was measured, by its name, or why it was not."""

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


def attempt(measure: Callable[[], list[Row]]) -> list[Row]:
    """Measure; what fails is a row that says why, and takes nothing else with it."""
    try:
        return measure()
    except Exception as exc:  # noqa: BLE001 (it is the result)
        return [{"failed": f"{exc} {exc.__cause__ or ''}".strip()[:300]}]


def table(rows: Sequence[Row]) -> str:
    """Lay rows out under the names of their values."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, list):
        return f"{min(value):g} to {max(value):g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
