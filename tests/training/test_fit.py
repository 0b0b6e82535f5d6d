"""The whole path: a folder of annotated images in, one file that can be served out."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.architecture import Architecture
from model.artefact import Manifest
from model.errors import DeviceError, TrainingError
from model.intensity import IntensityRule
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import segment
from tests.conftest import ROOT
from tests.training.conftest import BLOBS, NETWORK, TINY, Run
from tests.training.files import noise, write, write_pair
from tests.training.small import results_of, same
from training import evaluate, fit
from training.data.dataset import digest, read_dataset
from training.data.split import split
from training.fit import choose_device, main
from training.plan import Plan
from training.preparation import describe
from training.run import checkpoint
from training.run.descent import Descent
from training.run.distributed import World
from training.run.folder import RunFolder
from training.settings import FitSettings

TOUCHING = BLOBS.parent / "touching-cells"
SHORT = ["--steps", "4", "--validate-every", "4"]
SMALLEST = ["--depth", "1", "--base-channels", "2", "--tile-edge", "44", *SHORT]


@pytest.fixture(scope="module")
def runtime(run: Run) -> Runtime:
    return Runtime(run.folder / "model.onnx", "cpu")


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Let SIGTERM, if nothing handles it, fail the test and not end all; SIGINT raise as usual.

    Whoever runs the tests in the background may have it ignored.
    """

    def fail(*_: Any) -> None:
        pytest.fail("the process would have ended here")

    handlers = {signal.SIGTERM: fail, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in handlers.items():
        assert signal.signal(number, before[number]) is handler


@pytest.fixture
def _without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a run with its last step: exporting takes longer than training so little."""
    monkeypatch.setattr(fit, "finish", lambda *_: None)


def manifest_of(folder: Path) -> Manifest:
    return Runtime(folder / "model.onnx", "cpu").manifest


class TestARun:
    def test_it_ends_well(self, run: Run) -> None:
        assert run.status == 0

    def test_its_folder_holds_what_is_documented(self, run: Run) -> None:
        folder = RunFolder(run.folder)
        files = {folder.last, folder.best, folder.log, folder.plan, folder.report, folder.model}
        assert set(run.folder.iterdir()) == files

    def test_it_says_what_it_found_and_planned_before_it_trains(self, run: Run) -> None:
        lines = run.printed.splitlines()
        start = next(index for index, line in enumerate(lines) if line.startswith(f"{BLOBS}: 3"))
        assert "3 images, 1 channel(s), 2 classes. The labels are instance labels" in lines[start]
        assert lines[start + 1] == "training on 2, validating on 1: blobs-002 to blobs-002"
        assert lines[start + 3].split() == ["tile_edge", "92", "asked", "for"]
        assert "on cpu, 1 process(es)" in lines

    def test_it_begins_with_what_the_doctor_finds(self, run: Run) -> None:
        assert run.printed.startswith("note    blobs: ")

    def test_its_bar_goes_to_the_last_step(self, run: Run) -> None:
        assert "60/60" in run.progress
        assert "loss=" in run.progress
        assert "best ap50=" in run.progress

    def test_its_log_has_the_losses_and_validations_of_every_step_asked_for(self, run: Run) -> None:
        log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        assert [(entry["kind"], entry["step"]) for entry in log] == [
            ("validation", 40),
            ("training", 50),
            ("training", 60),
            ("validation", 60),
        ]

    def test_its_plan_is_in_a_file_with_a_reason_for_every_value(self, run: Run) -> None:
        plan = Plan.model_validate_json((run.folder / "plan.json").read_text())
        assert (plan.tile_edge, plan.batch, plan.steps) == (92, 2, 60)
        assert plan.ridges
        assert set(plan.reasons) == set(Plan.model_fields) - {"reasons"}
        assert plan.model_dump(mode="json") == checkpoint.load(run.folder / "best.pt")["plan"]

    def test_it_says_how_to_serve_its_model(self, run: Run) -> None:
        command = f"UNET_SERVICE_MODEL_DIR='{run.folder}' {sys.executable} -m service"
        assert run.printed.splitlines()[-1].endswith(command)


class TestItsModel:
    def test_it_segments_an_image_of_another_size(self, runtime: Runtime) -> None:
        labels = segment(np.zeros((1, 31, 77), np.uint8), runtime, TileShapes(92**2, (60, 92)))
        assert labels.shape == (31, 77)

    def test_it_says_what_was_trained_on_and_what_was_not(self, runtime: Runtime) -> None:
        record, dataset = runtime.manifest.training, read_dataset(BLOBS)
        assert record.training_images == ("blobs-000", "blobs-001")
        assert record.training_sha256 == (digest(dataset[0]), digest(dataset[1]))
        assert record.validation_images == ("blobs-002",)
        assert record.data_sha256 == dataset.sha256()
        assert record.label_kind == "instance"

    def test_it_has_the_network_that_was_asked_for(self, runtime: Runtime) -> None:
        assert runtime.manifest.architecture == Architecture(1, 2, 2, 4)
        assert runtime.manifest.name == "blobs-of-mine"
        assert [entry.name for entry in runtime.manifest.classes] == ["background", "object"]

    def test_it_has_the_intensity_rule_of_the_plan(self, run: Run, runtime: Runtime) -> None:
        plan = Plan.model_validate_json((run.folder / "plan.json").read_text())
        assert runtime.manifest.intensity == plan.intensity == IntensityRule()

    def test_it_has_a_threshold_and_a_rule_that_tells_objects_apart(self, runtime: Runtime) -> None:
        manifest = runtime.manifest
        assert manifest.instances is not None
        assert manifest.decision_threshold is not None
        assert 0 < manifest.decision_threshold <= manifest.instances.seed_threshold < 1

    def test_it_holds_no_path_of_this_machine(self, run: Run, runtime: Runtime) -> None:
        text = runtime.manifest.model_dump_json()
        assert str(run.folder.parent) not in text
        assert str(BLOBS.parent) not in text

    def test_its_scores_are_those_of_the_file_itself_to_the_last_digit(
        self, run: Run, runtime: Runtime, tmp_path: Path
    ) -> None:
        file = tmp_path / "scores.json"
        evaluate.main([str(run.folder / "model.onnx"), str(BLOBS), "--json", str(file)])
        scores = runtime.manifest.scores
        assert scores is not None
        assert scores.images == ("blobs-002",)
        assert json.loads(file.read_text())["scores"] == scores.values

    def test_it_was_made_by_the_parameters_of_the_best_validation(
        self, run: Run, runtime: Runtime
    ) -> None:
        best = checkpoint.load(run.folder / "best.pt")["validation"]
        assert runtime.manifest.training.steps == best["step"]


class TestResume:
    def test_a_process_that_was_killed_and_resumed_is_to_the_last_bit_the_one_that_was_not(
        self, run: Run, tmp_path: Path
    ) -> None:
        """A real SIGKILL in the middle of step 48; the last checkpoint is of step 40."""
        folder = tmp_path / "Blobs of mine"
        script = (
            "import sys; from training import fit; from training.run.descent import Descent\n"
            "finite = Descent._finite\n"
            "def wait(descent, step, *arguments):\n"
            "    if step == 47: print('now', flush=True); sys.stdin.read()\n"
            "    return finite(descent, step, *arguments)\n"
            "Descent._finite = wait\n"
            "fit.main()\n"
        )
        command = [sys.executable, "-c", script, str(BLOBS), "--out", str(folder), *TINY]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(  # noqa: S603 (the words above)
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            assert b"now\n" in process.stdout
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert checkpoint.load(folder / "last.pt")["progress"]["step"] == 40
        assert main([str(BLOBS), "--out", str(folder), *TINY, "--resume"]) == 0
        assert same(results_of(folder), results_of(run.folder))
        one, other = (path / "model.onnx" for path in (folder, run.folder))
        assert one.read_bytes() == other.read_bytes()

    @pytest.mark.usefixtures("_without_a_model")
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_saves_and_says_how_to_go_on(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        number: signal.Signals,
    ) -> None:
        words = [str(BLOBS), "--out", str(tmp_path / "run"), *SMALLEST]
        finite = Descent._finite

        def interrupt(descent: Descent, step: int, *arguments: Any) -> float:
            if step == 2:
                os.kill(os.getpid(), number)
            return finite(descent, step, *arguments)

        monkeypatch.setattr(Descent, "_finite", interrupt)
        assert main(words) == 128 + number
        monkeypatch.undo()
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "Stopped at step 3 of 4; the same command with --resume goes on."
        assert checkpoint.load(tmp_path / "run" / "last.pt")["progress"]["step"] == 3
        assert not any((tmp_path / "run").glob("store*"))

    @pytest.mark.usefixtures("_without_a_model")
    def test_the_plan_is_the_old_one_whatever_memory_is_free_now(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another tile edge would be another run, and be refused."""
        words = [str(BLOBS), "--out", str(tmp_path), "--depth", "1", "--base-channels", "2", *SHORT]
        monkeypatch.setattr("training.preparation.free_memory", lambda _: 500_000)
        assert main(words) == 0
        first = (tmp_path / "plan.json").read_text()
        assert "fits 0.0 GB" in first
        monkeypatch.setattr("training.preparation.free_memory", lambda _: 10**12)
        assert main([*words, "--resume"]) == 0
        assert (tmp_path / "plan.json").read_text() == first

    def test_a_run_is_not_resumed_on_data_that_changed(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, data = tmp_path / "run", tmp_path / "blobs"
        folder.mkdir()
        shutil.copy(run.folder / "last.pt", folder)
        shutil.copytree(BLOBS, data)
        labels = data / "labels" / "blobs-001.png"
        (data / "labels" / "blobs-000.png").write_bytes(labels.read_bytes())
        assert main([str(data), "--out", str(folder), *TINY, "--resume"]) == 1
        assert "last.pt was trained on other data." in capsys.readouterr().err

    def test_a_run_is_not_resumed_with_other_settings_and_no_image_is_stored_before(
        self,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(fit, "stored", lambda *_: pytest.fail("images were stored"))
        shutil.copy(run.folder / "last.pt", tmp_path)
        words = [str(BLOBS), "--out", str(tmp_path), *TINY, "--seed", "1", "--resume"]
        assert main(words) == 1
        assert "with other settings: seed 0, now 1." in capsys.readouterr().err

    def test_without_a_checkpoint_there_is_nothing_to_resume(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(BLOBS), "--out", str(tmp_path), *SMALLEST, "--resume"]) == 1
        assert "There is no checkpoint" in capsys.readouterr().err

    @pytest.mark.usefixtures("_handlers")
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_trained_run_that_a_signal_kept_from_its_scores_is_scored(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        number: signal.Signals,
    ) -> None:
        def interrupt(*_: Any) -> None:
            signal.raise_signal(number)

        finished: list[int] = []
        words = [str(BLOBS), "--out", str(tmp_path), *SMALLEST]
        monkeypatch.setattr(fit, "finish", interrupt)
        assert main(words) == 128 + number
        said = f"{tmp_path} is trained; the same command with --resume goes on to score it."
        assert capsys.readouterr().err.splitlines()[-1] == said
        monkeypatch.setattr(fit, "finish", lambda *of: finished.append(of[-1].step))
        assert main([*words, "--resume"]) == 0
        assert finished == [4]


class TestTheStore:
    """Training images on disk, as long as a run lasts."""

    @pytest.mark.parametrize("seam", ["training.tiles.store.border_term", "training.fit.Loop"])
    def test_whatever_goes_wrong_it_is_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seam: str
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            assert (tmp_path / "store-0" / "arrays").exists()
            raise TrainingError

        monkeypatch.setattr(seam, fail)
        assert main([str(BLOBS), "--out", str(tmp_path), *SMALLEST]) == 1
        assert not any(tmp_path.glob("store*"))

    @pytest.mark.usefixtures("_handlers")
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_before_it_is_whole_removes_it(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        number: signal.Signals,
    ) -> None:
        def interrupt(*_: Any, **__: Any) -> None:
            assert (tmp_path / "store-0" / "arrays").exists()
            signal.raise_signal(number)

        monkeypatch.setattr("training.tiles.store.border_term", interrupt)
        assert main([str(BLOBS), "--out", str(tmp_path), *SMALLEST]) == 128 + number
        assert capsys.readouterr().err.splitlines()[-1] == "Stopped."
        assert not any(tmp_path.glob("store*"))

    def test_a_full_disk_leaves_nothing_of_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [str(BLOBS), "--out", str(tmp_path), *SMALLEST]
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            assert main(words) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert "holds the training images as they are in memory" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans") / "run"
    assert main([str(BLOBS), "--out", str(folder), "--plan-only", "--border-sigma", "4"]) == 0
    return folder


class TestPlanOnly:
    def test_it_writes_the_plan_and_nothing_else(self, planned: Path) -> None:
        assert [path.name for path in planned.iterdir()] == ["plan.json"]

    def test_values_that_were_asked_for_are_taken(self, planned: Path) -> None:
        plan = Plan.model_validate_json((planned / "plan.json").read_text())
        assert (plan.border_sigma, plan.reasons["border_sigma"]) == (4.0, "asked for")

    def test_other_values_are_made_from_the_data(self, planned: Path) -> None:
        plan = Plan.model_validate_json((planned / "plan.json").read_text())
        assert plan.ridges
        assert plan.reasons["tile_edge"] == "covers the typical image, 256 px"

    @pytest.mark.usefixtures("_without_a_model")
    def test_a_run_may_follow_in_the_same_folder(self, planned: Path) -> None:
        assert main([str(BLOBS), "--out", str(planned), *SMALLEST]) == 0
        assert Plan.model_validate_json((planned / "plan.json").read_text()).steps == 4


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    labels = (np.indices((64, 150)).sum(0) // 5 % 3).astype(np.uint8)
    image = noise((*labels.shape, 3), np.uint16) // 4 + labels[..., None] * np.uint16(9000)
    labels[:, ::10] = 255
    write_pair(folder / "data", image, labels)
    words = [str(folder / "data"), "--out", str(folder / "run"), *SMALLEST]
    assert main([*words, "--ignore", "255", "--pixel-size", "0.5"]) == 0
    return folder


class TestASingleImageOfSeveralClasses:
    """With a value that is to be ignored, in colours of 16 bits."""

    def test_it_is_divided_in_space_and_trained_on(self, single: Path) -> None:
        record = manifest_of(single / "run").training
        assert record.training_images == ("a[0:64,0:60]", "a[0:64,90:150]")
        assert record.validation_images == ("a[0:64,60:90]",)
        assert record.label_kind == "semantic"

    def test_its_model_has_every_class_and_channel_and_no_threshold(self, single: Path) -> None:
        manifest = manifest_of(single / "run")
        assert manifest.architecture == Architecture(3, 3, 1, 2)
        assert manifest.decision_threshold is None
        assert manifest.instances is None

    def test_the_size_of_its_pixels_travels_with_it(self, single: Path) -> None:
        assert manifest_of(single / "run").pixel_size == 0.5

    def test_it_is_scored_by_the_iou_of_the_classes(self, single: Path) -> None:
        best = checkpoint.load(single / "run" / "best.pt")["validation"]
        assert (best["score"], best["threshold"]) == ("iou", None)
        assert 0 <= best["value"] <= 1

    def test_what_is_ignored_is_no_class(self, single: Path) -> None:
        assert len(manifest_of(single / "run").classes) == 3
        source = checkpoint.load(single / "run" / "best.pt")["source"]
        assert source["ignore"] == 255


@pytest.mark.usefixtures("_without_a_model")
@pytest.mark.parametrize("labels", ["semantic", "instance"])
def test_pixels_that_are_ignored_may_have_a_negative_label(tmp_path: Path, labels: str) -> None:
    data, drawn = tmp_path / "data", (np.indices((64, 150)).sum(0) // 5 % 3).astype(np.int16)
    drawn[:, ::10] = -1
    write(data / "images" / "a.tif", noise(drawn.shape))
    write(data / "labels" / "a.tif", drawn)
    words = [str(data), "--out", str(tmp_path / "run"), *SMALLEST, "--labels", labels]
    assert main([*words, "--ignore", "-1"]) == 0
    (entry,) = read_dataset(data, "instance", -1)
    assert entry.ignored is not None
    np.testing.assert_array_equal(entry.ignored, drawn == -1)
    assert not entry.objects[entry.ignored].any()


@pytest.fixture(scope="module")
def tuned(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "cells"
    words = [str(TOUCHING), "--out", str(folder), "--init", str(run.folder / "model.onnx")]
    size = ["--depth", "2", "--base-channels", "4", "--tile-edge", "92"]
    rate = ["--learning-rate", "1e-12", "--warmup-steps", "0", "--precision", "fp32"]
    assert main([*words, *size, *rate, *SHORT]) == 0
    return folder


class TestFineTuning:
    """Of the model of the blobs on touching cells, by instance labels."""

    def test_it_begins_with_the_parameters_of_the_artefact(self, run: Run, tuned: Path) -> None:
        """At a learning rate of nothing it ends with them, too."""
        found = checkpoint.load(tuned / "best.pt")["model"]
        expected = checkpoint.load(run.folder / "best.pt")["model"]
        assert found.keys() == expected.keys()
        for name, weights in found.items():
            np.testing.assert_allclose(weights, expected[name], rtol=1e-3, atol=1e-6)

    def test_its_model_tells_objects_apart(self, tuned: Path) -> None:
        manifest = manifest_of(tuned)
        assert manifest.training.label_kind == "instance"
        assert manifest.instances is not None
        assert manifest.decision_threshold is not None

    def test_its_command_names_the_artefact(self, tuned: Path) -> None:
        assert "--init model.onnx" in manifest_of(tuned).training.command

    def test_an_artefact_of_another_size_is_refused(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        init = ["--init", str(run.folder / "model.onnx")]
        assert main([str(BLOBS), "--out", str(tmp_path), *SMALLEST, *init]) == 1
        assert "model.onnx" in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on every image, by what the fixture `run` settled."""
    folder = tmp_path_factory.mktemp("whole") / "blobs"
    words = [str(BLOBS), "--out", str(folder), "--settled-by", str(run.folder), *NETWORK]
    assert main(words) == 0
    return folder


class TestTrainingOnEveryImage:
    def test_none_is_held_out(self, whole: Path) -> None:
        record = manifest_of(whole).training
        assert record.training_images == ("blobs-000", "blobs-001", "blobs-002")
        assert len(record.training_sha256) == 3
        assert record.validation_images == ()

    def test_plan_threshold_and_rule_are_those_of_the_run_before(
        self, run: Run, runtime: Runtime, whole: Path
    ) -> None:
        manifest = manifest_of(whole)
        assert (whole / "plan.json").read_text() == (run.folder / "plan.json").read_text()
        assert manifest.decision_threshold == runtime.manifest.decision_threshold
        assert manifest.instances == runtime.manifest.instances

    def test_its_scores_name_the_file_that_they_are_of(self, runtime: Runtime, whole: Path) -> None:
        scores, before = manifest_of(whole).scores, runtime.manifest.scores
        assert scores is not None
        assert before is not None
        assert (scores.of, before.of) == (runtime.artefact.sha256, "")
        assert scores.values == before.values

    def test_it_may_be_computed_in_what_that_file_may_be(
        self, runtime: Runtime, whole: Path
    ) -> None:
        assert manifest_of(whole).precisions == runtime.manifest.precisions

    def test_it_shows_and_logs_no_validation(self, whole: Path) -> None:
        log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
        assert {entry["kind"] for entry in log} == {"training"}
        assert checkpoint.load(whole / "best.pt")["validation"]["kind"] == "settled"

    def test_its_report_says_whose_scores_it_carries(self, runtime: Runtime, whole: Path) -> None:
        page = (whole / "report.html").read_text()
        assert "No image was held out" in page
        assert runtime.artefact.sha256 in page

    def test_its_parameters_are_those_of_the_last_step(self, whole: Path) -> None:
        """Without images held out none is better than another."""
        assert manifest_of(whole).training.steps == 60

    def test_another_network_than_that_of_the_run_before_is_refused(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--out", str(tmp_path), "--settled-by", str(run.folder), "--depth", "3"]
        assert main([str(BLOBS), *words]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert "has base_channels 4, depth 2; this run base_channels 32, depth 3" in said

    def test_a_run_that_is_not_finished_settles_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--out", str(tmp_path / "run"), "--settled-by", str(tmp_path / "other")]
        assert main([str(BLOBS), *words, *NETWORK]) == 1
        assert "other/model.onnx cannot be read" in capsys.readouterr().err


class TestCrossValidation:
    def test_every_fold_is_held_out_once_and_the_scores_are_compared(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [str(BLOBS), "--out", str(tmp_path), *SMALLEST, "--folds", "2", "--fold", "0"]
        assert main([*words, "--cross-validate"]) == 0
        held_out = [
            manifest_of(tmp_path / f"fold-{fold}").training.validation_images for fold in range(2)
        ]
        assert sorted(sum(held_out, ())) == ["blobs-000", "blobs-001", "blobs-002"]
        scores = json.loads((tmp_path / "folds.json").read_text())["ap50"]
        assert scores["mean"] == pytest.approx(sum(scores["folds"]) / 2)
        assert "mean over 2 folds" in capsys.readouterr().out

    def test_a_fold_that_cannot_be_scored_is_refused_before_any_is_trained(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(4):
            labels = np.zeros((64, 64), np.uint8)
            labels[8:40, 8:40] = number != 3
            write_pair(tmp_path / "data", noise((64, 64)), labels, f"t{number}")
        words = [str(tmp_path / "data"), "--out", str(tmp_path / "out"), *SMALLEST, "--folds", "4"]
        assert main([*words, "--cross-validate"]) == 1
        assert "fold 3 of 4 leaves no object to validate on" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_resumed_it_takes_finished_folds_goes_on_with_begun_ones_and_begins_the_others(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def finish(_: FitSettings, folder: RunFolder, *__: Any) -> None:
            shutil.copy(run.folder / "model.onnx", folder.model)

        words = [str(BLOBS), "--out", str(tmp_path), *SMALLEST, "--folds", "3", "--cross-validate"]
        finite, steps = Descent._finite, list[tuple[str, int]]()

        def note(descent: Descent, step: int, name: str, *arguments: Any) -> float:
            if name == "loss":
                steps.append((descent.settings.out.name, step))
                if len(steps) == 6:
                    os.kill(os.getpid(), signal.SIGTERM)
            return finite(descent, step, name, *arguments)

        monkeypatch.setattr(fit, "finish", finish)
        monkeypatch.setattr(Descent, "_finite", note)
        assert main(words) == 128 + signal.SIGTERM
        finished = (tmp_path / "fold-0" / "model.onnx").stat().st_mtime_ns
        assert not (tmp_path / "fold-2").exists()
        assert main([*words, "--resume"]) == 0
        assert steps == [(f"fold-{fold}", step) for fold in range(3) for step in range(4)]
        assert (tmp_path / "fold-0" / "model.onnx").stat().st_mtime_ns == finished
        assert len(json.loads((tmp_path / "folds.json").read_text())["ap50"]["folds"]) == 3

    def test_a_finished_fold_of_other_settings_is_refused(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(run.folder, tmp_path / "fold-0")
        words = [str(BLOBS), "--out", str(tmp_path), *TINY, "--cross-validate", "--resume"]
        assert main(words) == 1
        assert "with other settings: fold 2, now 0." in capsys.readouterr().err

    def test_a_process_that_does_not_lead_waits_for_every_score_and_reads_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[World] = []
        for name in ("begin", "train", "finish"):
            monkeypatch.setattr(fit, name, lambda *_: None)
        monkeypatch.setattr(fit, "join", lambda _: contextlib.nullcontext(World(1, 2)))
        monkeypatch.setattr(World, "wait", lambda world: waits.append(world))
        assert main([str(BLOBS), "--out", str(tmp_path), "--cross-validate"]) == 0
        assert waits == [World(1, 2)] * 3
        assert not (tmp_path / "folds.json").exists()

    def test_every_fold_can_be_planned_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [str(BLOBS), "--out", str(tmp_path), *SMALLEST, "--cross-validate", "--plan-only"]
        assert main(words) == 0
        assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")) == [
            Path(f"fold-{fold}", "plan.json") for fold in range(3)
        ]
        assert "mean over" not in capsys.readouterr().out


class TestRefusals:
    def fails(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
        assert main(words) == 1
        return capsys.readouterr().err

    def test_data_that_is_not_there_ends_the_command_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = self.fails([str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")], capsys)
        assert said.count("\n") == 1
        assert "nowhere" in said

    def test_what_the_doctor_calls_an_error_ends_the_run_before_it_begins(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = tmp_path / "data"
        shutil.copytree(BLOBS, data)
        (data / "labels" / "blobs-001.png").unlink()
        assert main([str(data), "--out", str(tmp_path / "run"), *SMALLEST]) == 1
        printed = capsys.readouterr()
        assert any(
            line.startswith("error ") and "blobs-001" in line for line in printed.out.splitlines()
        )
        assert printed.err == f"{data} has 1 error(s), listed above.\n"
        assert not list((tmp_path / "run").iterdir())

    def test_a_file_that_cannot_be_read_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = tmp_path / "data"
        shutil.copytree(BLOBS, data)
        (data / "images" / "blobs-001.png").write_bytes(b"no image")
        assert main([str(data), "--out", str(tmp_path / "run"), *SMALLEST]) == 1
        assert "blobs-001.png" in capsys.readouterr().out

    def test_a_wrong_option_is_explained(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(BLOBS), "--out", str(tmp_path), "--steps", "0"]) == 2
        assert capsys.readouterr().err.startswith("error: --steps 0: Input should be")

    def test_a_rule_of_intensity_that_is_none_is_explained(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [str(BLOBS), "--out", str(tmp_path), *SMALLEST, "--intensity", "range:9,1"]
        assert "--intensity range:9,1 is no rule" in self.fails(words, capsys)

    def test_a_folder_with_a_run_in_it_is_not_written_over(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copy(run.folder / "last.pt", tmp_path)
        assert "holds a run already" in self.fails([str(BLOBS), "--out", str(tmp_path)], capsys)
        assert same(results_of(tmp_path), results_of(run.folder))

    def test_nor_is_a_checkpoint_that_cannot_be_read(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "last.pt").write_bytes(b"precious")
        assert "no checkpoint" in self.fails([str(BLOBS), "--out", str(tmp_path)], capsys)
        assert (tmp_path / "last.pt").read_bytes() == b"precious"

    @pytest.mark.usefixtures("_without_a_model")
    def test_a_run_that_took_no_step_may_be_begun_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As one does with a smaller tile, after the first step did not fit the memory."""
        words = [str(BLOBS), "--out", str(tmp_path), "--depth", "1", "--base-channels", "2", *SHORT]

        def fail(*_: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(Descent, "step", fail)
            assert "Take a smaller --tile-edge" in self.fails([*words, "--tile-edge", "60"], capsys)
        assert main([*words, "--tile-edge", "44"]) == 0

    @pytest.mark.parametrize("seam", ["laid_out", "stored", "finish"])
    def test_memory_that_runs_out_beside_the_steps_is_explained_too(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        seam: str,
    ) -> None:
        def fail(*_: Any) -> None:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(fit, seam, fail)
        said = self.fails([str(BLOBS), "--out", str(tmp_path), *SMALLEST], capsys)
        assert "The run does not fit the memory" in said.splitlines()[-1]

    def test_a_folder_that_cannot_be_made_ends_the_command_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        said = self.fails([str(BLOBS), "--out", str(tmp_path / "file" / "run")], capsys)
        assert said.count("\n") == 1


class TestDevice:
    def test_the_processor_asked_for_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert choose_device("cpu") == torch.device("cpu")

    def test_a_gpu_that_is_not_there_is_not_promised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(DeviceError, match="CUDA was asked for"):
            choose_device("cuda")

    @pytest.mark.parametrize(("there", "expected"), [(True, "cuda:0"), (False, "cpu")])
    def test_the_gpu_is_taken_where_there_is_one(
        self, monkeypatch: pytest.MonkeyPatch, there: bool, expected: str
    ) -> None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        assert choose_device("auto") == torch.device(expected)

    def test_every_process_of_a_machine_takes_a_gpu_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert choose_device("auto") == torch.device("cuda:3")


def test_a_description_names_the_first_and_last_image_held_out() -> None:
    dataset = read_dataset(BLOBS)
    assert describe(dataset, *split(dataset, 3, 1)).endswith("on 1: blobs-001 to blobs-001")
    assert describe(dataset, dataset, ()).endswith("training on 3, holding none out")
