"""The ablation, with networks and images so small that it takes seconds."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import ablation
from tests.conftest import DATA, ROOT
from tests.training.files import noise, write_pair
from training.data.dataset import read_dataset

SIDE, TILE_EDGE = 48, 204
IMAGES = 8
CIRCLE = "{http://www.w3.org/2000/svg}circle"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write images of two objects each; the last is in colour, so the network reads colour."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[5:20, 5:20], labels[25:40, 25:40] = 1, 2
    for number in range(IMAGES):
        shape = (SIDE, SIDE, 3) if number == IMAGES - 1 else (SIDE, SIDE)
        write_pair(tmp_path / "data", noise(shape, seed=number), labels, f"t{number}")
    return tmp_path / "data"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """Make all small; give where the results go."""
    files = {"RESULT": "ablation.json", "TABLE": "ablation.md", "PLOT": "ablation.svg"}
    paths = {name: tmp_path / file for name, file in files.items()}
    changes: dict[str, object] = {"BASE_CHANNELS": 2, "TILE_EDGE": TILE_EDGE}
    changes |= {"IMAGES": (2, None), "SEEDS": (0,), "MOST_SCORED": 2}
    for name, value in (changes | paths).items():
        monkeypatch.setattr(ablation, name, value)
    return paths


def test_every_network_is_trained_once_and_shown(
    data: Path, written: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"tiny={data}", "--steps", "1"]
    assert ablation.main(words) == 0
    rows = json.loads(written["RESULT"].read_text())["rows"]
    assert [(row["trial"]["images"], row["trial"]["arm"]) for row in rows] == [
        (images, arm) for images in (2, None) for arm in ablation.ARMS
    ]
    page = written["TABLE"].read_text()
    assert "seeds done: 1 of 1." in page
    assert "not run" not in page
    assert page.count("| both |") == 2
    circles = ElementTree.parse(written["PLOT"]).iter(CIRCLE)  # noqa: S314 (our own file)
    assert len(list(circles)) == 2 * len(rows) + len(ablation.ARMS)

    monkeypatch.setattr(ablation, "compare", None)  # a second start would fail if it trained
    assert ablation.main(words) == 0
    with pytest.raises(TypeError):
        ablation.main([*words, "--again"])


@pytest.mark.parametrize("changed", ["data", "steps"])
def test_scores_of_other_data_or_steps_are_neither_reused_nor_written_over(
    data: Path, written: dict[str, Path], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(ablation, "compare", lambda *_: None)
    kept = ablation.known(1, {"tiny": "0" * 64}, again=False)
    if changed == "steps":
        sha256 = read_dataset(data).sha256()
        kept |= {"data": {"tiny": sha256}, "steps": 2}
    written["RESULT"].write_text(json.dumps(kept))

    with pytest.raises(SystemExit, match=f"another {changed}.*--again"):
        ablation.main([f"tiny={data}", "--steps", "1"])
    assert json.loads(written["RESULT"].read_text()) == kept


def test_the_kept_result_says_which_data_it_was_measured_on() -> None:
    result = json.loads(ablation.RESULT.read_text())
    assert set(result["data"]) == {row["trial"]["data"] for row in result["rows"]}
    for name, sha256 in result["data"].items():
        if not (DATA / name).exists():
            pytest.skip(f"{DATA / name} is not here")
        assert read_dataset(DATA / name).sha256() == sha256


def gains(result: dict[str, Any], data: str, without: str, with_it: str) -> list[list[float]]:
    """Give what a second arm adds to SEG, for each number of images, seed by seed."""
    rows = ablation.grouped(result)[data]
    return [
        [
            second - first
            for first, second in zip(
                *(ablation.values(rows, images, arm, "seg") for arm in (without, with_it)),
                strict=True,
            )
        ]
        for images in ablation.IMAGES
    ]


def test_what_the_guide_says_of_border_weights_is_what_was_measured() -> None:
    result = json.loads(ablation.RESULT.read_text())
    guide = " ".join((ROOT / "docs" / "train-your-own.md").read_text().split())
    said = []
    for without, with_it in (("neither", "border weights"), ("elastic deformation", "both")):
        found = gains(result, "dsb2018", without, with_it)
        means = [statistics.mean(each) for each in found]
        better = sum(gain > 0 for each in found for gain in each)
        said.append(f"{min(means):.2f} to {max(means):.2f} (higher in {better} of 9 pairs")

    assert all(words in guide for words in said), said


def result_of(trials: Sequence[tuple[int, str, float]]) -> dict[str, Any]:
    """Give the result of networks, each of a seed and an arm with a score."""
    rows = [
        {
            "trial": {"data": "tiny", "images": 2, "arm": arm, "seed": seed},
            "training_images": 2,
            "scored_images": 3,
            "label_kind": "semantic",
            "ridges": False,
            "scores": {"v_rand": score, "dice": 0.5},
        }
        for seed, arm, score in trials
    ]
    said: dict[str, Any] = {"command": "python -m benchmarks.ablation"}
    said |= {"network": "2 base channels"}
    said |= {"data": {"tiny": "0" * 64}}
    return said | {"tile_edge": 204, "steps": 1, "rows": rows}


def test_the_table_shows_the_spread_and_what_was_not_run() -> None:
    page = ablation.table(result_of([(0, "both", 0.5), (1, "both", 0.7), (0, "neither", 0.9)]))
    assert "| 2 | both | 0.600 (0.500–0.700) | 0.500 (0.500–0.500) |" in page
    assert "| 2 | elastic deformation | not run | not run |" in page
    assert "seeds done: 0 of 3." in page
    assert "1 px" not in page


def test_the_page_and_the_plot_are_those_of_the_kept_result() -> None:
    result = json.loads(ablation.RESULT.read_text())
    assert ablation.TABLE.read_text() == ablation.table(result)
    assert ablation.PLOT.read_text() == ablation.plot(result)


def test_labels_of_objects_are_judged_by_objects_and_the_page_says_that_ridges_are_drawn() -> None:
    result = result_of([(0, "both", 0.5)])
    for row in result["rows"]:
        row |= {"label_kind": "instance", "ridges": True}
        row["scores"] = {"seg": 0.4, "dice": 0.5}
    page = ablation.table(result)
    assert "| images | | SEG | Dice |" in page
    assert "a background of 1 px is drawn" in page
