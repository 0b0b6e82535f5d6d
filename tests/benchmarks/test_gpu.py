"""The GPU's benchmark, as far as it goes without one."""

import asyncio
import json
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import kept
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import engines, ways
from benchmarks.gpu.agreement import agreement
from benchmarks.gpu.card import read_card
from benchmarks.gpu.measured import attempt, columns
from benchmarks.gpu.product import product, product_rate
from benchmarks.kept import NOT_KEPT
from benchmarks.untrained import write_artefact
from model.architecture import Architecture
from model.errors import InferenceFailed
from model.geometry import Geometry
from model.planner import TileShapes, plan_tiles, work
from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE
from model.sessions.cuda import MOST_TILES, CudaOptions
from model.sessions.gpu_memory import GpuMemory
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
    exact[1] = [[1.0, 0.0004, -1.0]]
    found = exact.copy()
    found[1, 0, 1] = -0.0004
    agreed = agreement(TWO, exact, found, TWO.decide(found), "fp32")
    assert (agreed["labels_differ"], agreed["off_ties"], agreed["agrees"]) == (1, 0, True)
    assert agreed["logits_differ"] == pytest.approx(0.0008)


def test_labels_that_differ_off_ties_do_not_agree() -> None:
    exact = np.zeros((3, 1, 2), np.float32)
    exact[2] = 1
    found = exact.copy()
    found[1, 0, 0] = 2
    agreed = agreement(THREE, exact, found, THREE.decide(found), "fp16")
    assert (agreed["labels_differ"], agreed["off_ties"], agreed["agrees"]) == (1, 1, False)


def test_logits_that_are_too_far_off_do_not_agree_though_all_labels_do() -> None:
    exact = np.stack([np.zeros((2, 2)), np.full((2, 2), 10)]).astype(np.float32)
    labels = TWO.decide(exact)
    assert agreement(TWO, exact, exact * 1.01, labels, "fp16")["agrees"]
    assert not agreement(TWO, exact, exact * 1.05, labels, "fp16")["agrees"]
    assert not agreement(TWO, exact, exact * np.nan, labels, "fp16")["agrees"]


def test_a_gpu_that_decides_otherwise_than_its_own_logits_does_not_agree() -> None:
    exact = np.stack([np.zeros((2, 2)), np.full((2, 2), 10)]).astype(np.float32)
    agreed = agreement(TWO, exact, exact, 1 - TWO.decide(exact), "fp32")
    assert (agreed["logits_differ"], agreed["off_ties"], agreed["agrees"]) == (0, 4, False)


def test_the_product_is_a_product() -> None:
    for kind, dtype in ((1, np.float32), (10, np.float16)):
        model = onnx.load_model_from_string(product(kind))
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(product(kind))
        a, b = np.random.default_rng(0).uniform(0, 1, (2, 5, 5)).astype(dtype)
        np.testing.assert_allclose(session.run(None, {"a": a, "b": b})[0], a @ b, rtol=2e-2)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_rate_of_a_product_is_measured_where_it_is_asked_for(precision: str) -> None:
    assert product_rate(precision, ("cpu", 0), edge=64) > 0


def test_images_go_through_an_engine_as_many_at_a_time_as_said() -> None:
    runtime = RecordingRuntime("cuda")
    model = Loaded([runtime], square(EDGE))
    model.state = "ready"
    engine = Engine()
    engine.start()
    try:
        sizes = [(1, 1), (1, 40), (40, 1)]
        images = [engines.begin(size, model.shapes, MANIFEST) for size in sizes]
        assert len(asyncio.run(engines.latencies(engine, model, images, at_a_time=1))) == 3
    finally:
        engine.stop()
    assert runtime.decided == runtime.runs
    assert len(runtime.runs) == 3


@pytest.mark.parametrize(
    ("soundings", "growth"), [([9, 9, 1, 1, 5, 5, 5, 5], 0), ([0, 1, 2, 3, 4, 5, 6, 7], 3)]
)
def test_memory_that_is_taken_once_is_no_growth(soundings: list[float], growth: float) -> None:
    assert engines.growth_over_second_half(soundings) == pytest.approx(growth)


