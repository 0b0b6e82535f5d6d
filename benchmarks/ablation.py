"""What elastic deformation and border weights buy, with 2, 5 and all images.

    python -m benchmarks.ablation isbi2012=DATA dsb2018=DATA

The paper trains with both and shows neither alone. For each data set, number of images and seed,
four networks are trained alike but for these two, and scored on the same images, none of which was
trained on. The seed chooses the images, the first parameters and the tiles; the four share it.

Results are kept after every network in `benchmarks/results/ablation.json`; a second start goes on,
and trains nothing where all is there. `--again` forgets what is kept and measures anew. Scores of
other data, steps or networks are refused, and never mixed with new ones or written over unasked.
The table and the plot of what there is are written to `docs/ablation.md` and `docs/ablation.svg`.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.few_images import PLENTY, Material, score, train
from benchmarks.subject import ROOT
from model.geometry import Geometry
from training.data.census import take_census
from training.data.dataset import AnnotatedImage
from training.plan import RIDGE_WEIGHT, make_plan
from training.settings import FitSettings
from training.tiles.store import Store, prepare
from training.tiles.weight_map import BORDER_WEIGHT

RESULT = ROOT / "benchmarks" / "results" / "ablation.json"
TABLE, PLOT = ROOT / "docs" / "ablation.md", ROOT / "docs" / "ablation.svg"

BASE_CHANNELS, DEPTH = 16, 4
TILE_EDGE = 380
STEPS = 400
IMAGES = (2, 5, None)
"""Numbers of training images; None is all that are not held out."""
SEEDS = (0, 1, 2)
MOST_SCORED = 12
"""Validation images that a network is scored on, spread over all."""
ARMS = {
    "neither": (False, 0.0),
    "elastic deformation": (True, 0.0),
    "border weights": (False, BORDER_WEIGHT),
    "both": (True, BORDER_WEIGHT),
}
"""Whether tiles are deformed elastically, and w0."""
NEVER = 10**9
"""Steps to the next validation."""
KEPT = ("v_rand", "v_info", "seg", "ap50", "dice", "pixel_error")
"""Scores that the result holds."""
NAMES = {"v_rand": "V_rand", "seg": "SEG", "dice": "Dice"}
RIDGED = (
    "In all, `neither` included, a background of 1 px is drawn between objects that touch, as the",
    "trainer does for labels of objects: that keeps them apart, too.",
    "",
)
COLOURS = dict(zip(ARMS, ("#777777", "#e69f00", "#56b4e9", "#009e73"), strict=True))


@dataclass(frozen=True, slots=True)
class Trial:
    """One network of the comparison."""

    data: str
    images: int | None
    arm: str
    seed: int


def chosen(
    everything: Sequence[AnnotatedImage], images: int | None, seed: int
) -> Sequence[AnnotatedImage]:
    """Let the seed choose the training images."""
    if images is None:
        return everything
    found = np.random.default_rng(seed).choice(len(everything), images, replace=False)
    return [everything[int(index)] for index in sorted(found)]


def main(words: Sequence[str] | None = None) -> int:
    """Train what is missing, and write the table and the plot after every four."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("data", nargs="+", help="NAME=FOLDER of annotated images")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--again", action="store_true", help="forget what is kept")
    arguments = parser.parse_args(words)
    folders = dict(word.split("=", 1) for word in arguments.data)
    materials = {
        name: Material.read(settings_of(Path(folder)), MOST_SCORED)
        for name, folder in folders.items()
    }
    digests = {name: material.sha256 for name, material in materials.items()}
    result = known(arguments.steps, digests, again=arguments.again)
    groups = itertools.product(SEEDS, folders, IMAGES)  # cut short, it is still a fair comparison
    for seed, data, images in groups:
        trials = [Trial(data, images, arm, seed) for arm in ARMS]
        missing = [trial for trial in trials if not is_known(trial, result)]
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                asked = settings_of(Path(folders[data]), out=Path(folder), steps=arguments.steps)
                compare(missing, materials[data], asked, result)
        TABLE.write_text(table(result))
        PLOT.write_text(plot(result))
    return 0


def is_known(trial: Trial, result: dict[str, Any]) -> bool:
    """Tell whether an earlier start has scored it."""
    return any(row["trial"] == asdict(trial) for row in result["rows"])


