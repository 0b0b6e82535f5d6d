"""Export: from a checkpoint to a file that says what it is, and answers as well as it must."""

import pickle
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from model.architecture import Architecture
from model.artefact import Manifest, Precision, pack, read_manifest
from model.errors import CheckpointError, DatasetError, ParityError
from model.instances import InstanceRule
from model.network import UNet
from model.runtime import Runtime
from tests.training.networks import (
    VALIDATION,
    bright_is_object,
    drawn,
    manifest_for,
    save_network,
    state_of,
    write_spots,
)
from training.data.dataset import digest, read_dataset
from training.export.__main__ import main
from training.export.gate import export_scored, passed, variants_of
from training.export.graph import export_graph
from training.export.images import find_images
from training.export.trained import export, load
from training.export.variants import Variant
from training.run import checkpoint
from training.settings import StoredPrecision

SMALL = Architecture(depth=1, base_channels=1)


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of bright squares: `best.pt`, and the images in `data`."""
    folder = tmp_path_factory.mktemp("spots")
    dataset = write_spots(folder / "data")
    save_network(folder / "best.pt", bright_is_object(), dataset)
    return folder


def manifest_in(data: bytes) -> Manifest:
    """Read a manifest without the graph before it."""
    entries = onnx.load_from_string(data).metadata_props
    return read_manifest(Path("bytes"), {entry.key: entry.value for entry in entries})


def variant(precision: Precision, score: float) -> Variant:
    manifest = manifest_for(drawn(SMALL), precision=precision)
    return Variant(b"", manifest, ("ap50", score), 0.1)


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace one network once for all tests: it takes seconds."""
    monkeypatch.setattr("training.export.trained.export_graph", export_once)
    monkeypatch.setattr("training.export.variants.export_graph", export_once)


def export_once(network: UNet, precision: StoredPrecision) -> bytes:
    parameters = pickle.dumps([parameter.detach().numpy() for parameter in network.parameters()])
    key = (parameters, precision)
    if key not in TRACED:
        TRACED[key] = export_graph(network, precision)
    return TRACED[key]


TRACED: dict[tuple[bytes, StoredPrecision], bytes] = {}


@pytest.fixture
def without_graph(_traced_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.export.trained.export_graph", lambda *_: b"")


@pytest.mark.usefixtures("without_graph")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_artefact_says_how_it_is_stored_and_what_its_validation_chose(
    tmp_path: Path, precision: Any
) -> None:
    rule = {"seed_threshold": 0.7, "smallest_area": 12}
    validation = VALIDATION | {"step": 40, "threshold": 0.45, "rule": rule}
    path = save_network(tmp_path / "best.pt", drawn(SMALL), validation=validation)
    found = manifest_in(export(path, precision))
    assert (found.precision, found.decision_threshold) == (precision, 0.45)
    assert found.instances == InstanceRule(**rule)
    assert found.training.steps == 40
    assert found.scores is None


@pytest.mark.usefixtures("without_graph")
def test_a_checkpoint_without_a_threshold_gives_an_artefact_without_one(tmp_path: Path) -> None:
    """As one with more than two classes has none; its manifest must be one that can be read."""
    network = UNet(Architecture(num_classes=3, depth=1, base_channels=1))
    validation = VALIDATION | {"threshold": None}
    path = save_network(tmp_path / "best.pt", network, validation=validation)
    found = manifest_in(export(path, "fp32"))
    assert (found.decision_threshold, found.instances) == (None, None)


@pytest.mark.parametrize("missing", ["model", "manifest", "validation", "source"])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path, missing: str) -> None:
    state = state_of(UNet(SMALL))
    del state[missing]
    checkpoint.save(tmp_path / "best.pt", state)
    with pytest.raises(CheckpointError, match=r"best\.pt holds no network that fits its manifest"):
        load(tmp_path / "best.pt")


