"""What is asked of ONNX Runtime for a GPU: the one place where that is decided."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.architecture import Architecture
from model.errors import DeviceError
from model.sessions.cuda import MOST_TILES, CudaOptions, _graph_for, providers
from model.sessions.half import in_float16
from tests.conftest import manifest_of
from tests.model.sessions.graphs import file_of

MANIFEST = manifest_of(Architecture(depth=1, base_channels=1, in_channels=2))
TENSORRT = CudaOptions(tensorrt_cache=Path("engines"), largest_edge=444)


def options_of(options: CudaOptions, gpu: int = 0) -> dict[str, Any]:
    (_, found), *_ = providers(MANIFEST, gpu, options)
    return dict(found)


def test_float32_is_float32_on_the_gpu_that_was_asked_for() -> None:
    (name, options), last = providers(MANIFEST, 3, CudaOptions())
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert (options["device_id"], options["use_tf32"]) == ("3", "0")


@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        ({"search": "EXHAUSTIVE"}, "cudnn_conv_algo_search", "EXHAUSTIVE"),
        ({"channels_last": True}, "prefer_nhwc", "1"),
        ({"graphs": True}, "enable_cuda_graph", "1"),
    ],
)
def test_an_option_changes_what_is_asked_for_and_nothing_else(
    change: dict[str, Any], name: str, value: str
) -> None:
    plain, changed = options_of(CudaOptions()), options_of(replace(CudaOptions(), **change))
    assert changed == plain | {name: value}
    assert changed != plain


def test_tensorrt_comes_before_cuda_and_keeps_its_engines() -> None:
    names = [
        entry if isinstance(entry, str) else entry[0] for entry in providers(MANIFEST, 1, TENSORRT)
    ]
    assert names == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]
    options = options_of(TENSORRT, gpu=1)
    assert options["trt_engine_cache_enable"] == "1"
    assert (options["trt_engine_cache_path"], options["device_id"]) == ("engines", "1")


def test_tensorrt_makes_one_engine_for_every_tile_that_there_may_be() -> None:
    options, geometry = options_of(TENSORRT), MANIFEST.geometry
    least, most = geometry.smallest_edge, geometry.edge_at_most(444)
    assert options["trt_profile_min_shapes"] == f"tile:1x2x{least}x{least}"
    assert options["trt_profile_max_shapes"] == f"tile:{MOST_TILES}x2x{most}x{most}"


def test_float16_is_what_the_graph_computes_in_or_says_so() -> None:
    data = file_of(MANIFEST)
    assert _graph_for(data, MANIFEST, CudaOptions()) == (data, "fp32")
    half = CudaOptions(precision="fp16")
    assert _graph_for(data, MANIFEST, half) == (in_float16(data), "fp16")
    quantised = MANIFEST.model_copy(update={"precision": "int8"})
    assert _graph_for(data, quantised, half) == (data, "fp32")


def test_what_cannot_be_done_is_refused() -> None:
    quantised = MANIFEST.model_copy(update={"precision": "int8"})
    with pytest.raises(DeviceError, match="int8, which is not given to TensorRT"):
        _graph_for(b"", quantised, TENSORRT)
    with pytest.raises(DeviceError, match="tiny cannot compute in float16"):
        _graph_for(b"\x0b", MANIFEST, CudaOptions(precision="fp16"))
