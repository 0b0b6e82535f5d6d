"""What makes a run the same run when it is resumed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import CheckpointError
from training.plan import Plan
from training.run.checkpoint import State
from training.settings import FitSettings

FREE = {"data", "out", "resume", "plan_only", "tensorboard", "cross_validate"}
"""Settings that one run can change on its way."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a run the same run when it is resumed."""

    manifest: str
    """The manifest's draft, as JSON."""
    plan: dict[str, Any]
    source: dict[str, Any]
    """What reads and splits the data again."""
    data_sha256: str


def fixed_settings(settings: FitSettings, plan: Plan) -> dict[str, Any]:
    """Give the settings and the plan that one run cannot change on its way."""
    fixed = settings.model_dump(mode="json", exclude=FREE)
    planned = plan.model_dump(mode="json", exclude={"reasons"})
    return fixed | {f"planned {name}": value for name, value in planned.items()}


def require_same_run(path: Path, state: State, wanted: dict[str, Any], data_sha256: str) -> None:
    """Let a run go on only from a checkpoint of its own.

    Raises:
        CheckpointError: if the settings or the data are others.
    """
    found = state.get("settings", {})
    changed = [
        f"{name} {found.get(name)}, now {value}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if changed:
        raise CheckpointError(f"{path} was written with other settings: {'; '.join(changed)}.")
    if state["data_sha256"] != data_sha256:
        raise CheckpointError(f"{path} was trained on other data.")
