"""What a run has before its first step: examined data, divided; a plan; a draft of the manifest."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model.artefact import Artefact, Manifest
from model.errors import CheckpointError, DatasetError
from model.runtime import Runtime
from training.data.census import take_census
from training.data.dataset import AnnotatedImage, Dataset, digest, read_dataset
from training.data.split import Regions, split
from training.doctor import diagnose, tell
from training.draft import draft_manifest
from training.plan import Plan, free_memory, make_plan
from training.run import checkpoint
from training.run.distributed import World
from training.run.folder import RunFolder
from training.run.writing import write
from training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run has before its first step."""

    dataset: Dataset
    training: Sequence[AnnotatedImage]
    validation: Sequence[AnnotatedImage]
    """Empty where the run is settled by another one."""
    plan: Plan
    manifest: Manifest
    settled: Artefact | None
    """What an earlier run settled, if this one trains on every image."""


def begin(settings: FitSettings, folder: RunFolder, device: torch.device, world: World) -> Prepared:
    """Examine the data, divide it, plan the run, and print all that.

    Raises:
        DatasetError: if the data has errors, each of which was printed.
        ArtefactError: if the artefact to begin from, or to be settled by, cannot be read.
        CheckpointError: if such an artefact does not go with the data, or with the network.
    """
    settled = read_settled(settings)
    parent = None if settings.init is None else Runtime(settings.init, "cpu").artefact
    if world.leads:
        examine(settings)
    dataset = read_dataset(settings.data, settings.labels, settings.ignore)
    training, validation = divide(dataset, settings)
    plan = choose_plan(settings, folder, training, device, world.size)
    plan = world.same(plan)  # free memory differs
    if world.leads:
        print(describe(dataset, training, validation))
        print(plan.describe())
        write(folder.plan, (plan.model_dump_json(indent=2) + "\n").encode())
    manifest = draft_manifest(settings, plan, dataset, training, validation, parent)
    if parent is not None:
        require_unseen(manifest, validation, parent.manifest)
    if settled is not None:
        require_same_network(manifest, settled.manifest)
        require_same_origin(manifest, settled.manifest)
    return Prepared(dataset, training, validation, plan, manifest, settled)


def read_settled(settings: FitSettings) -> Artefact | None:
    """Read what an earlier run made, if this one is to be settled by it.

    Raises:
        ArtefactError: if that run is not finished.
    """
    if settings.settled_by is None:
        return None
    return Runtime(RunFolder(settings.settled_by).model).artefact


def require_same_network(draft: Manifest, settled: Manifest) -> None:
    """Let a threshold and a rule be taken over by the same network alone.

    Raises:
        CheckpointError: if the run that settles this one trained another.
    """
    wanted, found = asdict(draft.architecture), asdict(settled.architecture)
    differing = [name for name in sorted(wanted) if wanted[name] != found[name]]
    if differing:
        there, here = (
            ", ".join(f"{name} {of[name]}" for name in differing) for of in (found, wanted)
        )
        raise CheckpointError(
            f"The network of {settled.name} has {there}; this run {here}. "
            "What was settled for one says nothing of the other."
        )


def require_same_origin(draft: Manifest, settled: Manifest) -> None:
    """Let a plan, a threshold and a rule be taken over for the same data and beginning alone.

    Raises:
        CheckpointError: if the run that settles this one read other data, or began from others.
    """
    if draft.training.began_from != settled.training.began_from:
        raise CheckpointError(
            f"{settled.name} and this run do not begin from the same parameters; take --init as in "
            f"its own command: {settled.training.command}"
        )
    if draft.training.data_sha256 != settled.training.data_sha256:
        raise CheckpointError(
            f"{settled.name} was settled on other data, {settled.training.data}: names, pixels or "
            f"labels differ from those of {draft.training.data}. Hold a fold out of this data "
            "first, and take that run."
        )


def require_unseen(draft: Manifest, validation: Sequence[AnnotatedImage], parent: Manifest) -> None:
    """Let no image be held out that the parameters begun from were learnt from.

    Raises:
        CheckpointError: if there is one.
    """
    seen = seen_by(draft, validation, parent)
    if seen:
        raise CheckpointError(
            f"{parent.name} was trained on {len(seen)} of the {len(validation)} images held out, "
            f"first {seen[0]}: their scores would be too good. Hold out what it did not see: the "
            f"--folds and --fold of its own command ({parent.training.command}), or other images."
        )


def seen_by(
    draft: Manifest, validation: Sequence[AnnotatedImage], parent: Manifest
) -> Sequence[str]:
    """Name the images held out that a model was trained on, known by their pixels.

    Of the same data, what that model held out is unseen, also as a part of a single image.
    """
    record, names = parent.training, draft.training.validation_images
    is_same = record.data_sha256 == draft.training.data_sha256
    unseen = set(record.validation_images) if is_same else set()
    seen = set(record.training_sha256)
    if not seen:
        return [name for name in names if is_same and name not in unseen]
    if isinstance(validation, Regions) and digest(validation.source[0]) in seen:
        return [name for name in names if name not in unseen]
    return [entry.name for entry in validation if digest(entry) in seen]


def divide(
    dataset: Dataset, settings: FitSettings
) -> tuple[Sequence[AnnotatedImage], Sequence[AnnotatedImage]]:
    """Hold a fold out; or nothing, where an earlier run did."""
    if settings.settled_by is not None:
        return dataset, ()
    return split(dataset, settings.folds, settings.fold)


def choose_plan(
    settings: FitSettings,
    folder: RunFolder,
    training: Sequence[AnnotatedImage],
    device: torch.device,
    processes: int,
) -> Plan:
    """Take the plan of the run that is resumed or that settles this one, or make one."""
    if settings.resume:
        return Plan.model_validate(checkpoint.load(folder.last)["plan"])
    if settings.settled_by is not None:
        return read_plan(RunFolder(settings.settled_by).plan)
    return make_plan(take_census(training), settings, free_memory(device), processes)


def read_plan(path: Path) -> Plan:
    """Read what another run planned.

    Raises:
        CheckpointError: if it does not say the learning rate, as older ones do not.
    """
    plan = Plan.model_validate_json(path.read_text())
    if "learning_rate" not in plan.model_fields_set:
        raise CheckpointError(
            f"{path} is older than this software and does not say the learning rate of its run; "
            "do that run again."
        )
    return plan


def examine(settings: FitSettings) -> None:
    """Print what the doctor finds.

    Raises:
        DatasetError: if that includes errors.
    """
    fold = settings.fold if settings.settled_by is None else None
    findings = diagnose(settings.data, settings.labels, settings.ignore, settings.folds, fold)
    print(tell(findings))
    errors = sum(found.severity == "error" for found in findings)
    if errors:
        raise DatasetError(f"{settings.data} has {errors} error(s), listed above.")


def describe(
    dataset: Dataset, training: Sequence[AnnotatedImage], validation: Sequence[AnnotatedImage]
) -> str:
    """Say what was found, and what is held out."""
    held_out = "holding none out"
    if validation:
        first, last = validation[0].name, validation[len(validation) - 1].name
        held_out = f"validating on {len(validation)}: {first} to {last}"
    return (
        f"{dataset.path}: {len(dataset)} images, {dataset.in_channels} channel(s), "
        f"{dataset.num_classes} classes. {dataset.verdict}\n"
        f"training on {len(training)}, {held_out}"
    )