SMALL = Architecture(depth=2, base_channels=4)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artefact") / "small.onnx"
    write_artefact(path, SMALL)
    return path


@pytest.fixture
def in_little(monkeypatch: pytest.MonkeyPatch, artefact: Path) -> None:
    """Measure few images with small networks, and on the CPU."""
    for module in (engines, ways):
        monkeypatch.setattr(module, "Runtime", lambda path, *_, **__: Runtime(path, "cpu"))
        monkeypatch.setattr(module, "MODEL", artefact)
        monkeypatch.setattr(module, "EDGE", 60)
    monkeypatch.setattr(ways, "ROUNDS", 1)
    changes = {"PAPER": SMALL, "IMAGES": 3, "ALONE": 2, "COLD": 1, "REQUESTS": 36, "SOUNDINGS": 6}
    changes |= {"SIZES": ((20, 33), (64, 64))}
    for name, value in changes.items():
        monkeypatch.setattr(engines, name, value)
    monkeypatch.setattr(engines, "gpu_memory", lambda _: GpuMemory(5 * engines.MIB, 1))


@pytest.mark.usefixtures("in_little")
def test_a_way_is_held_against_the_cpu_and_timed_in_batches() -> None:
    found = ways.measure({"one": CudaOptions()}, {"fp32": 1e9})
    assert [(row["way"], row["batch"]) for row in found] == [("one", n) for n in ways.BATCHES]
    assert all(row["agrees"] for row in found)
    assert all(row["tflop_a_second"] > 0 for row in found)
    assert "failed" in ways.measure({"one": CudaOptions()}, {})[0]


@pytest.mark.usefixtures("in_little")
def test_tensorrt_is_asked_for_no_more_tiles_than_its_engine_is_made_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Runtime, "provider", "tensorrt")
    found = ways.measure({"one": CudaOptions()}, {"fp32": 1e9})
    assert [row["batch"] for row in found] == [n for n in ways.BATCHES if n <= MOST_TILES]


@pytest.mark.usefixtures("in_little")
def test_rates_are_those_of_both_models_in_every_engine() -> None:
    found = [*engines.measure_shipped({"fp32": 1e9}), *engines.measure_paper({"fp32": 1e9})]
    assert [(row["model"], row["engine"]) for row in found] == [
        (model, engine) for model in ("small", "untrained") for engine in engines.ENGINES
    ]
    for row in found:
        assert row["alone_ms"] > 0
        assert row["images_a_second"] > 0
        assert row["share_of_product"] > 0


def test_an_image_costs_what_one_tile_of_the_paper_s_network_does() -> None:
    shapes = TileShapes.fixed(Geometry(engines.PAPER.depth), DEFAULT_TILE_EDGE)
    plan = plan_tiles((engines.EDGE, engines.EDGE), engines.PAPER, shapes)
    assert (len(plan.tiles), plan.tile_shape) == (1, (700, 700))
    assert work(plan, engines.PAPER) == pytest.approx(493e9, rel=1e-3)


class Cold(Runtime):
    """It opens, and cannot be warmed up."""

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        raise InferenceFailed("no memory")


@pytest.mark.usefixtures("in_little")
@pytest.mark.parametrize("is_cold", [(True, True), (False, True)])
def test_an_engine_that_is_not_warm_on_every_place_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, artefact: Path, is_cold: tuple[bool, bool]
) -> None:
    opened = cycle(Cold(artefact, "cpu") if cold else Runtime(artefact, "cpu") for cold in is_cold)
    monkeypatch.setattr(engines, "Runtime", lambda *_, **__: next(opened))
    monkeypatch.setattr(engines, "ENGINES", {"two": (CudaOptions(), ("cuda:0", "cuda:0"))})
    (row,) = engines.measure_shipped({"fp32": 1e9})
    assert row["engine"] == "two"
    assert row["failed"].startswith(f"small became warm on {is_cold.count(False)} of 2 places")


@pytest.mark.usefixtures("in_little")
def test_memory_is_sounded_over_requests_of_mixed_sizes() -> None:
    (row,) = engines.measure_memory()
    assert row["used_mib"] == [5.0] * 6
    assert row["growth_mib"] == 0
    assert row["requests_a_second"] > 0
    assert (row["compared"], row["pixels_differ"]) == (6, 0)