def test_parameters_of_another_architecture_are_refused(tmp_path: Path) -> None:
    wider = UNet(Architecture(depth=1, base_channels=2)).state_dict()
    path = save_network(tmp_path / "best.pt", UNet(SMALL), model=wider)
    with pytest.raises(CheckpointError, match="fits its manifest"):
        load(path)


def test_a_checkpoint_that_was_never_validated_is_refused(tmp_path: Path) -> None:
    path = save_network(tmp_path / "last.pt", UNet(SMALL), validation=None)
    with pytest.raises(CheckpointError, match="before the first validation; train on"):
        load(path)


@pytest.mark.parametrize("score", [0.7951, 0.8, 0.9])
def test_a_variant_passes_that_loses_little(score: float) -> None:
    found = passed(variant("int8", score), variant("fp32", 0.8), force=False)
    assert found.manifest.scores is not None
    gate = {"score": "ap50", "fp32": 0.8, "this": score, "forced": False, "seen": False}
    assert found.manifest.scores.values == {"gate": gate}


@pytest.mark.parametrize("score", [0.7949, 0.0, float("nan")])
def test_a_variant_that_loses_more_is_refused_with_both_scores(score: float) -> None:
    with pytest.raises(ParityError, match=rf"int8 has ap50 {score:.4f} and fp32 has 0\.8000"):
        passed(variant("int8", score), variant("fp32", 0.8), force=False)


def test_a_variant_that_is_forced_says_so() -> None:
    found = passed(variant("int8", 0.2), variant("fp32", 0.8), force=True)
    assert found.manifest.scores is not None
    assert found.manifest.scores.values["gate"]["forced"] is True


def test_a_good_variant_is_not_called_forced() -> None:
    found = passed(variant("int8", 0.8), variant("fp32", 0.8), force=True)
    assert found.manifest.scores is not None
    assert found.manifest.scores.values["gate"]["forced"] is False


