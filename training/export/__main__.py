"""From a checkpoint to the served file: `python -m training.export CHECKPOINT OUT.onnx`.

An artefact may stand in the place of its checkpoint, and becomes one of another precision.

A file of lower precision is written only where it answers as well as that of float32 does.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from model.artefact import LARGEST_LOSS, Precision
from model.errors import DatasetError, UNetError
from training.export.gate import export_scored, variants_of
from training.export.trained import export
from training.export.variants import table


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
            raise  # there are no tiles to calibrate on; or the wrong ones were named
        if precision != "fp32" and not arguments.force:
            raise DatasetError(f"{exc} Or write the file unscored, with --force.") from exc
        arguments.out.write_bytes(export(path, precision))
        print(f"{arguments.out} is written and was not scored. {exc}", file=sys.stderr)
        return
    arguments.out.write_bytes(variants[-1].data)
    print(table(variants))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument(
        "checkpoint", type=Path, help="best.pt or last.pt of a run, or an .onnx artefact"
    )
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
        "--force",
        action="store_true",
        help=f"write a file that loses more than {LARGEST_LOSS}, or that cannot be scored",
    )
    parser.add_argument(
        "--table", action="store_true", help="write no file: compare all precisions"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