def rows(**changes: Any) -> dict[str, list[dict[str, Any]]]:
    way = {"way": "fp32", "agrees": True}
    memory = {"requests": 2000, "growth_mib": 0.0, "most_mib": 32, "used_mib": [1.0, 2.0]}
    memory |= {"pixels_differ": 0.0, "most_differ": 1e-3}
    changed = {name: value for name, value in changes.items() if name in memory}
    others = {name: value for name, value in changes.items() if name in way}
    return {
        "ways": [{**way, **others}, {"way": "fp16, graphs", "failed": "no"}],
        "engines": [],
        "memory": [memory | changed],
        "tensorrt": [{"way": "fp16, TensorRT", "failed": "TensorRT cannot be had"}],
    }


def test_a_run_is_right_where_the_gpu_agrees_and_memory_is_flat() -> None:
    assert gpu.is_right(rows())
    for wrong in (
        {"agrees": False},
        {"growth_mib": 33.0},
        {"pixels_differ": 0.1},
    ):
        assert not gpu.is_right(rows(**wrong))
    assert not gpu.is_right(rows(way="fp16"))
    for part in ("engines", "memory"):
        assert not gpu.is_right(rows() | {part: [{"failed": "no time was left"}]})


@pytest.mark.parametrize(
    ("commit", "part", "status"),
    [("abc", {}, 0), ("abc", {"agrees": False}, 1), ("abc-dirty", {}, NOT_KEPT)],
)
def test_a_run_keeps_what_is_of_a_commit_and_its_exit_status_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commit: str,
    part: dict[str, Any],
    status: int,
) -> None:
    changes: dict[str, Any] = {
        "Runtime": lambda *_: None,
        "describe_card": lambda: {"name": "card"},
        "product_rate": lambda *_: 1e12,
        "measure_in_time": lambda _: rows(**part).items(),
        "RESULT": tmp_path / "gpu.json",
    }
    for name, value in changes.items():
        monkeypatch.setattr(gpu, name, value)
    for module in (gpu, kept):
        monkeypatch.setattr(module, "commit", lambda: commit)
    monkeypatch.setattr(kept, "BUILD", tmp_path / "build")

    assert gpu.main() == status

    folder = tmp_path / "build" if status == NOT_KEPT else tmp_path
    assert json.loads((folder / "gpu.json").read_text())["tensorrt"] == rows()["tensorrt"]
    assert (tmp_path / "gpu.json").exists() == (status != NOT_KEPT)


def test_what_fails_is_a_row_that_says_why() -> None:
    def fail() -> list[dict[str, Any]]:
        raise RuntimeError("out of memory") from ValueError("5 GiB")

    assert attempt(lambda: [{"a": 1}]) == [{"a": 1}]
    assert attempt(fail) == [{"failed": "out of memory 5 GiB"}]


def test_a_part_that_would_come_too_late_is_left_out_and_says_so() -> None:
    now = iter([0.0, 10.0, gpu.BUDGET_S + 1.0])
    parts = {"first": lambda: [{"a": 1}], "last": lambda: [{"a": 2}]}
    assert dict(gpu.measure_in_time(parts, lambda: next(now))) == {
        "first": [{"a": 1}],
        "last": [{"failed": "no time was left after 401 s"}],
    }


def test_the_record_names_the_card_and_is_json() -> None:
    card = read_card("NVIDIA H100 80GB HBM3, 570.1, 81559 MiB\n")
    assert card == {"name": "NVIDIA H100 80GB HBM3", "driver": "570.1", "memory": "81559 MiB"}
    written = json.loads(json.dumps(gpu.record(card, {"fp16": 8e14}, rows())))
    assert written["card"] == card
    assert written["product_tflop_a_second"] == {"fp16": 800.0}
    assert written["command"] == "python -m benchmarks.gpu"


def test_a_table_has_a_column_for_every_value() -> None:
    assert columns([{"way": "a", "ms": 1.23456}, {"way": "bc", "used": [1.0, 3.0]}]) == (
        "way     ms    used\n  a  1.235        \n bc         1 to 3"
    )
