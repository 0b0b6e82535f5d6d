"""Parameters read back from an artefact, to go on learning from."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor

from model.architecture import Architecture
from model.artefact import Manifest
from model.errors import CheckpointError
from model.network import UNet
from model.runtime import Runtime
from training.export.graph import FLOAT16_SUFFIX

FIRST, LAST = "contracting.0.0.", "classifier."
GREY, COLOUR = 1, 3
CONVOLUTIONS = ("Conv", "ConvTranspose")


def read_parameters(path: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Read an artefact's parameters.

    Returns:
        Its manifest, and the `state_dict` of its network, in float32.

    Raises:
        ArtefactError: if the file is no artefact, or damaged; the subclass says how.
        CheckpointError: if its parameters are rounded to int8, or are not those of its network.
    """
    manifest = Runtime(path, "cpu").manifest
    if manifest.precision == "int8":
        raise CheckpointError(
            f"{path} computes in int8: its parameters are too coarse to go on with. Take the file "
            "of the same model that is stored as fp16 or fp32."
        )
    graph = onnx.load_from_string(path.read_bytes()[: manifest.graph_bytes]).graph
    stored = {
        tensor.name.removesuffix(FLOAT16_SUFFIX): torch.tensor(numpy_helper.to_array(tensor))
        for tensor in graph.initializer
    }
    found: dict[str, Tensor] = {}
    for node in graph.node:
        if node.op_type in CONVOLUTIONS:
            found |= _parameters_of(node, stored)
    _require_network(path, manifest.architecture, found)
    return manifest, found


def initialise_from(network: UNet, path: Path, classes: Sequence[str] = ()) -> str:
    """Give a network the parameters of an artefact, as far as they fit.

    Of another number of classes, the last layer stays as it is. The first layer reads grey for
    colour, and colour for grey, so that the answer to a grey image is the same.

    Args:
        network: The network; its depth, width and variant must be those of the artefact.
        path: The artefact.
        classes: Names of the network's classes; where they are others than the artefact's, the last
            layer stays as it is, too. Without names, their number decides.

    Returns:
        A sentence that says what was taken and what is fresh.

    Raises:
        ArtefactError: if the file is no artefact, or damaged; the subclass says how.
        CheckpointError: if its network is another one.
    """
    manifest, parameters = read_parameters(path)
    wanted, found = network.architecture, manifest.architecture
    _require_fitting(path, wanted, found)
    weight = parameters[f"{FIRST}weight"]
    parameters[f"{FIRST}weight"] = _of_channels(weight, wanted.in_channels)
    names = tuple(entry.name for entry in manifest.classes)
    fresh = wanted.num_classes != found.num_classes or tuple(classes or names) != names
    if fresh:
        parameters = {
            name: tensor for name, tensor in parameters.items() if not name.startswith(LAST)
        }
    network.load_state_dict(parameters, strict=False)
    return _account(manifest, wanted, fresh=fresh)


def _parameters_of(node: NodeProto, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give weight and bias of a convolution by their names in the network.

    The exporter keeps the names of weights alone: equal biases are one, and those of 0 are left
    out.
    """
    if node.input[1] not in stored:
        return {}
    weight = stored[node.input[1]].float()
    module = node.input[1].removesuffix("weight")
    outputs = weight.shape[1] if node.op_type == "ConvTranspose" else weight.shape[0]
    bias = stored[node.input[2]].float() if len(node.input) > 2 else torch.zeros(outputs)
    return {f"{module}weight": weight, f"{module}bias": bias.clone()}


def _require_network(path: Path, architecture: Architecture, found: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        wanted = UNet(architecture).state_dict()
    if {name: tensor.shape for name, tensor in found.items()} != {
        name: tensor.shape for name, tensor in wanted.items()
    }:
        raise CheckpointError(
            f"The graph of {path} does not hold the parameters of the network that its manifest "
            "describes; it was not made by `python -m training.export`."
        )


def _require_fitting(path: Path, wanted: Architecture, found: Architecture) -> None:
    shapes = [(it.depth, it.base_channels, it.variant) for it in (wanted, found)]
    if shapes[0] != shapes[1]:
        ours, theirs = (
            f"depth {depth}, {base_channels} base channels, variant {variant}"
            for depth, base_channels, variant in shapes
        )
        raise CheckpointError(
            f"{path} has {theirs}; this run has {ours}. Parameters fit where all three are equal."
        )
    channels = (found.in_channels, wanted.in_channels)
    if channels[0] != channels[1] and set(channels) != {GREY, COLOUR}:
        raise CheckpointError(
            f"{path} reads {found.in_channels} channel(s), the data has {wanted.in_channels}. "
            "Equal numbers fit, and grey and colour fit each other."
        )


def _of_channels(weight: Tensor, channels: int) -> Tensor:
    """Turn the first layer's weight (out, in, 3, 3) to another number of channels."""
    if weight.shape[1] == channels:
        return weight
    if channels == GREY:
        return weight.sum(1, keepdim=True)
    return weight.expand(-1, channels, -1, -1) / channels


def _account(manifest: Manifest, wanted: Architecture, *, fresh: bool) -> str:
    found = manifest.architecture
    sentence = f"Parameters are those of {manifest.name}"
    if found.in_channels != wanted.in_channels:
        kinds = {GREY: "grey", COLOUR: "colour"}
        sentence += (
            f", the first layer turned from {kinds[found.in_channels]} to "
            f"{kinds[wanted.in_channels]}"
        )
    if fresh:
        names = ", ".join(entry.name for entry in manifest.classes)
        sentence += (
            f", but for a fresh last layer of {wanted.num_classes} classes (its own: {names})"
        )
    return f"{sentence}."
