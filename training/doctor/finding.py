"""What the doctor says: one line for each finding."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from model.errors import DatasetError

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")
MOST_LINES = 5
"""Lines of one kind, apart from errors that are mended one by one: who has seen five knows what to
look for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    severity: Severity
    file: str
    """Where: relative to the data set's folder, or the name of the folder."""
    text: str
    """One line: what was found and what to do."""

    def __str__(self) -> str:
        """Give the finding as it is printed."""
        return f"{self.severity:<8}{self.file}: {self.text}"


def tell(findings: Sequence[Finding]) -> str:
    """Lay findings out for a terminal, one a line."""
    return "\n".join(map(str, findings)) or "The doctor found nothing to mend."


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Put errors first and notes last."""
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))


def few(findings: Iterable[Finding], what: str) -> Iterator[Finding]:
    """Give the first findings of one kind, and how many files there are besides.

    Args:
        findings: Of one severity, the worst first.
        what: What the files have that are not named.
    """
    source = iter(findings)
    yield from islice(source, MOST_LINES)
    if rest := list(source):
        yield Finding(rest[0].severity, f"and {counted(len(rest), 'more file')}", what)


def refusal(data: Path, file: str, error: DatasetError) -> Finding:
    """Make a finding of what a reader refused, naming the file once and in one line."""
    text = " ".join(str(error).split()).removeprefix(f"{data} ").replace(f"{data}/", "")
    return Finding("error", file, text.removeprefix(file).lstrip(" :,"))


def counted(number: int, noun: str) -> str:
    """Write `1 object`, `1,070 objects`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
