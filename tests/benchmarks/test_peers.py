"""The peers' plain tiling does the work that it is timed for."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import paper
from model.architecture import Architecture
from model.runtime import Runtime
from model.segmentation import segment
from tests.conftest import MakeArtefact, square

SMALL = Architecture(base_channels=4)


def test_the_paper_s_tiling_gives_our_label_map(make_artefact: MakeArtefact) -> None:
    runtime = Runtime(make_artefact(SMALL, decision_threshold=0.4), "cpu", 1)
    pixels = np.random.default_rng(0).integers(0, 256, (400, 390), np.uint8)

    found = paper.segment(pixels, runtime.run, 0.4)

    ours: NDArray[np.uint8] = segment(pixels[np.newaxis], runtime, square(paper.TILE))
    assert np.ptp(ours) == 1
    assert (found == ours).mean() > 0.999


def test_the_answer_is_a_png_of_the_labels(make_artefact: MakeArtefact) -> None:
    runtime = Runtime(make_artefact(SMALL), "cpu", 1)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")

    answer = paper.answer(file.getvalue(), runtime.run, 0.5)

    with Image.open(io.BytesIO(answer)) as picture:
        labels = np.asarray(picture)
    assert np.array_equal(labels, paper.segment(pixels, runtime.run, 0.5))
