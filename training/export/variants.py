"""One network at several precisions, side by side: scores, sizes of the files, times."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from model.artefact import Manifest, Precision, pack
from model.network import UNet
from model.runtime import Runtime
from training.data.dataset import AnnotatedImage
from training.evaluate import Evaluation, evaluate
from training.export.calibration import draw_tiles, observe, tile_edge
from training.export.graph import export_graph
from training.export.images import Images
from training.export.quantisation import quantise
from training.scoring import settle_and_score

TURNS = 7
"""Times that a tile is run, of which the median counts."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A network at one precision."""

    graph: bytes
    manifest: Manifest
    score: tuple[str, float]
    """Name and value of the main score on the validation images."""
    seconds: float
    """CPU time of one tile, over all threads, in s."""

    @property
    def data(self) -> bytes:
        """The artefact."""
        return pack(self.graph, self.manifest)

    @property
    def forced(self) -> bool:
        """Whether it was let pass though it loses too much."""
        scores = self.manifest.scores
        return scores is not None and bool(scores.values.get("gate", {}).get("forced"))


def compare(
    network: UNet, manifest: Manifest, images: Images, precisions: Sequence[Precision]
) -> tuple[Variant, ...]:
    """Make a network's variants, score them, and time them in turns.

    Raises:
        ParityError: if the graph of a variant in float is not the network.
    """
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{precision}.onnx" for precision in precisions]
        scored = []
        for path, precision in zip(paths, precisions, strict=True):
            graph = _graph(network, manifest, images, precision)
            draft = manifest.model_copy(update={"precision": precision})
            scored.append((graph, *_score(path, graph, draft, images.validation)))
        seconds = _time_in_turns([Runtime(path, "cpu") for path in paths])
        return tuple(
            Variant(graph, finished, evaluation.main, duration)
            for (graph, finished, evaluation), duration in zip(scored, seconds, strict=True)
        )


def table(variants: Sequence[Variant]) -> str:
    """Lay variants out as a table in Markdown; the first one is the measure of speed."""
    name, edge = variants[0].score[0], tile_edge(variants[0].manifest)
    rows = [
        f"| precision | {name} | file, bytes | CPU, ms a tile of {edge} px | times as fast |",
        "| --- | --- | --- | --- | --- |",
    ]
    for variant in variants:
        cells = (
            f"{variant.manifest.precision}{', forced' if variant.forced else ''}",
            f"{variant.score[1]:.4f}",
            f"{len(variant.data):,}",
            f"{variant.seconds * 1000:.0f}",
            f"{variants[0].seconds / variant.seconds:.2f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    if not variants[0].manifest.training.validation_images:
        rows += ["", "The network was trained on every image, also on those of these scores."]
    return "\n".join(rows)


def _graph(network: UNet, manifest: Manifest, images: Images, precision: Precision) -> bytes:
    if precision != "int8":
        return export_graph(network, precision)
    return quantise(network, observe(network, draw_tiles(images.training, manifest)))


def _score(
    path: Path, graph: bytes, draft: Manifest, validation: Sequence[AnnotatedImage]
) -> tuple[Manifest, Evaluation]:
    """Score a graph; where its parameters have seen the images, the scores are not the file's."""
    if draft.training.validation_images:
        evaluation = settle_and_score(path, graph, draft, validation)
        return Runtime(path, "cpu").manifest, evaluation
    path.write_bytes(pack(graph, draft))
    return draft, evaluate(Runtime(path, "cpu"), validation)


def _time_in_turns(runtimes: Sequence[Runtime]) -> list[float]:
    """Count the CPU time of one tile, in turns, so that a busy machine treats all alike."""
    manifest = runtimes[0].manifest
    edge = tile_edge(manifest)
    shape = (1, manifest.architecture.in_channels, edge, edge)
    tile = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    seconds: list[list[float]] = [[] for _ in runtimes]
    for turn in range(1 + TURNS):
        for runtime, taken in zip(runtimes, seconds, strict=True):
            began = time.process_time()
            runtime.run(tile)
            if turn > 0:  # the first run of a shape prepares memory for it
                taken.append(time.process_time() - began)
    return [statistics.median(taken) for taken in seconds]
