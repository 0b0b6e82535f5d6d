"""The whole page, from what a run left behind."""

from collections.abc import Sequence
from html import escape
from typing import Any

from model.artefact import ScoreRecord
from model.runtime import Runtime
from training.data.dataset import AnnotatedImage
from training.metrics.evaluation import Evaluation
from training.plan import Plan
from training.report.calibration import reliability
from training.report.curves import curves, pace
from training.report.examples import examples
from training.report.record import file_facts, introduction, plan_table
from training.report.scores import every_image, headline, score_table, shown_first
from training.report.style import STYLE
from training.run.folder import RunFolder
from training.run.writing import write

Sections = dict[str, tuple[str, str]]
"""Introduction and content of each section, by its title."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{introduction}</p>
<nav>{navigation}</nav>
{headline}
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def write_report(
    folder: RunFolder,
    runtime: Runtime,
    validation: Sequence[AnnotatedImage],
    evaluation: Evaluation | None,
    plan: Plan,
    log: Sequence[dict[str, Any]],
) -> None:
    """Write the run's `report.html`.

    Images that are shown are segmented again, one at a time; no other is.

    Args:
        folder: The run.
        runtime: The exported file.
        validation: The images that it was evaluated on, in the order of the evaluation.
        evaluation: The file's scores on them; None where every image was trained on.
        plan: What the run settled before its first step.
        log: The entries of its loop.

    Raises:
        CheckpointError: if it cannot be written.
    """
    manifest = runtime.manifest
    if evaluation is None:
        first, found = _borrowed(manifest.scores), _of_run(runtime, plan, log, "")
    else:
        classes = [entry.name for entry in manifest.classes]
        first = headline(evaluation, classes)
        main = shown_first(evaluation, classes)[0].label
        found = _of_images(runtime, validation, evaluation) | _of_run(runtime, plan, log, main)
    sections = {title: words + content for title, (words, content) in found.items() if content}
    page = PAGE.format(
        title=escape(manifest.name),
        style=STYLE,
        introduction=introduction(runtime),
        navigation="".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in sections),
        headline=first,
        sections="\n".join(
            f'<section><h2 id="{_anchor(title)}">{title}</h2>{content}</section>'
            for title, content in sections.items()
        ),
    )
    write(folder.report, page.encode())


def _borrowed(scores: ScoreRecord | None) -> str:
    """Say whose scores a file carries that was made of every image."""
    if scores is None:
        return "<p>No image was held out, and the file carries no scores.</p>"
    count = len(scores.images)
    return (
        f"<p>No image was held out: the scores that the file carries are those of {scores.of}, "
        f"which the same plan made without the {count} image{'s' * (count != 1)} that it was "
        "scored on.</p>"
    )


def _of_images(
    runtime: Runtime, validation: Sequence[AnnotatedImage], evaluation: Evaluation
) -> Sections:
    """Give the sections of what was measured on images held out."""
    manifest = runtime.manifest
    classes = [entry.name for entry in manifest.classes]
    return {
        "Scores": (
            _of_scores(evaluation, manifest.instances is not None),
            score_table(evaluation, classes),
        ),
        "Images, worst first": (
            OF_IMAGES,
            every_image(evaluation, classes) + examples(runtime, validation, evaluation),
        ),
        "Calibration": (OF_CALIBRATION, reliability(evaluation.reliability, len(classes) > 2)),
    }


def _of_run(runtime: Runtime, plan: Plan, log: Sequence[dict[str, Any]], main: str) -> Sections:
    """Give the sections of how the file was made; without a main score, no score is explained."""
    said = f"{OF_CURVES if main else ''} {pace(log)}".strip()
    return {
        "Curves": (
            f"<p>{said}</p>" if said else "",
            curves(log, runtime.manifest.training.steps, main),
        ),
        "Plan": (OF_PLAN, plan_table(plan)),
        "File": ("", file_facts(runtime)),
    }


def _of_scores(evaluation: Evaluation, instances: bool) -> str:
    bar = evaluation.threshold
    threshold = "" if bar is None else f", at a threshold of {bar:g}"
    rule = "It and the rule that tells objects apart were" if instances else "It was"
    chosen = "" if bar is None else f" {rule} chosen on these very images."
    averaged = "" if evaluation.averaging == "none" else ", averaged over rotations and mirrors"
    return (
        f"<p>Of the exported file, run tile by tile as the service runs it{averaged}{threshold}."
        f"{chosen} "
        "Read objects beside pixels: pixels do not see cells that are merged.</p>"
    )


OF_IMAGES = """<p>The images with the lowest scores, then the median and the best for comparison.
Under the pointer, a picture shows the image alone.</p>"""
OF_CALIBRATION = """<p>On the diagonal, a probability is what it says: of the pixels given 0.9, nine
in ten are right. Below it the model is too sure, above it not sure enough.</p>"""
OF_CURVES = """The score is measured during training, at the best threshold of each time and before
the export; those above are of the exported file."""
OF_PLAN = "<p>What the run settled before its first step, from the data or as it was asked.</p>"


def _anchor(title: str) -> str:
    return title.split(",")[0].lower()
