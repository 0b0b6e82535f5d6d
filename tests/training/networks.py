"""Networks that need no training, their checkpoints, and images that they answer well."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.architecture import Architecture
from model.artefact import Manifest
from model.network import UNet
from tests.training.conftest import make_manifest
from tests.training.files import write_pair
from training.data.dataset import Dataset, digest, read_dataset
from training.run import checkpoint

SOURCE = {"data": "nowhere", "labels": "auto", "ignore": None, "folds": 3, "fold": 1}
VALIDATION = {"step": 3, "threshold": 0.35, "rule": None}


def drawn(architecture: Architecture) -> UNet:
    """Draw a network, with biases; the same each time."""
    torch.manual_seed(0)
    network = UNet(architecture).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return network


def bright_is_object() -> UNet:
    """Make a network of one level that passes the tile on, split by sign, to class 0 and 1."""
    network = drawn(Architecture(depth=1, base_channels=2))
    with torch.no_grad():
        for name in ("contracting.0.0", "contracting.0.2", "expansive.0.0", "expansive.0.2"):
            weight = network.get_parameter(f"{name}.weight")
            weight.zero_()
            network.get_parameter(f"{name}.bias").zero_()
            by_sign = torch.tensor([[-1.0], [1.0]])
            weight[:, :2, 1, 1] = by_sign if name == "contracting.0.0" else torch.eye(2)
        network.get_parameter("expansive.0.2.weight").mul_(2)  # a file holds equal weights once
        network.get_parameter("classifier.weight").copy_(4 * torch.eye(2)[:, :, None, None])
        network.get_parameter("classifier.bias").zero_()
    return network


def write_spots(folder: Path, count: int = 3) -> Dataset:
    """Write and read images of bright squares, each an object, on a dark and noisy ground."""
    rows, columns = np.indices((60, 80))
    inside = (rows % 20 >= 6) & (columns % 20 >= 6)
    ids = np.where(inside, rows // 20 * 4 + columns // 20 + 1, 0).astype(np.uint16)
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 12, ids.shape)
        image = np.clip(80 + 90 * inside + noise, 0, 255).astype(np.uint8)
        write_pair(folder, image, ids + 20 * number * inside.astype(np.uint16), f"t{number}")
    return read_dataset(folder)


def manifest_for(network: UNet, dataset: Dataset | None = None, **changes: Any) -> Manifest:
    """Describe a network that was trained on a data set, of which the middle image was held out."""
    manifest = make_manifest(network.architecture)
    if dataset is None:
        return manifest.model_copy(update=changes)
    record = {
        "label_kind": dataset.label_kind,
        "data_sha256": dataset.sha256(),
        "training_images": dataset.names[:1] + dataset.names[2:],
        "training_sha256": tuple(
            digest(dataset[index]) for index in range(len(dataset)) if index != 1
        ),
        "validation_images": dataset.names[1:2],
    }
    training = manifest.training.model_copy(update=record)
    return manifest.model_copy(update={"training": training, **changes})


def state_of(network: UNet, dataset: Dataset | None = None, **changes: Any) -> dict[str, Any]:
    """Give what a run keeps of its best validation."""
    source = SOURCE if dataset is None else SOURCE | {"data": str(dataset.path)}
    return {
        "model": network.state_dict(),
        "manifest": manifest_for(network, dataset).model_dump_json(),
        "source": source,
        "validation": VALIDATION,
        **changes,
    }


def save_network(path: Path, network: UNet, dataset: Dataset | None = None, **changes: Any) -> Path:
    """Write a checkpoint as a run keeps its best."""
    checkpoint.save(path, state_of(network, dataset, **changes))
    return path
