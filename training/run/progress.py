"""How far a run has come, and what its validations have found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Validation:
    """Main score of the network, as it stands, on the validation images."""

    score: str
    """Name of the main score."""
    value: float
    threshold: float | None
    """The decision threshold of this score; with more than two classes there is none."""
    rule: dict[str, Any] | None = None
    """How objects were told apart; None where none were annotated one by one."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What an earlier run settled, where no image is left to measure anything on."""

    threshold: float | None
    """As that of a validation."""
    rule: dict[str, Any] | None
    """As that of a validation."""


Validate = Callable[[nn.Module], Validation | Settled]


@dataclass(slots=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    validated: int = 0
    """Step of the last validation that was not given up."""
    best: dict[str, Any] | None = None
    """The best validation so far, of equal ones the last: its step and what `Validation` holds, or
    the last step at which one was due and what `Settled` holds."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last line of the log."""
    log: list[dict[str, Any]] = field(default_factory=list)
