"""Evaluation: the scores of the answers that the service would give, on images held out."""

import json
import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model import averaging as averaging_module
from model.artefact import Averaging
from model.errors import DatasetError
from model.instances import InstanceRule
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, Model, Segmentation, output_for
from tests.conftest import MakeArtefact, manifest_of
from tests.training.files import write_pair
from tests.training.oracle import DEPTH_1, Oracle, narrow, oracle, shifted, squares
from training.data.census import take_census
from training.data.dataset import AnnotatedImage, Dataset, digest, read_dataset
from training.data.labels import objects_of
from training.evaluate import (
    choose_images,
    evaluate,
    group_by,
    infer,
    main,
    main_score,
    predict,
    read_for,
)
from training.metrics.evaluation import Evaluation
from training.plan import make_plan
from training.settings import FitSettings

BLOBS = Path(__file__).parents[2] / "docs" / "samples" / "blobs"
MEMBRANES = BLOBS.parent / "membranes"


class Lazy(Sequence[AnnotatedImage]):
    """Images drawn when they are asked for, which know how many others are held at that time."""

    def __init__(self, count: int) -> None:
        self.asked: list[int] = []
        self.held: list[int] = []
        self._count = count
        self._pixels: list[weakref.ref[NDArray[Any]]] = []

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        self.held.append(sum(reference() is not None for reference in self._pixels))
        entry = squares(f"image-{index}")
        self._pixels.append(weakref.ref(entry.image))
        return entry


def test_a_perfect_model_has_perfect_scores() -> None:
    found = evaluate(Oracle(), [squares("a"), squares("b")])
    values = {name: score.value for name, score in found.scores.items()}
    calibration = values.pop("calibration_error")
    wrong = {"warping_error", "pixel_error", "hausdorff_95"}
    assert found.images == ("a", "b")
    assert {name for name, value in values.items() if value == 0.0} == wrong
    assert {name for name, value in values.items() if value == 1.0} == values.keys() - wrong
    assert calibration == pytest.approx(0.12, abs=0.01), "bright pixels have a probability of 0.88"


def test_every_score_of_the_field_is_there() -> None:
    assert set(evaluate(Oracle(), [squares("a")]).scores) == {
        *("v_rand", "v_info", "v_rand_best", "v_info_best", "warping_error", "pixel_error"),
        *("iou", "iou_0", "iou_1", "dice", "dice_0", "dice_1", "boundary_f1", "hausdorff_95"),
        *("seg", "ap50", "ap60", "ap70", "ap80", "ap90", "ap", "ap50_by_image", "f1", "pq"),
        "calibration_error",
    }


def test_the_scores_are_those_of_the_label_map_at_the_artefacts_threshold() -> None:
    """Bright pixels have a probability of 0.88: at 0.95 nothing is left of them."""
    for threshold, expected in ((0.85, 1.0), (0.95, 0.0)):
        found = evaluate(oracle(decision_threshold=threshold), [squares("a")])
        assert found.scores["iou_1"].value == expected
        assert found.threshold == threshold


def test_the_best_threshold_does_not_depend_on_the_artefacts() -> None:
    found = [evaluate(oracle(decision_threshold=bar), [squares("a")]).best for bar in (0.85, 0.95)]
    assert found[0] == found[1] is not None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (oracle(), "v_rand"),
        (oracle(num_classes=3), "iou"),
        (oracle(label_kind="instance"), "ap50"),
    ],
)
def test_the_main_score_follows_from_the_kind_of_labels(model: Oracle, name: str) -> None:
    halves = squares("a").semantic.copy()
    halves[:, [25, 80]] = 0
    found = evaluate(model, [squares("a", halves), squares("b")])
    assert main_score(model.manifest) == name
    assert found.main == (name, found.scores[name].value)
    assert 0 < found.main[1] < 1


