"""The report: one page that needs no other file, and shows what the model does."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.architecture import Architecture
from model.artefact import pack
from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE, segment
from model.tiling import tile_edges
from tests.training.conftest import BLOBS, Run, make_manifest
from training.dataset import AnnotatedImage, read_dataset
from training.evaluate import evaluate
from training.loop import RunFolder
from training.report import write_report

RED, BLUE = (0xC1, 0x27, 0x2D), (0x00, 0x72, 0xB2)


@pytest.fixture(scope="module")
def runtime(run: Run) -> Runtime:
    return Runtime(run.folder / "model.onnx", "cpu")


@pytest.fixture(scope="module")
def images() -> tuple[AnnotatedImage, ...]:
    return read_dataset(BLOBS).images


def page_of(
    folder: Path, runtime: Runtime, images: tuple[AnnotatedImage, ...], log: Any = ()
) -> str:
    written = RunFolder(folder)
    write_report(written, runtime, images, evaluate(runtime, images), log)
    return written.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return (run.folder / "report.html").read_text(encoding="utf-8")


def pictures(page: str) -> list[NDArray[np.uint8]]:
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    ]


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    without_pictures = re.sub(r'src="data:[^"]+"', "", page)
    assert not re.search(r"https?:|//|src=|href=|url\(|@import|<script", without_pictures)


def test_the_scores_are_those_of_the_manifest(page: str, runtime: Runtime) -> None:
    scores = runtime.manifest.scores
    assert scores is not None
    assert f"<td>V_rand</td><td>{scores.values['v_rand']:.6f}</td>" in page
    assert f"<td>IoU object</td><td>{scores.values['iou'][1]:.6f}</td>" in page


def test_the_threshold_stands_with_the_scores(page: str, runtime: Runtime) -> None:
    assert f"at the decision threshold {runtime.manifest.decision_threshold}" in page


def test_the_file_that_was_scored_is_named_by_its_digest(page: str, runtime: Runtime) -> None:
    assert runtime.artefact.sha256 in page


def test_losses_rates_and_scores_are_drawn_over_the_steps(page: str) -> None:
    labels = re.findall(r'aria-label="([^"]+)"', page)
    assert labels == ["loss", "v_rand", "v_info", "learning_rate"]
    assert len(re.findall(r"<polyline points=\"\d", page)) == 4


def test_a_curve_without_a_point_is_left_out(
    tmp_path: Path, runtime: Runtime, images: tuple[AnnotatedImage, ...]
) -> None:
    assert "<svg" not in page_of(tmp_path, runtime, images[:1])


def test_every_validation_image_has_four_pictures_of_its_size(page: str) -> None:
    assert [picture.shape for picture in pictures(page)] == [(256, 256, 3)] * 4


def test_the_error_is_red_where_foreground_is_missed_and_blue_where_there_is_none(
    page: str, runtime: Runtime, images: tuple[AnnotatedImage, ...]
) -> None:
    error = pictures(page)[3]
    labels = segment(
        images[2].image, runtime, tile_edges(runtime.manifest.geometry, DEFAULT_TILE_EDGE)
    )
    missed, invented = (labels < images[2].semantic), (labels > images[2].semantic)
    assert (missed | invented).any()
    np.testing.assert_array_equal((error == RED).all(axis=2), missed)
    np.testing.assert_array_equal((error == BLUE).all(axis=2), invented)


def test_labels_are_drawn_in_the_colours_of_the_manifest(
    page: str, images: tuple[AnnotatedImage, ...]
) -> None:
    label = pictures(page)[1]
    assert np.unique(label[images[2].semantic == 1], axis=0).tolist() == [[0xE6, 0x9F, 0x00]]
    assert not label[images[2].semantic == 0].any()


def test_the_worst_image_comes_first(
    tmp_path: Path, runtime: Runtime, images: tuple[AnnotatedImage, ...]
) -> None:
    page = page_of(tmp_path, runtime, images)
    errors = [float(error) for error in re.findall(r"pixel error ([\d.]+)</figcaption>", page)]
    assert len(errors) == 3
    assert errors == sorted(errors, reverse=True)


def test_words_of_others_are_escaped(
    tmp_path: Path, run: Run, runtime: Runtime, images: tuple[AnnotatedImage, ...]
) -> None:
    manifest = runtime.manifest
    record = manifest.training.model_copy(update={"licence": "<script>alert(1)</script>"})
    graph = (run.folder / "model.onnx").read_bytes()[: manifest.graph_bytes]
    path = tmp_path / "model.onnx"
    path.write_bytes(pack(graph, manifest.model_copy(update={"training": record})))
    page = page_of(tmp_path, Runtime(path, "cpu"), images[:1])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize("channels", [3, 5])
def test_colour_is_shown_in_colour_and_more_channels_by_the_first(
    tmp_path: Path, channels: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 40, 40), np.uint8)
    semantic = np.zeros((40, 40), np.uint8)
    semantic[10:20, 10:20] = 1
    entry = AnnotatedImage("a", image, semantic, semantic.astype(np.int32))
    manifest = make_manifest(Architecture(in_channels=channels, depth=1))
    fake = SimpleNamespace(
        manifest=manifest,
        artefact=SimpleNamespace(sha256="0"),
        run=lambda tiles: np.zeros((len(tiles), 2, tiles.shape[2] - 16, tiles.shape[3] - 16)),
    )
    shown = pictures(page_of(tmp_path, cast("Runtime", fake), (entry,)))[0]
    samples = np.moveaxis(image, 0, 2)[:, :, : 3 if channels == 3 else 1]
    agreement = np.corrcoef(shown.ravel(), np.broadcast_to(samples, shown.shape).ravel())
    assert agreement[0, 1] > 0.99
