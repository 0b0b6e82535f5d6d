"""Settings of the service, and what `python -m service` says when one is wrong."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from pydantic import ValidationError

from model.sessions.cuda import CudaOptions
from service.settings import Settings
from tests.conftest import ROOT, MakeArtefact


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m service` until it ends by itself."""
    environment = os.environ | {f"UNET_SERVICE_{name}": text for name, text in variables.items()}
    return subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_environment_variable_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNET_SERVICE_TILE_EDGE", "572")
    assert Settings().tile_edge == 572


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.device) == ("127.0.0.1", 8000, "auto")
    assert settings.max_upload_bytes == 64 * 2**20
    assert settings.model_dir == ROOT / "model" / "pretrained"


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 65_536},
        {"device": "tpu"},
        {"gpu_precision": "tf32"},
        {"tile_edge": -1},
        {"threads": -1},
        {"max_upload_bytes": 0},
        {"max_image_pixels": -1},
        {"max_pending_pixels": -1},
        {"max_pending_requests": 0},
        {"reload_every_s": -1},
        {"model_memory_bytes": -1},
        {"deadline_s": 0},
        {"stall_timeout_s": 0},
        {"upload_timeout_s": 0},
        {"shutdown_grace_s": -1},
        {"colour": "red"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]  # they are wrong on purpose


def test_what_is_in_flight_has_until_its_deadline_unless_the_grace_is_set() -> None:
    assert Settings().shutdown_grace_s == Settings().deadline_s
    assert Settings(deadline_s=5).shutdown_grace_s == 5
    assert Settings(deadline_s=5, shutdown_grace_s=0).shutdown_grace_s == 0


def test_a_wrong_deadline_is_one_mistake() -> None:
    with pytest.raises(ValidationError, match="1 validation error"):
        Settings(deadline_s=0)


def test_gpus_are_named_by_their_numbers_and_used_in_one_way(tmp_path: Path) -> None:
    settings = Settings(
        device="cuda:0,2", gpu_precision="fp16", tensorrt_cache=tmp_path, tile_edge=700
    )
    assert settings.places == ("cuda:0", "cuda:2")
    assert settings.cuda == CudaOptions(precision="fp16", tensorrt_cache=tmp_path, largest_edge=700)
    assert Settings(device="cuda").places == ("cuda:0",)
    assert Settings().cuda.precision == "fp32"


def test_a_wrong_device_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        ValidationError, match="auto, cpu, openvino, cuda, or cuda: and numbers of GPUs"
    ):
        Settings(device="cuda:a")


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # mypy knows that it is frozen


@pytest.fixture(scope="module")
def help_text() -> str:
    shown = run("--help")
    assert shown.returncode == 0
    return shown.stdout


@pytest.mark.parametrize("name", Settings.model_fields)
def test_help_names_every_variable(help_text: str, name: str) -> None:
    assert f"UNET_SERVICE_{name.upper()}" in help_text


def test_help_says_what_every_setting_is(help_text: str) -> None:
    words = " ".join(help_text.split())
    missing = [
        name
        for name, field in Settings.model_fields.items()
        if " ".join((field.description or "?").split()) not in words
    ]
    assert missing == []


def test_a_wrong_value_ends_the_command_with_2_and_says_which() -> None:
    ended = run(PORT="none")
    assert ended.returncode == 2
    assert ended.stderr.startswith("UNET_SERVICE_PORT is 'none': Input should be a valid integer")
    assert len(ended.stderr.splitlines()) == 1


def test_an_unknown_argument_ends_the_command_with_2() -> None:
    ended = run("--colour", "red")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_a_folder_without_models_ends_the_command_with_1_and_one_line(tmp_path: Path) -> None:
    ended = run(MODEL_DIR=str(tmp_path / "none"))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"cannot serve: {tmp_path}/none holds no .onnx artefact.\n"


def test_an_unknown_default_model_ends_the_command_with_1_and_says_what_there_is(
    model_dir: Path,
) -> None:
    ended = run(MODEL_DIR=str(model_dir), DEVICE="cpu", DEFAULT_MODEL="huge")
    assert ended.returncode == 1
    assert "There is no model 'huge', the default; there are tiny." in ended.stderr.splitlines()[-1]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA may be had here"
)
def test_asking_for_cuda_without_it_ends_the_command_with_1_and_says_what_is_missing(
    model_dir: Path,
) -> None:
    ended = run(MODEL_DIR=str(model_dir), DEVICE="cuda")
    assert ended.returncode == 1
    assert ended.stderr.startswith("cannot serve: CUDA cannot be had")
    assert "Install the extra `gpu`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_damaged_model_alone_ends_the_command_with_1_and_says_why(
    model_dir: Path, tmp_path: Path
) -> None:
    shutil.copy(model_dir / "tiny.onnx", tmp_path)
    (tmp_path / "tiny.onnx").write_bytes((tmp_path / "tiny.onnx").read_bytes()[:5000])
    ended = run(MODEL_DIR=str(tmp_path), DEVICE="cpu")
    assert ended.returncode == 1
    logged, *_, told = ended.stderr.splitlines()
    assert "tiny.onnx cannot be served" in logged
    assert told.startswith(
        f"cannot serve: No artefact in {tmp_path} can be served. tiny.onnx is no"
    )


def test_an_address_in_use_ends_the_service_with_a_code_of_its_own(
    make_artefact: MakeArtefact,
) -> None:
    folder = make_artefact().parent
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run(PORT=str(taken.getsockname()[1]), MODEL_DIR=str(folder), TILE_EDGE="204")
    assert ended.returncode == 3
    assert "address already in use" in ended.stderr