def test_the_main_score_is_the_one_of_the_record_if_it_has_one() -> None:
    record = oracle().manifest.training.model_copy(update={"main_score": "iou"})
    found = evaluate(oracle(training=record), [shifted("a", 8)])
    assert found.main == ("iou", found.scores["iou"].value)
    assert found.best is None


def test_one_thing_on_a_large_background_is_scored_by_whether_it_is_found() -> None:
    """V_rand looks at what is annotated alone, and finds it undivided whatever was found."""
    drawn = np.zeros((90, 110), np.uint8)
    drawn[5:35, 5:45] = 1
    image = np.where(drawn, 200, 0).astype(np.uint8)[None]
    entry = AnnotatedImage("a", image, drawn, objects_of(drawn))
    plan = make_plan(take_census([entry]), FitSettings(out=Path("run")), 1 << 33)
    record = oracle().manifest.training.model_copy(update={"main_score": plan.main_score})
    found, missed = (
        evaluate(oracle(decision_threshold=bar, training=record), [entry]) for bar in (0.85, 0.95)
    )
    assert missed.scores["v_rand"].value == 1.0
    assert found.main[1] == 1.0
    assert missed.main[1] < 0.5


def test_thresholds_are_swept_for_semantic_labels_of_two_classes_alone() -> None:
    for model in (oracle(num_classes=3), oracle(label_kind="instance")):
        found = evaluate(model, [squares("a")])
        assert found.best is None
        assert "v_rand_best" not in found.scores


def test_with_more_classes_every_class_has_its_boundary_scores() -> None:
    scores = evaluate(oracle(num_classes=3), [squares("a")]).scores
    assert scores["boundary_f1_1"].value == scores["boundary_f1"].value == 1.0
    assert math.isnan(scores["boundary_f1_2"].value)


def test_objects_are_counted_over_all_images() -> None:
    found = evaluate(Oracle(), [squares("a"), narrow("b")])
    assert found.scores["f1"].value == pytest.approx(1 / 2)
    assert found.scores["ap50"].value == pytest.approx(4 / 12)
    assert found.scores["ap50_by_image"].value == pytest.approx(1 / 2)


def test_an_image_is_asked_for_once_and_let_go_before_the_next() -> None:
    images = Lazy(4)
    assert evaluate(Oracle(), images).images == tuple(f"image-{index}" for index in range(4))
    assert images.asked == [0, 1, 2, 3]
    assert images.held == [0, 0, 0, 0]


def test_of_no_image_there_is_no_evaluation() -> None:
    with pytest.raises(DatasetError, match="no image to score"):
        evaluate(Oracle(), [])


def test_what_is_found_where_the_annotation_is_to_be_ignored_is_no_error() -> None:
    """One of the four objects that the model finds is neither there nor background."""
    entry = squares("a")
    ignored = np.zeros(entry.semantic.shape, bool)
    ignored[48:82, 58:102] = True
    drawn = squares("a", np.where(ignored, 0, entry.semantic).astype(np.uint8))
    left_out = evaluate(Oracle(), [replace(drawn, ignored=ignored)]).scores
    counted = evaluate(Oracle(), [drawn]).scores
    for name in ("ap50", "seg", "f1", "iou", "dice", "boundary_f1", "v_rand"):
        assert left_out[name].value == 1.0, name
    for name in ("pixel_error", "hausdorff_95", "warping_error"):
        assert left_out[name].value == 0.0, name
        assert counted[name].value > 0.0, name
    assert counted["ap50"].value == 3 / 4


