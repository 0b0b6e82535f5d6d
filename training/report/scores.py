"""The scores of an artefact: the main one, all of them, and those of each image."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby

from training.metrics.bootstrap import Score
from training.metrics.evaluation import Evaluation
from training.metrics.table import Row, rows
from training.report import charts
from training.report.hints import base_of, hint, lower_is_better

BESIDE: Mapping[str, Sequence[str]] = {
    "ap50": ("seg", "f1", "iou_1", "calibration_error"),
    "v_rand": ("v_info", "seg", "pixel_error", "calibration_error"),
    "iou": ("seg", "boundary_f1", "pixel_error", "calibration_error"),
}
"""Scores shown beside each main score: other questions, of objects and of pixels."""
DIGITS_SHOWN_LARGE = 3
BAR = 120
"""Width of the bar that shows an interval, in px."""


def shown_first(evaluation: Evaluation, classes: Sequence[str]) -> list[Row]:
    """Give the rows of the main score and of those beside it."""
    named = {row.name: row for row in rows(evaluation.scores, classes)}
    wanted = (evaluation.main_score, *BESIDE[evaluation.main_score])
    return [named[name] for name in wanted if name in named]


def headline(evaluation: Evaluation, classes: Sequence[str]) -> str:
    """Show the main score large, with its interval, and a few beside it."""
    main, *others = shown_first(evaluation, classes)
    score = evaluation.scores[main.name]
    count = len(evaluation.images)
    tiles = "".join(
        f"<div><dt>{escape(row.label)}</dt><dd>{_short(evaluation.scores[row.name].value)}"
        f"<small>{_interval(evaluation.scores[row.name], DIGITS_SHOWN_LARGE)}</small></dd></div>"
        for row in others
    )
    return (
        f'<section class="headline"><div class="main"><h2>{escape(main.label)}</h2>'
        f"<p><strong>{_short(score.value)}</strong> "
        f"<span>{_interval(score, DIGITS_SHOWN_LARGE)}</span></p>"
        f"<p>{escape(hint(main.name))}</p>"
        f"<p>On {count} image{'s' * (count > 1)} that {'were' if count > 1 else 'was'} not trained "
        f"on. {_said_of_interval(count)}</p></div><dl>{tiles}</dl></section>"
    )


def score_table(evaluation: Evaluation, classes: Sequence[str]) -> str:
    """Lay out all scores in sections, that of the main score first."""
    sections = [
        (section, list(members))
        for section, members in groupby(
            rows(evaluation.scores, classes), key=lambda row: row.section
        )
    ]
    main = evaluation.main_score
    sections.sort(key=lambda section: all(row.name != main for row in section[1]))
    bodies = "".join(
        f'<tbody><tr><th colspan="5" scope="rowgroup">{escape(section.capitalize())}</th></tr>'
        + "".join(_lines(members, evaluation))
        + "</tbody>"
        for section, members in sections
    )
    return (
        '<div class="wide"><table class="scores"><thead><tr><th>score</th><th>value</th>'
        "<th>95% interval</th><th>0 … 1</th><th>what it says</th></tr></thead>"
        f"{bodies}</table></div>"
    )


def every_image(evaluation: Evaluation, classes: Sequence[str]) -> str:
    """Draw the main score of every image, the worst first, with a table of all."""
    first = shown_first(evaluation, classes)
    order = worst_first(evaluation)
    heads = "".join(f"<th>{escape(row.label)}</th>" for row in first)
    lines = "".join(
        f"<tr><td>{escape(image)}</td>"
        + "".join(
            f"<td>{_digits(evaluation.by_image[image][row.name], row.digits)}</td>" for row in first
        )
        + "</tr>"
        for image in order
    )
    return (
        f'<div class="beside">{_ranks(evaluation, order, first[0].label)}<details><summary>'
        'Scores of each image</summary><div class="wide tall"><table class="numbers"><thead><tr>'
        f"<th>image</th>{heads}</tr></thead><tbody>{lines}</tbody></table></div></details></div>"
    )


def worst_first(evaluation: Evaluation) -> list[str]:
    """Order images by their main score; those that have none come last.

    An image has none where there is nothing in it, neither annotated nor found.
    """
    main = evaluation.main_score

    def rank(image: str) -> tuple[bool, float, float]:
        scores = evaluation.by_image[image]
        return math.isnan(scores[main]), scores[main], -scores["pixel_error"]

    return sorted(evaluation.images, key=rank)


def one_line(scores: Mapping[str, float], shown: Sequence[Row]) -> str:
    """Write scores of one image in a line."""
    return " ".join(
        f"<span>{escape(row.label)} <b>{_short(scores[row.name])}</b></span>" for row in shown
    )


def _ranks(evaluation: Evaluation, order: Sequence[str], label: str) -> str:
    values = [(image, evaluation.by_image[image][evaluation.main_score]) for image in order]
    defined = [(image, value) for image, value in values if not math.isnan(value)]
    if len(defined) < 2:
        return ""
    x = charts.across(1, len(defined), "images, worst first")
    whole = evaluation.scores[evaluation.main_score].value
    y = charts.upwards([whole, *(value for _, value in defined)], label)
    points = [(float(rank), value) for rank, (_, value) in enumerate(defined, 1)]
    titles = [f"{image}: {value:.4f}" for image, value in defined]
    mark = charts.level(x, y, whole, f"all images: {whole:.3f}")
    drawn = charts.chart(f"{label} by image", x, y, mark, charts.dots(x, y, points, titles))
    return f"<figure>{drawn}</figure>"


def _lines(members: Sequence[Row], evaluation: Evaluation) -> Iterator[str]:
    """Write the lines of a section; of a score of several classes, the first says what it is."""
    explained: set[str] = set()
    for row in members:
        said = "" if base_of(row.name) in explained else hint(row.name)
        explained.add(base_of(row.name))
        is_main = row.name == evaluation.main_score
        yield _line(row, evaluation.scores[row.name], said, ' class="is-main"' * is_main)


def _line(row: Row, score: Score, said: str, style: str) -> str:
    arrow = "↓" if lower_is_better(row.name) else "↑"
    bounded = not lower_is_better(row.name) and not math.isnan(score.value)
    return (
        f"<tr{style}><td>{escape(row.label)} "
        f'<span title="{"lower" if arrow == "↓" else "higher"} is better">{arrow}</span></td>'
        f"<td>{_digits(score.value, row.digits)}</td><td>{_interval(score, row.digits)}</td>"
        f"<td>{_bar(score) if bounded else ''}</td><td>{escape(said)}</td></tr>"
    )


def _bar(score: Score) -> str:
    low, high = (score.value if math.isnan(end) else end for end in (score.low, score.high))
    return (
        f'<svg class="interval" viewBox="0 0 {BAR} 12" aria-hidden="true">'
        f'<rect class="track" y="5" width="{BAR}" height="2"/>'
        f'<rect x="{low * BAR:.1f}" y="2" width="{max((high - low) * BAR, 1):.1f}" height="8"/>'
        f'<circle cx="{score.value * BAR:.1f}" cy="6" r="3"/></svg>'
    )


def _said_of_interval(count: int) -> str:
    if count == 1:
        return "One image tells nothing of how much scores vary between images."
    return "As many images drawn from these again score within the interval 19 times in 20."


def _interval(score: Score, digits: int) -> str:
    if math.isnan(score.low):
        return ""
    return f"{score.low:.{digits}f} – {score.high:.{digits}f}"


def _short(value: float) -> str:
    return _digits(value, DIGITS_SHOWN_LARGE)


def _digits(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
