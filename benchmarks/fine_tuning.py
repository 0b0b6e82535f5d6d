"""What a shipped model brings where there are five annotated images.

    python -m benchmarks.fine_tuning t98g

Two networks are trained on the same five images, spread over those that are not held out, with the
same plan, seed and number of steps: one from random parameters, one from those of a shipped
artefact, as `training.fit --init` does. Both are scored on the same held-out images, each at the
decision threshold and with the rule for objects that suit it best there.

A shipped model has seen its own data, so this takes another set: held-out images that it was
trained on are refused. `nuclei` has never seen phase contrast, which `t98g` shows cells in. Tiles
of 380 px in place of 572 px make a step 2.3 times as cheap, for both alike.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.few_images import PLENTY, Material, score, train
from benchmarks.kept import NOT_KEPT, keep
from benchmarks.machine import commit, describe
from benchmarks.subject import ROOT
from model.architecture import Architecture
from model.runtime import Runtime
from training.data.census import take_census
from training.evaluate import main_score
from training.plan import make_plan
from training.preparation import require_unseen
from training.settings import FitSettings
from training.tiles.store import prepare
from training.validation import spread_over

RESULT = ROOT / "benchmarks" / "results" / "fine_tuning.json"
PARENT = ROOT / "model" / "pretrained" / "nuclei.onnx"
IMAGES = 5
MOST_SCORED = 12
"""Held-out images that both are scored on, spread over all."""
TILE_EDGE = 380
STEPS = 300
RANDOM = "random parameters"


def main(words: Sequence[str] | None = None) -> int:
    """Train both, print a table, and write the result; 3 if that is of no commit, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of annotated images")
    parser.add_argument("--init", type=Path, default=PARENT, help="artefact to start from")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args(words)
    measured = commit()
    result = compare(arguments.data, arguments.init, arguments.steps)
    print(table(result))
    return 0 if keep(RESULT, result, measured) else NOT_KEPT


def compare(data: Path, init: Path, steps: int) -> dict[str, Any]:
    """Train and score a network from random parameters, and one from an artefact's.

    Raises:
        DatasetError: if the data cannot be read or divided.
        ArtefactError: if the artefact cannot be read; the subclass says how.
        CheckpointError: if it was trained on a held-out image, or its network does not fit.
    """
    parent = Runtime(init, "cpu").artefact
    with tempfile.TemporaryDirectory() as folder:
        asked = settings_of(data, parent.manifest.architecture, Path(folder), steps)
        material = Material.read(asked, MOST_SCORED)
        require_unseen(material.manifest, material.scored, parent.manifest)
        training = list(spread_over(material.everything, IMAGES))
        census = take_census(training)
        plan = make_plan(census, asked, PLENTY)
        manifest = material.manifest.model_copy(update={"intensity": plan.intensity})
        store = prepare(asked.out / "store", training, manifest.architecture, plan)
        rows, rates = {}, {}
        for name, start in ((RANDOM, None), (parent.manifest.name, init)):
            settings = asked.model_copy(update={"init": start})
            own = make_plan(census, settings, PLENTY)
            network = train(settings, store, own, manifest.architecture)
            rows[name] = score(network, manifest, material.scored, own.compute)
            rates[name] = own.learning_rate
    return {
        "command": f"python -m benchmarks.fine_tuning {data.resolve().name} "
        f"--init {init.name} --steps {steps}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(),
        "parent": {"name": parent.manifest.name, "sha256": parent.sha256},
        "data": {"name": data.resolve().name, "sha256": material.sha256},
        "training_images": [entry.name for entry in training],
        "scored_images": [entry.name for entry in material.scored],
        "plan": plan.model_dump(mode="json", exclude={"reasons", "learning_rate"}),
        "learning_rates": rates,
        "seed": asked.seed,
        "main_score": main_score(manifest),
        "rows": rows,
    }


def settings_of(data: Path, network: Architecture, out: Path, steps: int) -> FitSettings:
    """Ask for a network that an artefact's parameters fit, and for no validation on the way."""
    return FitSettings(
        data=data,
        out=out,
        steps=steps,
        validate_every=steps,
        tile_edge=TILE_EDGE,
        batch=1,
        device="cpu",
        base_channels=network.base_channels,
        depth=network.depth,
        variant=network.variant,
    )


def table(result: dict[str, Any]) -> str:
    """Lay the main score, SEG and Dice of both out for a terminal."""
    names = list(dict.fromkeys([result["main_score"], "seg", "dice"]))
    lines = [f"{'start':<24}" + "".join(f"{name:>10}" for name in names)]
    for start, scores in result["rows"].items():
        lines.append(f"{start:<24}" + "".join(f"{scores[name]:>10.3f}" for name in names))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
