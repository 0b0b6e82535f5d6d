"""The runtime never lies about the device, and gives what the network gives."""

import logging
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from model import runtime as module
from model.architecture import Architecture
from model.errors import DeviceError, InferenceFailed
from model.runtime import Runtime, refuse_two_runtimes
from tests.conftest import MakeArtefact, network_of

SMALL = Architecture(base_channels=4)


class FakeSession:
    """A session that runs where it is told to have ended up."""

    def __init__(self, real: Any, providers: list[str], options: dict[str, Any]) -> None:
        self._real = real
        self._providers = providers
        self._options = options

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_options(self) -> dict[str, Any]:
        return self._options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def pretend_gpu_build(monkeypatch: pytest.MonkeyPatch, ends_up_on: list[str]) -> None:
    """Pretend that CUDA is built in, which is said on machines without a GPU too."""
    real = onnxruntime.InferenceSession
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def session(
        data: bytes, options: Any, providers: list[Any], enable_fallback: int
    ) -> FakeSession:
        assert not enable_fallback
        asked_for_cuda = providers != ["CPUExecutionProvider"]
        opened = real(data, options, providers=["CPUExecutionProvider"])
        return FakeSession(
            opened,
            ends_up_on if asked_for_cuda else ["CPUExecutionProvider"],
            dict(entry for entry in providers if isinstance(entry, tuple)),
        )

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


def test_the_artefact_gives_what_the_network_gives(make_artefact: MakeArtefact) -> None:
    tiles = np.random.default_rng(0).standard_normal((2, 1, 204, 188)).astype(np.float32)

    found = Runtime(make_artefact(SMALL), "cpu", threads=1).run(tiles)

    with torch.no_grad():
        wanted = network_of(SMALL)(torch.from_numpy(tiles)).numpy()
    assert found.shape == (2, 2, 20, 4)
    assert np.abs(found - wanted).max() < 1e-4


def test_cpu_is_cpu(make_artefact: MakeArtefact) -> None:
    assert Runtime(make_artefact(SMALL), "cpu").provider == "cpu"


def test_cuda_without_a_gpu_build_is_an_error_that_names_the_extra(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])

    with pytest.raises(DeviceError, match="extra `gpu`"):
        Runtime(make_artefact(SMALL), "cuda")


def test_a_silent_fall_back_to_the_cpu_is_an_error_that_names_the_library(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu_build(monkeypatch, ends_up_on=["CPUExecutionProvider"])

    with pytest.raises(DeviceError, match=r"libraries are missing \(libc.*\.so"):
        Runtime(make_artefact(SMALL), "cuda")


def test_auto_falls_back_and_says_so(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_gpu_build(monkeypatch, ends_up_on=["CPUExecutionProvider"])
    caplog.set_level(logging.INFO)

    assert Runtime(make_artefact(SMALL), "auto").provider == "cpu"
    assert "running on the CPU" in caplog.text


def test_cuda_is_cuda_when_the_session_says_so(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu_build(monkeypatch, ends_up_on=["CUDAExecutionProvider", "CPUExecutionProvider"])

    assert Runtime(make_artefact(SMALL), "cuda").provider == "cuda"


def test_two_runtimes_in_one_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_distributions", lambda: {"onnxruntime", "onnxruntime-gpu"})

    with pytest.raises(DeviceError, match="overwrite each other"):
        refuse_two_runtimes()


def test_a_batch_that_the_graph_cannot_run_is_an_error_of_ours(make_artefact: MakeArtefact) -> None:
    with pytest.raises(InferenceFailed, match="1×1×100×100"):
        Runtime(make_artefact(SMALL), "cpu").run(np.zeros((1, 1, 100, 100), np.float32))


def test_warming_up_runs_one_batch_of_the_shape(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(make_artefact(Architecture(base_channels=4, in_channels=3)), "cpu", threads=1)
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(runtime, "run", lambda tiles: seen.append(tiles.shape))

    runtime.warm_up((204, 236), batch=2)

    assert seen == [(2, 3, 204, 236)]
