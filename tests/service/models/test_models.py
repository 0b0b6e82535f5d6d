"""The models that are served."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from model.architecture import Architecture
from model.errors import (
    ArtefactDamaged,
    ArtefactError,
    ArtefactNotFound,
    DeviceError,
    ManifestInvalid,
    ModelNotFound,
    ServiceNotReady,
)
from model.planner import TileShapes
from model.runtime import Runtime, verified
from model.sessions import Provider
from service import budget
from service.models import opening as module
from service.models.loaded import TIMED_RUNS
from service.models.models import Models
from service.models.opening import Opening, tile_shapes
from service.settings import PRETRAINED
from tests.service.conftest import TILE_EDGE, settings_of, write_artefact
from tests.service.recording import RecordingRuntime


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Give a folder of two models."""
    write_artefact(tmp_path, name="membranes", file="1.onnx")
    write_artefact(tmp_path, name="cells", file="2.onnx")
    return tmp_path


def recording(path: Path, device: str) -> RecordingRuntime:
    """Give a runtime that runs nothing, but is of a file."""
    runtime = RecordingRuntime("cuda", device)
    runtime.artefact = verified(path)
    return runtime


def name_of_default(models: Models) -> str:
    return models.find(None).name


def test_the_default_is_the_first_by_name(two: Path) -> None:
    assert name_of_default(Models.open(settings_of(two))) == "cells"


def test_the_default_can_be_set(two: Path) -> None:
    assert name_of_default(Models.open(settings_of(two, default_model="membranes"))) == "membranes"


def test_a_model_is_found_by_the_name_in_its_manifest(two: Path) -> None:
    assert Models.open(settings_of(two)).find("membranes").name == "membranes"


