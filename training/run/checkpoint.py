"""The state of a training run, written so that a kill at any moment leaves a whole one."""

from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError
from training.run.writing import replacing

State = dict[str, Any]
FORMAT = 2


def save(path: Path, state: State) -> None:
    """Write a checkpoint: first beside the old one, then in its place.

    Raises:
        CheckpointError: if it cannot be written; the old one is whole.
    """
    with replacing(path) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as exc:  # torch wraps what the system says
            raise OSError(str(exc)) from exc


def load(path: Path, device: torch.device | str = "cpu") -> State:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: if there is none, or it is not one of ours.
    """
    try:
        state: State = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as exc:
        raise CheckpointError(f"There is no checkpoint {path}.") from exc
    except Exception as exc:  # torch raises whatever the unpickler meets
        raise CheckpointError(f"{path} is no checkpoint, or a damaged one.") from exc
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of format {FORMAT}.")
    return state
