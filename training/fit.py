"""Train, evaluate, export, report: `python -m training.fit DATA --out RUN`."""

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_settings import CliApp
from torch import Tensor, nn

from model.architecture import Architecture
from model.artefact import ClassInfo, Manifest, ScoreRecord, TrainingRecord, pack
from model.errors import CheckpointError, DatasetError, DeviceError, UNetError
from model.intensity import match_channels
from model.network import UNet
from model.runtime import Runtime
from training.augmentation import TrainingImage
from training.dataset import AnnotatedImage, Dataset, read_dataset
from training.evaluate import Evaluation, evaluate, table
from training.export import export
from training.loop import Loop, Progress, RunFolder, Validation
from training.report import write_report
from training.settings import FitSettings, explain
from training.weight_map import class_weights, weight_map

PALETTE = (
    "#000000",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
)
"""Colours that colour-blind readers tell apart; they recur. Source: Okabe and Ito 2008."""


class NetworkModel:
    """A network in training, run as an artefact is."""

    def __init__(self, network: nn.Module, manifest: Manifest, device: torch.device) -> None:
        self.network = network
        self.manifest = manifest
        self.device = device

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits of a batch of tiles, without dropout."""
        self.network.eval()
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16):
            logits: Tensor = self.network(torch.from_numpy(tiles).to(self.device))
        return np.asarray(logits.float().cpu())


def fit(settings: FitSettings) -> RunFolder:
    """Make an artefact of annotated images.

    Raises:
        TrainingError: if the data does not do, or training cannot go on; the subclass says why.
        DeviceError: if a GPU was asked for and there is none.
    """
    folder = RunFolder(settings.out)
    folder.path.mkdir(parents=True, exist_ok=True)
    if folder.last.exists() and not settings.resume:
        raise CheckpointError(
            f"{folder.path} holds a run already. Go on with it (--resume), or name another --out."
        )
    dataset = read_dataset(settings.data, settings.labels)
    training, validation = dataset.split(settings.blocks, settings.validation_block)
    if not any(entry.objects.any() for entry in validation):
        raise DatasetError(
            "The validation images hold no object; choose another --validation-block."
        )
    print(describe(dataset, training, validation))
    manifest = draft_manifest(settings, dataset, training, validation)
    progress = train(settings, manifest, training, validation)
    evaluation = finish(folder, settings, validation)
    runtime = Runtime(folder.model)
    write_report(folder, runtime, validation, evaluation, progress.log)
    names = [entry.name for entry in runtime.manifest.classes]
    print(f"\n{folder.model} on {len(validation)} validation images, run as the service runs it:")
    print(table(evaluation, names))
    print(f"\nreport  {folder.report}")
    print(f"serve   UNET_SERVICE_MODEL_DIR={shlex.quote(str(folder.path))} python -m service")
    return folder


def train(
    settings: FitSettings,
    manifest: Manifest,
    training: Sequence[AnnotatedImage],
    validation: Sequence[AnnotatedImage],
) -> Progress:
    """Train a network and keep its best checkpoint in the run's folder."""
    device = torch.device(choose_device(settings.device))
    print(f"on {device.type}")
    torch.manual_seed(settings.seed)
    network = UNet(manifest.architecture).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    model = NetworkModel(network, manifest, device)

    def validate() -> Validation:
        found = evaluate(model, validation)
        if best := found.best:
            return Validation(best.v_rand, best.v_info, best.threshold)
        return Validation(found.scores.v_rand, found.scores.v_info, None)

    images = prepare(training, manifest, settings, device)
    loop = Loop(network, images, validate, manifest.model_dump_json(), settings)
    if settings.resume:
        loop.resume()
    return loop.run()


def finish(
    folder: RunFolder, settings: FitSettings, validation: Sequence[AnnotatedImage]
) -> Evaluation:
    """Export the best checkpoint, score the exported graph, and write the scores beside it."""
    data = export(folder.best, settings.precision)
    folder.model.write_bytes(data)
    draft = Runtime(folder.model)
    graph = data[: draft.manifest.graph_bytes]
    found = evaluate(draft, validation).best
    threshold = None if found is None else found.threshold
    manifest = draft.manifest.model_copy(update={"decision_threshold": threshold})
    folder.model.write_bytes(pack(graph, manifest))
    evaluation = evaluate(Runtime(folder.model), validation)
    scores = ScoreRecord(images=evaluation.images, values=evaluation.as_dict())
    folder.model.write_bytes(pack(graph, manifest.model_copy(update={"scores": scores})))
    return evaluation