def test_an_unknown_model_is_refused_with_a_list_of_all(two: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model 'nuclei'; there are membranes, cells"):
        Models.open(settings_of(two)).find("nuclei")


def test_an_empty_name_is_not_the_default(two: Path) -> None:
    with pytest.raises(ModelNotFound):
        Models.open(settings_of(two)).find("")


def test_an_unknown_default_is_refused_when_the_models_are_opened(two: Path) -> None:
    with pytest.raises(ModelNotFound, match="nuclei"):
        Models.open(settings_of(two, default_model="nuclei"))


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def test_what_is_sound_is_served_and_the_rest_is_named_with_its_reason(
    two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(two / "1.onnx")
    models = Models.open(settings_of(two))
    assert [each.name for each in models.served()] == ["cells"]
    assert [(each.file, each.code) for each in models.refused()] == [("1.onnx", "artefact-damaged")]
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert errors == ["1.onnx cannot be served"]


def test_where_nothing_is_sound_the_reasons_are_told(two: Path) -> None:
    spoil(two / "1.onnx")
    spoil(two / "2.onnx")
    with pytest.raises(ArtefactError, match=r"can be served\. 1\.onnx is no .* 2\.onnx is no "):
        Models.open(settings_of(two))


def test_a_default_that_is_refused_is_not_replaced_by_another(two: Path) -> None:
    spoil(two / "1.onnx")
    reason = r"no model 'membranes', the default; there are cells\. 1\.onnx is refused: 1\.onnx is "
    with pytest.raises(ModelNotFound, match=reason):
        Models.open(settings_of(two, default_model="membranes"))


def test_nor_is_the_default_of_who_set_none(two: Path) -> None:
    (two / "1.onnx").rename(two / "nuclei.onnx")
    spoil(two / "nuclei.onnx")
    with pytest.raises(ModelNotFound, match=r"nuclei\.onnx is refused"):
        Models.open(settings_of(two))
    assert name_of_default(Models.open(settings_of(two, default_model="cells"))) == "cells"


def test_what_is_sound_but_cannot_be_opened_is_refused_unless_it_is_the_default(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening(path: Path, *_: object) -> RecordingRuntime:
        if path.name == "1.onnx":
            raise DeviceError("There is no memory for it.")
        return recording(path, "cuda:0")

    monkeypatch.setattr(module, "Runtime", opening)
    models = Models.open(settings_of(two))
    assert [each.name for each in models.served()] == ["cells"]
    assert [each.detail for each in models.refused()] == ["There is no memory for it."]
    with pytest.raises(DeviceError, match="no memory"):
        Models.open(settings_of(two, default_model="membranes"))


def test_the_start_opens_the_default_and_no_more_than_the_bound_allows(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not opened says of nothing that it ran it."""
    opened = []

    def opening(path: Path, *_: object) -> RecordingRuntime:
        opened.append(path.name)
        runtime = recording(path, "")
        runtime._provider = "cpu"
        return runtime

    monkeypatch.setattr(module, "Runtime", opening)
    models = Models.open(settings_of(two, default_model="cells", model_memory_bytes=1))
    assert opened == ["2.onnx"]
    ran = {each.name: (each.state, each.provider, each.device) for each in models.served()}
    assert ran == {"membranes": ("unloaded", None, None), "cells": ("warming-up", "cpu", "cpu")}


def test_what_a_model_will_take_is_known_before_it_is_opened(two: Path) -> None:
    opening = Opening(settings_of(two))
    loaded = opening.open(opening.verify(two / "1.onnx"))
    assert opening.expected_bytes(loaded.manifest) == loaded.memory_bytes


def test_two_artefacts_of_one_name_are_refused(two: Path) -> None:
    write_artefact(two, name="cells", file="3.onnx")
    with pytest.raises(ManifestInvalid, match=r"Two artefacts in .* are named cells"):
        Models.open(settings_of(two))


def test_a_folder_without_artefacts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFound, match=r"holds no \.onnx artefact"):
        Models.open(settings_of(tmp_path))


def test_tiles_are_no_larger_than_the_setting_allows(two: Path) -> None:
    for model in Models.open(settings_of(two)).loaded.values():
        assert model.shapes == TileShapes(TILE_EDGE**2)


def test_every_device_of_the_settings_runs_every_model(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    def opening(path: Path, place: str, *_: object) -> RecordingRuntime:
        opened.append((path.name, place))
        return recording(path, place)

    monkeypatch.setattr(module, "Runtime", opening)
    (two / "2.onnx").unlink()
    models = Models.open(settings_of(two, device="cuda:1,3"))
    assert opened == [("1.onnx", "cuda:1"), ("1.onnx", "cuda:3")]
    assert models.engine.devices == 2
    assert models.find(None).device == "cuda:1,3"


def test_a_model_is_timed_between_the_turns_of_its_device(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = RecordingRuntime()
    runtime.artefact = verified(two / "1.onnx")
    monkeypatch.setattr(module, "Runtime", lambda *_: runtime)
    (two / "2.onnx").unlink()
    models = Models.open(settings_of(two))
    held: list[bool] = []
    runtime.before_warm_up = lambda: held.append(models.engine.running[0].locked())
    (model,) = models.loaded.values()
    model.warm_up(threading.Event())
    assert held == [False] + [True] * TIMED_RUNS  # what is prepared holds up nobody


def test_a_file_that_changes_between_two_devices_is_refused(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path, place: str, *_: object) -> RecordingRuntime:
        runtime = RecordingRuntime("cuda", place)
        runtime.artefact = replace(runtime.artefact, path=path, sha256=place)
        return runtime

    monkeypatch.setattr(module, "Runtime", changing)
    with pytest.raises(ArtefactDamaged, match="changed while it was opened"):
        Models.open(settings_of(two, device="cuda:0,1"))


def test_a_model_is_opened_on_no_device_that_is_retired(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def opening(path: Path, place: str, *_: object) -> RecordingRuntime:
        opened.append(place)
        return recording(path, place)

    monkeypatch.setattr(module, "Runtime", opening)
    settings = settings_of(two, device="cuda:0,1,2")
    opener = Opening(settings, {1})
    assert opener.open(opener.verify(two / "1.onnx")).device == "cuda:0,2"
    assert opened == ["cuda:0", "cuda:2"]


def test_a_gpu_is_given_shapes_that_can_all_be_prepared(runtime: Runtime) -> None:
    fixed = TileShapes.fixed(runtime.manifest.geometry, TILE_EDGE)
    assert tile_shapes(runtime.manifest, "cuda", TILE_EDGE) == fixed


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_tiles_too_small_to_tile_are_raised_to_the_smallest_that_can(
    runtime: Runtime, provider: Provider
) -> None:
    assert tile_shapes(runtime.manifest, provider, 1).largest_area == 204**2


@pytest.mark.parametrize(("memory", "edge"), [(4_100_000_000, 892), (2_000_000_000, 620)])
def test_a_tile_takes_no_more_than_an_eighth_of_the_memory_of_a_cpu(
    memory: int, edge: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "memory", lambda: memory)
    manifest = verified(PRETRAINED / "nuclei.onnx").manifest
    assert tile_shapes(manifest, "cpu", 0) == TileShapes(edge**2)
    assert tile_shapes(manifest, "cpu", 1212) == TileShapes(1212**2)  # who asks for more has it
    assert tile_shapes(manifest, "cuda", 0).largest_area == 892**2


def test_open_models_take_no_more_than_half_of_the_memory_of_a_cpu(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model takes is known before its tiles are run, so that the start keeps the bound."""
    one = max(each.memory_bytes for each in Models.open(settings_of(two)).loaded.values())
    monkeypatch.setattr(budget, "memory", lambda: 4 * one)
    assert len(Models.open(settings_of(two)).loaded) == 2
    monkeypatch.setattr(budget, "memory", lambda: 3 * one)
    assert len(Models.open(settings_of(two)).loaded) == 1
    monkeypatch.setattr(Runtime, "provider", "cuda")
    assert len(Models.open(settings_of(two)).loaded) == 2


def test_models_of_different_depths_have_tiles_of_their_own(tmp_path: Path) -> None:
    write_artefact(tmp_path)
    write_artefact(tmp_path, Architecture(depth=2, base_channels=2), name="flat")
    loaded = Models.open(settings_of(tmp_path, tile_edge=450)).loaded
    assert loaded["tiny"].shapes.largest_area == 444**2
    assert loaded["flat"].shapes.largest_area == 448**2


def test_models_are_not_ready_before_they_are_started(two: Path) -> None:
    with pytest.raises(ServiceNotReady, match="is not ready: warming-up"):
        Models.open(settings_of(two)).ready_states()
