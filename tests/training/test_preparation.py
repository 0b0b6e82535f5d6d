"""Preparation: what goes together, before anything is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.architecture import Architecture
from model.artefact import Manifest, TrainingRecord
from model.errors import CheckpointError, DatasetError
from tests.conftest import MakeArtefact, manifest_of
from tests.training.files import noise, stripes, write_many, write_pair
from tests.training.small import CPU, make_plan, make_settings
from training.data.dataset import Dataset, digest, read_dataset
from training.data.split import split
from training.draft import draft_manifest
from training.preparation import (
    begin,
    examine,
    read_plan,
    require_same_origin,
    require_unseen,
)
from training.run.distributed import World
from training.run.folder import RunFolder

NETWORK = Architecture(depth=1, base_channels=2)


def record_of(dataset: Dataset, fold: int, folds: int = 4, **changes: Any) -> TrainingRecord:
    """Write down a training on a data set of which a fold was held out."""
    settings = make_settings(Path("parent"), data=dataset.path)
    manifest = draft_manifest(settings, make_plan(), dataset, *split(dataset, folds, fold))
    return manifest.training.model_copy(update=changes)


def parent_of(dataset: Dataset, fold: int, **changes: Any) -> Manifest:
    return manifest_of(NETWORK, name="parent", training=record_of(dataset, fold, **changes))


def require(dataset: Dataset, fold: int, parent: Manifest) -> None:
    """Hold a fold of four out in a run that begins from the parent."""
    draft = manifest_of(NETWORK, training=record_of(dataset, fold))
    require_unseen(draft, split(dataset, 4, fold)[1], parent)


class TestParameters:
    """Of a model that a run begins from."""

    def test_with_the_fold_of_that_model_they_are_taken(self, tmp_path: Path) -> None:
        dataset = write_many(tmp_path, 8)
        require(dataset, 1, parent_of(dataset, 1))

    def test_images_that_they_were_learnt_from_are_not_held_out(self, tmp_path: Path) -> None:
        dataset = write_many(tmp_path, 8)
        said = (
            r"parent was trained on 2 of the 2 images held out, first t4: .* --folds and --fold "
            r"of its own command \(python -m training.fit .*--out parent.*\), or other images"
        )
        with pytest.raises(CheckpointError, match=said):
            require(dataset, 2, parent_of(dataset, 1))

    def test_such_images_are_known_by_their_pixels(self, tmp_path: Path) -> None:
        """Under another name, among other images."""
        dataset, other = write_many(tmp_path / "a", 4), tmp_path / "b"
        for number in range(4):
            write_pair(other, noise(seed=9 - number), stripes(), f"x{number}")
        write_pair(other, noise(seed=3), stripes(), "x1")
        with pytest.raises(CheckpointError, match="on 1 of the 1 images held out, first x1"):
            require(read_dataset(other), 1, parent_of(dataset, 1))

    @pytest.mark.parametrize("fold", [1, 2])
    def test_without_digests_they_are_known_by_name_in_the_same_data(
        self, tmp_path: Path, fold: int
    ) -> None:
        dataset, other = write_many(tmp_path / "a", 8), write_many(tmp_path / "b", 9)
        parent = parent_of(dataset, 1, training_sha256=())
        require(other, fold, parent)
        if fold == 1:
            require(dataset, fold, parent)
        else:
            with pytest.raises(CheckpointError, match="first t4"):
                require(dataset, fold, parent)

    def test_of_a_single_image_other_parts_than_before_are_not_held_out(
        self, tmp_path: Path
    ) -> None:
        write_pair(tmp_path, noise((24, 90)), stripes((24, 90)))
        dataset = read_dataset(tmp_path)
        parent = parent_of(dataset, 1)
        require(dataset, 1, parent)
        with pytest.raises(CheckpointError, match=r"on 1 of the 1 images held out, first a\["):
            require(dataset, 2, parent)

    def test_a_run_that_holds_such_an_image_out_does_not_begin(
        self, tmp_path: Path, make_artefact: MakeArtefact
    ) -> None:
        dataset = write_many(tmp_path / "data", 8)
        init = make_artefact(NETWORK, training=record_of(dataset, 1))
        asked: dict[str, Any] = {"data": dataset.path, "init": init, "folds": 4}
        settings = make_settings(tmp_path / "run", **asked, fold=1)
        prepared = begin(settings, folder_of(tmp_path), CPU, World())
        digests = set(map(digest, dataset.subset([0, 1, 4, 5, 6, 7])))
        assert set(prepared.manifest.training.training_sha256) == digests
        with pytest.raises(CheckpointError, match="was trained on 2 of the 2"):
            begin(settings.model_copy(update={"fold": 2}), folder_of(tmp_path), CPU, World())


def folder_of(path: Path) -> RunFolder:
    (path / "run").mkdir(exist_ok=True)
    return RunFolder(path / "run")


class TestASettledRun:
    """One that trains on every image."""

    def test_other_data_than_that_of_the_run_before_is_refused(self, tmp_path: Path) -> None:
        dataset, other = write_many(tmp_path / "a", 4), write_many(tmp_path / "b", 5)
        draft = manifest_of(NETWORK, training=record_of(dataset, 1))
        require_same_origin(draft, parent_of(dataset, 2))
        with pytest.raises(CheckpointError, match=r"was settled on other data, b: .* of a\."):
            require_same_origin(draft, parent_of(other, 1))

    @pytest.mark.parametrize("began_from", [("", "1" * 64), ("1" * 64, ""), ("1" * 64, "2" * 64)])
    def test_another_beginning_than_that_of_the_run_before_is_refused(
        self, tmp_path: Path, began_from: tuple[str, str]
    ) -> None:
        dataset = write_many(tmp_path / "a", 4)
        draft, settled = (parent_of(dataset, 1, began_from=each) for each in began_from)
        with pytest.raises(CheckpointError, match="do not begin from the same parameters"):
            require_same_origin(draft, settled)

    def test_it_does_not_begin_on_other_data(
        self, tmp_path: Path, make_artefact: MakeArtefact
    ) -> None:
        dataset, other = write_many(tmp_path / "a", 4), write_many(tmp_path / "b", 5)
        before = folder_of(tmp_path)
        make_artefact(NETWORK, "run/model.onnx", training=record_of(dataset, 1))
        before.plan.write_text(make_plan().model_dump_json())
        settings = make_settings(tmp_path / "c", data=dataset.path, settled_by=before.path)
        (tmp_path / "c").mkdir()
        assert begin(settings, RunFolder(tmp_path / "c"), CPU, World()).validation == ()
        with pytest.raises(CheckpointError, match="settled on other data"):
            begin(
                settings.model_copy(update={"data": other.path}),
                RunFolder(tmp_path / "c"),
                CPU,
                World(),
            )

    def test_copies_are_no_leak_where_nothing_is_held_out(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_many(tmp_path / "data", 6)
        write_pair(tmp_path / "data", noise(seed=0), np.roll(stripes(), 1), "t5")
        settings = make_settings(tmp_path / "run", data=tmp_path / "data", folds=3, fold=2)
        with pytest.raises(DatasetError, match="has 1 error"):
            examine(settings)
        assert "held out for validation" in capsys.readouterr().out
        examine(settings.model_copy(update={"settled_by": tmp_path / "before"}))
        assert "held out for validation" not in capsys.readouterr().out


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(make_plan(learning_rate=3e-4).model_dump_json())
    assert read_plan(tmp_path / "plan.json") == make_plan(learning_rate=3e-4)


def test_a_plan_that_does_not_say_the_learning_rate_is_refused(tmp_path: Path) -> None:
    plan = make_plan(learning_rate=3e-4).model_dump_json(exclude={"learning_rate"})
    (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(CheckpointError, match="does not say the learning rate of its run"):
        read_plan(tmp_path / "plan.json")
