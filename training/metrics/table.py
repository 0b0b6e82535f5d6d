"""Scores laid out for people: every section of them, so that none is read alone."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from training.metrics.bootstrap import Score
from training.metrics.evaluation import Evaluation
from training.metrics.objects import IOU_THRESHOLDS

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "cells merged and split": {
        "v_rand": "V_rand",
        "v_info": "V_info",
        "v_rand_best": "V_rand, best threshold",
        "v_info_best": "V_info, that threshold",
        "warping_error": "warping error",
    },
    "objects": {
        "seg": "SEG",
        **{f"ap{round(100 * bar)}": f"AP at IoU {bar}" for bar in IOU_THRESHOLDS},
        "ap": "AP, mean of these",
        "ap50_by_image": "AP at IoU 0.5, mean of images",
        "f1": "F1 at IoU 0.5",
        "pq": "PQ at IoU 0.5",
    },
    "pixels": {"pixel_error": "pixel error", "iou": "IoU", "dice": "Dice"},
    "boundaries": {"boundary_f1": "boundary F1 at 2 px", "hausdorff_95": "Hausdorff 95, px"},
    "probabilities": {"calibration_error": "expected calibration error"},
}
"""Names of the scores and what people call them."""

DIGITS: Mapping[str, int] = {"warping_error": 6, "hausdorff_95": 2}
"""Digits after the point; all others have 4."""


@dataclass(frozen=True, slots=True)
class Row:
    """One score's place in a table."""

    section: str
    name: str
    """As in `Evaluation.scores`."""
    label: str
    """As people call it, with the class where it is that of one."""
    digits: int

    def text(self, score: Score) -> str:
        """Give a score's digits and its interval."""
        if math.isnan(score.value):
            return "–"
        value, low, high = (
            f"{number:.{self.digits}f}" for number in (score.value, score.low, score.high)
        )
        return value if math.isnan(score.low) else f"{value} [{low}, {high}]"


def rows(names: Iterable[str], classes: Sequence[str]) -> Iterator[Row]:
    """Give a row to every score, in the order of the sections.

    Args:
        names: Those of the scores there are.
        classes: Names of the classes, by id.
    """
    present = list(names)
    for section, labels in SECTIONS.items():
        for base, label in labels.items():
            for name in present:
                if found := re.fullmatch(rf"{base}(?:_(\d+))?", name):
                    of = f", {classes[int(found[1])]}" if found[1] else ""
                    of = of or (", mean of classes" if f"{base}_1" in present else "")
                    yield Row(section, name, label + of, DIGITS.get(base, 4))


def table(
    evaluation: Evaluation,
    classes: Sequence[str],
    groups: Mapping[str, Evaluation] | None = None,
) -> str:
    """Lay the scores out for a terminal, those of groups of the images beside the whole.

    Args:
        evaluation: Of all images.
        classes: Names of the classes, by id.
        groups: Of some of the images each, by what they are called.
    """
    columns = {"all": evaluation, **(groups or {})}
    lines = [["", *(f"{name} ({len(of.images)})" for name, of in columns.items())]]
    section = ""
    for row in rows(evaluation.scores, classes):
        if row.section != section:
            lines += [[""], [row.section]]
            section = row.section
        lines.append(
            [f"  {row.label}", *(row.text(of.scores[row.name]) for of in columns.values())]
        )
    if evaluation.best is not None:
        lines += [
            [""],
            [f"best threshold {evaluation.best.threshold}, {evaluation.threshold} taken"],
        ]
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    full = [line for line in lines if len(line) > 1]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=False)).rstrip()
        if len(line) > 1
        else line[0]
        for line in lines
    )
