"""int8 against float32 through the service; OpenVINO's bfloat16 and int8 against ONNX Runtime.

The int8 file is made here, of the parameters of the shipped artefact and calibrated on this
repository's samples. It is timed and not scored: what may be shipped is decided by
`training.export`. For bfloat16, OpenVINO is opened past the manifest's gate, as no setting of the
service does (`model.sessions.cpu`): the row says which of the shipped models pass it.
"""

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.images import FOLDER, png, sample
from benchmarks.row import Row
from benchmarks.serving import segment, served
from benchmarks.subject import MODEL
from benchmarks.turns import described, in_turns, ratio
from model.artefact import Manifest, pack
from model.errors import DeviceError
from model.network import UNet
from model.runtime import Runtime
from model.sessions.openvino import FloatPrecision, OpenvinoSession
from training.data.dataset import read_dataset
from training.export.calibration import draw_tiles, observe
from training.export.parameters import read_parameters
from training.export.quantisation import quantise

EDGE, ROUNDS, CALIBRATION_TILES = 512, 7, 4
TILE_EDGE = 572
NAMES = {"fp32": "floats", "int8": "integers"}
"""What the two models are called that the service runs side by side."""


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure all three ratios."""
    rounds = 1 if quick else ROUNDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        yield through_the_service(folder, rounds)
        yield from with_openvino(folder, rounds)


def through_the_service(folder: Path, rounds: int) -> Row:
    """Time requests to one server, which has both files."""
    body = png(sample(EDGE))
    with served(model_dir=folder, default_model=NAMES["fp32"]) as client:
        contestants = {
            precision: partial(segment, client, body, f"/segment?model={name}")
            for precision, name in NAMES.items()
        }
        seconds = in_turns(contestants, rounds)
    has_vnni = machine.has_vnni()
    return Row(
        f"fp32 / int8 through the service, {EDGE}²",
        ratio(seconds, "fp32", "int8"),
        at_least=1.8 if has_vnni else None,
        says=described(seconds) + "; no bar: this processor has no VNNI" * (not has_vnni),
        numbers={"seconds": seconds},
    )


def with_openvino(folder: Path, rounds: int) -> Iterator[Row]:
    """Time one tile in OpenVINO, against ONNX Runtime in float32."""
    bars = {"bf16": (2.0, machine.has_bf16()), "int8": (3.5, machine.has_vnni())}
    geometry = Runtime(MODEL, "cpu").manifest.geometry
    lacking = {"bf16": "no bfloat16", "int8": "no VNNI"}
    shipped = {path.stem: Runtime(path, "cpu").manifest for path in MODEL.parent.glob("*.onnx")}
    notes = {"bf16": gate_note(shipped), "int8": ""}
    for precision, (bar, is_able) in bars.items():
        name = f"ONNX Runtime fp32 / OpenVINO {precision}, tile of {TILE_EDGE} px"
        path = folder / f"{'int8' if precision == 'int8' else 'fp32'}.onnx"
        asked: FloatPrecision = "bf16" if precision == "bf16" else "fp32"
        try:
            theirs = OpenvinoSession(path, path.read_bytes(), geometry, precision=asked)
        except DeviceError as exc:
            yield Row(name, at_least=bar, says=str(exc))
            continue
        tile = np.random.default_rng(0).random((1, 1, TILE_EDGE, TILE_EDGE), np.float32)
        contestants = {
            "ONNX Runtime": partial(Runtime(folder / "fp32.onnx", "cpu").run, tile),
            "OpenVINO": partial(theirs.run, tile),
        }
        seconds = in_turns(contestants, rounds)
        yield Row(
            name,
            ratio(seconds, "ONNX Runtime", "OpenVINO"),
            at_least=bar if is_able else None,
            says=described(seconds)
            + f"; OpenVINO computed in {theirs.precision}"
            + f"; no bar: this processor has {lacking[precision]}" * (not is_able)
            + notes[precision],
            numbers={"seconds": seconds},
        )


def gate_note(shipped: Mapping[str, Manifest]) -> str:
    """Say which models, by their names, the service would compute in bfloat16."""
    verdicts: list[str] = []
    for name, manifest in sorted(shipped.items()):
        gate = manifest.precisions.get("bf16")
        verdict = (
            "not scored in it" if gate is None else "passed" if gate.passed else "lost too much"
        )
        verdicts.append(f"{name} ({verdict})")
    return (
        "; opened past the manifest's gate: with device=auto or openvino, the service computes in "
        f"bfloat16 only a model whose own score in it passed; shipped: {', '.join(verdicts)}"
    )


def write_models(folder: Path) -> None:
    """Write the artefact as it is, and once more in integers."""
    manifest, parameters = read_parameters(MODEL)
    network = UNet(manifest.architecture).eval()
    network.load_state_dict(parameters)
    images = read_dataset(FOLDER)
    calibration = observe(network, draw_tiles(images, manifest, CALIBRATION_TILES))
    graph = MODEL.read_bytes()[: manifest.graph_bytes]
    described = manifest.model_copy(update={"name": NAMES["fp32"]})
    (folder / "fp32.onnx").write_bytes(pack(graph, described))
    described = manifest.model_copy(update={"name": NAMES["int8"], "precision": "int8"})
    (folder / "int8.onnx").write_bytes(pack(quantise(network, calibration), described))
