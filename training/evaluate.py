"""Score an artefact as the service runs it: `python -m training.evaluate MODEL DATA`."""

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from model import averaging as passes
from model.artefact import Averaging, MainScore, Manifest
from model.devices import check_device
from model.errors import DatasetError, UNetError
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, Model, decide, find_objects, segment
from training.data.dataset import AnnotatedImage, Dataset, digest, read_dataset
from training.data.forms import INDEX, read_column
from training.data.verdict import MASKS
from training.metrics.evaluation import Evaluation
from training.metrics.table import table
from training.metrics.tally import Tally

__all__ = [
    "Evaluation",
    "choose_images",
    "evaluate",
    "examine",
    "group_by",
    "infer",
    "main",
    "main_score",
    "predict",
    "read_for",
    "report",
    "table",
]


def evaluate(
    model: Model, images: Sequence[AnnotatedImage], averaging: Averaging = "none"
) -> Evaluation:
    """Segment whole images through the tiler and score what the service would answer.

    Each image is asked for once, and the pixels of one are held at a time.

    Raises:
        DatasetError: There is no image.
    """
    if not images:
        raise DatasetError("There is no image to score.")
    examined = [examine(model, images[index], averaging) for index in range(len(images))]
    return Evaluation(
        images=tuple(name for name, _ in examined),
        tallies=tuple(tally for _, tally in examined),
        main_score=main_score(model.manifest),
        threshold=model.manifest.decision_threshold,
        averaging=averaging,
    )


def examine(model: Model, entry: AnnotatedImage, averaging: Averaging) -> tuple[str, Tally]:
    """Segment one image; give its name and what it adds to every score.

    Thresholds are swept where V_rand is the main score, since that takes half a second for 512×512
    px; objects told apart by a rule have no one threshold to sweep.
    """
    probabilities, labels, found = predict(model, entry.image, averaging)
    sweep = main_score(model.manifest) == "v_rand"
    return entry.name, Tally.of(probabilities, labels, found, entry, sweep=sweep)


def predict(
    model: Model, image: NDArray[Any], averaging: Averaging
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int32]]:
    """Segment a whole image (C, H, W) as the service does.

    Returns:
        Probabilities (K, H, W), class ids (H, W) and object ids (H, W).
    """
    manifest = model.manifest
    probabilities = passes.probabilities(image, model, DEFAULT_SHAPES, averaging)
    labels = decide(probabilities[1:], manifest.decision_threshold)
    return probabilities, labels, find_objects(probabilities[1:], manifest).ids


def main_score(manifest: Manifest) -> MainScore:
    """Name the score that artefacts for such labels are compared by."""
    if manifest.training.main_score is not None:
        return manifest.training.main_score
    if manifest.training.label_kind == "instance":
        return "ap50"
    return "v_rand" if manifest.architecture.num_classes == 2 else "iou"


def infer(model: Model, image: NDArray[Any]) -> NDArray[np.float32]:
    """Give the logits (K, H, W) of a whole image (C, H, W), with the service's default tiles."""
    return segment(image, model, DEFAULT_SHAPES, output="logits")


def read_for(model: Model, path: Path, ignore: int | None = None) -> Dataset:
    """Read annotated images with labels of the kind that the artefact was trained on.

    Values of classes mean what they meant in training, as far as `read_dataset` can tell. For an
    artefact trained on objects, a mask of two values has an object in each of its components, but
    where it is the training's own data and was read otherwise.

    Raises:
        DatasetError: if they cannot be read, or have other classes than the artefact.
    """
    record = model.manifest.training
    if ignore is None and record.ignore is not None:
        with contextlib.suppress(DatasetError):  # other data may lack that value, or mean it
            dataset = read_dataset(path, record.label_kind, record.ignore)
            if dataset.sha256() == record.data_sha256:
                return dataset
    dataset = read_dataset(path, record.label_kind, ignore, record.label_values)
    is_mask = dataset.label_kind == "instance" and set(dataset.values) in MASKS
    if is_mask and dataset.sha256() != record.data_sha256:
        dataset = read_dataset(path, "semantic", ignore)
    classes = model.manifest.architecture.num_classes
    if dataset.num_classes != classes:
        raise DatasetError(
            f"{path} has {dataset.label_kind} labels of {dataset.num_classes} classes; "
            f"{model.manifest.name} knows {classes}."
        )
    return dataset


