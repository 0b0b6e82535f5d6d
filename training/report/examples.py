"""Images with what was drawn and what was found: the worst, the median and the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from model.artefact import Averaging, Manifest
from model.segmentation import Model
from training.data.dataset import AnnotatedImage
from training.evaluate import predict
from training.metrics.counting import small_ids
from training.metrics.evaluation import Evaluation
from training.report import painting, pictures
from training.report.fates import Fates, Ids
from training.report.scores import one_line, shown_first, worst_first

MOST_WORST = 8
MOST_SCORES = 4


@dataclass(frozen=True, eq=False)
class Seen:
    """One image as the page shows it: all maps (h, w), at the size at which they are drawn."""

    name: str
    shape: tuple[int, int]
    """Of the image, in px."""
    photograph: str
    """The image as a data URI."""
    labels: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    found: Ids
    annotated: Ids
    ignored: NDArray[np.bool_] | None
    fates: Fates
    """Of the objects at full size."""


def choose(evaluation: Evaluation) -> dict[str, str]:
    """Choose the images that are shown: the name of each, and why."""
    order = worst_first(evaluation)
    if len(order) == 1:
        return {order[0]: "the only one"}
    main = evaluation.main_score
    defined = [name for name in order if not math.isnan(evaluation.by_image[name][main])] or order
    reasons = {name: f"{rank} of {len(order)}" for rank, name in enumerate(order, 1)}
    special = {defined[len(defined) // 2]: "median", defined[-1]: "best", order[0]: "worst"}
    shown = [name for name in order if name in order[:MOST_WORST] or name in special]
    return {
        name: f"{special[name]}, {reasons[name]}" if name in special else reasons[name]
        for name in shown
    }


def examples(model: Model, validation: Sequence[AnnotatedImage], evaluation: Evaluation) -> str:
    """Segment the images that are shown, one after the other, and draw them.

    Args:
        model: What was evaluated.
        validation: The images, in the order of the evaluation.
        evaluation: Scores of all of them.
    """
    classes = [entry.name for entry in model.manifest.classes]
    rows = shown_first(evaluation, classes)
    places = {name: place for place, name in enumerate(evaluation.images)}
    figures = []
    for name, why in choose(evaluation).items():
        seen = look(model, validation[places[name]], evaluation.averaging)
        line = one_line(evaluation.by_image[name], rows[:MOST_SCORES])
        figures.append(_figure(model, seen, f"example-{places[name]}", why, line))
    return f"{_legend(model.manifest)}{''.join(figures)}"


def look(model: Model, entry: AnnotatedImage, averaging: Averaging) -> Seen:
    """Segment an image as the evaluation does, and keep what is shown of it."""
    _, labels, found = predict(model, entry.image, averaging)
    if entry.ignored is not None:
        found = np.where(entry.ignored, 0, found)
    ids = small_ids(found), small_ids(entry.objects)
    size = pictures.drawn_size(labels.shape)
    return Seen(
        entry.name,
        (labels.shape[0], labels.shape[1]),
        pictures.photograph(entry.image, model.manifest.intensity),
        pictures.resample(labels, size),
        pictures.resample(entry.semantic, size),
        pictures.resample(ids[0], size),
        pictures.resample(ids[1], size),
        None if entry.ignored is None else pictures.resample(entry.ignored, size),
        Fates.of(*ids),
    )


def _figure(model: Model, seen: Seen, anchor: str, why: str, line: str) -> str:
    layers = {"image": None, **_layers(model.manifest, seen)}
    panels = "".join(_panel(seen, anchor, title, drawn) for title, drawn in layers.items())
    facts = [f"{seen.shape[1]}×{seen.shape[0]} px"]
    if not _has_several_classes(model.manifest):
        facts.append(seen.fates.count())
    if seen.ignored is not None:
        facts.append("hatched: left out of all scores")
    return (
        f'<figure class="example" id="{anchor}"><figcaption><b>{escape(seen.name)}</b> '
        f'<span class="pill">{why}</span>{line}<br><small>{"; ".join(facts)}</small>'
        '<label><input type="checkbox"> large</label></figcaption>'
        f'<div class="panels">{panels}</div></figure>'
    )


def _layers(manifest: Manifest, seen: Seen) -> dict[str, painting.Layer]:
    """Draw objects; or classes, where there are several."""
    if _has_several_classes(manifest):
        colours = [entry.colour for entry in manifest.classes]
        annotation = painting.paint_classes(seen.semantic, colours)
        prediction = painting.paint_classes(seen.labels, colours)
    else:
        drawn, made = painting.colour_objects(seen.fates)
        annotation = painting.paint_objects(seen.annotated, drawn)
        prediction = painting.paint_objects(seen.found, made)
    errors = _errors(manifest, seen)
    if seen.ignored is not None:
        painting.hatch(annotation, seen.ignored)
        painting.hatch(errors, seen.ignored)
    return {"annotation": annotation, "prediction": prediction, "errors": errors}


def _errors(manifest: Manifest, seen: Seen) -> painting.Layer:
    if manifest.training.label_kind == "instance":
        return painting.paint_object_errors(seen.found, seen.annotated, seen.fates)
    errors = painting.paint_pixel_errors(seen.labels, seen.semantic, seen.ignored)
    if not _has_several_classes(manifest):
        painting.outline_mergers(errors, seen.found, seen.annotated, seen.fates)
    return errors


def _panel(seen: Seen, anchor: str, title: str, layer: painting.Layer | None) -> str:
    """Draw a layer over the image, whose bytes stand in the page only once."""
    height, width = seen.shape
    image = f"{anchor}-image"
    size = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    if layer is None:
        content = f'<image id="{image}" {size} href="{seen.photograph}"/>'
    else:
        over = f'<image class="layer" {size} href="{pictures.layer(layer)}"/>'
        content = f'<use href="#{image}"/>{over}'
    return (
        f'<div class="panel {title}"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{title} of {escape(seen.name)}">{content}</svg><span>{title}</span></div>'
    )


def _legend(manifest: Manifest) -> str:
    unseen = {"merged", "split"} if _has_several_classes(manifest) else {"other class"}
    errors = {name: colour for name, colour in painting.ERRORS.items() if name not in unseen}
    legend = _key("errors", errors)
    if _has_several_classes(manifest):
        return legend + _key(
            "classes", {entry.name: entry.colour for entry in manifest.classes[1:]}
        )
    return legend + "<p>Objects that agree have one colour in annotation and prediction.</p>"


def _key(title: str, colours: Mapping[str, str]) -> str:
    items = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in colours.items()
    )
    return f'<p class="legend"><b>{title}</b>{items}</p>'


def _has_several_classes(manifest: Manifest) -> bool:
    """Tell whether there are classes to be told apart: a map of one class shows its objects."""
    return manifest.architecture.num_classes > 2
