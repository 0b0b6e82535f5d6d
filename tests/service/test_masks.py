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
from model.errors import ObjectsTooMany
from model.segmentation import Objects
from service.masks import LARGEST_ID, encode_ids, encode_objects, encode_png, encode_segments

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


@pytest.mark.parametrize(
    ("classes", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4), (16, 4), (17, 8), (256, 8)]
)
def test_a_png_has_as_few_bits_a_pixel_as_its_classes_need(classes: int, bits: int) -> None:
    entries = [ClassInfo(id=index, name="c", colour="#ffffff") for index in range(classes)]
    for width in range(1, 10):
        labels = np.random.default_rng(width).integers(0, classes, (3, width), np.uint8)
        content = encode_png(labels, entries)
        assert content[24] == bits
        np.testing.assert_array_equal(np.asarray(opened(content)), labels)


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


def numbered(ids: NDArray[np.int32], classes: int = 1) -> Objects:
    """Give objects whose classes are 1, 2, … in turn."""
    return Objects(ids, (np.arange(ids.max()) % classes + 1).astype(np.uint8))


def grid(rows: int, columns: int, edge: int = 1) -> Objects:
    """Give square objects that lie side by side."""
    numbers = np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns)
    return numbered(numbers.repeat(edge, axis=0).repeat(edge, axis=1))


def test_a_png_of_objects_has_their_ids_in_16_bits_of_grey() -> None:
    content = encode_ids(grid(200, 300, edge=2))
    bits, colour_type = content[24], content[25]  # of the IHDR chunk
    assert (bits, colour_type) == (16, 0)
    np.testing.assert_array_equal(np.asarray(opened(content)), grid(200, 300, edge=2).ids)


def test_a_png_numbers_as_many_objects_as_16_bits_can() -> None:
    ids = np.append(np.arange(LARGEST_ID), 65_535).reshape(256, 256).astype(np.int32)
    np.testing.assert_array_equal(np.asarray(opened(encode_ids(numbered(ids)))), ids)


def test_a_png_of_more_objects_is_refused_and_the_other_format_named() -> None:
    with pytest.raises(ObjectsTooMany, match=r"65,536 objects.* 65,535\. Ask for format=json"):
        encode_ids(grid(256, 256))


@pytest.mark.filterwarnings(PYCOCOTOOLS_KNOWS_NUMPY_1)
def test_the_segments_of_objects_decode_to_their_ids() -> None:
    objects = grid(7, 9, edge=3)
    found = np.zeros(objects.shape, np.int32)
    for segment in encode_objects(objects, CLASSES):
        rle = segment.rle
        found[coco.decode({"size": list(rle.size), "counts": rle.counts}).astype(bool)] = segment.id
    np.testing.assert_array_equal(found, objects.ids)


def test_a_segment_of_an_object_names_its_class() -> None:
    objects = numbered(np.array([[1, 0, 2, 3]], np.int32), classes=2)
    named = [(entry.id, entry.class_name) for entry in encode_objects(objects, CLASSES)]
    assert named == [(1, "c1"), (2, "c2"), (3, "c1")]


def test_an_image_without_objects_has_no_segments() -> None:
    assert encode_objects(Objects(np.zeros((4, 5), np.int32), np.zeros(0, np.uint8)), CLASSES) == []


def ragged(values: int, edge: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, values, (edge, edge), np.uint8)


def many(objects: int, edge: int) -> Objects:
    return numbered(ragged(objects, edge).astype(np.int32))


@pytest.mark.parametrize(
    "encode",
    [
        lambda: encode_png(ragged(2, 4000), CLASSES[:2]),
        lambda: encode_segments(ragged(2, 4000), CLASSES[:2]),
        lambda: encode_ids(many(200, 1500)),
        lambda: encode_objects(many(200, 1500), CLASSES),
    ],
    ids=["labels as PNG", "labels as segments", "objects as PNG", "objects as segments"],
)
def test_encoding_a_large_ragged_map_lets_other_threads_run(encode: Callable[[], object]) -> None:
    # Three times, since what else the machine does can only make it longer.
    assert min(longest_hold_s(encode) for _ in range(3)) < 0.05
