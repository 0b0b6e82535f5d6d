"""Evaluation: the scores of the answers that the service would give, on images held out."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.artefact import Manifest
from model.errors import DatasetError
from model.runtime import Runtime
from tests.training.conftest import BLOBS, Run, make_manifest
from training.dataset import AnnotatedImage, Dataset
from training.evaluate import best_threshold, choose_images, evaluate, infer, main, report, table
from training.labels import objects_of


@dataclass(frozen=True)
class Oracle:
    """A model of depth 1 whose logits are the scaled pixels: bright is class 1."""

    manifest: Manifest = field(default_factory=lambda: make_manifest(Architecture(depth=1)))

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        halo = self.manifest.geometry.halo
        inner = tiles[:, :, halo:-halo, halo:-halo]
        others = self.manifest.architecture.num_classes - 2
        return np.concatenate([-inner, inner, *[inner - 9] * others], axis=1)


def with_threshold(threshold: float) -> Oracle:
    manifest = make_manifest(Architecture(depth=1))
    return Oracle(manifest.model_copy(update={"decision_threshold": threshold}))


def squares(name: str, levels: tuple[int, int] = (0, 200)) -> AnnotatedImage:
    """Draw four objects in an image larger than a tile of the smallest kinds."""
    semantic = np.zeros((90, 110), np.uint8)
    for top, left in ((5, 5), (5, 60), (50, 5), (50, 60)):
        semantic[top : top + 30, left : left + 40] = 1
    image = np.where(semantic, levels[1], levels[0]).astype(np.uint8)
    return AnnotatedImage(name, image[None], semantic, objects_of(semantic))


def trained_on(dataset: Dataset, training: tuple[str, ...], held_out: tuple[str, ...]) -> Oracle:
    manifest = make_manifest(Architecture(depth=1))
    record = manifest.training.model_copy(
        update={
            "data_sha256": dataset.sha256(),
            "training_images": training,
            "validation_images": held_out,
        }
    )
    return Oracle(manifest.model_copy(update={"training": record}))


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(Path("squares"), "semantic", 2, tuple(map(squares, "abc")))


def test_a_perfect_model_has_perfect_scores() -> None:
    found = evaluate(Oracle(), [squares("a"), squares("b")])
    assert found.images == ("a", "b")
    assert found.scores.as_dict() == {
        "v_rand": 1.0,
        "v_info": 1.0,
        "pixel_error": 0.0,
        "iou": [1.0, 1.0],
        "images": 2,
    }


def test_the_scores_are_those_of_the_label_map_at_the_artefacts_threshold() -> None:
    """Bright pixels have a probability of 0.88: at 0.95 nothing is left of them."""
    assert evaluate(with_threshold(0.85), [squares("a")]).scores.iou == (1.0, 1.0)
    assert evaluate(with_threshold(0.95), [squares("a")]).scores.iou[1] == 0.0


def test_the_best_threshold_does_not_depend_on_the_artefacts() -> None:
    found = [evaluate(with_threshold(bar), [squares("a")]).best for bar in (0.85, 0.95)]
    assert found[0] == found[1]


def test_more_than_two_classes_have_no_best_threshold() -> None:
    model = Oracle(make_manifest(Architecture(depth=1, num_classes=3)))
    assert evaluate(model, [squares("a")]).best is None


def test_logits_cover_the_whole_image() -> None:
    logits = infer(Oracle(), squares("a").image)
    assert logits.shape == (2, 90, 110)
    np.testing.assert_array_equal(logits[1] > 0, squares("a").semantic == 1)


def test_the_best_threshold_is_one_of_the_probability_of_class_1() -> None:
    """Cells of probability 0.9, a border of 0.8: they part at 0.85 alone, or are lost."""
    objects = np.repeat([[1] * 5 + [0] + [2] * 5], 8, axis=0).astype(np.int32)
    probability = np.where(objects > 0, 0.9, 0.82)
    logits = np.stack([np.zeros((8, 11)), np.log(probability / (1 - probability))])
    assert best_threshold([logits.astype(np.float32)], [objects]).threshold == 0.85


class TestChoice:
    def test_of_the_data_that_it_was_trained_on_the_held_out_part_is_scored(
        self, dataset: Dataset
    ) -> None:
        model = trained_on(dataset, ("a", "c"), held_out=("b",))
        chosen = choose_images(model, dataset, everything=False)
        assert [entry.name for entry in chosen] == ["b"]

    def test_of_other_data_with_the_same_names_every_image_is_scored(
        self, dataset: Dataset
    ) -> None:
        other = Dataset(dataset.path, "semantic", 2, (squares("a", (0, 201)), *dataset.images[1:]))
        model = trained_on(other, ("a", "c"), held_out=("b",))
        assert choose_images(model, dataset, everything=False) == dataset.images

    def test_every_image_is_scored_where_that_is_asked_for(self, dataset: Dataset) -> None:
        model = trained_on(dataset, ("a", "c"), held_out=("b",))
        assert choose_images(model, dataset, everything=True) == dataset.images

    def test_where_every_image_was_trained_on_there_is_nothing_to_score(
        self, dataset: Dataset
    ) -> None:
        model = trained_on(dataset, ("a", "b", "c"), held_out=())
        with pytest.raises(DatasetError, match=r"trained on every image of squares; .* --all"):
            choose_images(model, dataset, everything=False)


def test_the_table_has_a_row_for_every_score_and_class() -> None:
    rows = table(evaluate(Oracle(), [squares("a")]), ["background", "cell"]).splitlines()
    assert rows[:5] == [
        "V_rand                         1.000000",
        "V_info                         1.000000",
        "pixel error                    0.000000",
        "IoU background                 1.000000",
        "IoU cell                       1.000000",
    ]
    assert rows[5].startswith("best V_rand, at threshold 0.5 ")


def score(run: Run, file: Path, *options: str) -> dict[str, Any]:
    assert main([str(run.folder / "model.onnx"), str(BLOBS), "--json", str(file), *options]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_json_repeats(run: Run, tmp_path: Path) -> None:
    assert score(run, tmp_path / "1.json") == score(run, tmp_path / "2.json")


def test_the_json_names_the_file_that_was_scored(run: Run, tmp_path: Path) -> None:
    found = score(run, tmp_path / "scores.json")
    runtime = Runtime(run.folder / "model.onnx", "cpu")
    named = {name: found[name] for name in ("model", "sha256", "provider", "precision", "images")}
    assert named == {
        "model": "blobs-of-mine",
        "sha256": runtime.artefact.sha256,
        "provider": "cpu",
        "precision": "fp16",
        "images": ["blobs-002"],
    }


def test_all_images_are_scored_with_the_option_all(run: Run, tmp_path: Path) -> None:
    found = score(run, tmp_path / "scores.json", "--all")
    assert found["images"] == ["blobs-000", "blobs-001", "blobs-002"]
    assert found["scores"]["images"] == 3


def test_the_command_prints_what_the_json_holds(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = score(run, tmp_path / "scores.json")["scores"]
    printed = capsys.readouterr().out
    assert "1 of 3 images of blobs" in printed
    assert f"{scores['v_rand']:.6f}" in printed
    assert f"at threshold {scores['best']['threshold']}  {scores['best']['v_info']:.6f}" in printed


@pytest.mark.parametrize("words", [["none.onnx", str(BLOBS)], ["MODEL", "nowhere"]])
def test_the_command_says_in_one_line_what_is_wrong(
    run: Run, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("MODEL", str(run.folder / "model.onnx")) for word in words]
    assert main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_json_has_no_value_that_json_does_not_have(run: Run) -> None:
    empty = AnnotatedImage(
        "empty", squares("a").image, np.zeros((90, 110), np.uint8), np.zeros((90, 110), np.int32)
    )
    model = Oracle(make_manifest(Architecture(depth=1, num_classes=3)))
    written = report(Runtime(run.folder / "model.onnx", "cpu"), evaluate(model, [empty]))
    assert json.loads(json.dumps(written, allow_nan=False))["scores"]["v_rand"] is None
