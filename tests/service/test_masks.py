"""Label maps as clients read them."""

import threading
import time
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from model.artefact import ClassInfo
from service import masks
from service.masks import encode_png, encode_segments

Labels = NDArray[np.uint8]

CLASSES = [ClassInfo(id=index, name=f"c{index}", colour=f"#0{index}0a0f") for index in range(3)]
PYCOCOTOOLS_KNOWS_NUMPY_1 = "ignore:__array__ implementation doesn't accept:DeprecationWarning"

label_maps = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 2)
)


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content), formats=("PNG",))


@given(label_maps)
def test_a_png_holds_the_label_map(labels: Labels) -> None:
    np.testing.assert_array_equal(np.asarray(opened(encode_png(labels, CLASSES))), labels)


@pytest.mark.parametrize("classes", [1, 2, 3, 256])
def test_a_png_has_one_byte_a_pixel_however_many_classes_there_are(classes: int) -> None:
    entries = [ClassInfo(id=index, name="c", colour="#ffffff") for index in range(classes)]
    assert encode_png(np.zeros((2, 3), np.uint8), entries)[24] == 8


def test_the_palette_of_a_png_has_the_colours_of_the_classes() -> None:
    palette = opened(encode_png(np.zeros((2, 3), np.uint8), CLASSES)).getpalette() or []
    assert palette[:9] == [0x00, 0x0A, 0x0F, 0x01, 0x0A, 0x0F, 0x02, 0x0A, 0x0F]


def test_a_png_is_made_of_a_label_map_of_any_strides() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4).T[::-1] % 3
    np.testing.assert_array_equal(np.asarray(opened(encode_png(labels, CLASSES))), labels)


@pytest.mark.filterwarnings(PYCOCOTOOLS_KNOWS_NUMPY_1)
@given(label_maps)
def test_the_segments_decode_to_the_label_map(labels: Labels) -> None:
    found = np.full(labels.shape, 255, np.uint8)
    for segment in encode_segments(labels, CLASSES):
        rle = segment.rle
        found[coco.decode({"size": list(rle.size), "counts": rle.counts}).astype(bool)] = segment.id
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("runs_a_call", [4, 7, 1 << 18])
def test_run_lengths_are_those_that_pycocotools_writes_at_one_go(
    runs_a_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "RUNS_A_CALL", runs_a_call)
    rng = np.random.default_rng(0)
    for rarity in (1, 30, 2000):  # runs of few and of many characters
        labels = (rng.integers(0, rarity + 1, (211, 173)) == 0).astype(np.uint8)
        for segment, entry in zip(encode_segments(labels, CLASSES), CLASSES, strict=True):
            whole = coco.encode(np.asfortranarray(labels == entry.id).view(np.uint8))
            assert segment.rle.counts.encode() == whole["counts"]


@given(label_maps)
def test_the_area_of_a_segment_is_its_number_of_pixels(labels: Labels) -> None:
    for segment in encode_segments(labels, CLASSES):
        assert segment.area == np.count_nonzero(labels == segment.id)


@given(label_maps)
def test_the_box_of_a_segment_is_the_smallest_that_holds_it(labels: Labels) -> None:
    for segment in encode_segments(labels, CLASSES):
        left, top, width, height = segment.bbox
        inside = np.zeros(labels.shape, bool)
        inside[top : top + height, left : left + width] = True
        mask = labels == segment.id
        assert not (mask & ~inside).any()
        if mask.any():
            edges = inside & mask
            assert all(
                edges[index].any()
                for index in (top, top + height - 1, np.s_[:, left], np.s_[:, left + width - 1])
            )


def test_a_class_that_the_label_map_does_not_hold_is_an_empty_segment() -> None:
    empty = encode_segments(np.zeros((4, 5), np.uint8), CLASSES)[1]
    assert (empty.area, empty.bbox, empty.rle.size) == (0, (0, 0, 0, 0), (4, 5))


def longest_hold_s(work: Callable[[], object]) -> float:
    """Give the most time of its own for which a thread kept this one from running."""
    thread = threading.Thread(target=work)
    thread.start()
    clock = time.pthread_getcpuclockid(thread.ident or 0)
    used, longest = 0.0, 0.0
    while thread.is_alive():
        try:
            now = time.clock_gettime(clock)
        except OSError:  # it has just ended
            break
        used, longest = now, max(longest, now - used)
        time.sleep(0.001)
    thread.join()
    return longest


@pytest.mark.parametrize("encode", [encode_png, encode_segments])
def test_encoding_a_large_ragged_label_map_lets_other_threads_run(
    encode: Callable[..., object],
) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (4000, 4000), np.uint8)
    # Three times, since what else the machine does can only make it longer.
    holds = [longest_hold_s(lambda: encode(labels, CLASSES[:2])) for _ in range(3)]
    assert min(holds) < 0.05