def choose_images(model: Model, dataset: Dataset, *, everything: bool) -> Dataset:
    """Leave out the images that the artefact was trained on, whatever they are called.

    An artefact that does not tell the digests of its training images tells the data set: of that,
    its validation images are taken.

    Raises:
        DatasetError: if no image is left.
    """
    record = model.manifest.training
    if everything:
        return dataset
    if record.training_sha256:
        seen = set(record.training_sha256)
        unseen = [index for index in range(len(dataset)) if digest(dataset[index]) not in seen]
        held_out = dataset.subset(unseen)
    elif dataset.sha256() == record.data_sha256:
        held_out = dataset.named(record.validation_images)
    else:
        return dataset
    if not held_out:
        raise DatasetError(
            f"{model.manifest.name} was trained on every image of {dataset.path}; "
            "score it on others, or take --all and call it a training score."
        )
    return held_out


def group_by(path: Path, column: str, evaluation: Evaluation) -> dict[str, Evaluation]:
    """Score the images apart that differ in a column of the data's `index.csv`.

    Raises:
        DatasetError: if there is no index, or it lacks the column or an image.
    """
    values = read_column(path / INDEX, column)
    if values is None:
        raise DatasetError(f"{path / INDEX} has no column {column}.")
    if missing := [image for image in evaluation.images if image not in values]:
        raise DatasetError(f"{path / INDEX} lacks {len(missing)} image(s), first {missing[0]}.")
    groups: dict[str, list[str]] = {}
    for image in evaluation.images:
        groups.setdefault(values[image], []).append(image)
    return {value: evaluation.only(groups[value]) for value in sorted(groups)}


def report(
    runtime: Runtime, evaluation: Evaluation, groups: Mapping[str, Evaluation] | None = None
) -> dict[str, Any]:
    """Give scores and what they were measured on, as JSON holds them."""
    return {
        "model": runtime.manifest.name,
        "sha256": runtime.artefact.sha256,
        "provider": runtime.provider,
        "precision": runtime.manifest.precision,
        "images": list(evaluation.images),
        "scores": evaluation.as_dict(),
        "groups": {name: of.as_dict() for name, of in (groups or {}).items()},
        "by_image": evaluation.by_image_as_dict(),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line."""
    arguments = _parser().parse_args(words)
    try:
        runtime = Runtime(arguments.model, arguments.device)
        dataset = read_for(runtime, arguments.data, arguments.ignore)
        images = choose_images(runtime, dataset, everything=arguments.all)
        averaging = arguments.average or runtime.manifest.averaging
        evaluation = evaluate(runtime, images, averaging)
        groups = group_by(arguments.data, arguments.by, evaluation) if arguments.by else {}
        if arguments.json:
            written = json.dumps(report(runtime, evaluation, groups), indent=2, allow_nan=False)
            arguments.json.write_text(written + "\n")
    except (UNetError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    manifest = runtime.manifest
    print(
        f"{manifest.name} ({runtime.artefact.sha256[:12]}) on {runtime.provider}: "
        f"{len(images)} of {len(dataset)} images of {dataset.path.resolve().name}, "
        f"averaging {averaging}; [95% intervals over images]\n"
    )
    print(table(evaluation, [entry.name for entry in manifest.classes], groups))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="an artefact")
    parser.add_argument("data", type=Path, help="annotated images, in any form that fit reads")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    parser.add_argument("--all", action="store_true", help="score training images too")
    parser.add_argument(
        "--device", default="auto", type=check_device, help="auto, cpu, openvino, cuda or cuda:N"
    )
    parser.add_argument(
        "--average",
        choices=get_args(Averaging),
        help="segment once, or average all rotations and mirrors; default: what the artefact says",
    )
    parser.add_argument("--by", metavar="COLUMN", help=f"also score apart by a column of {INDEX}")
    parser.add_argument(
        "--ignore",
        type=int,
        help="label value of pixels that do not count; default: on the training's data, its own",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
