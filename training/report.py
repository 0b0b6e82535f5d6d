"""The report of a run: one page that needs no other file."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE, segment
from model.tiling import tile_edges
from training.dataset import AnnotatedImage
from training.evaluate import Evaluation, score_rows
from training.loop import RunFolder
from training.metrics import pixel_error

CURVE_SIZE = 560, 200
MARGIN = 44
MOST_PICTURES = 8

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto;
    padding: 0 1rem }}
  table {{ border-collapse: collapse }} td, th {{ padding: .2rem 1rem .2rem 0; text-align: left }}
  td + td {{ font-variant-numeric: tabular-nums }}
  figure {{ margin: 1rem 0 }} figure img {{ width: 24.5%; image-rendering: pixelated }}
  .curves {{ display: flex; flex-wrap: wrap; gap: 1rem }}
  code {{ background: #f2f2f2; padding: .1rem .3rem }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<p><code>{command}</code></p>
<h2>Scores</h2>
<p>Of the exported file, tile by tile as the service runs it, on {images} image(s) that were not
trained on{threshold}. V_rand and V_info compare cells, with borders thinned; they see merged cells,
which pixel scores do not.</p>
<table>{scores}</table>
<h2>Curves</h2>
<div class="curves">{curves}</div>
<h2>Validation images, worst first</h2>
<p>Image, label, prediction, and error: <span style="color:#c1272d">missed foreground</span>,
<span style="color:#0072b2">foreground where there is none</span>.</p>
{pictures}
</html>
"""


def write_report(
    folder: RunFolder,
    runtime: Runtime,
    validation: Sequence[AnnotatedImage],
    evaluation: Evaluation,
    log: Sequence[dict[str, Any]],
) -> None:
    """Write the run's `report.html`."""
    manifest = runtime.manifest
    record = manifest.training
    architecture = manifest.architecture
    page = PAGE.format(
        title=html.escape(manifest.name),
        summary=html.escape(
            f"Trained on {len(record.training_images)} images of {record.data} ({record.licence}), "
            f"{record.steps} steps. {architecture.base_channels} base channels, depth "
            f"{architecture.depth}, {manifest.precision}. SHA-256 {runtime.artefact.sha256}."
        ),
        command=html.escape(record.command),
        images=len(validation),
        threshold=(
            f", at the decision threshold {manifest.decision_threshold}"
            if manifest.decision_threshold
            else ""
        ),
        scores=_score_rows(evaluation, [entry.name for entry in manifest.classes]),
        curves="".join(_curves(log)),
        pictures="".join(_pictures(runtime, validation)),
    )
    folder.report.write_text(page, encoding="utf-8")


def _score_rows(evaluation: Evaluation, classes: Sequence[str]) -> str:
    return "".join(
        f"<tr><td>{html.escape(name)}</td><td>{digits}</td></tr>"
        for name, digits in score_rows(evaluation, classes)
    )


def _curves(log: Sequence[dict[str, Any]]) -> list[str]:
    """Draw loss, learning rate and validation scores over the steps."""
    wanted = [
        ("training", "loss"),
        ("validation", "v_rand"),
        ("validation", "v_info"),
        ("training", "learning_rate"),
    ]
    return [
        _curve(name, [(entry["step"], entry[name]) for entry in log if entry["kind"] == kind])
        for kind, name in wanted
    ]


def _curve(name: str, points: Sequence[tuple[int, float]]) -> str:
    if not points:
        return ""
    width, height = CURVE_SIZE
    xs, ys = np.array(points, float).T
    low, high = float(ys.min()), float(ys.max())
    across = MARGIN + xs / xs.max() * (width - 2 * MARGIN)
    down = height - MARGIN - (ys - low) / ((high - low) or 1) * (height - 2 * MARGIN)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    floor = height - MARGIN
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{name}">'
        f'<text x="{MARGIN}" y="18" font-weight="600">{name}</text>'
        f'<path d="M{MARGIN} {MARGIN} V{floor} H{width - MARGIN}" fill="none" stroke="#999"/>'
        f'<polyline points="{path}" fill="none" stroke="#0072b2" stroke-width="2"/>'
        f'<g font-size="11" fill="#555"><text x="2" y="{MARGIN + 4}">{high:.4g}</text>'
        f'<text x="2" y="{floor}">{low:.4g}</text>'
        f'<text x="{width - MARGIN}" y="{height - 26}" text-anchor="end">step {xs.max():.0f}</text>'
        "</g></svg>"
    )


def _pictures(runtime: Runtime, validation: Sequence[AnnotatedImage]) -> list[str]:
    edges = tile_edges(runtime.manifest.geometry, DEFAULT_TILE_EDGE)
    scored = []
    for entry in validation:
        labels = segment(entry.image, runtime, edges)
        scored.append((pixel_error(labels, entry.semantic), entry, labels))
    scored.sort(key=lambda found: found[0], reverse=True)
    return [_figure(runtime, *found) for found in scored[:MOST_PICTURES]]


def _figure(
    runtime: Runtime, error: float, entry: AnnotatedImage, labels: NDArray[np.uint8]
) -> str:
    colours = np.array(
        [ImageColor.getrgb(known.colour) for known in runtime.manifest.classes], np.uint8
    )
    grey = _grey(runtime, entry)
    pictures = [grey, colours[entry.semantic], colours[labels], _error(grey, entry, labels)]
    images = "".join(f'<img alt="" src="{_data_uri(picture)}"> ' for picture in pictures)
    caption = f"{html.escape(entry.name)}, pixel error {error:.4f}"
    return f"<figure>{images}<figcaption>{caption}</figcaption></figure>"


def _grey(runtime: Runtime, entry: AnnotatedImage) -> NDArray[np.uint8]:
    """Show colour, or the first channel, as (H, W, 3) on the scale that the network reads."""
    image = entry.image if entry.image.shape[0] == 3 else entry.image[:1]
    scaled = runtime.manifest.intensity.measure(image).apply(image)
    shown = np.broadcast_to(scaled, (3, *scaled.shape[1:]))
    return ((np.moveaxis(shown, 0, 2) + 1) * 127.5).astype(np.uint8)


def _error(
    grey: NDArray[np.uint8], entry: AnnotatedImage, labels: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    picture = grey // 2 + 96
    picture[(labels == 0) & (entry.semantic != 0)] = ImageColor.getrgb("#c1272d")
    picture[(labels != 0) & (entry.semantic == 0)] = ImageColor.getrgb("#0072b2")
    return picture


def _data_uri(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
