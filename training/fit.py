"""Train, evaluate, export, report: `python -m training.fit DATA --out RUN`."""

import json
import os
import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from pydantic_settings import CliApp
from torch import nn

from model.errors import CheckpointError, DeviceError, TrainingStopped, UNetError
from model.geometry import Geometry
from model.network import UNet
from model.runtime import Runtime
from training.conclusion import finish
from training.data.dataset import Dataset, read_dataset
from training.data.split import count_folds, split
from training.export.parameters import initialise_from
from training.plan import Plan
from training.preparation import Prepared, begin
from training.run import checkpoint
from training.run.arithmetic import laid_out
from training.run.distributed import World, join
from training.run.folder import RunFolder
from training.run.identity import Identity, fixed_settings, require_same_run
from training.run.interruption import Terminated, memory_errors_explained, termination_raised
from training.run.loop import Loop
from training.run.progress import Progress, Settled, Validate, Validation
from training.run.storage import stored
from training.run.writing import write
from training.settings import FitSettings, explain
from training.tiles.augmentation import Sampler
from training.validation import MOST_IMAGES, NetworkModel, settle, spread_over


def fit(settings: FitSettings) -> RunFolder:
    """Make an artefact of annotated images.

    Raises:
        TrainingError: if the data does not do, or training cannot go on; the subclass says why.
        DeviceError: if a GPU was asked for and there is none.
    """
    device = choose_device(settings.device)
    with join(device) as world:
        return run(settings, device, world)


