"""Which runtime an artefact gets on a CPU: OpenVINO where it gains, and nothing is lost by it."""

import logging
from pathlib import Path
from typing import Any

import pytest

from model.artefact import PrecisionScore
from model.errors import DeviceError
from model.geometry import Geometry
from model.runtime import Runtime
from model.sessions import cpu, processor
from tests.conftest import MakeArtefact

PLAIN, VNNI, BF16 = "avx2 fma", "avx2 avx512_vnni", "avx2 avx512_vnni amx_bf16"
PASSED = {"bf16": PrecisionScore(score="ap50", fp32=0.75, this=0.7452)}
LOST = {"bf16": PrecisionScore(score="ap50", fp32=0.75, this=0.7448)}


class FakeOpenvino:
    """Stands in for a session of OpenVINO, and has what it is asked for."""

    provider = "openvino"
    device = "cpu"

    def __init__(
        self, path: Path, data: bytes, geometry: Geometry, threads: int, precision: str
    ) -> None:
        self.precision = precision


class Machine:
    """A processor, and whether OpenVINO is installed on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._cpuinfo = folder / "cpuinfo"
        self._patch = monkeypatch
        monkeypatch.setattr(processor, "CPUINFO", self._cpuinfo)
        monkeypatch.setattr(cpu, "OpenvinoSession", FakeOpenvino)

    def is_(self, flags: str, *, installed: bool = True) -> None:
        self._cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t: amx_bf16\n")
        self._patch.setattr(cpu, "find_spec", lambda _: object() if installed else None)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def chosen(path: Path, device: str) -> tuple[str, str]:
    runtime = Runtime(path, device, 1)
    return runtime.provider, runtime.precision


@pytest.mark.parametrize(
    ("flags", "manifest", "expected"),
    [
        (PLAIN, {"precisions": PASSED}, ("cpu", "fp32")),
        (VNNI, {"precisions": PASSED}, ("cpu", "fp32")),
        (BF16, {"precisions": PASSED}, ("openvino", "bf16")),
        (BF16, {"precisions": LOST}, ("cpu", "fp32")),
        (BF16, {}, ("cpu", "fp32")),
        (BF16, {"precision": "fp16", "precisions": PASSED}, ("openvino", "bf16")),
        (PLAIN, {"precision": "int8"}, ("cpu", "int8")),
        (VNNI, {"precision": "int8"}, ("openvino", "fp32")),
    ],
)
def test_auto_takes_openvino_where_the_processor_gains_and_the_gate_passed(
    machine: Machine,
    make_artefact: MakeArtefact,
    flags: str,
    manifest: dict[str, Any],
    expected: tuple[str, str],
) -> None:
    """The fake says which precision its floats were asked for in, also of a graph in integers."""
    machine.is_(flags)
    assert chosen(make_artefact(**manifest), "auto") == expected


def test_auto_does_without_openvino_where_it_is_not_installed(
    machine: Machine, make_artefact: MakeArtefact
) -> None:
    machine.is_(BF16, installed=False)
    assert chosen(make_artefact(precisions=PASSED), "auto") == ("cpu", "fp32")


def test_cpu_is_onnx_runtime_in_float32(machine: Machine, make_artefact: MakeArtefact) -> None:
    machine.is_(BF16)
    assert chosen(make_artefact(precisions=PASSED), "cpu") == ("cpu", "fp32")


@pytest.mark.parametrize(
    ("flags", "precisions", "expected"),
    [(PLAIN, PASSED, "fp32"), (BF16, PASSED, "bf16"), (BF16, LOST, "fp32"), (BF16, {}, "fp32")],
)
def test_openvino_that_is_asked_for_rounds_only_past_the_gate(
    machine: Machine,
    make_artefact: MakeArtefact,
    flags: str,
    precisions: dict[str, PrecisionScore],
    expected: str,
) -> None:
    machine.is_(flags)
    assert chosen(make_artefact(precisions=precisions), "openvino") == ("openvino", expected)


def refuse(*_: object) -> None:
    raise DeviceError("OpenVINO cannot run it.")


def test_auto_falls_back_where_openvino_refuses_and_says_so(
    machine: Machine,
    make_artefact: MakeArtefact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine.is_(BF16)
    monkeypatch.setattr(cpu, "OpenvinoSession", refuse)
    with caplog.at_level(logging.WARNING):
        assert chosen(make_artefact(precisions=PASSED), "auto") == ("cpu", "fp32")
    assert "running tiny in ONNX Runtime: OpenVINO cannot run it." in caplog.text


def test_openvino_that_refuses_is_an_error_where_it_was_asked_for(
    machine: Machine, make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.is_(BF16)
    monkeypatch.setattr(cpu, "OpenvinoSession", refuse)
    with pytest.raises(DeviceError, match="cannot run it"):
        Runtime(make_artefact(), "openvino")


def test_a_processor_that_nobody_describes_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert not processor.computes_in(processor.BFLOAT16 | processor.INT8)
