"""The GPU's benchmark, as far as it goes without one."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import gpu
from model.architecture import Architecture
from service.engine import Engine
from service.models.loaded import Loaded
from tests.conftest import ROOT, manifest_of, square
from tests.service.recording import EDGE, MANIFEST, RecordingRuntime

TWO = manifest_of(Architecture(), decision_threshold=0.5)
THREE = manifest_of(Architecture(num_classes=3))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA may be had here"
)
def test_without_a_gpu_it_refuses_and_writes_nothing() -> None:
    before = gpu.RESULT.read_bytes() if gpu.RESULT.exists() else None
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("benchmarks.gpu needs a GPU: CUDA cannot be had")
    assert len(ended.stderr.splitlines()) == 1
    assert (gpu.RESULT.read_bytes() if gpu.RESULT.exists() else None) == before


def test_labels_that_differ_at_a_tie_agree() -> None:
    exact = np.zeros((2, 1, 3), np.float32)
    exact[1] = [[1.0, 0.001, -1.0]]
    found = exact.copy()
    found[1, 0, 1] = -0.001
    agreed = gpu.agreement(TWO, exact, found, tolerance=0.005)
    assert (agreed["labels_differ"], agreed["off_ties"], agreed["agrees"]) == (1, 0, True)
    assert agreed["logits_differ"] == pytest.approx(0.002)


def test_labels_that_differ_off_ties_do_not_agree() -> None:
    exact = np.zeros((3, 1, 2), np.float32)
    exact[2] = 1
    found = exact.copy()
    found[1, 0, 0] = 2
    agreed = gpu.agreement(THREE, exact, found, tolerance=0.01)
    assert (agreed["labels_differ"], agreed["off_ties"], agreed["agrees"]) == (1, 1, False)


def test_logits_that_are_too_far_off_do_not_agree_though_all_labels_do() -> None:
    exact = np.stack([np.zeros((2, 2)), np.full((2, 2), 10)]).astype(np.float32)
    assert gpu.agreement(TWO, exact, exact * 1.01, tolerance=0.02)["agrees"]
    assert not gpu.agreement(TWO, exact, exact * 1.05, tolerance=0.02)["agrees"]
    assert not gpu.agreement(TWO, exact, exact * np.nan, tolerance=0.02)["agrees"]


def test_the_product_is_a_product() -> None:
    for kind, dtype in ((1, np.float32), (10, np.float16)):
        model = onnx.load_model_from_string(gpu.product(kind))
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(gpu.product(kind))
        a, b = np.random.default_rng(0).uniform(0, 1, (2, 5, 5)).astype(dtype)
        np.testing.assert_allclose(session.run(None, {"a": a, "b": b})[0], a @ b, rtol=2e-2)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_rate_of_a_product_is_measured_where_it_is_asked_for(precision: str) -> None:
    assert gpu.product_rate(precision, ("cpu", 0), edge=64) > 0


def test_images_go_through_an_engine_as_many_at_a_time_as_said() -> None:
    runtime = RecordingRuntime("cuda")
    model = Loaded([runtime], square(EDGE))
    model.state = "ready"
    engine = Engine()
    engine.start()
    try:
        sizes = [(1, 1), (1, 40), (40, 1)]
        images = [gpu.begin(size, model.shapes, MANIFEST) for size in sizes]
        assert len(asyncio.run(gpu.latencies(engine, model, images, at_a_time=1))) == 3
    finally:
        engine.stop()
    assert runtime.decided == runtime.runs
    assert len(runtime.runs) == 3


@pytest.mark.parametrize(
    ("soundings", "growth"), [([9, 9, 1, 1, 5, 5, 5, 5], 0), ([0, 1, 2, 3, 4, 5, 6, 7], 2)]
)
def test_memory_that_is_taken_once_is_no_growth(soundings: list[float], growth: float) -> None:
    assert gpu.growth_of_second_half(soundings) == growth


def rows(**changes: Any) -> dict[str, list[dict[str, Any]]]:
    way = {"way": "fp32", "agrees": True, "labels_of_device": True}
    memory = {"requests": 2000, "growth_mib": 0.0, "most_mib": 32, "used_mib": [1.0, 2.0]}
    changed = {name: value for name, value in changes.items() if name in memory}
    others = {name: value for name, value in changes.items() if name in way}
    return {
        "ways": [{**way, **others}, {"way": "fp16, graphs", "failed": "no"}],
        "engines": [],
        "memory": [memory | changed],
    }


def test_a_run_is_right_where_the_gpu_agrees_and_memory_is_flat() -> None:
    assert gpu.is_right(rows())
    for wrong in ({"agrees": False}, {"labels_of_device": False}, {"growth_mib": 33.0}):
        assert not gpu.is_right(rows(**wrong))
    assert not gpu.is_right(rows(way="fp16"))
    for part in ("engines", "memory"):
        assert not gpu.is_right(rows() | {part: [{"failed": "no time was left"}]})


def test_a_part_that_fails_or_comes_too_late_is_a_result_that_says_so() -> None:
    def fail() -> list[gpu.Row]:
        raise RuntimeError("out of memory") from ValueError("5 GiB")

    assert gpu.attempt(lambda: [{"a": 1}], elapsed_s=0) == [{"a": 1}]
    assert gpu.attempt(fail, elapsed_s=0) == [{"failed": "out of memory 5 GiB"}]
    assert gpu.attempt(lambda: [{"a": 1}], gpu.BUDGET_S + 1.0) == [
        {"failed": "no time was left after 401 s"}
    ]


def test_the_record_names_the_card_and_is_json() -> None:
    card = gpu.card_of("NVIDIA H100 80GB HBM3, 570.1, 81559 MiB\n")
    assert card == {"name": "NVIDIA H100 80GB HBM3", "driver": "570.1", "memory": "81559 MiB"}
    written = json.loads(json.dumps(gpu.record(card, {"fp16": 8e14}, rows())))
    assert written["card"] == card
    assert written["product_tflop_a_second"] == {"fp16": 800.0}
    assert written["command"] == "python -m benchmarks.gpu"


def test_a_table_has_a_column_for_every_value() -> None:
    assert gpu.table([{"way": "a", "ms": 1.23456}, {"way": "bc", "used": [1.0, 3.0]}]) == (
        "way     ms    used\n  a  1.235        \n bc         1 to 3"
    )
