"""From a checkpoint to the served file: `python -m training.export CHECKPOINT OUT.onnx`.

A file of lower precision is written only where it answers as well as that of float32 does.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from model.artefact import Manifest, Precision, ScoreRecord, pack
from model.errors import CheckpointError, DatasetError, ParityError, UNetError
from model.instances import InstanceRule
from model.network import UNet
from training import checkpoint
from training.graph import export_graph
from training.settings import StoredPrecision
from training.variants import Variant, compare, find_images, table

LARGEST_LOSS = 0.005
"""What a file of lower precision may lose of its main score."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a checkpoint holds for an export."""

    network: UNet
    manifest: Manifest
    """Without scores; threshold and rule are those of the kept validation, if any."""
    source: dict[str, Any]
    """What reads and divides the data again."""


def load(path: Path) -> Trained:
    """Read a checkpoint.

    Raises:
        CheckpointError: if it cannot be read, or holds no network that was validated.
    """
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
    """Export a checkpoint and hold the graph against the network.

    Returns:
        The bytes of an artefact; its manifest has the threshold and rule of the best validation,
        if any, and no scores.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or holds no network.
        ParityError: if graph and network differ.
    """
    trained = load(path)
    graph = export_graph(trained.network, precision)
    return pack(graph, trained.manifest.model_copy(update={"precision": precision}))


def export_scored(
    path: Path, precision: Precision, data: Path | None = None, *, force: bool = False
) -> tuple[Variant, ...]:
    """Export a checkpoint, and hold the file's main score against that of float32.

    Args:
        path: The checkpoint.
        precision: That of the file.
        data: Where the data of the training lies now; None is where it lay.
        force: Let a variant pass that loses too much; its manifest says so.

    Returns:
        float32 first, the wanted variant last.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or holds no network.
        DatasetError: if its data cannot be found.
        ParityError: if the variant answers less well than it may.
    """
    precisions: tuple[Precision, ...] = ("fp32",) if precision == "fp32" else ("fp32", precision)
    exact, *others = variants_of(path, precisions, data)
    return (exact, *(passed(variant, exact, force=force) for variant in others))


def variants_of(
    path: Path, precisions: Sequence[Precision], data: Path | None = None
) -> tuple[Variant, ...]:
    """Make, score and time a checkpoint's files at several precisions, whatever they lose.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or holds no network.
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
            f"{variant.manifest.precision} has {name} {found:.4f} and fp32 has {wanted:.4f} on "
            f"validation: more than {LARGEST_LOSS} are lost. Take another --precision, or --force."
        )
    gate = {"score": name, "fp32": wanted, "this": found, "forced": failed}
    scores = variant.manifest.scores or ScoreRecord(images=(), values={})
    noted = scores.model_copy(update={"values": scores.values | {"gate": gate}})
    return replace(variant, manifest=variant.manifest.model_copy(update={"scores": noted}))


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if (arguments.out is None) != arguments.table:
        parser.error("name either OUT.onnx or --table")
    try:
        if arguments.table:
            variants = variants_of(arguments.checkpoint, get_args(Precision), arguments.data)
            print(table(variants))
        else:
            _write(arguments)
    except (UNetError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def _write(arguments: argparse.Namespace) -> None:
    path, precision = arguments.checkpoint, arguments.precision
    try:
        variants = export_scored(path, precision, arguments.data, force=arguments.force)
    except DatasetError as exc:
        if precision == "int8" or arguments.data is not None:
            raise
        arguments.out.write_bytes(export(path, precision))
        print(f"{arguments.out} is written and was not scored. {exc}", file=sys.stderr)
        return
    arguments.out.write_bytes(variants[-1].data)
    print(table(variants))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="best.pt or last.pt of a run")
    parser.add_argument("out", type=Path, nargs="?", help="the .onnx file to write")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp16",
        help="fp16 stores floats in half the bytes; int8 computes in integers, made for CPUs",
    )
    parser.add_argument(
        "--data", type=Path, help="the data trained on, if it lies elsewhere by now"
    )
    parser.add_argument(
        "--force", action="store_true", help=f"write a file that loses more than {LARGEST_LOSS}"
    )
    parser.add_argument(
        "--table", action="store_true", help="write no file: compare all precisions"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