@pytest.mark.parametrize(("rule", "objects"), [(None, 1), (InstanceRule(seed_threshold=0.8), 2)])
def test_objects_are_told_apart_by_the_artefacts_rule(
    rule: InstanceRule | None, objects: int
) -> None:
    """Two cells of probability 0.88 with a ridge of 0.73 between them, which is foreground too."""
    semantic = np.zeros((60, 60), np.uint8)
    semantic[10:50, 10:50] = 1
    image = semantic * np.uint8(200)
    image[10:50, 29:31] = 150
    drawn = np.where(np.arange(60) < 30, 1, 2).astype(np.int32) * semantic
    entry = AnnotatedImage("a", image[None], semantic, drawn)
    model = oracle(label_kind="instance", instances=rule, decision_threshold=0.6)
    scores = evaluate(model, [entry]).scores
    assert scores["iou_1"].value == 1.0
    assert scores["f1"].value == {1: pytest.approx(2 / 3), 2: 1.0}[objects]
    assert scores["ap90"].value == {1: 0.0, 2: 1.0}[objects]


@pytest.mark.parametrize("rule", [None, InstanceRule(seed_threshold=0.8, smallest_area=9)])
def test_objects_are_those_that_the_service_answers(rule: InstanceRule | None) -> None:
    model = oracle(label_kind="instance", instances=rule, decision_threshold=0.6)
    image = np.random.default_rng(0).integers(0, 256, (1, 90, 110)).astype(np.uint8)
    output = output_for("instances", model.manifest, "none")
    served = Segmentation.begin(image, model.manifest, DEFAULT_SHAPES, output=output)
    served.complete(model)
    _, labels, found = predict(model, image, "none")
    np.testing.assert_array_equal(found, served.objects().ids)
    np.testing.assert_array_equal(labels, served.labels())


def test_probabilities_are_averaged_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Averaging] = []

    def noted(
        image: NDArray[Any], model: Model, edges: Sequence[int], averaging: Averaging
    ) -> NDArray[np.float32]:
        asked.append(averaging)
        return np.zeros((2, *image.shape[1:]), np.float32)

    monkeypatch.setattr(averaging_module, "probabilities", noted)
    assert evaluate(Oracle(), [squares("a")], "rotations").averaging == "rotations"
    assert evaluate(Oracle(), [squares("a")]).averaging == "none"
    assert asked == ["rotations", "none"]


def test_averaging_over_rotations_leaves_a_perfect_model_perfect() -> None:
    assert evaluate(Oracle(), [squares("a")], "rotations").scores["ap90"].value == 1.0


def test_logits_cover_the_whole_image() -> None:
    logits = infer(Oracle(), squares("a").image)
    assert logits.shape == (2, 90, 110)
    np.testing.assert_array_equal(logits[1] > 0, squares("a").semantic == 1)


@pytest.fixture
def dataset() -> Dataset:
    return read_dataset(BLOBS)


def trained_on(
    dataset: Dataset, training: tuple[str, ...], held_out: tuple[str, ...], digests: bool = True
) -> Oracle:
    images = dataset.named(training)
    record = manifest_of(DEPTH_1).training.model_copy(
        update={
            "data_sha256": dataset.sha256(),
            "training_images": training,
            "training_sha256": tuple(map(digest, images)) if digests else (),
            "validation_images": held_out,
        }
    )
    return Oracle(manifest_of(DEPTH_1, training=record))


