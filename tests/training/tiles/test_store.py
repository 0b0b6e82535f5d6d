"""The store: training images on disk, exactly as they were annotated, mapped into memory."""

import errno
import resource
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.errors import TrainingError
from model.intensity import IntensityRule, IntensityScale, match_channels
from tests.training.small import discs, make_plan
from training.data.dataset import AnnotatedImage
from training.plan import Plan
from training.tiles.store import IGNORED, MOST_CENTRES, Store, StoredImage, prepare
from training.tiles.weight_map import border_term, class_weights

GREY = Architecture(depth=1)
COLOUR = Architecture(in_channels=3, depth=1)


def stored(
    folder: Path,
    entry: AnnotatedImage,
    architecture: Architecture = GREY,
    plan: Plan | None = None,
) -> StoredImage:
    (found,) = prepare(folder / "store", [entry], architecture, plan or make_plan()).images
    return found


def with_ignored(entry: AnnotatedImage) -> AnnotatedImage:
    """Leave a corner without an annotation."""
    ignored = np.zeros(entry.semantic.shape, bool)
    ignored[:20, :20] = True
    semantic, objects = (np.where(ignored, 0, part) for part in (entry.semantic, entry.objects))
    return replace(entry, semantic=semantic, objects=objects, ignored=ignored)


def with_objects(objects: NDArray[np.int32], classes: NDArray[np.uint8] | None = None) -> Any:
    semantic = (objects > 0).astype(np.uint8) if classes is None else classes
    return AnnotatedImage("drawn", np.zeros((1, *objects.shape), np.uint8), semantic, objects)


class Watched(Sequence[AnnotatedImage]):
    """Images drawn when they are asked for, and the most that were alive when one was."""

    def __init__(self, count: int) -> None:
        self.total = count
        self.most_alive = 0
        self._drawn: list[weakref.ref[NDArray[Any]]] = []

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        if index >= self.total:
            raise IndexError
        alive = sum(reference() is not None for reference in self._drawn)
        self.most_alive = max(self.most_alive, alive + 1)
        entry = discs(index)
        self._drawn.append(weakref.ref(entry.image))
        return entry


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, ">u2"])
    def test_pixels_are_those_that_were_annotated(self, tmp_path: Path, dtype: Any) -> None:
        entry = discs(channels=3)
        entry = replace(entry, image=entry.image.astype(dtype))
        pixels = stored(tmp_path, entry, COLOUR).pixels
        assert pixels.dtype == entry.image.dtype
        np.testing.assert_array_equal(pixels, entry.image)

    def test_objects_are_those_that_were_annotated(self, tmp_path: Path) -> None:
        entry = discs()
        ids = stored(tmp_path, entry).ids
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, entry.objects)

    def test_what_is_ignored_is_marked(self, tmp_path: Path) -> None:
        entry = with_ignored(discs())
        ids = stored(tmp_path, entry).ids
        np.testing.assert_array_equal(ids == IGNORED, entry.ignored)
        np.testing.assert_array_equal(ids[ids != IGNORED], entry.objects[~entry.ignored])  # type: ignore[operator]  # not None

    def test_borders_are_the_border_term_at_half_precision(self, tmp_path: Path) -> None:
        plan = make_plan(border_weight=7.0, border_sigma=3.0)
        borders = stored(tmp_path, discs(), plan=plan).borders
        expected = border_term(discs().objects, w0=7.0, sigma=3.0)
        assert borders.dtype == np.float16
        assert expected.max() > 5
        np.testing.assert_allclose(borders, expected, rtol=1e-3, atol=1e-7)

    def test_all_of_them_are_mapped_and_cannot_be_written_to(self, tmp_path: Path) -> None:
        found = stored(tmp_path, discs())
        for array in (found.pixels, found.ids, found.borders):
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable

    def test_images_of_several_sizes_and_types_lie_side_by_side(self, tmp_path: Path) -> None:
        drawn = [discs(seed, (30 + seed, 41), channels=1) for seed in range(5)]
        drawn = [
            replace(entry, image=entry.image.astype(dtype))
            for entry, dtype in zip(drawn, "BHfBd", strict=True)
        ]
        store = prepare(tmp_path / "store", drawn, GREY, make_plan())
        for found, entry in zip(store.images, drawn, strict=True):
            np.testing.assert_array_equal(found.pixels, entry.image)
            np.testing.assert_array_equal(found.ids, entry.objects)
            assert found.size == entry.semantic.shape


