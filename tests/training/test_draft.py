"""The draft of a manifest: what was trained on, and what a service has to know about it."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.architecture import Architecture
from model.artefact import Artefact, Manifest
from model.errors import DatasetError
from model.intensity import IntensityRule
from tests.training.files import noise, stripes, write_many, write_pair
from tests.training.small import make_plan, make_settings
from training.data.dataset import Dataset, digest, read_dataset
from training.data.split import split
from training.draft import PALETTE, class_names, draft_manifest


def classes(folder: Path, count: int) -> Dataset:
    """Write four images of stripes of several classes, each class in pieces."""
    for number in range(4):
        labels = (np.indices((24, 60))[1] // 3 % count).astype(np.uint8)
        write_pair(folder, noise(labels.shape, seed=number), labels, f"t{number}")
    return read_dataset(folder)


def draft(
    folder: Path, dataset: Dataset, plan: dict[str, Any] | None = None, **asked: Any
) -> Manifest:
    settings = make_settings(folder / "My run", data=dataset.path, **asked)
    return draft_manifest(settings, make_plan(**(plan or {})), dataset, *split(dataset, 4, 1))


class TestWhatWasTrainedOn:
    def test_every_image_is_named_on_its_side_of_the_split(self, tmp_path: Path) -> None:
        record = draft(tmp_path, write_many(tmp_path / "data", 4)).training
        assert record.training_images == ("t0", "t2", "t3")
        assert record.validation_images == ("t1",)

    def test_every_training_image_has_the_digest_of_its_pixels(self, tmp_path: Path) -> None:
        dataset = write_many(tmp_path / "data", 4)
        record = draft(tmp_path, dataset).training
        assert record.training_sha256 == tuple(digest(dataset[index]) for index in (0, 2, 3))

    def test_of_a_single_image_its_parts_and_the_whole_of_it_have(self, tmp_path: Path) -> None:
        """So that the file itself is not scored as unseen either."""
        write_pair(tmp_path / "data", noise((24, 90)), stripes((24, 90)))
        dataset = read_dataset(tmp_path / "data")
        training, _ = split(dataset, 4, 1)
        digests = draft(tmp_path, dataset).training.training_sha256
        assert digests == (*map(digest, training), digest(dataset[0]))

    def test_the_data_has_its_digest_and_the_name_of_its_folder(self, tmp_path: Path) -> None:
        dataset = write_many(tmp_path / "data", 4)
        record = draft(tmp_path, dataset).training
        assert (record.data, record.data_sha256) == ("data", dataset.sha256())

    def test_terms_and_citation_are_those_that_were_given(self, tmp_path: Path) -> None:
        given: dict[str, Any] = {
            "data_name": "Cells",
            "licence": "CC0",
            "citation": "A. Nonymous 2020",
        }
        record = draft(tmp_path, write_many(tmp_path / "data", 4), **given).training
        assert (record.data, record.licence, record.citation) == tuple(given.values())

    def test_the_kind_of_the_labels_is_that_of_the_data(self, tmp_path: Path) -> None:
        assert draft(tmp_path, write_many(tmp_path / "data", 4)).training.label_kind == "semantic"

    def test_the_values_of_classes_are_those_of_the_label_files(self, tmp_path: Path) -> None:
        for number in range(4):
            labels = 60 * (np.indices((24, 60))[1] // 3 % 3).astype(np.uint8)
            write_pair(tmp_path / "data", noise(labels.shape, seed=number), labels, f"t{number}")
        record = draft(tmp_path, read_dataset(tmp_path / "data")).training
        assert record.label_values == (0, 60, 120)

    def test_ids_of_objects_are_no_values_of_classes(self, tmp_path: Path) -> None:
        write_many(tmp_path / "data", 4)
        record = draft(tmp_path, read_dataset(tmp_path / "data", "instance")).training
        assert record.label_values == ()

    @pytest.mark.parametrize("value", [None, 1])
    def test_the_ignored_value_is_that_of_the_data(self, tmp_path: Path, value: int | None) -> None:
        classes(tmp_path / "data", 4)
        dataset = read_dataset(tmp_path / "data", ignore=value)
        assert draft(tmp_path, dataset).training.ignore == value

    def test_images_held_out_are_named_and_not_read(self, tmp_path: Path) -> None:
        dataset = write_many(tmp_path / "data", 4)
        training, validation = split(dataset, 4, 1)
        assert isinstance(validation, Dataset)
        unreadable = replace(validation, shapes=())
        asked = make_settings(tmp_path / "run", data=dataset.path)
        manifest = draft_manifest(asked, make_plan(), dataset, training, unreadable)
        assert manifest.training.validation_images == ("t1",)

    @pytest.mark.parametrize("score", ["v_rand", "iou"])
    def test_the_main_score_is_that_of_the_plan(self, tmp_path: Path, score: str) -> None:
        manifest = draft(tmp_path, write_many(tmp_path / "data", 4), {"main_score": score})
        assert manifest.training.main_score == score

    def test_the_command_names_no_folder_of_this_machine(self, tmp_path: Path) -> None:
        manifest = draft(tmp_path, write_many(tmp_path / "data", 4))
        assert shlex.split(manifest.training.command)[3:6] == ["data", "--out", "My run"]
        assert str(tmp_path) not in manifest.model_dump_json()


class TestWhatIsInherited:
    """By a run that begins from the parameters of another model."""

    def child(self, folder: Path, dataset: Dataset, parent: Manifest, **asked: Any) -> Manifest:
        settings = make_settings(folder / "child", data=dataset.path, **asked)
        artefact = Artefact(folder / "parent.onnx", "5" * 64, parent)
        return draft_manifest(settings, make_plan(), dataset, *split(dataset, 4, 1), artefact)

    def test_the_file_that_it_begins_from_is_named(self, tmp_path: Path) -> None:
        dataset = write_many(tmp_path / "data", 4)
        parent = draft(tmp_path, dataset)
        assert self.child(tmp_path, dataset, parent).training.began_from == "5" * 64
        assert not parent.training.began_from

    def test_images_that_the_parent_was_trained_on_were_trained_on(self, tmp_path: Path) -> None:
        first, second = write_many(tmp_path / "a", 4), classes(tmp_path / "b", 3)
        parent = draft(tmp_path, first)
        record = self.child(tmp_path, second, parent).training
        own = draft(tmp_path, second).training
        assert record.training_images == own.training_images
        assert record.training_sha256 == own.training_sha256 + parent.training.training_sha256

    def test_an_image_of_both_is_there_once(self, tmp_path: Path) -> None:
        dataset = write_many(tmp_path / "data", 4)
        parent = draft(tmp_path, dataset)
        record = self.child(tmp_path, dataset, parent).training
        assert record.training_sha256 == parent.training.training_sha256

    @pytest.mark.parametrize(
        ("own", "theirs", "expected"),
        [
            (
                {},
                {"licence": "CC BY", "citation": "A 2020"},
                ("unknown; began from my-run: CC BY", "began from my-run: A 2020"),
            ),
            ({"licence": "CC0", "citation": "B 2021"}, {"licence": "CC0"}, ("CC0", "B 2021")),
            (
                {"licence": "CC0", "citation": "B 2021"},
                {"licence": "CC BY", "citation": "A 2020"},
                ("CC0; began from my-run: CC BY", "B 2021; began from my-run: A 2020"),
            ),
            ({"licence": "CC0"}, {}, ("CC0; began from my-run: unknown", "")),
        ],
    )
    def test_its_terms_are_joined_to_those_of_the_data(
        self, tmp_path: Path, own: Any, theirs: Any, expected: tuple[str, str]
    ) -> None:
        dataset = write_many(tmp_path / "data", 4)
        parent = draft(tmp_path, dataset, **theirs)
        record = self.child(tmp_path, dataset, parent, **own).training
        assert (record.licence, record.citation) == expected


class TestWhatServingNeeds:
    def test_the_intensity_rule_is_that_of_the_plan(self, tmp_path: Path) -> None:
        rule = IntensityRule(kind="range", low=-5, high=300)
        manifest = draft(tmp_path, write_many(tmp_path / "data", 4), {"intensity": rule})
        assert manifest.intensity == rule

    def test_the_network_has_the_channels_and_classes_of_the_data(self, tmp_path: Path) -> None:
        manifest = draft(tmp_path, classes(tmp_path / "data", 3), base_channels=6, depth=2)
        assert manifest.architecture == Architecture(1, 3, 2, 6)

    @pytest.mark.parametrize("size", [None, 0.65])
    def test_the_size_of_a_pixel_is_the_one_given(self, tmp_path: Path, size: float | None) -> None:
        manifest = draft(tmp_path, write_many(tmp_path / "data", 4), pixel_size=size)
        assert manifest.pixel_size == size

    def test_the_model_has_the_name_of_its_folder(self, tmp_path: Path) -> None:
        assert draft(tmp_path, write_many(tmp_path / "data", 4)).name == "my-run"

    def test_threshold_rule_and_scores_are_not_known_yet(self, tmp_path: Path) -> None:
        manifest = draft(tmp_path, write_many(tmp_path / "data", 4))
        assert (manifest.decision_threshold, manifest.instances, manifest.scores) == (None,) * 3

    def test_an_image_is_segmented_once_unless_a_request_asks_for_more(
        self, tmp_path: Path
    ) -> None:
        assert draft(tmp_path, write_many(tmp_path / "data", 4)).averaging == "none"

    def test_the_software_is_named_with_its_versions(self, tmp_path: Path) -> None:
        software = draft(tmp_path, write_many(tmp_path / "data", 4)).software
        assert set(software) == {"python", "torch", "onnx", "unet-service"}
        assert all(software.values())


class TestClasses:
    @pytest.mark.parametrize(
        ("count", "names"),
        [(2, ["background", "object"]), (3, ["background", "class-1", "class-2"])],
    )
    def test_they_have_plain_names_where_none_are_given(
        self, tmp_path: Path, count: int, names: list[str]
    ) -> None:
        found = class_names(make_settings(tmp_path), classes(tmp_path / "data", count))
        assert list(found) == names

    def test_they_have_the_names_that_are_given(self, tmp_path: Path) -> None:
        manifest = draft(tmp_path, classes(tmp_path / "data", 2), classes=("cell", "membrane"))
        assert [(entry.id, entry.name) for entry in manifest.classes] == [
            (0, "cell"),
            (1, "membrane"),
        ]

    def test_names_that_are_not_as_many_as_the_classes_are_refused(self, tmp_path: Path) -> None:
        asked = make_settings(tmp_path, classes=("membrane", "cell"))
        said = r"has 3 classes, --classes names 2: membrane, cell\. .* say --labels semantic"
        with pytest.raises(DatasetError, match=said):
            class_names(asked, classes(tmp_path / "data", 3))

    def test_colours_are_told_apart_and_recur(self, tmp_path: Path) -> None:
        manifest = draft(tmp_path, classes(tmp_path / "data", 10))
        assert [entry.colour for entry in manifest.classes] == [*PALETTE, *PALETTE[:2]]
        assert len(set(PALETTE)) == len(PALETTE)