class TestRead:
    def test_data_of_other_classes_than_the_artefacts_is_refused(self) -> None:
        with pytest.raises(DatasetError, match=r"semantic labels of 2 classes; tiny knows 3"):
            read_for(oracle(num_classes=3), MEMBRANES)

    def test_the_artefacts_own_data_is_read_as_its_training_read_it(self) -> None:
        """Its masks look like classes, but it was trained on them as objects."""
        as_objects = read_dataset(MEMBRANES, "instance")
        fields = {"label_kind": "instance", "data_sha256": as_objects.sha256()}
        record = manifest_of(DEPTH_1).training.model_copy(update=fields)
        found = read_for(oracle(training=record, label_kind="instance"), MEMBRANES)
        assert found.label_kind == "instance"

    def test_a_mask_has_an_object_in_each_of_its_components(self) -> None:
        found = read_for(oracle(label_kind="instance"), MEMBRANES)
        assert found.label_kind == "semantic"
        np.testing.assert_array_equal(found[0].objects, objects_of(found[0].semantic))

    def test_other_data_of_objects_is_read_as_objects(self, tmp_path: Path) -> None:
        """A few ids, one of them in several places, look like classes."""
        labels = np.zeros((40, 40), np.uint8)
        for number in range(1, 4):
            labels[3 : 3 + 6 * number, 10 * number : 10 * number + 8] = number
        labels[30:40:2, 0:10:2] = 1
        write_pair(tmp_path, labels, labels)
        assert read_dataset(tmp_path).label_kind == "semantic"
        [entry] = read_for(oracle(label_kind="instance"), tmp_path)
        np.testing.assert_array_equal(entry.objects, labels)

    def test_other_data_may_lack_a_class(self, tmp_path: Path) -> None:
        """One region a class would be taken for objects, were the artefact's labels not classes."""
        model = self.trained_on_values((0, 60, 130))
        write_pair(tmp_path, squares("a").image[0], 130 * squares("a").semantic)
        dataset = read_for(model, tmp_path)
        assert (dataset.label_kind, dataset.num_classes) == ("semantic", 3)
        np.testing.assert_array_equal(dataset[0].semantic, 2 * squares("a").semantic)
        scores = evaluate(model, dataset).scores
        assert scores["iou_0"].value == 1.0
        assert scores["iou_1"].value == scores["iou_2"].value == 0.0

    @pytest.mark.parametrize(("trained", "given"), [((0, 255), 1), ((0, 1), 255), ((), 7)])
    def test_a_mask_is_one_whatever_white_is_called(
        self, tmp_path: Path, trained: tuple[int, ...], given: int
    ) -> None:
        write_pair(tmp_path, squares("a").image[0], given * squares("a").semantic)
        model = self.trained_on_values(trained, num_classes=2)
        np.testing.assert_array_equal(read_for(model, tmp_path)[0].semantic, squares("a").semantic)

    def test_values_that_training_did_not_know_are_refused(self, tmp_path: Path) -> None:
        write_pair(tmp_path, squares("a").image[0], 7 * squares("a").semantic)
        with pytest.raises(DatasetError, match=r"value\(s\) 7, .* knows the value\(s\) 0, 60, 130"):
            read_for(self.trained_on_values((0, 60, 130)), tmp_path)

    def trained_on_values(self, values: tuple[int, ...], num_classes: int = 3) -> Oracle:
        model = oracle(num_classes)
        update = {"label_values": values}
        return oracle(num_classes, training=model.manifest.training.model_copy(update=update))

    def test_pixels_of_the_ignored_value_are_marked(self, tmp_path: Path) -> None:
        labels = np.zeros((40, 40), np.uint8)
        labels[10:20, 10:20], labels[30:, 30:] = 1, 9
        for folder, pixels in (("images", labels), ("labels", labels)):
            (tmp_path / folder).mkdir()
            Image.fromarray(pixels).save(tmp_path / folder / "a.png")
        entry = read_for(Oracle(), tmp_path, ignore=9)[0]
        assert entry.ignored is not None
        np.testing.assert_array_equal(entry.ignored, labels == 9)

    def test_the_artefacts_ignored_value_is_ignored_unless_another_is_asked_for(
        self, tmp_path: Path
    ) -> None:
        for number in range(2):
            entry = squares(f"t{number}")
            labels = entry.semantic.copy()
            labels[48:82, 58:102] = 9
            write_pair(tmp_path, entry.image[0], labels, entry.name)
        trained_on = read_dataset(tmp_path, "semantic", 9).sha256()
        update = {"ignore": 9, "data_sha256": trained_on}
        record = oracle().manifest.training.model_copy(update=update)
        trained, asked = oracle(training=record), oracle()
        found = evaluate(trained, read_for(trained, tmp_path))
        assert found.as_dict() == evaluate(asked, read_for(asked, tmp_path, 9)).as_dict()
        assert found.scores["pixel_error"].value == 0.0
        assert read_for(trained, tmp_path, 1).ignore == 1

    def test_an_ignored_value_says_nothing_about_other_data(self, tmp_path: Path) -> None:
        write_pair(tmp_path, squares("a").image[0], 9 * squares("a").semantic, "a")
        record = oracle().manifest.training.model_copy(update={"ignore": 9})
        assert read_for(oracle(training=record), tmp_path).ignore is None