def test_int8_is_written_with_its_own_scores_beside_those_of_float32(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert main([str(spots / "best.pt"), str(out), "--precision", "int8"]) == 0
    manifest = Runtime(out, "cpu").manifest
    assert manifest.precision == "int8"
    assert manifest.scores is not None
    assert manifest.scores.images == ("t1",)
    assert manifest.scores.values["ap50"]["value"] > 0.9
    gate = manifest.scores.values["gate"]
    assert (gate["score"], gate["forced"], gate["seen"]) == ("ap50", False, False)
    assert [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()] == [
        "precision",
        "---",
        "fp32",
        "int8",
    ]
    assert list(tmp_path.iterdir()) == [out]


def test_int8_that_answers_badly_is_not_written(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it was calibrated on values a thousandfold too large, and rounds all to nothing."""
    spoil_calibration(monkeypatch)
    out = tmp_path / "out.onnx"
    assert main([str(spots / "best.pt"), str(out), "--precision", "int8"]) == 1
    assert not out.exists()
    assert "more than 0.005 are lost" in capsys.readouterr().err


def test_int8_that_answers_badly_is_written_by_force_and_says_so(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_calibration(monkeypatch)
    out = tmp_path / "out.onnx"
    assert main([str(spots / "best.pt"), str(out), "--precision", "int8", "--force"]) == 0
    scores = Runtime(out, "cpu").manifest.scores
    assert scores is not None
    assert scores.values["gate"]["forced"] is True
    assert "| int8, forced |" in capsys.readouterr().out


def spoil_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.export.calibration import observe

    def too_large(network: UNet, tiles: Any) -> Any:
        return observe(network, (tile * 1000 for tile in tiles))

    monkeypatch.setattr("training.export.variants.observe", too_large)


def test_data_that_lies_elsewhere_is_named(spots: Path, tmp_path: Path) -> None:
    path = moved(spots, tmp_path)
    found = export_scored(path, "fp32", spots / "data")
    assert [entry.manifest.precision for entry in found] == ["fp32"]
    assert found[0].score[1] > 0.9


def test_int8_without_its_data_is_refused_and_told_what_to_do(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert main([str(moved(spots, tmp_path)), str(out), "--precision", "int8"]) == 1
    assert "not found at /no/such/folder; say where it is with --data" in capsys.readouterr().err
    assert not out.exists()


def test_fp16_without_its_data_is_not_written_unless_by_force(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "out.onnx", moved(spots, tmp_path)
    assert main([str(path), str(out)]) == 1
    assert "Or write the file unscored, with --force." in capsys.readouterr().err
    assert not out.exists()
    assert main([str(path), str(out), "--force"]) == 0
    found = Runtime(out, "cpu").manifest
    assert (found.precision, found.scores) == ("fp16", None)


def test_fp32_without_its_data_is_written_and_said_to_be_unscored(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert main([str(moved(spots, tmp_path)), str(out), "--precision", "fp32"]) == 0
    assert Runtime(out, "cpu").manifest.scores is None
    assert "was not scored. The data of untrained is not found" in capsys.readouterr().err


def test_other_data_is_refused(spots: Path, tmp_path: Path) -> None:
    write_spots(tmp_path / "other", count=4)
    with pytest.raises(DatasetError, match="is not the data that untrained was trained on"):
        export_scored(spots / "best.pt", "fp32", tmp_path / "other")


def test_the_table_has_a_line_for_each_precision_and_writes_no_file(
    spots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(spots.iterdir())
    assert main([str(spots / "best.pt"), "--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["fp32", "fp16", "int8"]
    assert set(spots.iterdir()) == before


def test_variants_have_one_score_and_hardly_differ_in_it(spots: Path) -> None:
    fp32, fp16 = variants_of(spots / "best.pt", ("fp32", "fp16"))
    assert (fp32.score[0], fp16.score[0]) == ("ap50", "ap50")
    assert fp16.score[1] == pytest.approx(fp32.score[1], abs=0.01)
    assert min(fp32.seconds, fp16.seconds) > 0


def test_a_network_that_saw_every_image_keeps_its_threshold_and_has_no_scores(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_network(tmp_path / "best.pt", bright_is_object(), write_spots(tmp_path / "data"))
    state = checkpoint.load(path)
    manifest = Manifest.model_validate_json(state["manifest"])
    training = manifest.training.model_copy(update={"validation_images": ()})
    manifest = manifest.model_copy(update={"training": training})
    checkpoint.save(path, state | {"manifest": manifest.model_dump_json()})
    out = tmp_path / "out.onnx"
    assert main([str(path), str(out), "--precision", "fp16"]) == 0
    found = Runtime(out, "cpu").manifest
    assert found.decision_threshold == 0.35
    assert found.scores is not None
    assert (found.scores.images, set(found.scores.values)) == ((), {"gate"})
    assert "trained on every image" in capsys.readouterr().out


def moved(spots: Path, folder: Path) -> Path:
    """Copy the run's checkpoint, with a place for its data where nothing is."""
    state = checkpoint.load(spots / "best.pt")
    source = state["source"] | {"data": "/no/such/folder"}
    checkpoint.save(folder / "best.pt", state | {"source": source})
    return folder / "best.pt"


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none.pt"), str(tmp_path / "out.onnx")]) == 1
    assert capsys.readouterr().err == f"There is no checkpoint {tmp_path}/none.pt.\n"


@pytest.mark.parametrize("words", [["best.pt"], ["best.pt", "out.onnx", "--table"]])
def test_the_command_writes_a_file_or_a_table(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "name either OUT.onnx or --table" in capsys.readouterr().err


def test_the_network_of_a_checkpoint_is_that_which_was_saved(tmp_path: Path) -> None:
    network = drawn(SMALL)
    found = load(save_network(tmp_path / "best.pt", network)).network
    assert not found.training
    assert all(
        torch.equal(found.state_dict()[name], it) for name, it in network.state_dict().items()
    )


@pytest.fixture
def artefact(spots: Path, tmp_path: Path) -> Path:
    """Give the artefact of the run, with scores, copied away from its checkpoint."""
    path = tmp_path / "copied.onnx"
    path.write_bytes(export_scored(spots / "best.pt", "fp16")[-1].data)
    return path


class TestOfAnArtefact:
    def test_it_becomes_one_of_another_precision(
        self, spots: Path, tmp_path: Path, artefact: Path
    ) -> None:
        out = tmp_path / "int8.onnx"
        words = [str(artefact), str(out), "--precision", "int8", "--data", str(spots / "data")]
        assert main(words) == 0
        before, after = Runtime(artefact, "cpu").manifest, Runtime(out, "cpu").manifest
        assert (before.precision, after.precision) == ("fp16", "int8")
        assert after.training == before.training
        assert after.scores is not None
        assert after.scores.images == ("t1",)
        assert after.scores.values["gate"]["this"] > 0.9
        assert not after.scores.values["gate"]["seen"]

    def test_its_training_images_calibrate_and_the_others_score(
        self, spots: Path, artefact: Path
    ) -> None:
        trained = load(artefact)
        images = find_images(trained.source, trained.manifest, spots / "data")
        assert [entry.name for entry in images.training] == ["t0", "t2"]
        assert [entry.name for entry in images.validation] == ["t1"]

    def test_one_that_saw_every_image_is_held_against_itself_on_those(
        self, spots: Path, tmp_path: Path, artefact: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path, data = tmp_path / "whole.onnx", artefact.read_bytes()
        manifest = Runtime(artefact, "cpu").manifest
        digests = tuple(digest(entry) for entry in read_dataset(spots / "data"))
        update = {"training_sha256": digests, "validation_images": ()}
        record = manifest.training.model_copy(update=update)
        graph = data[: manifest.graph_bytes]
        path.write_bytes(pack(graph, manifest.model_copy(update={"training": record})))
        out = tmp_path / "int8.onnx"
        words = [str(path), str(out), "--precision", "int8", "--data", str(spots / "data")]
        assert main(words) == 0
        assert "trained on every image" in capsys.readouterr().out
        found = Runtime(out, "cpu").manifest
        assert found.decision_threshold == manifest.decision_threshold
        assert found.scores is not None
        assert (found.scores.images, set(found.scores.values)) == ((), {"gate"})
        assert found.scores.values["gate"]["seen"]

    def test_its_images_are_read_with_the_value_that_was_ignored(
        self, spots: Path, artefact: Path
    ) -> None:
        dataset = read_dataset(spots / "data", ignore=5)
        manifest = load(artefact).manifest
        fields = {"ignore": 5, "data_sha256": dataset.sha256()}
        record = manifest.training.model_copy(update=fields)
        manifest = manifest.model_copy(update={"training": record})
        ignored = find_images(None, manifest, spots / "data").validation[0].ignored
        assert ignored is not None

    def test_its_scores_are_not_those_of_what_is_made_of_it(self, artefact: Path) -> None:
        assert Runtime(artefact, "cpu").manifest.scores is not None
        assert load(artefact).manifest.scores is None

    def test_without_data_it_is_asked_for(
        self, artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(artefact), str(tmp_path / "out.onnx"), "--precision", "int8"]) == 1
        assert "is not found; say where it is with --data" in capsys.readouterr().err

    def test_one_that_does_not_tell_its_images_apart_is_refused(
        self, spots: Path, artefact: Path
    ) -> None:
        manifest = load(artefact).manifest
        record = manifest.training.model_copy(update={"training_sha256": ()})
        manifest = manifest.model_copy(update={"training": record})
        with pytest.raises(DatasetError, match="Export its checkpoint in place of the artefact"):
            find_images(None, manifest, spots / "data")

    def test_one_in_integers_is_refused(self, spots: Path, tmp_path: Path) -> None:
        path = tmp_path / "int8.onnx"
        path.write_bytes(export_scored(spots / "best.pt", "int8")[-1].data)
        with pytest.raises(CheckpointError, match="computes in int8"):
            load(path)
