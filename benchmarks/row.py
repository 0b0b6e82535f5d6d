"""A row of the table: what was found, the bar, and whether it was met."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import zip_longest
from textwrap import wrap
from typing import Any

NAME_WIDTH, SAYS_WIDTH = 58, 60


@dataclass(frozen=True, slots=True)
class Row:
    """One ratio, or one number, of one run."""

    name: str
    found: float | None = None
    """None: it could not be measured, and `says` tells why."""
    at_most: float | None = None
    """The bar, if less is better."""
    at_least: float | None = None
    """The bar, if more is better; without either there is none."""
    unit: str = ""
    """Of `found`; a ratio has none."""
    says: str = ""
    """What stands behind the number, or why there is none, or no bar."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """All that was measured, for the file."""

    @property
    def bar(self) -> str:
        """The bar, as the table has it."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def verdict(self) -> str:
        """`failed`, `missed` or `met`; nothing where there is no bar."""
        if self.found is None:
            return "failed"
        if self.at_most is not None:
            return "met" if self.found <= self.at_most else "missed"
        if self.at_least is not None:
            return "met" if self.found >= self.at_least else "missed"
        return ""

    def line(self) -> str:
        """Write the row as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_fields(cls, found: Mapping[str, Any]) -> "Row":
        """Read a row; what it has no field for is one of its numbers."""
        names = {entry.name for entry in fields(cls)}
        known = {name: value for name, value in found.items() if name in names}
        others = {name: value for name, value in found.items() if name not in names}
        known["numbers"] = known.get("numbers", {}) | others
        return cls(**known)


def table(rows: Sequence[Row]) -> str:
    """Lay rows out for a terminal."""
    head = f"{'row':<{NAME_WIDTH}} {'found':>9}  {'bar':<8} {'':<7} what stands behind it"
    return "\n".join([head, *(text for row in rows for text in _lines(row))])


def _lines(row: Row) -> list[str]:
    found = "–" if row.found is None else f"{row.found:.4g} {row.unit}".rstrip()
    number = f"{found:>9}  {row.bar:<8} {row.verdict:<7}"
    parts = zip_longest(
        wrap(row.name, NAME_WIDTH), [number], wrap(row.says, SAYS_WIDTH), fillvalue=""
    )
    return [
        f"{name:<{NAME_WIDTH}} {middle:<{len(number)}} {says}".rstrip()
        for name, middle, says in parts
    ]
