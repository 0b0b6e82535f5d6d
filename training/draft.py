"""The manifest of a run, as far as it is known before training."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata

from model.architecture import Architecture
from model.artefact import Artefact, ClassInfo, Manifest, TrainingRecord
from model.errors import DatasetError
from training.data.dataset import AnnotatedImage, Dataset, digest
from training.data.split import Regions
from training.plan import Plan
from training.settings import FitSettings

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


def draft_manifest(
    settings: FitSettings,
    plan: Plan,
    dataset: Dataset,
    training: Sequence[AnnotatedImage],
    validation: Sequence[AnnotatedImage],
    parent: Artefact | None = None,
) -> Manifest:
    """Write down what is known before training; of a parent, images and terms are inherited."""
    digests = [digest(entry) for entry in training]
    if isinstance(training, Regions):  # the whole image, parts of which were trained on
        digests.append(digest(dataset[0]))
    if parent is not None:
        digests += parent.manifest.training.training_sha256
    return Manifest(
        name=settings.model_name,
        architecture=Architecture(
            dataset.in_channels,
            dataset.num_classes,
            settings.depth,
            settings.base_channels,
            settings.variant,
        ),
        intensity=plan.intensity,
        classes=tuple(
            ClassInfo(id=index, name=name, colour=PALETTE[index % len(PALETTE)])
            for index, name in enumerate(class_names(settings, dataset))
        ),
        pixel_size=settings.pixel_size,
        training=TrainingRecord(
            data=settings.data_name or dataset.path.resolve().name,
            licence=_terms(settings, "licence", parent),
            citation=_terms(settings, "citation", parent),
            label_kind=dataset.label_kind,
            label_values=dataset.values if dataset.label_kind == "semantic" else (),
            ignore=dataset.ignore,
            main_score=plan.main_score,
            data_sha256=dataset.sha256(),
            began_from=parent.sha256 if parent else "",
            training_images=_names(training),
            training_sha256=tuple(dict.fromkeys(digests)),
            validation_images=_names(validation),
            steps=plan.steps,
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


def _terms(settings: FitSettings, field: str, parent: Artefact | None) -> str:
    """Join the data's own terms and those that come with the parameters begun from."""
    own = str(getattr(settings, field))
    inherited = "" if parent is None else str(getattr(parent.manifest.training, field))
    if parent is None or inherited in ("", own):
        return own
    began = f"began from {parent.manifest.name}: {inherited}"
    return f"{own}; {began}" if own else began


def _names(images: Sequence[AnnotatedImage]) -> tuple[str, ...]:
    """Name images without reading them, where they know their names."""
    if isinstance(images, Dataset | Regions):
        return images.names
    return tuple(entry.name for entry in images)
