"""An artefact on the CPU, in what runs it fastest there without another answer."""

import logging
from importlib.util import find_spec

from model.artefact import Artefact, Manifest
from model.errors import DeviceError
from model.sessions import Session, processor
from model.sessions.decision import decision
from model.sessions.onnx import OnnxSession
from model.sessions.openvino import FloatPrecision, OpenvinoSession

log = logging.getLogger(__name__)


def open_on_cpu(
    artefact: Artefact,
    data: bytes,
    threads: int = 0,
    runtime: str = "auto",
) -> Session:
    """Open a verified artefact on the CPU.

    `cpu` is ONNX Runtime, the measure of all others. `openvino` is OpenVINO, or an error. `auto`
    takes OpenVINO where it is installed and the processor has instructions for what it would
    compute in, since from these alone it gains: bfloat16, or the integers of an int8 artefact. In
    float32, and in integers without such instructions, both took the same time to within a tenth on
    a processor with AVX2, and OpenVINO more memory; then ONNX Runtime stays.

    bfloat16 rounds, so neither `auto` nor `openvino` computes in it unless the manifest has the
    score of this very graph in bfloat16, which lost no more than `LARGEST_LOSS`. An int8 artefact
    was scored in integers, or it would not have been written.

    Args:
        artefact: Where it comes from, and its manifest.
        data: The whole file.
        threads: CPU threads of one inference; 0 is one for each core that the process has.
        runtime: What is to run it: `auto`, `cpu` or `openvino`.

    Raises:
        DeviceError: if `openvino` was asked for and would not run it.
    """
    path, manifest = artefact.path, artefact.manifest
    wanted = float_precision(manifest)
    if runtime == "openvino":
        return OpenvinoSession(path, data, manifest.geometry, threads, wanted)
    if runtime == "auto" and gains(manifest) and find_spec("openvino"):
        try:
            return OpenvinoSession(path, data, manifest.geometry, threads, wanted)
        except DeviceError as exc:
            log.warning("running %s in ONNX Runtime: %s", manifest.name, exc)
    precision = "int8" if manifest.precision == "int8" else "fp32"
    return OnnxSession(path, data + decision(manifest), threads, precision=precision)


def float_precision(manifest: Manifest) -> FloatPrecision:
    """Say what the floats of a graph may be computed in."""
    gate = manifest.precisions.get("bf16")
    passed = gate is not None and gate.passed
    return "bf16" if passed and processor.computes_in(processor.BFLOAT16) else "fp32"


def gains(manifest: Manifest) -> bool:
    """Say whether OpenVINO runs an artefact faster than ONNX Runtime on this processor."""
    if manifest.precision == "int8":
        return processor.computes_in(processor.INT8)
    return float_precision(manifest) == "bf16"
