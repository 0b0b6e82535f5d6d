"""The Dockerfiles and .dockerignore, read as text; their health check runs for real."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from service.settings import Settings

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "docker/service.Dockerfile"
TRAINING = ROOT / "docker/training.Dockerfile"
each_dockerfile = pytest.mark.parametrize("path", [SERVICE, TRAINING], ids=lambda path: path.name)


class Instruction(NamedTuple):
    name: str
    value: str


def instructions(path: Path) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments and with continued lines joined."""
    code = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = code.replace("\\\n", "").splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line]


def values(path: Path, name: str) -> list[str]:
    return [found.value for found in instructions(path) if found.name == name]


def copied(path: Path) -> list[str]:
    """What the Dockerfile copies from the project."""
    return [
        source
        for value in values(path, "COPY")
        if not value.startswith("--from=")
        for source in value.split()[:-1]
    ]


def environment(path: Path) -> dict[str, str]:
    pairs = (pair.partition("=") for value in values(path, "ENV") for pair in value.split())
    return {name: value for name, _, value in pairs}


def reaches_the_builder(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last rule that matches it wins.

    A rule that matches a folder matches all inside.
    """
    names = [path, *map(str, PurePosixPath(path).parents)][:-1]
    reaches = True
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        if any(fnmatch(name, rule.removeprefix("!")) for name in names):
            reaches = rule.startswith("!")
    return reaches


@each_dockerfile
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    command = (hadolint, "--no-color", path)
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 -- our own command
    assert done.returncode == 0, done.stdout + done.stderr


@each_dockerfile
def test_a_builder_without_buildkit_can_build_it(path: Path) -> None:
    assert not re.search(r"<<|--link|--mount|--chmod|^# *syntax", path.read_text(), re.MULTILINE)


@each_dockerfile
def test_the_container_does_not_run_as_root(path: Path) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values(path, "USER")[-1])


@each_dockerfile
def test_all_that_is_copied_exists_and_reaches_the_builder(path: Path) -> None:
    sources = copied(path)
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not reaches_the_builder(source)] == []


@each_dockerfile
def test_an_edit_of_the_code_does_not_install_the_dependencies_again(path: Path) -> None:
    found = instructions(path)
    install = next(i for i, (_, value) in enumerate(found) if "pip install" in value)
    before = {word for name, value in found[:install] if name == "COPY" for word in value.split()}
    assert before == {"pyproject.toml", "LICENSE", "./"}


@each_dockerfile
def test_onnx_runtime_does_not_report_to_its_maker(path: Path) -> None:
    assert environment(path)["ORT_DISABLE_TELEMETRY"] == "1"


@each_dockerfile
def test_every_service_variable_is_a_setting(path: Path) -> None:
    named = re.findall(r"UNET_SERVICE_(\w+)", path.read_text())
    assert {name.lower() for name in named} <= Settings.model_fields.keys()


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", "tests/docker/x.py", ".env", "runs/last.pt"]
)
def test_what_no_image_needs_does_not_reach_the_builder(path: str) -> None:
    assert not reaches_the_builder(path)


def test_byte_code_does_not_reach_the_builder() -> None:
    assert not reaches_the_builder("model/__pycache__/tiling.cpython-311.pyc")


def test_the_shipped_models_are_in_the_service_image() -> None:
    assert "model" in copied(SERVICE)
    assert reaches_the_builder("model/pretrained/some.onnx")


def test_the_service_image_has_no_training_code() -> None:
    assert "training" not in copied(SERVICE)


@pytest.mark.parametrize("runtime", ["cpu", "gpu"])
def test_the_service_image_installs_one_runtime_and_no_torch(runtime: str) -> None:
    [install] = [value for value in values(SERVICE, "RUN") if "pip install" in value]
    assert re.findall(r'pip install --no-cache-dir "([^"]*)"', install) == ["./[${RUNTIME}]"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + project["optional-dependencies"][runtime]
    assert sum(name.startswith("onnxruntime") for name in requirements) == 1
    assert [name for name in requirements if name.startswith("torch")] == []


def test_the_service_image_is_for_a_gpu_unless_asked_otherwise() -> None:
    assert values(SERVICE, "ARG") == ["RUNTIME=gpu"]


def test_the_gpu_runtime_brings_cuda_and_cudnn() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [runtime] = project["optional-dependencies"]["gpu"]
    assert re.match(r"onnxruntime-gpu\[cuda,cudnn\]", runtime)


def test_the_service_is_reached_on_the_exposed_port_from_outside() -> None:
    assert environment(SERVICE)["UNET_SERVICE_HOST"] == "0.0.0.0"  # noqa: S104 -- a container
    assert values(SERVICE, "EXPOSE") == [environment(SERVICE)["UNET_SERVICE_PORT"]]


def test_a_stop_reaches_the_service_as_sigterm() -> None:
    """Exec form: a shell in between would keep the signal to itself."""
    assert values(SERVICE, "STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(values(SERVICE, "CMD")[-1]) == ["python", "-m", "service"]


def test_the_training_image_runs_fit_with_the_arguments_that_it_is_given() -> None:
    assert json.loads(values(TRAINING, "ENTRYPOINT")[-1]) == ["python", "-m", "training.fit"]


@contextmanager
def serving(status: int) -> Iterator[tuple[int, list[str]]]:
    """Answer every request with one status; gives the port and the paths asked for."""
    paths: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.send_header("Location", "/")  # what a client that follows redirects would take
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
            """Keep the output of the tests clean."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, paths
        finally:
            server.shutdown()
            thread.join()


def healthy(port: int) -> bool:
    """What Docker would make of the image's health check."""
    [healthcheck] = values(SERVICE, "HEALTHCHECK")
    _python, *arguments = json.loads(healthcheck.partition("CMD")[2])
    command = [sys.executable, *arguments]
    # Docker passes its own proxy settings on; a check that obeyed them would find nobody here.
    env = os.environ | {"UNET_SERVICE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(command, env=env, capture_output=True)  # noqa: S603 -- our own command
    return done.returncode == 0


@pytest.mark.parametrize(
    ("status", "expected"), [(200, True), (204, False), (302, False), (503, False)]
)
def test_healthy_means_that_readyz_answers_200(status: int, expected: bool) -> None:
    with serving(status) as (port, paths):
        assert healthy(port) is expected
    assert paths == ["/readyz"]


def test_a_service_that_does_not_listen_is_unhealthy() -> None:
    with serving(200) as (port, _):
        pass
    assert not healthy(port)