class TestMemory:
    def test_one_image_is_alive_at_a_time(self, tmp_path: Path) -> None:
        images = Watched(6)
        store = prepare(tmp_path / "store", images, GREY, make_plan())
        assert len(store.images) == 6
        assert images.most_alive == 1

    def test_more_images_than_a_process_may_open_files(self, tmp_path: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        in_use = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, before[1]))
        try:
            images = [discs(size=(12, 12))] * 60
            store = prepare(tmp_path / "store", images, GREY, make_plan())
            assert sum(int(image.ids.max()) for image in store.images) == 60
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    def test_a_store_that_lay_there_is_made_anew(self, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "of-another-run.npy").write_bytes(b"old")
        stored(tmp_path, discs())
        assert not (tmp_path / "store" / "of-another-run.npy").exists()

    def test_a_disk_that_is_full_is_named_with_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(np, "ascontiguousarray", full)
        with pytest.raises(TrainingError, match=r"arrays cannot be written: No space left.*--out"):
            stored(tmp_path, discs())


class TestIds:
    def test_ids_too_sparse_for_a_table_are_counted_anew_in_their_order(
        self, tmp_path: Path
    ) -> None:
        """As float32, 2²⁴ and 2²⁴ + 1 would be one object, and touch without a ridge."""
        objects = np.zeros((6, 9), np.int32)
        for column, number in ((1, (1 << 24) + 1), (2, 1 << 24), (5, 2**31 - 1), (7, 4)):
            objects[1:5, column] = number
        found = stored(tmp_path, with_objects(objects))
        assert found.ids[2].tolist() == [0, 3, 2, 0, 0, 4, 0, 1, 0]
        assert found.classes.tolist() == [0, 1, 1, 1, 1]
        expected = border_term(found.ids, w0=10.0, sigma=2.0).astype(np.float16)
        np.testing.assert_array_equal(found.borders, expected)

    def test_an_image_of_sparse_ids_without_background_has_none(self, tmp_path: Path) -> None:
        objects = np.full((4, 4), 500_000, np.int32)
        objects[:, 2:] = 700_000
        assert stored(tmp_path, with_objects(objects)).ids[0].tolist() == [1, 1, 2, 2]

    def test_every_object_has_the_class_of_its_pixels(self, tmp_path: Path) -> None:
        objects = np.array([[1, 1, 0, 3], [0, 0, 0, 3], [5, 5, 5, 0]], np.int32)
        classes = np.array([[2, 2, 0, 1], [0, 0, 0, 1], [2, 2, 2, 0]], np.uint8)
        found = stored(
            tmp_path, with_objects(objects, classes), Architecture(num_classes=3, depth=1)
        )
        np.testing.assert_array_equal(found.classes[found.ids], classes)

    def test_an_image_without_an_object_is_stored(self, tmp_path: Path) -> None:
        found = stored(tmp_path, with_objects(np.zeros((5, 7), np.int32)))
        assert found.classes.tolist() == [0]
        assert found.centres == ()