def prepare(
    images: Sequence[AnnotatedImage],
    manifest: Manifest,
    settings: FitSettings,
    device: torch.device,
) -> list[TrainingImage]:
    """Scale the images and weigh their pixels, once for the whole run."""
    num_classes = manifest.architecture.num_classes
    balance = class_weights((entry.semantic for entry in images), num_classes)
    prepared = []
    for entry in images:
        pixels = match_channels(entry.image, manifest.architecture.in_channels)
        scaled = manifest.intensity.measure(pixels).apply(pixels)
        weights = weight_map(
            entry.semantic,
            entry.objects,
            balance,
            w0=settings.border_weight,
            sigma=settings.border_sigma,
        )
        targets = np.stack([entry.semantic.astype(np.float32), weights])
        prepared.append(
            TrainingImage(torch.from_numpy(scaled).to(device), torch.from_numpy(targets).to(device))
        )
    return prepared


def draft_manifest(
    settings: FitSettings,
    dataset: Dataset,
    training: Sequence[AnnotatedImage],
    validation: Sequence[AnnotatedImage],
) -> Manifest:
    """Write down what is known before training."""
    return Manifest(
        name=settings.model_name,
        architecture=Architecture(
            dataset.in_channels,
            dataset.num_classes,
            settings.depth,
            settings.base_channels,
            settings.variant,
        ),
        classes=tuple(
            ClassInfo(id=index, name=name, colour=PALETTE[index % len(PALETTE)])
            for index, name in enumerate(class_names(settings, dataset))
        ),
        training=TrainingRecord(
            data=settings.data_name or dataset.path.resolve().name,
            licence=settings.licence,
            citation=settings.citation,
            label_kind=dataset.label_kind,
            data_sha256=dataset.sha256(),
            training_images=tuple(entry.name for entry in training),
            validation_images=tuple(entry.name for entry in validation),
            steps=settings.steps,
            command=settings.command(),
        ),
        created=datetime.now(UTC).date(),
        software={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "onnx", "unet-service")},
        },
    )


def class_names(settings: FitSettings, dataset: Dataset) -> Sequence[str]:
    """Take the names asked for, or plain ones.

    Raises:
        DatasetError: if there are not as many names as classes.
    """
    count = dataset.num_classes
    if settings.classes and len(settings.classes) != count:
        raise DatasetError(
            f"{dataset.path} has {count} classes, --classes names {len(settings.classes)}: "
            f"{', '.join(settings.classes)}. If the labels were taken for the wrong kind "
            f"({dataset.label_kind}), say --labels semantic or --labels instance."
        )
    others = ["object"] if count == 2 else [f"class-{index}" for index in range(1, count)]
    return settings.classes or ["background", *others]


def describe(
    dataset: Dataset, training: Sequence[AnnotatedImage], validation: Sequence[AnnotatedImage]
) -> str:
    """Say what was found, and what is held out."""
    return (
        f"{dataset.path}: {len(dataset.images)} images, {dataset.in_channels} channel(s), "
        f"{dataset.label_kind} labels, {dataset.num_classes} classes\n"
        f"training on {len(training)}, validating on {len(validation)}: "
        f"{validation[0].name} to {validation[-1].name}"
    )


def choose_device(asked: str) -> str:
    """Take the GPU where there is one, or what was asked for.

    Raises:
        DeviceError: if a GPU was asked for and there is none.
    """
    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise DeviceError("CUDA was asked for, and torch finds no device that it can use.")
    return "cuda" if found and asked != "cpu" else "cpu"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line."""
    try:
        settings = CliApp.run(FitSettings, cli_args=list(sys.argv[1:] if words is None else words))
    except ValidationError as exc:
        print(explain(exc), file=sys.stderr)
        return 2
    try:
        fit(settings)
    except (UNetError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
