"""The whole path: a folder of annotated images in, one file that can be served out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.architecture import Architecture
from model.artefact import pack
from model.errors import DatasetError, DeviceError
from model.network import UNet
from model.runtime import Runtime
from model.segmentation import segment
from tests.training.conftest import BLOBS, Run, make_manifest
from training import checkpoint, evaluate
from training.dataset import AnnotatedImage, Dataset, read_dataset
from training.fit import (
    NetworkModel,
    choose_device,
    class_names,
    describe,
    draft_manifest,
    finish,
    fit,
    main,
    prepare,
    train,
)
from training.labels import objects_of
from training.folder import RunFolder
from training.settings import FitSettings

ISBI = Path(__file__).parents[3] / "shared" / "data" / "isbi2012"
TINY: dict[str, Any] = {"depth": 1, "base_channels": 2, "tile_edge": 44}


def classes(name: str = "a", count: int = 3) -> AnnotatedImage:
    """Draw stripes of classes, each in several pieces."""
    semantic = (np.indices((48, 60))[1] // 5 % count).astype(np.uint8)
    return AnnotatedImage(name, semantic[None] * 60, semantic, objects_of(semantic))


def striped(count: int = 3, images: int = 4) -> Dataset:
    drawn = tuple(classes(f"t{number}", count) for number in range(images))
    return Dataset(Path("stripes"), "semantic", count, drawn)


@pytest.fixture(scope="module")
def runtime(run: Run) -> Runtime:
    return Runtime(run.folder / "model.onnx", "cpu")


def test_a_run_ends_well(run: Run) -> None:
    assert run.status == 0


def test_the_folder_of_a_run_holds_its_checkpoints_log_report_and_model(run: Run) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"last.pt", "best.pt", "log.jsonl", "report.html", "model.onnx"}


def test_the_log_has_the_losses_and_validations_of_every_step_asked_for(run: Run) -> None:
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [(entry["kind"], entry["step"]) for entry in log] == [
        ("validation", 40),
        ("training", 50),
        ("training", 60),
        ("validation", 60),
    ]


def test_the_progress_bar_goes_to_the_last_step(run: Run) -> None:
    assert "60/60" in run.progress
    assert "loss=" in run.progress


def test_the_model_segments_an_image_of_another_size(runtime: Runtime) -> None:
    labels = segment(np.zeros((1, 31, 77), np.uint8), runtime, [60, 92])
    assert labels.shape == (31, 77)


def test_the_manifest_says_what_was_trained_on_and_what_was_not(runtime: Runtime) -> None:
    record = runtime.manifest.training
    assert record.training_images == ("blobs-000", "blobs-001")
    assert record.validation_images == ("blobs-002",)
    assert record.data_sha256 == read_dataset(BLOBS).sha256()


def test_the_manifest_has_the_network_that_was_asked_for(runtime: Runtime) -> None:
    assert runtime.manifest.architecture == Architecture(1, 2, 2, 4)
    assert [entry.name for entry in runtime.manifest.classes] == ["background", "object"]


def test_the_manifest_holds_no_path_of_this_machine(run: Run, runtime: Runtime) -> None:
    text = runtime.manifest.model_dump_json()
    assert str(run.folder.parent) not in text
    assert str(BLOBS.parent) not in text


def test_the_threshold_is_that_of_the_exported_file_on_the_validation_images(
    runtime: Runtime,
) -> None:
    scores = runtime.manifest.scores
    assert scores is not None
    assert runtime.manifest.decision_threshold == scores.values["best"]["threshold"]


def test_the_threshold_of_training_gives_way_to_that_of_the_exported_file(
    run: Run, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = (run.folder / "model.onnx").read_bytes()[: runtime.manifest.graph_bytes]
    other = pack(graph, runtime.manifest.model_copy(update={"decision_threshold": 0.99}))
    monkeypatch.setattr("training.fit.export", lambda *_: other)
    evaluation = finish(RunFolder(tmp_path), FitSettings(out=tmp_path), read_dataset(BLOBS).images)
    assert evaluation.best is not None
    found = Runtime(tmp_path / "model.onnx", "cpu").manifest.decision_threshold
    assert found == evaluation.best.threshold != 0.99


def test_the_scores_in_the_manifest_are_repeated_to_the_last_digit(
    run: Run, runtime: Runtime, tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    evaluate.main([str(run.folder / "model.onnx"), str(BLOBS), "--json", str(file)])
    scores = runtime.manifest.scores
    assert scores is not None
    assert json.loads(file.read_text())["scores"] == scores.values


def test_the_printed_table_is_repeated_to_the_last_digit(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main([str(run.folder / "model.onnx"), str(BLOBS)])
    table = capsys.readouterr().out.split("\n", 1)[1]
    assert table.startswith("V_rand")
    assert table in run.printed


def test_a_run_says_how_to_serve_its_model(run: Run) -> None:
    command = f"UNET_SERVICE_MODEL_DIR='{run.folder}' python -m service"
    assert run.printed.splitlines()[-1].endswith(command)


def test_a_run_says_what_it_found_before_it_trains(run: Run) -> None:
    assert run.printed.splitlines()[:2] == [
        f"{BLOBS}: 3 images, 1 channel(s), instance labels, 2 classes",
        "training on 2, validating on 1: blobs-002 to blobs-002",
    ]


def test_real_electron_micrographs_can_be_learnt_from(tmp_path: Path) -> None:
    """Two steps on two slices, validated on a third; the export does not depend on the data."""
    if not ISBI.is_dir():
        pytest.skip(f"{ISBI} is not here; it cannot be shipped with the project")
    dataset = read_dataset(ISBI)
    few = replace(dataset, images=dataset.images[:3])
    settings = FitSettings(data=ISBI, out=tmp_path, steps=2, blocks=3, **TINY)
    training, validation = few.split(settings.blocks, settings.validation_block)
    manifest = draft_manifest(settings, few, training, validation)
    progress = train(settings, manifest, training, validation)
    assert progress.best is not None
    assert 0 < progress.best["v_rand"] < 1
    assert RunFolder(tmp_path).best.exists()


def test_a_network_of_many_classes_has_no_threshold(tmp_path: Path) -> None:
    dataset = striped(3)
    settings = FitSettings(out=tmp_path, steps=1, **TINY)
    training, validation = dataset.split(2, 0)
    manifest = draft_manifest(settings, dataset, training, validation)
    train(settings, manifest, training, validation)
    assert checkpoint.load(RunFolder(tmp_path).best)["validation"]["threshold"] is None


def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    dataset = striped(2)
    settings = FitSettings(out=tmp_path, steps=2, **TINY)
    training, validation = dataset.split(2, 0)
    manifest = draft_manifest(settings, dataset, training, validation)
    done = train(settings, manifest, training, validation)
    again = train(settings.model_copy(update={"resume": True}), manifest, training, validation)
    assert again == done


def test_validation_images_without_an_object_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = classes()
    empty = replace(drawn, objects=np.zeros_like(drawn.objects))
    dataset = Dataset(tmp_path, "semantic", 3, (drawn, empty))
    monkeypatch.setattr("training.fit.read_dataset", lambda *_: dataset)
    with pytest.raises(DatasetError, match="validation images hold no object"):
        fit(FitSettings(out=tmp_path / "run", **TINY))


def test_data_that_is_not_there_ends_the_command_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/nowhere is no folder.\n"


def test_classes_have_plain_names_where_none_are_given(tmp_path: Path) -> None:
    settings = FitSettings(out=tmp_path)
    assert list(class_names(settings, striped(2))) == ["background", "object"]
    assert list(class_names(settings, striped(3))) == ["background", "class-1", "class-2"]


def test_classes_have_the_names_that_are_given(tmp_path: Path) -> None:
    settings = FitSettings(out=tmp_path, classes=("membrane", "cell"))
    assert list(class_names(settings, striped(2))) == ["membrane", "cell"]


def test_names_that_are_not_as_many_as_the_classes_are_refused(tmp_path: Path) -> None:
    settings = FitSettings(out=tmp_path, classes=("membrane", "cell"))
    with pytest.raises(DatasetError, match=r"has 3 classes, --classes names 2: membrane, cell\."):
        class_names(settings, striped(3))


def test_a_description_names_the_first_and_last_image_held_out() -> None:
    dataset = striped(2, images=6)
    assert describe(dataset, *dataset.split(3, 1)).endswith("validating on 2: t2 to t3")


def test_images_are_prepared_on_the_scale_of_the_whole_image(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(48, dtype=np.uint16)[:, None], 60, axis=1)
    manifest = make_manifest(Architecture(depth=1))
    settings = FitSettings(out=tmp_path, **TINY)
    device = torch.device("cpu")
    (prepared,) = prepare([replace(classes(count=2), image=ramp[None])], manifest, settings, device)
    np.testing.assert_allclose(prepared.pixels[0, :, 0], np.linspace(-1, 1, 48), atol=1e-6)


def test_images_are_prepared_with_class_and_weight_of_every_pixel(tmp_path: Path) -> None:
    dataset = striped(2)
    settings = FitSettings(out=tmp_path, border_weight=0.0, **TINY)
    manifest = make_manifest(Architecture(depth=1))
    (prepared,) = prepare(dataset.images[:1], manifest, settings, torch.device("cpu"))
    semantic = dataset.images[0].semantic
    np.testing.assert_array_equal(prepared.targets[0], semantic)
    counts = np.bincount(semantic.ravel())
    expected = (semantic.size / (2 * counts))[semantic]
    np.testing.assert_allclose(prepared.targets[1], expected, rtol=1e-6)


def test_a_network_in_training_is_validated_without_dropout() -> None:
    architecture = Architecture(depth=1, base_channels=4)
    torch.manual_seed(0)
    network = UNet(architecture).train()
    model = NetworkModel(network, make_manifest(architecture), torch.device("cpu"))
    tile = np.random.default_rng(0).standard_normal((1, 1, 44, 44), np.float32)
    np.testing.assert_array_equal(model.run(tile), model.run(tile))


def test_the_device_asked_for_is_taken() -> None:
    assert choose_device("cpu") == "cpu"


def test_a_gpu_that_is_not_there_is_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="CUDA was asked for"):
        choose_device("cuda")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_the_gpu_is_taken_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, there: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device("auto") == expected


def test_a_folder_with_a_run_in_it_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "last.pt").write_bytes(b"precious")

    assert main([str(BLOBS), "--out", str(tmp_path)]) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "last.pt").read_bytes() == b"precious"


def test_a_folder_that_cannot_be_made_ends_the_command_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    assert main([str(BLOBS), "--out", str(tmp_path / "file" / "run")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