class TestCentres:
    def test_every_object_has_one_and_it_lies_on_it(self, tmp_path: Path) -> None:
        """The centre of mass of a ring does not."""
        rows, columns = np.indices((60, 60))
        ring = np.abs(np.hypot(rows - 30, columns - 30) - 20) < 3
        objects = np.where(ring, 7, 0).astype(np.int32)
        objects[2:5, 2:9] = 3
        (centres,) = stored(tmp_path, with_objects(objects)).centres
        assert [objects[row, column] for row, column in centres.astype(int)] == [3, 7]

    def test_they_are_told_apart_by_class(self, tmp_path: Path) -> None:
        objects = np.array([[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 4]], np.int32)
        classes = np.array([[3, 0, 1, 0], [0, 0, 0, 0], [3, 0, 3, 3]], np.uint8)
        image = with_objects(objects, classes)
        centres = stored(tmp_path, image, Architecture(num_classes=4, depth=1)).centres
        assert [of_class.tolist() for of_class in centres] == [[[0, 2]], [[0, 0], [2, 0], [2, 3]]]

    def test_of_very_many_objects_some_are_drawn_once(self, tmp_path: Path) -> None:
        objects = np.zeros((80, 80), np.int32)
        objects[::2, ::2] = np.arange(1, 1601).reshape(40, 40)
        (centres,) = stored(tmp_path, with_objects(objects)).centres
        assert len(np.unique(centres, axis=0)) == MOST_CENTRES
        np.testing.assert_array_equal(stored(tmp_path, with_objects(objects)).centres, [centres])


class TestScale:
    def test_it_is_measured_over_the_whole_image_by_the_rule_of_the_plan(
        self, tmp_path: Path
    ) -> None:
        rule = IntensityRule(low=10, high=90)
        found = stored(tmp_path, discs(), plan=make_plan(intensity=rule))
        low, high = np.percentile(discs().image, (10, 90), method="lower")
        assert found.scale == IntensityScale(low, high)

    def test_a_range_is_the_scale_of_every_image(self, tmp_path: Path) -> None:
        rule = IntensityRule(kind="range", low=-5, high=300)
        found = stored(tmp_path, discs(), plan=make_plan(intensity=rule))
        assert found.scale == IntensityScale(-5, 300)

    def test_grey_for_a_network_of_colour_is_stored_once_on_the_scale_of_serving(
        self, tmp_path: Path
    ) -> None:
        found = stored(tmp_path, discs(), COLOUR)
        assert found.pixels.shape == (1, 48, 60)
        assert found.scale == IntensityRule().measure(match_channels(discs().image, 3))

    def test_each_channel_may_have_its_own_as_in_serving(self, tmp_path: Path) -> None:
        entry, rule = discs(channels=2), IntensityRule(per_channel=True)
        entry.image[1] //= 50
        found = stored(tmp_path, entry, Architecture(2, depth=1), make_plan(intensity=rule))
        assert found.scale == rule.measure(entry.image)
        assert np.ptp(found.scale.apply(found.pixels)[1]) == 2

    def test_colour_for_a_grey_network_is_its_luma(self, tmp_path: Path) -> None:
        entry = discs(channels=3)
        found = stored(tmp_path, entry, GREY)
        np.testing.assert_array_equal(found.pixels, match_channels(entry.image, 1))


class TestClassWeights:
    def weights(self, folder: Path, *images: AnnotatedImage, classes: int = 2) -> Any:
        architecture = Architecture(num_classes=classes, depth=1)
        store: Store = prepare(folder / "store", images, architecture, make_plan())
        return store.class_weights

    def test_they_are_those_of_the_pixels_of_all_images(self, tmp_path: Path) -> None:
        drawn = [discs(0), discs(1, (40, 44)), discs(2, (25, 80))]
        counts = np.bincount(np.concatenate([entry.semantic.ravel() for entry in drawn]))
        np.testing.assert_array_equal(self.weights(tmp_path, *drawn), class_weights(counts))

    def test_what_is_ignored_does_not_count(self, tmp_path: Path) -> None:
        entry = with_ignored(discs())
        kept = entry.semantic[~entry.ignored]  # type: ignore[operator]  # it is not None
        np.testing.assert_array_equal(
            self.weights(tmp_path, entry), class_weights(np.bincount(kept))
        )

    def test_a_class_that_never_occurs_has_none(self, tmp_path: Path) -> None:
        weights = self.weights(tmp_path, discs(), classes=3)
        assert weights[2] == 0
        assert weights[:2].min() > 0
        assert weights.dtype == np.float32
