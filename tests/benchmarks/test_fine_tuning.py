"""The comparison of starts, with networks and images so small that it takes seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import fine_tuning
from model.architecture import Architecture
from model.errors import CheckpointError
from tests.conftest import MakeArtefact, manifest_of
from tests.training.files import noise, write_pair
from training.data.dataset import digest, read_dataset

SIDE, TILE_EDGE = 48, 60
IMAGES = 10
COLOUR = Architecture(in_channels=3, depth=1, base_channels=2)


def write(path: Path, result: dict[str, Any], _measured: str) -> bool:
    """Keep a result of whatever commit."""
    return bool(path.write_text(json.dumps(result)))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write grey images of two objects each, and let results go beside them."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number in range(IMAGES):
        labels[5:20, 5:20], labels[25:40, 25:40] = 2 * number + 1, 2 * number + 2
        write_pair(tmp_path / "tiny", noise((SIDE, SIDE), seed=number), labels, f"t{number}")
    monkeypatch.setattr(fine_tuning, "RESULT", tmp_path / "fine_tuning.json")
    monkeypatch.setattr(fine_tuning, "TILE_EDGE", TILE_EDGE)
    monkeypatch.setattr(fine_tuning, "keep", write)
    return tmp_path / "tiny"


def test_both_starts_are_trained_on_the_same_five_images_and_scored(
    data: Path, make_artefact: MakeArtefact, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = make_artefact(COLOUR)

    assert fine_tuning.main([str(data), "--init", str(parent), "--steps", "1"]) == 0

    result = json.loads(fine_tuning.RESULT.read_text())
    assert result["command"].endswith("fine_tuning tiny --init tiny.onnx --steps 1")
    assert result["training_images"] == ["t0", "t2", "t6", "t7", "t9"]
    assert result["scored_images"] == ["t4", "t5"]
    random, tuned = result["rows"].values()
    assert list(result["rows"]) == [fine_tuning.RANDOM, "tiny"]
    assert random != tuned
    assert {"ap50", "seg", "dice"} <= set(random)
    said = capsys.readouterr().out
    assert "Parameters are those of tiny, the first layer turned from colour to grey" in said
    assert said.splitlines()[-3].split() == ["start", "ap50", "seg", "dice"]


def test_a_parent_that_saw_what_is_scored_is_refused(
    data: Path, make_artefact: MakeArtefact
) -> None:
    seen = tuple(digest(entry) for entry in read_dataset(data))
    record = manifest_of(COLOUR).training.model_copy(update={"training_sha256": seen})
    parent = make_artefact(COLOUR, training=record)

    with pytest.raises(CheckpointError, match="trained on 2 of the 2 images held out"):
        fine_tuning.compare(data, parent, 1)