class TestChoice:
    def test_what_the_artefact_was_trained_on_is_left_out(self, dataset: Dataset) -> None:
        first, *others = dataset.names
        model = trained_on(dataset, (first,), held_out=())
        assert choose_images(model, dataset, everything=False).names == tuple(others)

    def test_a_training_image_under_another_name_is_left_out(
        self, dataset: Dataset, tmp_path: Path
    ) -> None:
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
            for new, old in (("x", dataset.names[0]), ("y", dataset.names[1])):
                [file] = (BLOBS / folder).glob(f"{old}.*")
                (tmp_path / folder / f"{new}{file.suffix}").write_bytes(file.read_bytes())
        model = trained_on(dataset, dataset.names[:1], held_out=())
        assert choose_images(model, read_dataset(tmp_path), everything=False).names == ("y",)

    def test_without_digests_the_held_out_part_of_the_same_data_is_scored(
        self, dataset: Dataset
    ) -> None:
        *training, last = dataset.names
        model = trained_on(dataset, tuple(training), held_out=(last,), digests=False)
        assert choose_images(model, dataset, everything=False).names == (last,)

    def test_without_digests_every_image_of_other_data_is_scored(self, dataset: Dataset) -> None:
        some = dataset.subset([0, 1])
        model = trained_on(some, some.names, held_out=(), digests=False)
        assert choose_images(model, dataset, everything=False).names == dataset.names

    def test_every_image_is_scored_where_that_is_asked_for(self, dataset: Dataset) -> None:
        model = trained_on(dataset, dataset.names, held_out=())
        assert choose_images(model, dataset, everything=True).names == dataset.names

    @pytest.mark.parametrize("digests", [True, False])
    def test_where_every_image_was_trained_on_there_is_nothing_to_score(
        self, dataset: Dataset, digests: bool
    ) -> None:
        model = trained_on(dataset, dataset.names, held_out=(), digests=digests)
        with pytest.raises(DatasetError, match=r"trained on every image of .*blobs; .* --all"):
            choose_images(model, dataset, everything=False)


class TestGroups:
    @pytest.fixture
    def evaluation(self) -> Evaluation:
        return evaluate(Oracle(), [squares("a"), shifted("b", 8), narrow("c")])

    @pytest.mark.parametrize("header", ["id,Kind,other", '"id","kind","other, in px"'])
    def test_images_are_scored_by_a_column_of_the_index(
        self, evaluation: Evaluation, tmp_path: Path, header: str
    ) -> None:
        (tmp_path / "index.csv").write_text(f"{header}\na,dark,1\nb,bright,2\nc,dark,3\n")
        groups = group_by(tmp_path, "kind", evaluation)
        assert {name: of.images for name, of in groups.items()} == {
            "bright": ("b",),
            "dark": ("a", "c"),
        }
        assert groups["dark"].scores["ap50"].value == pytest.approx(4 / 12)

    def test_a_column_that_there_is_not_is_refused(
        self, evaluation: Evaluation, tmp_path: Path
    ) -> None:
        (tmp_path / "index.csv").write_text("id;kind\na;dark\n")
        with pytest.raises(DatasetError, match=r"index\.csv has no column group"):
            group_by(tmp_path, "group", evaluation)

    def test_an_image_that_the_index_lacks_is_refused(
        self, evaluation: Evaluation, tmp_path: Path
    ) -> None:
        (tmp_path / "index.csv").write_text("id,kind\na,dark\nb,dark\n")
        with pytest.raises(DatasetError, match=r"lacks 1 image\(s\), first c"):
            group_by(tmp_path, "kind", evaluation)

    def test_where_there_is_no_index_the_file_is_named(
        self, evaluation: Evaluation, tmp_path: Path
    ) -> None:
        with pytest.raises(DatasetError, match=r"index\.csv cannot be read"):
            group_by(tmp_path, "kind", evaluation)