def known(steps: int, data: dict[str, str], *, again: bool) -> dict[str, Any]:
    """Read what an earlier start found, or begin anew.

    Args:
        steps: That every network is trained for.
        data: Name and digest of each data set.
        again: Forget what is there.

    Raises:
        SystemExit: if what is there was measured on other data, or otherwise.
    """
    names = " ".join(f"{name}={name}" for name in data)
    wanted = {
        "command": f"python -m benchmarks.ablation {names} --steps {steps}",
        "data": data,
        "network": f"{BASE_CHANNELS} base channels, depth {DEPTH}",
        "tile_edge": TILE_EDGE,
        "steps": steps,
    }
    if again or not RESULT.exists():
        return wanted | {"torch": torch.__version__, "rows": []}
    found: dict[str, Any] = json.loads(RESULT.read_text())
    differing = [name for name, value in wanted.items() if found.get(name) != value]
    if differing:
        raise SystemExit(
            f"{RESULT} holds scores of another {', '.join(differing)}: nothing was measured. "
            "--again measures all anew in their place."
        )
    return found


def compare(
    trials: Sequence[Trial], material: Material, asked: FitSettings, result: dict[str, Any]
) -> None:
    """Train networks that differ in their arm alone, and note each as soon as it is scored."""
    training = chosen(material.everything, trials[0].images, trials[0].seed)
    census = take_census(training)
    manifest = material.manifest
    stores: dict[float, Store] = {}
    for trial in trials:
        began = time.perf_counter()
        elastic, border_weight = ARMS[trial.arm]
        update = {"elastic": elastic, "border_weight": border_weight, "seed": trial.seed}
        settings = asked.model_copy(update={**update, "out": asked.out / "run"})
        settings.out.mkdir(exist_ok=True)
        plan = make_plan(census, settings, PLENTY)
        manifest = manifest.model_copy(update={"intensity": plan.intensity})
        if border_weight not in stores:
            place = asked.out / f"store-{border_weight:g}"
            stores[border_weight] = prepare(place, training, manifest.architecture, plan)
        network = train(settings, stores[border_weight], plan, manifest.architecture)
        evaluation = score(network, manifest, material.scored, plan.compute)
        result["rows"].append(
            {
                "trial": asdict(trial),
                "training_images": len(training),
                "scored_images": len(material.scored),
                "label_kind": manifest.training.label_kind,
                "ridges": plan.ridges,
                "compute": plan.compute,
                "scores": {name: evaluation[name] for name in KEPT},
            }
        )
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
        count, seconds = len(result["rows"]), time.perf_counter() - began
        print(f"{count} {trial}: {seconds:.0f} s", flush=True)


def settings_of(folder: Path, **asked: Any) -> FitSettings:
    """Ask for the network and the tile that all have."""
    fields: dict[str, Any] = {"data": folder, "out": Path("run"), "batch": 1, "device": "cpu"}
    fields |= {"base_channels": BASE_CHANNELS, "depth": DEPTH, "tile_edge": TILE_EDGE}
    fields |= {"validate_every": NEVER}
    return FitSettings(**(fields | asked))


def seeds(result: dict[str, Any]) -> int:
    """Count the seeds of which every network is scored."""
    wanted = len(grouped(result)) * len(IMAGES) * len(ARMS)
    counts = Counter(row["trial"]["seed"] for row in result["rows"])
    return sum(count == wanted for count in counts.values())


