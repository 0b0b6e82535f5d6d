"""A file of lower precision is written only where it answers as well as that of float32 does."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.artefact import LARGEST_LOSS, Precision, ScoreRecord
from model.errors import ParityError
from training.export.images import find_images
from training.export.trained import load
from training.export.variants import Variant, compare


def export_scored(
    path: Path, precision: Precision, data: Path | None = None, *, force: bool = False
) -> tuple[Variant, ...]:
    """Export a network, and hold the file's main score against that of float32.

    Args:
        path: A checkpoint, or an artefact.
        precision: That of the file.
        data: Where the data of the training lies now; None is where it lay.
        force: Let a variant pass that loses too much; its manifest says so.

    Returns:
        float32 first, the wanted variant last.

    Raises:
        ArtefactError: if an artefact cannot be read.
        CheckpointError: if a checkpoint cannot be read, or holds no network.
        DatasetError: if its data cannot be found.
        ParityError: if the variant answers less well than it may.
    """
    precisions: tuple[Precision, ...] = ("fp32",) if precision == "fp32" else ("fp32", precision)
    exact, *others = variants_of(path, precisions, data)
    return (exact, *(passed(variant, exact, force=force) for variant in others))


def variants_of(
    path: Path, precisions: Sequence[Precision], data: Path | None = None
) -> tuple[Variant, ...]:
    """Make, score and time a network's files at several precisions, whatever they lose.

    Raises:
        ArtefactError: if an artefact cannot be read.
        CheckpointError: if a checkpoint cannot be read, or holds no network.
        DatasetError: if its data cannot be found.
    """
    trained = load(path)
    images = find_images(trained.source, trained.manifest, data)
    return compare(trained.network, trained.manifest, images, precisions)


def passed(variant: Variant, exact: Variant, *, force: bool) -> Variant:
    """Let a variant pass that loses little against float32, and note in its manifest what it loses.

    Raises:
        ParityError: if it loses more than it may, and is not forced.
    """
    name, found = variant.score
    wanted = exact.score[1]
    failed = not wanted - found <= LARGEST_LOSS  # a score that is not a number fails, too
    if failed and not force:
        raise ParityError(
            f"{variant.manifest.precision} has {name} {found:.4f} and fp32 has {wanted:.4f} on the "
            f"same images: more than {LARGEST_LOSS} are lost. Take another --precision, or --force."
        )
    seen = not variant.manifest.training.validation_images  # trained on every image
    gate = {"score": name, "fp32": wanted, "this": found, "forced": failed, "seen": seen}
    scores = variant.manifest.scores or ScoreRecord(images=(), values={})
    noted = scores.model_copy(update={"values": scores.values | {"gate": gate}})
    return replace(variant, manifest=variant.manifest.model_copy(update={"scores": noted}))
