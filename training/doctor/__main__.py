"""Examine a data set: `python -m training.doctor DATA`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from training.data.census import Census
from training.data.verdict import LabelsAsked
from training.doctor.examination import examine
from training.doctor.finding import counted, tell
from training.settings import FitSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found and what the data set holds; 1 if training would stop, else 0."""
    asked = _parser().parse_args(arguments)
    examination = examine(asked.data, asked.labels, asked.ignore, asked.folds, asked.fold)
    print(tell(examination.findings))
    if examination.census is not None:
        print(f"{examination.verdict} {summary(examination.census)}")
    return int(examination.has_errors)


def summary(census: Census) -> str:
    """Say in one line what a data set holds."""
    parts = [
        f"{counted(census.images, 'image')} of {'/'.join(census.dtypes)}",
        counted(census.in_channels, "channel"),
        f"{census.pixels / 1e6:.1f} Mpx",
    ]
    if census.label_kind == "semantic":
        shares = ", ".join(f"{share:.1%}" for share in census.class_shares)
        return ", ".join(parts) + f"; classes of {shares} of the pixels."
    share = 1 - census.class_shares[0]
    text = f"; {counted(census.object_count, 'object')} on {share:.1%} of the pixels"
    if census.diameters is not None:
        small, middle, large = census.diameters
        text += f", {middle:.0f} px across (5th to 95th percentile: {small:.0f} to {large:.0f})"
    if census.median_gap is not None:
        text += f", {census.median_gap:.1f} px from the nearest in the median"
    return ", ".join(parts) + f"{text}."


def _parser() -> argparse.ArgumentParser:
    fields = FitSettings.model_fields
    parser = argparse.ArgumentParser(prog="python -m training.doctor", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of annotated images")
    parser.add_argument(
        "--labels", choices=get_args(LabelsAsked), default="auto", help="what labels hold"
    )
    parser.add_argument("--ignore", type=int, help="label of pixels that are not annotated")
    parser.add_argument("--folds", type=int, default=fields["folds"].default)
    parser.add_argument("--fold", type=int, default=fields["fold"].default)
    return parser


if __name__ == "__main__":
    sys.exit(main())
