"""Generated images: their form, their determinism, and the samples made of them."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.data.labels import objects_of
from training.synthetic import Kind, generate, main

KINDS: tuple[Kind, ...] = get_args(Kind)
INSTANCE_KINDS: tuple[Kind, ...] = ("blobs", "touching-cells")
SIZE = (128, 160)
SAMPLES = Path(__file__).parents[2] / "docs" / "samples"


def read(path: Path) -> NDArray[Any]:
    return tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Image.open(path))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_the_same_seed_gives_the_same_pixels(self, kind: Kind) -> None:
        for first, second in zip(generate(kind, SIZE, 7), generate(kind, SIZE, 7), strict=True):
            np.testing.assert_array_equal(first, second)

    def test_another_seed_gives_another_image(self, kind: Kind) -> None:
        for first, second in zip(generate(kind, SIZE, 7), generate(kind, SIZE, 8), strict=True):
            assert (first != second).mean() > 0.1

    def test_image_and_labels_have_the_asked_for_size(self, kind: Kind) -> None:
        image, labels = generate(kind, SIZE, 0)
        assert image.shape == labels.shape == SIZE

    def test_the_image_uses_its_range_of_values(self, kind: Kind) -> None:
        image, _ = generate(kind, SIZE, 0)
        low, high = np.percentile(image, [1, 99])
        assert high - low > 0.3 * np.iinfo(image.dtype).max

    @pytest.mark.parametrize("seed", range(5))
    def test_the_smallest_size_still_holds_objects_and_background(
        self, kind: Kind, seed: int
    ) -> None:
        _, labels = generate(kind, (64, 64), seed)
        assert objects_of(labels).max() >= 1
        assert (labels == 0).any()

    def test_a_size_too_small_is_refused(self, kind: Kind) -> None:
        with pytest.raises(ValueError, match="at least 64 px"):
            generate(kind, (63, 200), 0)

    def test_the_committed_samples_are_what_the_command_writes(
        self, kind: Kind, tmp_path: Path
    ) -> None:
        size = "512" if kind == "membranes" else "256"
        main([kind, "--out", str(tmp_path), "--count", "1", "--size", size, "--seed", "0"])
        written = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        assert [path.parent.name for path in written] == ["images", "labels"]
        for path in written:
            drawn, kept = read(path), read(SAMPLES / kind / path.relative_to(tmp_path))
            assert (drawn.dtype, drawn.shape) == (kept.dtype, kept.shape)
            # Another processor may round a pixel to the other side.
            assert (drawn != kept).mean() < 1e-3


def test_membranes_are_8_bit_with_the_values_of_their_two_classes() -> None:
    image, labels = generate("membranes", SIZE, 0)
    assert image.dtype == labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 255]


def test_membranes_are_darker_than_what_they_enclose() -> None:
    image, labels = generate("membranes", SIZE, 0)
    assert image[labels == 0].mean() < image[labels == 255].mean() - 40


def test_membranes_are_about_five_to_nine_pixels_wide() -> None:
    _, labels = generate("membranes", (256, 256), 0)
    depth = ndimage.distance_transform_edt(labels == 0)
    ridge = (depth == ndimage.maximum_filter(depth, 5)) & (depth > 0)
    assert 5 <= 2 * np.median(depth[ridge]) <= 9


def test_blobs_are_8_bit_and_brighter_than_their_background() -> None:
    image, labels = generate("blobs", SIZE, 0)
    assert image.dtype == np.uint8
    assert image[labels > 0].mean() > image[labels == 0].mean() + 40


def test_touching_cells_are_16_bit_and_touch() -> None:
    image, labels = generate("touching-cells", SIZE, 0)
    left, right = labels[:, :-1], labels[:, 1:]
    assert image.dtype == np.uint16
    assert ((left != right) & (left > 0) & (right > 0)).sum() > 20


@pytest.mark.parametrize("kind", INSTANCE_KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_every_object_is_connected_and_the_ids_have_no_gaps(kind: Kind, seed: int) -> None:
    _, labels = generate(kind, SIZE, seed)
    assert labels.dtype == np.uint16
    assert np.unique(labels).tolist() == list(range(int(labels.max()) + 1))
    for label in range(1, int(labels.max()) + 1):
        assert ndimage.label(labels == label)[1] == 1


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="membranes, blobs, touching-cells, got 'nuclei'"):
        generate("nuclei", SIZE, 0)  # type: ignore[arg-type]  # what the test is about


def test_the_command_writes_as_many_images_as_asked_for(tmp_path: Path) -> None:
    main(["touching-cells", "--out", str(tmp_path), "--count", "2", "--size", "64", "--seed", "5"])
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "touching-cells-005.tif",
        "touching-cells-006.tif",
    ]
    labels = read(tmp_path / "labels" / "touching-cells-006.png")
    np.testing.assert_array_equal(labels, generate("touching-cells", (64, 64), 6)[1])


def test_the_command_refuses_a_size_too_small_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["blobs", "--out", str(tmp_path), "--size", "10"])
    assert "size must be at least 64 px" in capsys.readouterr().err


def test_the_samples_stay_small() -> None:
    sizes = [path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()]
    assert len(sizes) >= 20
    assert sum(sizes) < 2_000_000
