"""A trained checkpoint, and the artefact that it becomes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.artefact import Manifest, pack
from model.errors import CheckpointError
from model.instances import InstanceRule
from model.network import UNet
from training.export.graph import export_graph
from training.run import checkpoint
from training.settings import StoredPrecision


@dataclass(frozen=True, slots=True)
class Trained:
    """What a checkpoint holds for an export."""

    network: UNet
    manifest: Manifest
    """Without scores; threshold and rule are those of the kept validation, if any."""
    source: dict[str, Any]
    """What reads and divides the data again."""


def load(path: Path) -> Trained:
    """Read a checkpoint.

    Raises:
        CheckpointError: if it cannot be read, or holds no network that was validated.
    """
    state = checkpoint.load(path)
    try:
        manifest = Manifest.model_validate_json(state["manifest"])
        network = UNet(manifest.architecture).eval()
        network.load_state_dict(state["model"])
        validation = state["validation"]
        source = state["source"]
    except (KeyError, ValidationError, RuntimeError) as exc:
        raise CheckpointError(f"{path} holds no network that fits its manifest.") from exc
    if validation is None:
        raise CheckpointError(f"{path} was written before the first validation; train on.")
    rule = validation["rule"]
    update = {
        "decision_threshold": validation["threshold"],
        "instances": None if rule is None else InstanceRule.model_validate(rule),
        "training": manifest.training.model_copy(update={"steps": validation["step"]}),
    }
    return Trained(network, manifest.model_copy(update=update), source)


def export(path: Path, precision: StoredPrecision) -> bytes:
    """Export a checkpoint and hold the graph against the network.

    Returns:
        The bytes of an artefact; its manifest has the threshold and rule of the best validation,
        if any, and no scores.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or holds no network.
        ParityError: if graph and network differ.
    """
    trained = load(path)
    graph = export_graph(trained.network, precision)
    return pack(graph, trained.manifest.model_copy(update={"precision": precision}))
