"""A trained network, from its checkpoint or its artefact, and the artefact that it becomes."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from model.artefact import Manifest, pack
from model.errors import CheckpointError
from model.instances import InstanceRule
from model.network import UNet
from training.export.graph import export_graph
from training.export.images import Source
from training.export.parameters import read_parameters
from training.run import checkpoint
from training.settings import StoredPrecision


@dataclass(frozen=True, slots=True)
class Trained:
    """What is exported."""

    network: UNet
    manifest: Manifest
    """Without scores; threshold and rule are those of the kept validation, if any."""
    source: Source | None
    """What reads and divides the data again; None where an artefact was read."""


def load(path: Path) -> Trained:
    """Read a checkpoint, or an artefact: a file whose name ends in `.onnx`.

    Raises:
        CheckpointError: if it cannot be read, or holds no network that was validated.
        ArtefactError: if an artefact cannot be read.
    """
    return _of_artefact(path) if path.suffix == ".onnx" else _of_checkpoint(path)


def _of_artefact(path: Path) -> Trained:
    manifest, parameters = read_parameters(path)
    network = UNet(manifest.architecture).eval()
    network.load_state_dict(parameters)
    return Trained(network, manifest.model_copy(update={"scores": None}), None)


def _of_checkpoint(path: Path) -> Trained:
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
    """Export a network and hold the graph against the network.

    Returns:
        The bytes of an artefact; its manifest has the threshold and rule of the best validation,
        if any, and no scores.

    Raises:
        CheckpointError: if a checkpoint cannot be read, or holds no network.
        ArtefactError: if an artefact cannot be read.
        ParityError: if graph and network differ.
    """
    trained = load(path)
    graph = export_graph(trained.network, precision)
    return pack(graph, trained.manifest.model_copy(update={"precision": precision}))
