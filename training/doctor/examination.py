"""All examinations of a data set, in one run that goes on after an error."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.errors import DatasetError
from training.data.census import Census, summarise
from training.data.dataset import Dataset
from training.data.forms import find_pairs
from training.data.split import hold_out, split
from training.data.verdict import LabelsAsked
from training.doctor import copies, images, objects
from training.doctor.finding import Finding, in_order, refusal
from training.doctor.record import Record, Records, file_names, record
from training.doctor.survey import survey

EXAMINATIONS: tuple[Callable[[Records], Iterator[Finding]], ...] = (
    copies.examine_duplicates,
    copies.examine_look_alikes,
    copies.examine_labels_used_twice,
    images.examine_contrast,
    images.examine_clipping,
    objects.examine_emptiness,
    objects.examine_masks,
    objects.examine_pieces,
    objects.examine_specks,
    objects.examine_neighbours,
    objects.examine_scale,
    objects.examine_extent,
    objects.examine_classes,
    objects.examine_number,
    images.examine_depth,
)


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found in a data set, and what it holds."""

    findings: tuple[Finding, ...]
    """Errors first, notes last."""
    verdict: str = ""
    """One sentence: what labels were taken for, and why."""
    census: Census | None = None
    """Of the images that can be read; None if there are none."""

    @property
    def has_errors(self) -> bool:
        """Whether a run would stop."""
        return any(finding.severity == "error" for finding in self.findings)


def diagnose(
    path: Path,
    labels: LabelsAsked = "auto",
    ignore: int | None = None,
    folds: int = 5,
    fold: int | None = 2,
) -> tuple[Finding, ...]:
    """Give all that is to be said about a data set before it is trained on; errors first.

    Args:
        path: A folder in one of the three forms of `training.data.forms`.
        labels: What labels hold; `auto` tells it by their values.
        ignore: Value in the label files of pixels that are neither class nor object.
        folds: Number of folds that the run divides the images into.
        fold: The one that it validates on; None where it trains on every image.
    """
    return examine(path, labels, ignore, folds, fold).findings


def examine(
    path: Path, labels: LabelsAsked, ignore: int | None, folds: int, fold: int | None
) -> Examination:
    """Examine a data set, one image in memory at a time; the arguments are those of `diagnose`."""
    name = path.resolve().name
    try:
        surveyed = survey(find_pairs(path), labels, ignore)
    except DatasetError as exc:
        return Examination((refusal(path, name, exc),))
    findings, dataset = list(surveyed.findings), surveyed.dataset
    if dataset is None:
        return Examination(in_order(findings))
    seen: dict[int, Record] = {}
    for index, outcome in enumerate(_read(dataset)):
        if isinstance(outcome, Finding):
            findings.append(outcome)
        else:
            seen[index] = outcome
    if not seen:
        return Examination(in_order(findings), dataset.verdict)
    held_out: frozenset[str] = frozenset()
    try:
        held_out = _held_out(dataset.subset(seen), folds, fold, seen.values())
    except DatasetError as exc:
        findings.append(refusal(path, name, exc))
    facts = [entry.facts for entry in seen.values()]
    census = summarise(facts, dataset.label_kind, dataset.num_classes)
    records = Records(name, dataset, tuple(seen.values()), census, held_out)
    for examination in EXAMINATIONS:
        findings += examination(records)
    return Examination(in_order(findings), dataset.verdict, census)


def _read(dataset: Dataset) -> Iterator[Record | Finding]:
    for index, pair in enumerate(dataset.pairs):
        try:
            yield record(dataset[index], pair, dataset)
        except DatasetError as exc:
            yield refusal(dataset.path, file_names(pair, dataset.path)[0], exc)


def _held_out(
    dataset: Dataset, folds: int, fold: int | None, records: Iterable[Record]
) -> frozenset[str]:
    if fold is None:
        return frozenset()
    drawn = {entry.facts.name for entry in records if len(entry.facts.objects.ids)}
    if drawn:
        _, validation = split(dataset, folds, fold, drawn)
    else:  # said of the labels already
        _, validation = hold_out(dataset, folds, fold)
    return frozenset(validation.names).intersection(dataset.names)
