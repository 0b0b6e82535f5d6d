"""Headers and labels of all pairs, read before any pixels: which pairs are sound, what labels are.

Does what `read_dataset` does, but goes on after an error.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.artefact import LabelKind
from model.errors import DatasetError
from training.data.dataset import MOST_SEMANTIC, Dataset, Shape
from training.data.forms import Pair, Pairs
from training.data.interpolation import require_uninterpolated
from training.data.pixels import read_labels, read_shape
from training.data.verdict import LabelsAsked, Survey, Verdict
from training.doctor.finding import Finding, few, refusal
from training.doctor.record import file_names

MEANT: dict[LabelKind, str] = {"semantic": "classes", "instance": "ids of objects"}


@dataclass(frozen=True, slots=True)
class Surveyed:
    """The sound part of a data set, and what is wrong with the rest."""

    dataset: Dataset | None
    """None if there is nothing that could be looked at."""
    findings: tuple[Finding, ...]


def survey(found: Pairs, labels: LabelsAsked, ignore: int | None) -> Surveyed:
    """Look at all pairs, one after the other."""
    findings, sound = [*_examine_formats(found), *_examine_partners(found)], {}
    values = Survey(ignore, found.holds_ids)
    for pair in found.pairs:
        outcome = _look_at(pair, found.path, values)
        if isinstance(outcome, Finding):
            findings.append(outcome)
        else:
            sound[pair] = outcome
    if not sound:
        return Surveyed(None, tuple(findings))
    verdict = values.verdict(labels if len(values.values) > 1 else "semantic")
    dataset = _assemble(found.path, sound, values, verdict)
    findings += [*_examine_channels(dataset), *_examine_values(dataset, values)]
    findings += _examine_verdict(dataset, values, verdict)
    return Surveyed(dataset if values.values else None, tuple(findings))


def _look_at(pair: Pair, data: Path, values: Survey) -> Shape | Finding:
    image, labels = file_names(pair, data)
    file = image
    try:
        shape = read_shape(pair)
        file = labels
        drawn = read_labels(pair)
        require_uninterpolated(pair, drawn)
    except DatasetError as exc:
        return refusal(data, file, exc)
    if shape[1:] != drawn.shape:
        sizes = "its labels are {}×{} px, the image {}×{} px".format(*drawn.shape, *shape[1:])
        return Finding("error", image, f"{sizes}; export both at one size.")
    if (negative := drawn[(drawn < 0) & (drawn != values.ignore)]).size:
        text = f"holds the negative label {negative.min()}; labels are 0 or more"
        hint = f"ask for --ignore {negative.min()} if it marks what is not annotated"
        return Finding("error", labels, f"{text}; {hint}.")
    values.add(drawn)
    return shape


def _assemble(data: Path, sound: dict[Pair, Shape], values: Survey, verdict: Verdict) -> Dataset:
    return Dataset(
        path=data,
        label_kind=verdict.kind,
        num_classes=2 if verdict.kind == "instance" else max(len(values.values), 1),
        in_channels=max(shape[0] for shape in sound.values()),
        verdict=verdict.reason,
        pairs=tuple(sound),
        shapes=tuple(sound.values()),
        values=tuple(sorted(values.values)),
        ignore=values.ignore,
    )


def _examine_formats(found: Pairs) -> Iterator[Finding]:
    """Name the files that no reader looks at: their partners would seem to be without one."""
    text = "is neither PNG nor TIFF, and so not read: convert it, without loss."
    files = [file.relative_to(found.path).as_posix() for file in found.unread]
    yield from few((Finding("error", file, text) for file in files), "not read either.")


def _examine_partners(found: Pairs) -> Iterator[Finding]:
    for file in found.alone:
        yield Finding(
            "error",
            file.relative_to(found.path).as_posix(),
            "has no partner: add its image or its labels under the same name, or remove it.",
        )


def _examine_channels(dataset: Dataset) -> Iterator[Finding]:
    """Grey images among colour ones are replicated; two numbers above one fit no network."""
    channels = [shape[0] for shape in dataset.shapes]
    ranked = Counter(count for count in channels if count > 1).most_common()
    for pair, count in zip(dataset.pairs, channels, strict=True):
        if count > 1 and count != ranked[0][0]:
            text = f"has {count} channels, most images have {ranked[0][0]}; store all with one"
            yield Finding("error", file_names(pair, dataset.path)[0], f"{text} number.")


def _examine_values(dataset: Dataset, values: Survey) -> Iterator[Finding]:
    name, ignore = dataset.path.resolve().name, values.ignore
    if ignore is not None and not values.found_ignored:
        yield Finding("warning", name, f"no pixel has the value {ignore} that is to be ignored.")
    if ignore == 0 and dataset.label_kind == "instance":
        text = "in labels of objects 0 is the background, which cannot be ignored"
        hint = "leave out --ignore 0, or ask for --labels semantic"
        yield Finding("error", name, f"{text}; {hint}.")
    if len(values.values) < 2:
        only = f"the one value {min(values.values)}" if values.values else "no value but that"
        yield Finding("error", name, f"all labels have {only}: there is nothing to learn.")
    if dataset.num_classes > MOST_SEMANTIC:
        text = f"{dataset.num_classes} classes, of at most {MOST_SEMANTIC}"
        yield Finding("error", name, f"{text}; if they are objects, ask for --labels instance.")
    if dataset.label_kind == "semantic" and len(values.values) > 1 and 0 not in values.values:
        text = f"no label is 0: {min(values.values)} is taken for the background"
        yield Finding("note", name, f"{text}; renumber the labels if it is not.")


def _examine_verdict(dataset: Dataset, values: Survey, verdict: Verdict) -> Iterator[Finding]:
    """Say how to overrule what few values were taken for; without a background it is a mistake."""
    is_bare = verdict.kind == "instance" and values.has_few_ids and not values.has_background
    if is_bare or verdict.is_doubtful:
        other: LabelKind = "semantic" if verdict.kind == "instance" else "instance"
        hardly = " Hardly a pixel has the 0 of the background." if is_bare else ""
        hint = f"If they are {MEANT[other]}, ask for --labels {other}."
        text = f"{verdict.reason.removeprefix('The ')}{hardly} {hint}"
        yield Finding("warning" if is_bare else "note", dataset.path.resolve().name, text)
