"""Imports run one way, service → model ← training, and heavy frameworks stay at the edge."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("model", "service", "training")


def imports_of(path: Path) -> Iterator[str]:
    """Give every module that a file imports, wherever the line stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def files_that_import(package: str, module: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return [
        str(path.relative_to(ROOT))
        for path in files
        if any(name.split(".")[0] == module for name in imports_of(path))
    ]


def loaded_by(statement: str, **variables: str) -> dict[str, object]:
    """Run a statement in a fresh interpreter; give what it loaded and its environment."""
    script = f"{statement}\nimport json, os, sys\n" + (
        "print(json.dumps({'modules': sorted(sys.modules), 'environment': dict(os.environ)}))"
    )
    environment = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded: dict[str, object] = json.loads(ended.stdout)
    return loaded


@pytest.fixture(scope="module")
def service_modules() -> set[str]:
    modules = loaded_by("import service.app")["modules"]
    assert isinstance(modules, list)
    return set(modules)


@pytest.mark.parametrize(
    "module", ["torch", "onnx", "onnxscript", "openvino", "scipy", "tqdm", "training", "tests"]
)
def test_the_service_does_not_load(service_modules: set[str], module: str) -> None:
    assert module not in service_modules


def test_the_service_loads_its_model_package_and_runtime(service_modules: set[str]) -> None:
    assert {"service.app", "model.runtime", "onnxruntime"} <= service_modules


@pytest.mark.parametrize(
    ("package", "other"),
    [
        ("service", "training"),
        ("training", "service"),
        ("model", "service"),
        ("model", "training"),
        *((package, "tests") for package in PACKAGES),
    ],
)
def test_no_file_imports_against_the_direction(package: str, other: str) -> None:
    assert files_that_import(package, other) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_is_relative(package: str) -> None:
    assert files_that_import(package, "") == []


def test_only_the_network_imports_torch_within_model() -> None:
    assert files_that_import("model", "torch") == ["model/network.py"]


def test_nothing_imports_torch_within_service() -> None:
    assert files_that_import("service", "torch") == []


def environment_before_onnxruntime(**variables: str) -> str | None:
    """Import the runtime; give the switch as it was when ONNX Runtime began to load."""
    recorder = (
        "import importlib.abc, os, sys\n"
        "class Recorder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            seen = os.environ.get('ORT_DISABLE_TELEMETRY', '')\n"
        "            os.environ['SEEN'] = seen\n"
        "sys.meta_path.insert(0, Recorder())\n"
        "import model.runtime"
    )
    environment = loaded_by(recorder, **variables)["environment"]
    assert isinstance(environment, dict)
    return str(environment["SEEN"])


def test_the_telemetry_of_onnx_runtime_is_off_before_it_is_imported() -> None:
    assert environment_before_onnxruntime() == "1"


def test_telemetry_stays_as_the_user_has_set_it() -> None:
    assert environment_before_onnxruntime(ORT_DISABLE_TELEMETRY="0") == "0"


def test_openvino_is_imported_without_what_reports_its_use(tmp_path: Path) -> None:
    """That package would run on import, note an id in the home folder, and send it."""
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    modules = loaded_by("import model.sessions, openvino", HOME=str(tmp_path))["modules"]
    assert isinstance(modules, list)
    assert {"openvino", "openvino.tools.ovc.telemetry_stub"} <= set(modules)
    assert [name for name in modules if name.startswith("openvino_telemetry.")] == []
    assert list(tmp_path.iterdir()) == []
