"""The runtime never lies about the device, and gives what the network gives."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from model import runtime as module
from model.architecture import Architecture
from model.errors import DeviceError, InferenceFailed
from model.runtime import Runtime, refuse_two_runtimes
from model.sessions.cuda import CudaOptions, open_on_cuda
from tests.conftest import MakeArtefact, network_of

SMALL = Architecture(base_channels=4)
ON_CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]


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
    built_in = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

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

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built_in)
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


def test_a_graph_that_a_gpu_does_not_open_is_an_error_of_the_device(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu_build(monkeypatch, ends_up_on=ON_CUDA)
    opens = onnxruntime.InferenceSession

    def refuse(data: bytes, options: Any, providers: list[Any], enable_fallback: int) -> Any:
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("invalid device ordinal")
        return opens(data, options, providers=providers, enable_fallback=enable_fallback)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeviceError, match=r"CUDA does not open tiny\.onnx: invalid device ordinal"):
        Runtime(make_artefact(SMALL), "cuda:7")


def test_a_run_on_another_gpu_than_asked_for_is_an_error(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu_build(monkeypatch, ends_up_on=ON_CUDA)
    monkeypatch.setattr(
        FakeSession, "get_provider_options", lambda _: {"CUDAExecutionProvider": {"device_id": "0"}}
    )
    with pytest.raises(DeviceError, match="on cuda:0 in place of cuda:1"):
        Runtime(make_artefact(SMALL), "cuda:1")


def test_tensorrt_that_falls_back_to_cuda_is_an_error(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_gpu_build(monkeypatch, ends_up_on=ON_CUDA)
    with pytest.raises(DeviceError, match="TensorRT cannot be had"):
        Runtime(make_artefact(SMALL), "cuda", cuda=CudaOptions(tensorrt_cache=tmp_path))


@pytest.mark.parametrize(
    ("device", "options", "found"),
    [
        ("auto", CudaOptions(), ("cuda", "cuda:0", "fp32")),
        ("cuda", CudaOptions(), ("cuda", "cuda:0", "fp32")),
        ("cuda:2", CudaOptions(precision="fp16"), ("cuda", "cuda:2", "fp16")),
        ("cuda:1", CudaOptions(tensorrt_cache=Path("x")), ("tensorrt", "cuda:1", "tf32")),
        (
            "cuda",
            CudaOptions(tensorrt_cache=Path("x"), precision="fp16"),
            ("tensorrt", "cuda:0", "fp16"),
        ),
    ],
)
def test_a_gpu_names_what_runs_where_and_in_what(
    make_artefact: MakeArtefact,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    options: CudaOptions,
    found: tuple[str, str, str],
) -> None:
    on_tensorrt = ["TensorrtExecutionProvider", *ON_CUDA]
    pretend_gpu_build(monkeypatch, on_tensorrt if options.tensorrt_cache else ON_CUDA)
    runtime = Runtime(make_artefact(SMALL), device, cuda=options)
    assert (runtime.provider, runtime.device, runtime.precision) == found


def test_what_a_gpu_gives_goes_through_its_buffers(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buffers of the fake lie in the CPU's memory."""
    pretend_gpu_build(monkeypatch, ends_up_on=ON_CUDA)
    monkeypatch.setattr(module, "open_on_cuda", partial(open_on_cuda, memory="cpu"))
    path = make_artefact(SMALL, decision_threshold=0.3)
    on_gpu, on_cpu = Runtime(path, "cuda"), Runtime(path, "cpu", threads=1)
    tiles = np.random.default_rng(0).standard_normal((2, 1, 204, 188)).astype(np.float32)
    np.testing.assert_allclose(on_gpu.run(tiles), on_cpu.run(tiles), atol=1e-5)
    decided = np.stack([on_gpu.manifest.decide(logits) for logits in on_gpu.run(tiles)])
    np.testing.assert_array_equal(on_gpu.labels(tiles), decided)


class OnlyLogits:
    """A session of another kind, which decides nothing."""

    provider, device, precision = "cpu", "cpu", "bf16"

    def __init__(self, session: Any) -> None:
        self.run = session.run


@pytest.mark.parametrize("session", [lambda real: real, OnlyLogits])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_labels_are_the_decision_on_the_logits_whoever_decides(
    make_artefact: MakeArtefact, session: Any, threshold: float | None
) -> None:
    runtime = Runtime(make_artefact(SMALL, decision_threshold=threshold), "cpu", threads=1)
    runtime._session = session(runtime._session)
    tiles = np.random.default_rng(0).standard_normal((2, 1, 204, 188)).astype(np.float32)
    wanted = np.stack([runtime.manifest.decide(logits) for logits in runtime.run(tiles)])
    found = runtime.labels(tiles)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)


def test_labels_of_a_batch_that_the_graph_cannot_run_are_an_error_of_ours(
    make_artefact: MakeArtefact,
) -> None:
    with pytest.raises(InferenceFailed, match="1×1×100×100"):
        Runtime(make_artefact(SMALL), "cpu").labels(np.zeros((1, 1, 100, 100), np.float32))


def test_a_runtime_is_on_one_device(make_artefact: MakeArtefact) -> None:
    with pytest.raises(ValueError, match="too many values"):
        Runtime(make_artefact(SMALL), "cuda:0,1")


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


@pytest.mark.parametrize(
    "options", [CudaOptions(precision="fp16"), CudaOptions(tensorrt_cache=Path("engines"))]
)
def test_auto_does_not_fall_back_where_a_gpu_was_asked_for_in_other_ways(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch, options: CudaOptions
) -> None:
    pretend_gpu_build(monkeypatch, ends_up_on=["CPUExecutionProvider"])

    with pytest.raises(DeviceError):
        Runtime(make_artefact(SMALL), "auto", cuda=options)


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
    monkeypatch.setattr(runtime, "labels", lambda tiles: seen.append(tiles.shape))

    runtime.warm_up((204, 236), batch=2)

    assert seen == [(2, 3, 204, 236)]
