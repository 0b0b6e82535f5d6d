"""The intensity rule: one scale an image, whatever its depth."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import intensity
from model.errors import ImageChannelsRefused
from model.intensity import ChannelScales, IntensityRule, IntensityScale, match_channels

RULE = IntensityRule()


def grey(seed: int = 0, shape: tuple[int, int] = (40, 50)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1, *shape)).astype(np.uint8)


def scaled(image: NDArray[np.generic]) -> NDArray[np.float32]:
    return RULE.measure(image).apply(image)


def test_the_low_percentile_becomes_minus_one_and_the_high_one_one() -> None:
    scale = IntensityScale(10, 30)

    assert scale.apply(np.array([10, 20, 30], np.uint8)).tolist() == [-1, 0, 1]


def test_what_lies_beyond_the_scale_is_cut() -> None:
    assert IntensityScale(10, 30).apply(np.array([0, 255], np.uint8)).tolist() == [-1, 1]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_one_image_stored_in_several_types_has_one_scale(dtype: type) -> None:
    assert RULE.measure(grey().astype(dtype)) == RULE.measure(grey())


@pytest.mark.parametrize(("dtype", "factor"), [(np.uint16, 257), (np.float32, 1e-3)])
def test_one_image_at_several_depths_has_one_scaling(dtype: type, factor: float) -> None:
    image = grey()

    other: NDArray[np.generic] = (image * np.float64(factor)).astype(dtype)

    assert np.abs(scaled(other) - scaled(image)).max() < 1e-5


def test_16_bits_are_not_squeezed_to_8() -> None:
    image = np.arange(30_000, 32_000, dtype=np.uint16).reshape(1, 40, 50)

    assert len(np.unique(scaled(image))) > 1900


@settings(deadline=None)
@given(st.integers(0, 50))
def test_the_histogram_finds_the_percentiles_that_sorting_finds(seed: int) -> None:
    image = grey(seed)
    low, high = np.percentile(image, (0.5, 99.5), method="lower")

    assert RULE.measure(image) == IntensityScale(float(low), float(high))


def test_an_image_without_contrast_becomes_zero() -> None:
    assert not scaled(np.full((1, 9, 9), 77, np.uint8)).any()


@pytest.mark.parametrize("span", [(-3.4e38, 3.4e38), (0.0, 1e-45)])
def test_extreme_floats_give_finite_numbers(span: tuple[float, float]) -> None:
    image = np.array([*span] * 50, np.float32).reshape(1, 10, 10)

    found = scaled(image)

    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1


def test_percentiles_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="low must lie below high"):
        IntensityRule(low=60, high=40)


@pytest.mark.parametrize(("low", "high"), [(-1, 50), (0, 100.5)])
def test_percentiles_outside_of_a_hundred_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="percentiles lie in 0 to 100"):
        IntensityRule(low=low, high=high)


VIEWS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "as it is": lambda image: image,
    "replicated": lambda image: match_channels(image, 3),
    "turned": lambda image: np.rot90(image, axes=(1, 2)),
    "mirrored": lambda image: image[..., ::-1],
    "samples beside each other": lambda image: np.moveaxis(
        np.repeat(image[0][..., np.newaxis], 3, axis=2), 2, 0
    ),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("percentiles", [(0.0, 100.0), (0.5, 99.5), (33.3, 66.7)])
def test_a_percentile_is_the_value_at_its_rank_however_the_pixels_lie(
    view: Callable[[NDArray[Any]], NDArray[Any]], dtype: str, percentiles: tuple[float, float]
) -> None:
    low, high = percentiles
    image = view(grey(shape=(37, 41)).astype(dtype))
    in_order = np.sort(image, axis=None)

    found = IntensityRule(low=low, high=high).measure(image)

    expected = [in_order[int(percent / 100 * (image.size - 1))] for percent in percentiles]
    assert found == IntensityScale(*expected)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_no_copy_of_a_whole_image_is_made_to_measure_it(
    view: Callable[[NDArray[Any]], NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intensity, "HISTOGRAM_CHUNK", 1024)
    image = view(grey(shape=(500, 700)))

    tracemalloc.start()
    RULE.measure(image)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 500 * 700 / 2


STAINS = np.concatenate(
    [grey(channel, (37, 41)) * np.uint16(factor) for channel, factor in enumerate((200, 1))]
)
"""A bright channel and a dim one."""
OF_CHANNELS = IntensityRule(per_channel=True)


def test_channels_together_hide_a_dim_one_and_each_by_itself_shows_it() -> None:
    together, apart = RULE.measure(STAINS).apply(STAINS), OF_CHANNELS.measure(STAINS).apply(STAINS)

    assert np.ptp(together[1]) < 0.02
    assert np.ptp(apart[1]) == 2


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_each_channel_is_scaled_as_if_it_were_alone(dtype: str) -> None:
    image = (STAINS // 2).astype(dtype)

    found = OF_CHANNELS.measure(image)

    assert isinstance(found, ChannelScales)
    assert list(found.channels) == [RULE.measure(channel[np.newaxis]) for channel in image]
    alone = [scaled(channel[np.newaxis])[0] for channel in image]
    np.testing.assert_array_equal(found.apply(image), alone)
    np.testing.assert_array_equal(found.apply(image[:, 3:9, 5:]), np.stack(alone)[:, 3:9, 5:])


def test_replicated_grey_has_one_scale_that_fits_one_channel_too() -> None:
    found = OF_CHANNELS.measure(match_channels(grey(), 5))

    assert found == RULE.measure(match_channels(grey(), 5))


def test_a_rule_from_before_it_knew_channels_means_all_together() -> None:
    old = IntensityRule.model_validate_json('{"kind": "percentile", "low": 0.5, "high": 99.5}')

    assert old.measure(STAINS) == RULE.measure(STAINS)
    assert not old.per_channel


def test_a_range_of_each_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="a range is that of all channels"):
        IntensityRule(kind="range", per_channel=True)


def test_a_range_is_the_scale_of_every_image() -> None:
    rule = IntensityRule(kind="range", low=-1024, high=3071)

    scales = {rule.measure(image) for image in (grey(), grey(1) // 2, np.zeros((1, 3, 3)))}

    assert scales == {IntensityScale(-1024, 3071)}


def test_a_range_keeps_what_an_exposure_of_each_image_would_lose() -> None:
    """Twice the value is twice the value, in whichever image."""
    rule = IntensityRule(kind="range", low=0, high=200)
    image = grey() // 3

    dark, bright = (rule.measure(part).apply(part) + 1 for part in (image, image * 2))

    np.testing.assert_allclose(bright, 2 * dark, rtol=1e-5)
    assert np.abs(scaled(image * 2) - scaled(image)).max() < 1e-6


@pytest.mark.parametrize(("low", "high"), [(5, 5), (7, 3)])
def test_a_range_out_of_order_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="low must lie below high"):
        IntensityRule(kind="range", low=low, high=high)


@pytest.mark.parametrize("low", [float("nan"), float("-inf")])
def test_a_range_that_is_not_finite_is_refused(low: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        IntensityRule(kind="range", low=low, high=1)


def test_a_rule_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'percentile' or 'range'"):
        IntensityRule.model_validate({"kind": "deviation"})


def test_a_rule_is_the_same_after_a_manifest() -> None:
    rule = IntensityRule(kind="range", low=-0.1, high=1e6)

    assert IntensityRule.model_validate_json(rule.model_dump_json()) == rule


def test_colour_becomes_luma_at_full_depth() -> None:
    colour = np.array([60_001, 30_000, 10_000], np.uint16).reshape(3, 1, 1)

    luma = match_channels(colour, 1)

    assert luma.shape == (1, 1, 1)
    assert luma[0, 0, 0] == pytest.approx(0.299 * 60_001 + 0.587 * 30_000 + 0.114 * 10_000)


def test_grey_is_replicated_for_a_colour_network() -> None:
    image = grey()

    assert np.array_equal(match_channels(image, 3), np.concatenate([image] * 3))


def test_other_numbers_of_channels_are_refused_by_name() -> None:
    with pytest.raises(ImageChannelsRefused, match="2 channels; a network of 3"):
        match_channels(np.zeros((2, 4, 4)), 3)


def test_a_grey_network_names_both_numbers_that_it_reads() -> None:
    with pytest.raises(ImageChannelsRefused, match="5 channels; a network of 1 reads 1 or 3"):
        match_channels(np.zeros((5, 4, 4)), 1)