def run(settings: FitSettings, device: torch.device, world: World) -> RunFolder:
    """Make an artefact together with the other processes, or only plan it.

    Raises:
        TrainingError: if the data does not do, or training cannot go on; the subclass says why.
        Terminated: if SIGTERM came outside of the steps.
    """
    folder = RunFolder(settings.out)
    if not settings.resume:
        require_no_run(folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    with memory_errors_explained(), termination_raised(world):
        prepared = begin(settings, folder, device, world)
        if not settings.plan_only:
            progress = train(settings, prepared, device, world)
            if world.leads:
                conclude(settings, folder, prepared, progress)
            world.wait()
    return folder


def require_no_run(folder: RunFolder) -> None:
    """Let no run be written over, but one that did not come to its first step.

    Raises:
        CheckpointError: if there is one.
    """
    if folder.last.exists() and checkpoint.load(folder.last)["progress"]["step"] > 0:
        raise CheckpointError(
            f"{folder.path} holds a run already. Go on with it (--resume), or name another --out."
        )


def conclude(
    settings: FitSettings, folder: RunFolder, prepared: Prepared, progress: Progress
) -> None:
    """Finish a trained run, or say how to go on where Ctrl-C or SIGTERM ends that.

    Raises:
        KeyboardInterrupt: saying so; `Terminated`, if it was SIGTERM.
    """
    try:
        finish(settings, folder, prepared, progress)
    except KeyboardInterrupt as exc:
        said = f"{folder.path} is trained; the same command with --resume goes on to score it."
        raise type(exc)(said) from None


def train(
    settings: FitSettings, prepared: Prepared, device: torch.device, world: World
) -> Progress:
    """Train a network and keep its best checkpoint in the run's folder.

    Raises:
        CheckpointError: if the run to be resumed is another one.
    """
    folder = RunFolder(settings.out)
    manifest = prepared.manifest
    if settings.resume:
        require_resumable(folder, settings, prepared.plan, manifest.training.data_sha256)
    torch.manual_seed(settings.seed)
    network = UNet(manifest.architecture)
    if settings.init is not None:
        world.say(initialise_from(network, settings.init, settings.classes))
    laid_out(network, device, prepared.plan.compute)
    validate = make_validate(prepared, device)
    identity = Identity(
        manifest.model_dump_json(),
        prepared.plan.model_dump(mode="json"),
        settings.source(),
        manifest.training.data_sha256,
    )
    place, plan = folder.store(world.machine), prepared.plan
    with stored(place, prepared.training, manifest.architecture, plan, world) as store:
        sampler = Sampler(store, plan, Geometry(settings.depth), settings.seed, device)
        loop = Loop(network, sampler, validate, identity, settings, world)
        if settings.resume:
            loop.resume()
        world.say(f"on {device.type}, {world.size} process(es)")
        return loop.run()


def require_resumable(
    folder: RunFolder, settings: FitSettings, plan: Plan, data_sha256: str
) -> None:
    """Let a run go on only from a checkpoint of its own.

    Raises:
        CheckpointError: if there is none, or its settings or data are others.
    """
    state = checkpoint.load(folder.last)
    require_same_run(folder.last, state, fixed_settings(settings, plan), data_sha256)


def make_validate(prepared: Prepared, device: torch.device) -> Validate:
    """Score the network on validation images; or say what an earlier run settled on its own."""
    if (settled := prepared.settled) is not None:
        rule = settled.manifest.instances
        threshold = settled.manifest.decision_threshold
        found = Settled(threshold, None if rule is None else rule.model_dump())
        return lambda _: found
    shown = spread_over(prepared.validation, MOST_IMAGES)

    def validate(averaged: nn.Module) -> Validation:
        model = NetworkModel(averaged, prepared.manifest, device, prepared.plan.compute)
        return settle(model, shown)

    return validate


def cross_validate(settings: FitSettings) -> None:
    """Train and score every fold, and say how the scores differ; or only plan every fold."""
    dataset = read_dataset(settings.data, settings.labels, settings.ignore)
    folds = range(count_folds(dataset, settings.folds))
    for fold in folds:  # one that cannot be is refused before any is trained
        split(dataset, settings.folds, fold)
    device = choose_device(settings.device)
    with join(device) as world:
        folders = [run_fold(settings, fold, dataset, device, world) for fold in folds]
    if world.leads and not settings.plan_only:
        compare(settings.out, folders)


def run_fold(
    settings: FitSettings, fold: int, dataset: Dataset, device: torch.device, world: World
) -> RunFolder:
    """Begin a fold; of a cross-validation that is resumed, go on with it, or take it as it is.

    Raises:
        CheckpointError: if the fold's folder holds another run.
    """
    folder = RunFolder(settings.out / f"fold-{fold}")
    resume = settings.resume and world.same(folder.last.exists())
    update = {"fold": fold, "out": folder.path, "resume": resume, "cross_validate": False}
    asked = settings.model_copy(update=update)
    if resume and folder.model.exists():
        plan = Plan.model_validate(checkpoint.load(folder.last)["plan"])
        require_resumable(folder, asked, plan, dataset.sha256())
        return folder
    return run(asked, device, world)


def compare(out: Path, folders: Sequence[RunFolder]) -> None:
    """Write and print how the scores of finished folds differ."""
    found: dict[str, list[float]] = {}
    chosen_by = set()
    for folder in folders:
        scores = Runtime(folder.model).manifest.scores
        measured = scores.values if scores else {}
        chosen_by.add(measured.get("main"))
        for name, score in measured.items():
            if isinstance(score, dict) and score.get("value") is not None:
                found.setdefault(name, []).append(score["value"])
    rows = {
        name: {"mean": statistics.mean(values), "folds": values} for name, values in found.items()
    }
    write(out / "folds.json", (json.dumps(rows, indent=2) + "\n").encode())
    if len(chosen_by) > 1:
        print(f"folds were judged by different scores: {', '.join(sorted(map(str, chosen_by)))}")
    print(f"\nmean over {len(folders)} folds, lowest and highest")
    for name, values in found.items():
        mean, count = statistics.mean(values), f"of {len(values)}" * (len(values) < len(folders))
        print(f"{name:<16} {mean:.4f}  {min(values):.4f}  {max(values):.4f}  {count}".rstrip())


def choose_device(asked: str) -> torch.device:
    """Take the GPU where there is one, or what was asked for; each process of a machine its own.

    Raises:
        DeviceError: if a GPU was asked for and there is none.
    """
    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise DeviceError("CUDA was asked for, and torch finds no device that it can use.")
    if not found or asked == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line."""
    try:
        settings = CliApp.run(FitSettings, cli_args=list(sys.argv[1:] if words is None else words))
    except ValidationError as exc:
        print(explain(exc), file=sys.stderr)
        return 2
    try:
        cross_validate(settings) if settings.cross_validate else fit(settings)
    except TrainingStopped as exc:
        print(exc, file=sys.stderr)
        return 128 + int(exc.numbers["signal"])
    except KeyboardInterrupt as exc:
        print(str(exc) or "Stopped.", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(exc, Terminated) else signal.SIGINT)
    except (UNetError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
