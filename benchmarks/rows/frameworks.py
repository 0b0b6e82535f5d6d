"""The service against LitServe and BentoML around the same ONNX file.

Each runs twice: with the paper's tiling, as its users would write it, and with our planner and
session inside, so that only the frameworks differ. Neither reports its use to anybody here.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import httpx

from benchmarks.clients import send_all
from benchmarks.images import png, sample
from benchmarks.peers import environment
from benchmarks.peers.agreement import require_agreement
from benchmarks.row import Row
from benchmarks.serving import free_port, process, served
from benchmarks.subject import MODEL, ROOT
from benchmarks.turns import Seconds, described, in_turns_cold, ratio
from model.runtime import Runtime

EDGE, CLIENTS, REQUESTS, ROUNDS = 512, 4, 4, 3
SILENT = {"BENTOML_DO_NOT_TRACK": "True", "ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
BARS = {"the paper's tiling": 2.2, "our planner inside": 1.0}


@dataclass(frozen=True, slots=True)
class Framework:
    """A peer, and how it is started."""

    name: str
    package: str
    words: tuple[str, ...]
    """What the interpreter is asked to run; `PORT` stands for the port."""
    ready: str


FRAMEWORKS = (
    Framework("LitServe", "litserve", ("-m", "benchmarks.peers.litserve_service"), "/health"),
    Framework(
        "BentoML",
        "bentoml",
        (
            *("-m", "bentoml", "serve", "benchmarks.peers.bentoml_service:Segment"),
            *("--host", "127.0.0.1", "--port", "PORT"),
        ),
        "/readyz",
    ),
)


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure each framework with either tiling; one that fails does not stop the other."""
    environment.python()
    with served() as ours:
        for framework, (tiling, bar) in product(FRAMEWORKS, BARS.items()):
            name = f"throughput: ours / {framework.name} with {tiling}, {EDGE}²"
            try:
                seconds = compare(ours, framework, tiling, 1 if quick else ROUNDS)
            except (OSError, RuntimeError, ValueError, httpx.HTTPError) as exc:
                yield Row(name, at_least=bar, says=f"{type(exc).__name__}: {exc}"[:300])
                continue
            version = environment.version(framework.package)
            yield Row(
                name,
                ratio(seconds, framework.name, "ours"),
                at_least=bar,
                says=f"version {version}, {CLIENTS} clients, {REQUESTS} requests a turn: "
                + described(seconds),
                numbers={"seconds": seconds},
            )


def compare(ours: httpx.Client, framework: Framework, tiling: str, rounds: int) -> Seconds:
    """Time one framework with one tiling, in turns with ours."""
    port = free_port()
    command = [str(environment.PYTHON)]
    command += [word.replace("PORT", str(port)) for word in framework.words]
    with process(command, told(port, tiling), port, framework.ready) as (theirs, _):
        body = png(sample(EDGE))
        require_agreement(ours, theirs, body)
        bodies = [body] * REQUESTS
        contestants = {
            framework.name: partial(send_all, theirs, bodies, CLIENTS),
            "ours": partial(send_all, ours, bodies, CLIENTS),
        }
        return in_turns_cold(contestants, rounds)


def told(port: int, tiling: str) -> dict[str, str]:
    """Give what a peer's process is told."""
    home = environment.FOLDER / "home"
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([str(environment.FOLDER / "bin"), os.environ["PATH"]])
    return SILENT | {
        "BENCH_MODEL": str(MODEL),
        "BENCH_THRESHOLD": str(Runtime(MODEL, "cpu").manifest.decision_threshold or 0.5),
        "BENCH_PLANNER": "1" * (tiling == "our planner inside"),
        "BENCH_PORT": str(port),
        "BENTOML_HOME": str(home),
        "PATH": path,
        "PYTHONPATH": str(ROOT),
    }
