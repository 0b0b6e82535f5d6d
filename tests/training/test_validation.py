"""Validation: what settles a network, and that it is run as its artefact will be."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.architecture import Architecture
from model.artefact import Manifest
from model.instances import foreground
from model.network import UNet
from model.segmentation import softmax
from tests.training.conftest import make_manifest
from tests.training.files import noise, stripes, write_many, write_pair
from tests.training.networks import bright_is_object, drawn, manifest_for, write_spots
from training import validation
from training.data import dataset as dataset_module
from training.data.dataset import AnnotatedImage, Dataset, read_dataset
from training.data.forms import Pair
from training.data.split import bands, hold_out
from training.evaluate import infer
from training.metrics import mean_iou, sweep_overlap, sweep_thresholds
from training.tuning import tune
from training.validation import MOST_IMAGES, MOST_PIXELS, NetworkModel, settle, spread_over

CPU = torch.device("cpu")


def in_training(network: nn.Module, manifest: Manifest) -> NetworkModel:
    return NetworkModel(network.train(), manifest, CPU, "bfloat16")


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_spots(tmp_path_factory.mktemp("spots"))


@pytest.fixture
def model(spots: Dataset) -> NetworkModel:
    network = bright_is_object()
    return in_training(network, manifest_for(network, spots))


def of_kind(model: NetworkModel, **changes: Any) -> NetworkModel:
    training = model.manifest.training.model_copy(update=changes)
    manifest = model.manifest.model_copy(update={"training": training})
    return NetworkModel(model.network, manifest, CPU, model.compute)


class TestNetwork:
    def test_it_is_run_without_dropout(self) -> None:
        architecture = Architecture(depth=1, base_channels=4)
        model = in_training(drawn(architecture), make_manifest(architecture))
        tile = np.random.default_rng(0).standard_normal((1, 1, 44, 44), np.float32)
        np.testing.assert_array_equal(model.run(tile), model.run(tile))

    def test_its_logits_are_those_of_the_network_at_the_precision_of_training(self) -> None:
        architecture = Architecture(depth=1, base_channels=4)
        network = drawn(architecture)
        tile = np.random.default_rng(0).standard_normal((2, 1, 44, 46), np.float32)
        found = in_training(network, make_manifest(architecture)).run(tile)
        with torch.no_grad():
            expected = network.eval()(torch.from_numpy(tile)).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())

    def test_it_learns_nothing(self) -> None:
        network: UNet = drawn(Architecture(depth=1, base_channels=4))
        before = [parameter.detach().clone() for parameter in network.parameters()]
        in_training(network, make_manifest(network.architecture)).run(
            np.zeros((1, 1, 44, 44), np.float32)
        )
        for parameter, expected in zip(network.parameters(), before, strict=True):
            assert torch.equal(parameter, expected)
            assert parameter.grad is None


class TestInstanceLabels:
    def test_they_are_settled_by_the_best_way_to_tell_objects_apart(
        self, model: NetworkModel, spots: Dataset
    ) -> None:
        found = settle(model, spots)
        maps = [foreground(softmax(infer(model, entry.image))[1:]) for entry in spots]
        tuned = tune(maps, [entry.objects for entry in spots])
        assert (found.score, found.threshold) == ("ap50", tuned.threshold)
        assert found.rule == tuned.rule.model_dump()
        assert found.value > 0.9

    def test_what_is_ignored_is_no_object(self, model: NetworkModel, spots: Dataset) -> None:
        """The network finds it, and is not blamed."""
        entry = spots[0]
        ignored = entry.objects > 6
        kept = replace(
            entry,
            ignored=ignored,
            objects=np.where(ignored, 0, entry.objects),
            semantic=np.where(ignored, 0, entry.semantic).astype(np.uint8),
        )
        blamed = replace(kept, ignored=None)
        assert settle(model, [kept]).value > 0.9
        assert settle(model, [blamed]).value < 0.7

    def test_one_map_of_every_image_is_kept(
        self, model: NetworkModel, spots: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept: list[NDArray[Any]] = []

        def noted(maps: Sequence[NDArray[Any]], references: Sequence[NDArray[Any]]) -> Any:
            kept.extend(owner(found) for found in maps)
            return tune(maps, references)

        monkeypatch.setattr(validation, "tune", noted)
        settle(model, spots)
        assert [found.nbytes for found in kept] == [4 * 60 * 80] * len(spots)


def owner(array: NDArray[Any]) -> NDArray[Any]:
    """Give the array that holds the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class TestTwoClasses:
    def test_they_are_settled_by_the_threshold_of_the_best_v_rand(
        self, model: NetworkModel, spots: Dataset
    ) -> None:
        semantic = of_kind(model, label_kind="semantic")
        found = settle(semantic, spots)
        maps = [foreground(softmax(infer(model, entry.image))[1:]) for entry in spots]
        best = sweep_thresholds(maps, [entry.objects for entry in spots])
        assert (found.score, found.value, found.threshold) == (
            "v_rand",
            best.v_rand,
            best.threshold,
        )
        assert found.rule is None

    def test_where_the_record_says_so_by_the_threshold_of_the_best_iou(
        self, model: NetworkModel, spots: Dataset
    ) -> None:
        found = settle(of_kind(model, label_kind="semantic", main_score="iou"), spots)
        maps = [foreground(softmax(infer(model, entry.image))[1:]) for entry in spots]
        best = sweep_overlap(maps, [entry.semantic for entry in spots])
        assert (found.score, found.value, found.threshold) == ("iou", best.iou, best.threshold)
        assert found.rule is None

    def test_the_iou_is_that_of_pixels_that_are_not_ignored(
        self, model: NetworkModel, spots: Dataset
    ) -> None:
        """The network finds objects there, and is not blamed."""
        entry = spots[0]
        ignored = entry.objects > 6
        semantic = np.where(ignored, 0, entry.semantic).astype(np.uint8)
        by_iou = of_kind(model, label_kind="semantic", main_score="iou")
        blamed = replace(entry, semantic=semantic)
        kept = replace(blamed, ignored=ignored)
        assert settle(by_iou, [kept]).value > 0.9
        assert settle(by_iou, [blamed]).value < 0.8


