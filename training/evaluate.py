"""Score an artefact as the service runs it: `python -m training.evaluate MODEL DATA`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import DatasetError, UNetError
from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE, Model, segment, softmax
from model.tiling import tile_edges
from training.dataset import AnnotatedImage, Dataset, read_dataset
from training.metrics import BestThreshold, Scores, score_label_maps, sweep_thresholds


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An artefact's scores on annotated images."""

    images: tuple[str, ...]
    scores: Scores
    """Of the label maps that the service would return."""
    best: BestThreshold | None
    """Of the sweep over thresholds; with more than two classes there is none."""

    def as_dict(self) -> dict[str, Any]:
        """Give the scores by name, as JSON holds them."""
        best = None if self.best is None else asdict(self.best)
        return {**self.scores.as_dict(), "best": best}


def evaluate(model: Model, images: Sequence[AnnotatedImage]) -> Evaluation:
    """Segment whole images through the tiler and score the label maps."""
    logits = [infer(model, entry.image) for entry in images]
    objects = [entry.objects for entry in images]
    scores = score_label_maps(
        [model.manifest.decide(entry) for entry in logits],
        objects,
        [entry.semantic for entry in images],
        model.manifest.architecture.num_classes,
    )
    best = best_threshold(logits, objects) if logits[0].shape[0] == 2 else None
    return Evaluation(tuple(entry.name for entry in images), scores, best)


def infer(model: Model, image: NDArray[Any]) -> NDArray[np.float32]:
    """Give the logits (K, H, W) of a whole image (C, H, W), with the service's default tiles."""
    edges = tile_edges(model.manifest.geometry, DEFAULT_TILE_EDGE)
    return segment(image, model, edges, output="logits")


def best_threshold(
    logits: Sequence[NDArray[np.float32]], objects: Sequence[NDArray[np.int32]]
) -> BestThreshold:
    """Sweep the decision threshold of two-class logits (2, H, W)."""
    return sweep_thresholds([softmax(entry)[1] for entry in logits], objects)


def read_for(model: Model, path: Path) -> Dataset:
    """Read annotated images as the artefact's training read them, if they are those.

    Raises:
        DatasetError: if they cannot be read, or have other classes than the artefact.
    """
    record = model.manifest.training
    dataset = read_dataset(path)
    if dataset.label_kind != record.label_kind:
        other = read_dataset(path, record.label_kind)
        dataset = other if other.sha256() == record.data_sha256 else dataset
    classes = model.manifest.architecture.num_classes
    if dataset.num_classes != classes:
        raise DatasetError(
            f"{path} has {dataset.label_kind} labels of {dataset.num_classes} classes; "
            f"{model.manifest.name} knows {classes}."
        )
    return dataset


def choose_images(model: Model, dataset: Dataset, *, everything: bool) -> Sequence[AnnotatedImage]:
    """Leave out what the artefact was trained on, where it was trained on this data."""
    record = model.manifest.training
    if everything or dataset.sha256() != record.data_sha256:
        return dataset.images
    held_out = dataset.named(record.validation_images)
    if not held_out:
        raise DatasetError(
            f"{model.manifest.name} was trained on every image of {dataset.path}; "
            "score it on others, or take --all and call it a training score."
        )
    return held_out


def score_rows(evaluation: Evaluation, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Give every score a name and its digits, for people to read."""
    scores = evaluation.scores
    rows = [
        ("V_rand", scores.v_rand),
        ("V_info", scores.v_info),
        ("pixel error", scores.pixel_error),
        *((f"IoU {name}", value) for name, value in zip(classes, scores.iou, strict=True)),
    ]
    if best := evaluation.best:
        rows += [
            (f"best V_rand, at threshold {best.threshold}", best.v_rand),
            (f"     V_info, at threshold {best.threshold}", best.v_info),
        ]
    return [(name, f"{value:.6f}") for name, value in rows]


def table(evaluation: Evaluation, classes: Sequence[str]) -> str:
    """Lay the scores out for a terminal."""
    rows = score_rows(evaluation, classes)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {digits}" for name, digits in rows)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="an artefact")
    parser.add_argument("data", type=Path, help="annotated images, in any form that fit reads")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    parser.add_argument("--all", action="store_true", help="score training images too")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments = parser.parse_args(words)
    try:
        runtime = Runtime(arguments.model, arguments.device)
        dataset = read_for(runtime, arguments.data)
        images = choose_images(runtime, dataset, everything=arguments.all)
        evaluation = evaluate(runtime, images)
        if arguments.json:
            arguments.json.write_text(json.dumps(report(runtime, evaluation), indent=2) + "\n")
    except (UNetError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    manifest = runtime.manifest
    print(
        f"{manifest.name} ({runtime.artefact.sha256[:12]}) on {runtime.provider}: "
        f"{len(images)} of {len(dataset.images)} images of {dataset.path.resolve().name}"
    )
    print(table(evaluation, [entry.name for entry in manifest.classes]))
    return 0


def report(runtime: Runtime, evaluation: Evaluation) -> dict[str, Any]:
    """Give scores and what they were measured on, as JSON holds them."""
    return {
        "model": runtime.manifest.name,
        "sha256": runtime.artefact.sha256,
        "provider": runtime.provider,
        "precision": runtime.manifest.precision,
        "images": list(evaluation.images),
        "scores": evaluation.as_dict(),
    }


if __name__ == "__main__":
    sys.exit(main())
