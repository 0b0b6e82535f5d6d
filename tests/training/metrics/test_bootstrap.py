"""Pooled scores and their intervals, against scoring each resample from its images."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from tests.training.drawn import discs
from training.metrics.bootstrap import (
    RESAMPLES,
    Quotients,
    Score,
    interval,
    pool,
    quotient_of,
    resampled,
)
from training.metrics.objects import object_quotients

IMAGES: list[Quotients] = [
    object_quotients(discs(seed, 0.4 * seed), discs(seed + 50, 1.0)) for seed in range(6)
]


def test_a_choice_of_images_is_scored_as_if_there_were_no_others() -> None:
    weights = resampled(len(IMAGES))[:20]
    found = pool(IMAGES, weights)
    for place, counts in enumerate(weights.astype(int)):
        chosen = [image for image, count in zip(IMAGES, counts, strict=True) for _ in range(count)]
        alone = {name: value[0] for name, value in pool(chosen).items()}
        assert {name: value[place] for name, value in found.items()} == pytest.approx(alone)


def test_every_image_counts_once_without_weights() -> None:
    pooled = pool([{"share": (1.0, 2.0)}, {"share": (2.0, 8.0)}])
    assert pooled["share"].tolist() == [0.3]


def test_where_nothing_is_counted_a_score_is_undefined() -> None:
    assert np.isnan(pool([{"share": (0.0, 0.0)}])["share"]).all()


def test_a_mean_over_images_leaves_out_those_without_a_score() -> None:
    images = [{"score": quotient_of(value)} for value in (0.25, math.nan, 0.75)]
    assert pool(images)["score"].tolist() == [0.5]


def test_no_image_has_no_scores() -> None:
    assert pool([]) == {}


def test_each_resample_holds_as_many_images_as_there_are() -> None:
    weights = resampled(7)
    assert weights.shape == (RESAMPLES, 7) == (1000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert len(np.unique(weights, axis=0)) > RESAMPLES / 2


def test_resamples_repeat() -> None:
    np.testing.assert_array_equal(resampled(5), resampled(5))


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).beta(5, 2, 40)
    images = [{"score": quotient_of(float(value))} for value in values]
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    found = interval(pool(images, resampled(40))["score"])
    width = expected.high - expected.low
    assert found == pytest.approx((expected.low, expected.high), abs=0.1 * width)


def test_an_interval_leaves_out_resamples_without_a_score() -> None:
    values = np.array([0.2, math.nan, 0.2, 0.2])
    assert interval(values) == (0.2, 0.2)


def test_where_no_resample_has_a_score_there_is_no_interval() -> None:
    assert all(map(math.isnan, interval(np.full(5, math.nan))))


def test_an_undefined_score_is_null_in_json() -> None:
    written = json.dumps(Score(math.nan, math.nan, math.nan).as_dict(), allow_nan=False)
    assert json.loads(written) == {"value": None, "low": None, "high": None}