AS_OBJECTS = oracle(label_kind="instance").manifest.training


class TestCommand:
    @pytest.fixture
    def artefact(self, make_artefact: MakeArtefact) -> Path:
        """Write an artefact that was trained on the first of the blobs."""
        dataset = read_dataset(BLOBS)
        digests = (digest(dataset[0]),)
        record = AS_OBJECTS.model_copy(update={"training_sha256": digests})
        return make_artefact(training=record)

    def score(self, artefact: Path, file: Path, *options: str) -> dict[str, Any]:
        assert (
            main([str(artefact), str(BLOBS), "--device", "cpu", "--json", str(file), *options]) == 0
        )
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def test_the_json_repeats(self, artefact: Path, tmp_path: Path) -> None:
        one, other = (self.score(artefact, tmp_path / name) for name in ("1.json", "2.json"))
        assert one == other

    def test_the_json_names_the_file_that_was_scored(self, artefact: Path, tmp_path: Path) -> None:
        found = self.score(artefact, tmp_path / "scores.json")
        runtime = Runtime(artefact, "cpu")
        named = ("model", "sha256", "provider", "precision", "images")
        assert {name: found[name] for name in named} == {
            "model": "tiny",
            "sha256": runtime.artefact.sha256,
            "provider": "cpu",
            "precision": "fp32",
            "images": ["blobs-001", "blobs-002"],
        }
        assert set(found["by_image"]) == {"blobs-001", "blobs-002"}

    def test_all_images_are_scored_with_the_option_all(
        self, artefact: Path, tmp_path: Path
    ) -> None:
        found = self.score(artefact, tmp_path / "scores.json", "--all")
        assert found["images"] == ["blobs-000", "blobs-001", "blobs-002"]

    def test_averaging_is_what_the_artefact_says_unless_another_is_asked_for(
        self, make_artefact: MakeArtefact, tmp_path: Path
    ) -> None:
        artefact = make_artefact(averaging="rotations", training=AS_OBJECTS)
        taken = [
            self.score(artefact, tmp_path / "scores.json", *words)["scores"]["averaging"]
            for words in ((), ("--average", "none"))
        ]
        assert taken == ["rotations", "none"]

    def test_what_is_printed_is_what_the_json_holds(
        self, artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores = self.score(artefact, tmp_path / "scores.json")["scores"]
        printed = capsys.readouterr().out
        assert "2 of 3 images of blobs, averaging none" in printed
        assert f"{scores['seg']['value']:.4f} [{scores['seg']['low']:.4f}" in printed

    def test_groups_are_printed_and_written(
        self, artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = tmp_path / "data"
        for folder in ("images", "labels"):
            (data / folder).mkdir(parents=True)
            for file in (BLOBS / folder).iterdir():
                (data / folder / file.name).write_bytes(file.read_bytes())
        (data / "index.csv").write_text("id,kind\nblobs-000,a\nblobs-001,b\nblobs-002,c\n")
        file = tmp_path / "scores.json"
        words = [str(artefact), str(data), "--device", "cpu", "--json", str(file), "--by", "kind"]
        assert main(words) == 0
        assert "all (2)" in (printed := capsys.readouterr().out)
        assert "b (1)" in printed
        assert set(json.loads(file.read_text())["groups"]) == {"b", "c"}

    @pytest.mark.parametrize("words", [["none.onnx", str(BLOBS)], ["MODEL", "nowhere"]])
    def test_the_command_says_in_one_line_what_is_wrong(
        self, artefact: Path, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([word.replace("MODEL", str(artefact)) for word in words]) == 1
        assert capsys.readouterr().err.count("\n") == 1