def shown_scores(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Choose what a data set is judged by: objects or partitions, beside Dice."""
    return ("seg" if rows[0]["label_kind"] == "instance" else "v_rand"), "dice"


def grouped(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Sort rows by data set."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault(row["trial"]["data"], []).append(row)
    return found


def values(rows: Sequence[dict[str, Any]], images: int | None, arm: str, name: str) -> list[float]:
    """Give the scores of all seeds."""
    return [
        row["scores"][name]
        for row in rows
        if row["trial"]["images"] == images and row["trial"]["arm"] == arm
    ]


def table(result: dict[str, Any]) -> str:
    """Write the page: one table a data set, mean and spread over the seeds."""
    lines = [
        "# What elastic deformation and border weights buy",
        "",
        f"{result['network']}, {result['steps']} steps of one {result['tile_edge']} px tile; in "
        "all, rotation, flips,",
        "zoom and intensity vary. Mean over the seeds, lowest and highest in brackets; seeds done: "
        f"{seeds(result)} of {len(SEEDS)}.",
        "",
        "So few steps are what two cores do in minutes, and far from the end of a training: what "
        "is shown is",
        "how fast a network learns from few images, not where it ends. They learn from "
        f"{learnt_pixels(result) / 1e6:.0f}",
        "megapixels in all: of a set that has more, hardly a pixel is seen twice, and there is "
        "little that",
        "deformation could keep a network from learning by heart.",
        "",
        f"Border weights are the paper's, w0 = {BORDER_WEIGHT:g}; the trainer's own are "
        f"{RIDGE_WEIGHT:g} where labels are ids",
        "of objects. The decision threshold, and the rule for objects, are those that suit each",
        "network best on the images that it is scored on: the same favour for all.",
        "",
        "```sh",
        f"{result['command']} --again",
        "```",
        "",
        "measures all anew. Without `--again`, what `benchmarks/results/ablation.json` holds is",
        "kept, and what is missing is trained: from a fresh clone, nothing. Other data is told by",
        "its digest, and refused; that the code has changed since is not noticed. The digests:",
        "",
        *(f"- {name}: `{sha256}`" for name, sha256 in result["data"].items()),
        "",
        "![Scores over the number of training images](ablation.svg)",
    ]
    for data, rows in grouped(result).items():
        names = shown_scores(rows)
        lines += [
            "",
            f"## {data}",
            "",
            *(RIDGED if rows[0]["ridges"] else ()),
            f"Scored on {rows[0]['scored_images']} held-out images.",
            "",
            f"| images | | {NAMES[names[0]]} | {NAMES[names[1]]} |",
            "| --- | --- | --- | --- |",
        ]
        for images, arm in itertools.product(IMAGES, ARMS):
            cells = [_cell(values(rows, images, arm, name)) for name in names]
            lines.append(f"| {_count(rows, images)} | {arm} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def learnt_pixels(result: dict[str, Any]) -> int:
    """Give the pixels that the steps of a network learn from, one tile each."""
    return int(result["steps"] * Geometry(DEPTH).output_edge(result["tile_edge"]) ** 2)


def _count(rows: Sequence[dict[str, Any]], images: int | None) -> int:
    counts = [row["training_images"] for row in rows if row["trial"]["images"] == images]
    return max(counts, default=0)


def _cell(found: Sequence[float]) -> str:
    if not found:
        return "not run"
    return f"{statistics.mean(found):.3f} ({min(found):.3f}–{max(found):.3f})"


def plot(result: dict[str, Any]) -> str:
    """Draw every network as a dot, and the means as lines."""
    width, height, margin = 360, 240, 44
    groups = list(grouped(result).items())
    parts = []
    for down, (data, rows) in enumerate(groups):
        for across, name in enumerate(shown_scores(rows)):
            body = _panel(rows, name, width - 2 * margin, height - 2 * margin)
            x, y = across * width + margin, down * height + margin
            parts.append(
                f'<g transform="translate({x} {y})"><text y="-14" font-weight="600">'
                f"{data}: {NAMES[name]}</text>{body}</g>"
            )
    legend = "".join(
        f'<circle cx="{margin + 150 * place}" cy="{len(groups) * height + 8}" r="4" '
        f'fill="{COLOURS[arm]}"/><text x="{margin + 8 + 150 * place}" '
        f'y="{len(groups) * height + 12}">{arm}</text>'
        for place, arm in enumerate(ARMS)
    )
    size = f'viewBox="0 0 {2 * width} {len(groups) * height + 30}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}{legend}</svg>\n"
    )


def _panel(rows: Sequence[dict[str, Any]], name: str, width: float, height: float) -> str:
    everything = [row["scores"][name] for row in rows]
    low, high = min(everything), max(everything)

    def place(column: int, arm: int, value: float) -> tuple[float, float]:
        x = width * (column + 0.5) / len(IMAGES) + 7 * (arm - 1.5)
        return x, height * (1 - (value - low) / ((high - low) or 1))

    parts = [f'<path d="M0 0 V{height} H{width}" fill="none" stroke="#999"/>']
    parts += [
        f'<text x="-6" y="{y + 4}" text-anchor="end">{value:.2f}</text>'
        for value, y in ((high, 0.0), (low, height))
    ]
    for column, images in enumerate(IMAGES):
        x = width * (column + 0.5) / len(IMAGES)
        label = f"{_count(rows, images)} images"
        parts.append(f'<text x="{x}" y="{height + 18}" text-anchor="middle">{label}</text>')
    for number, arm in enumerate(ARMS):
        line = []
        for column, images in enumerate(IMAGES):
            found = values(rows, images, arm, name)
            for value in found:
                x, y = place(column, number, value)
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[arm]}" '
                    'fill-opacity=".55"/>'
                )
            if found:
                x, y = place(column, number, statistics.mean(found))
                line.append(f"{x:.1f},{y:.1f}")
        parts.append(
            f'<polyline points="{" ".join(line)}" fill="none" stroke="{COLOURS[arm]}" '
            'stroke-width="1.5"/>'
        )
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