class TestSeveralClasses:
    def images(self) -> list[AnnotatedImage]:
        entries = []
        for seed in range(3):
            random = np.random.default_rng(seed)
            image = random.integers(0, 255, (1, 50, 60)).astype(np.uint8)
            semantic = random.integers(0, 3, (50, 60)).astype(np.uint8)
            ignored = random.random((50, 60)) < 0.3
            semantic[ignored] = 0
            entries.append(
                AnnotatedImage(f"t{seed}", image, semantic, semantic.astype(np.int32), ignored)
            )
        return entries

    def test_they_are_scored_by_the_iou_where_there_is_an_annotation(self) -> None:
        network = drawn(Architecture(num_classes=3, depth=1, base_channels=4))
        manifest = manifest_for(network)
        training = manifest.training.model_copy(update={"label_kind": "semantic"})
        model = in_training(network, manifest.model_copy(update={"training": training}))
        entries = self.images()
        found = settle(model, entries)
        labels = [manifest.decide(infer(model, entry.image)) for entry in entries]
        counted = [~entry.ignored for entry in entries]  # type: ignore[operator]  # it is not None
        expected = mean_iou(
            [part[kept][None] for part, kept in zip(labels, counted, strict=True)],
            [entry.semantic[kept][None] for entry, kept in zip(entries, counted, strict=True)],
            3,
        )
        assert (found.score, found.value, found.threshold, found.rule) == (
            "iou",
            expected,
            None,
            None,
        )
        assert 0 < expected < 1


def test_what_is_settled_is_plain_numbers_that_a_checkpoint_holds(
    model: NetworkModel, spots: Dataset
) -> None:
    """A number of another library would make the checkpoint one that is not loaded again."""
    for kind, score in (("instance", None), ("semantic", None), ("semantic", "iou")):
        found = settle(of_kind(model, label_kind=kind, main_score=score), spots)
        assert type(found.value) is float
        assert type(found.threshold) is float
        assert all(type(value) in (int, float) for value in (found.rule or {}).values())


class Watched(Sequence[AnnotatedImage]):
    """Images whose annotations are watched: how many were in use when each next one was read."""

    def __init__(self, images: Dataset) -> None:
        self.images = images
        self.in_use: list[int] = []
        self.annotations: list[weakref.ref[Any]] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        self.in_use.append(sum(reference() is not None for reference in self.annotations))
        entry = self.images[index]
        objects, semantic = entry.objects.copy(), entry.semantic.copy()
        self.annotations += [weakref.ref(objects), weakref.ref(semantic)]
        return replace(entry, objects=objects, semantic=semantic)


