"""What a part has measured: values by their names, or why there are none."""

from collections.abc import Callable, Sequence
from typing import Any

Measured = dict[str, Any]


def attempt(measure: Callable[[], list[Measured]]) -> list[Measured]:
    """Measure; what fails says why, and takes nothing else with it."""
    try:
        return measure()
    except Exception as exc:  # noqa: BLE001 (it is the result)
        return [{"failed": f"{exc} {exc.__cause__ or ''}".strip()[:300]}]


def columns(found: Sequence[Measured]) -> str:
    """Lay out what was measured, each value under its name."""
    names = list(dict.fromkeys(name for one in found for name in one))
    cells = [names, *([_cell(one.get(name, "")) for name in names] for one in found)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, list):
        return f"{min(value):g} to {max(value):g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