@pytest.mark.parametrize(("classes", "score"), [(2, "v_rand"), (2, "iou"), (3, "iou")])
def test_where_no_rule_is_settled_images_are_let_go_one_by_one(
    tmp_path: Path, classes: int, score: str
) -> None:
    images = Watched(write_spots(tmp_path, count=6))
    network = drawn(Architecture(num_classes=classes, depth=1, base_channels=4))
    model = in_training(network, manifest_for(network))
    settle(of_kind(model, label_kind="semantic", main_score=score), images)
    assert max(images.in_use) <= 4, "both annotations of the last two images"


class Counted(Sequence[AnnotatedImage]):
    """Images drawn when they are asked for, and the most that were alive when one was."""

    def __init__(self, count: int) -> None:
        self.total = count
        self.most_alive = 0
        self.drawn: list[weakref.ref[Any]] = []

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(self.total)[index]]
        if index >= self.total:
            raise IndexError
        alive = sum(reference() is not None for reference in self.drawn)
        self.most_alive = max(self.most_alive, alive + 1)
        image = np.full((1, 4, 4), index, np.uint16)
        self.drawn.append(weakref.ref(image))
        objects = np.zeros((4, 4), np.int32)
        return AnnotatedImage(f"t{index}", image, objects.astype(np.uint8), objects)


class TestSpread:
    def test_few_images_are_all_looked_at(self) -> None:
        images = Counted(MOST_IMAGES)
        assert spread_over(images, MOST_IMAGES) is images

    def test_of_many_some_are_spread_over_all(self) -> None:
        names = [entry.name for entry in spread_over(Counted(101), 5)]
        assert names == ["t0", "t25", "t50", "t75", "t100"]

    def test_they_are_read_when_they_are_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        reader = getattr(dataset_module, "read_image")  # noqa: B009 (it is not exported)
        images = write_many(tmp_path, 30)

        def noted(pair: Pair) -> NDArray[Any]:
            read.append(pair.name)
            return np.asarray(reader(pair))

        monkeypatch.setattr(dataset_module, "read_image", noted)
        chosen = spread_over(images, 10)
        assert len(chosen) == 10
        assert not read
        assert [entry.name for entry in chosen] == read
        assert read[0] == "t0"
        assert read[-1] == "t29"

    def test_they_are_read_one_by_one(self) -> None:
        images = Counted(1000)
        chosen = spread_over(images, 10)
        assert len(chosen) == 10
        for _ in chosen:
            pass
        assert images.most_alive <= 2

    def test_of_large_images_fewer_are_taken(self, tmp_path: Path) -> None:
        """Four of them have the most pixels that there may be."""
        images = replace(write_many(tmp_path, 7), shapes=((1, 4096, 4096),) * 7)
        chosen = spread_over(images, MOST_IMAGES)
        assert MOST_PIXELS == 4 * 4096**2
        assert len(chosen) == 4
        assert len(spread_over(images[:4], MOST_IMAGES)) == 4

    def test_few_pixels_are_spread_over_all_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(validation, "MOST_PIXELS", 5 * 16)
        names = [entry.name for entry in spread_over(Counted(101), MOST_IMAGES)]
        assert names == ["t0", "t25", "t50", "t75", "t100"]

    def test_one_image_is_taken_however_large(self, tmp_path: Path) -> None:
        images = replace(write_many(tmp_path, 3), shapes=((1, 40000, 40000),) * 3)
        assert [entry.name for entry in spread_over(images[:0], 5)] == []
        assert len(spread_over(images, 5)) == len(spread_over(images[:1], 5)) == 1

    def test_the_one_region_of_a_single_image_is_taken(self, tmp_path: Path) -> None:
        write_pair(tmp_path, noise((24, 90)), stripes((24, 90)))
        _, held_out = hold_out(read_dataset(tmp_path), 4, 1)
        [entry] = spread_over(held_out, MOST_IMAGES)
        assert entry.semantic.shape == bands(24, 90, 4, 1)[1].shape


def test_a_model_of_two_classes_has_logits_of_the_image_s_size(
    model: NetworkModel, spots: Dataset
) -> None:
    logits: Tensor = torch.from_numpy(infer(model, spots[0].image))
    assert logits.shape == (2, 60, 80)
