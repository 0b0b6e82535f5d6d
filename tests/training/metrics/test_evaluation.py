"""Evaluations: intervals, the scores of some images, JSON and the table."""

import json
import math

import numpy as np
import pytest

from tests.training.oracle import Oracle, narrow, oracle, shifted, squares
from training.evaluate import evaluate
from training.metrics.bootstrap import Score
from training.metrics.table import table


def test_intervals_hold_the_score_and_shrink_with_the_number_of_images() -> None:
    def width(count: int) -> float:
        images = [shifted(str(index), by) for index, by in enumerate((0, 4, 8, 12) * count)]
        score = evaluate(Oracle(), images).scores["seg"]
        assert score.low < score.value < score.high
        return score.high - score.low

    assert width(6) < width(1)


def test_of_one_image_there_is_no_interval() -> None:
    score = evaluate(Oracle(), [squares("a")]).scores["seg"]
    assert score.value == 1.0
    assert math.isnan(score.low)
    assert math.isnan(score.high)


def test_the_scores_of_an_image_are_those_of_the_image_alone() -> None:
    found = evaluate(Oracle(), [squares("a"), shifted("b", 8)])
    alone = evaluate(Oracle(), [shifted("b", 8)])
    assert list(found.by_image) == ["a", "b"]
    for name, value in found.by_image["b"].items():
        assert value == pytest.approx(alone.scores[name].value), name
    assert found.by_image["a"]["seg"] > found.by_image["b"]["seg"]


def test_the_scores_of_some_images_are_those_of_these_images_alone() -> None:
    images = [squares("a"), shifted("b", 8), shifted("c", 3)]
    some = evaluate(Oracle(), images).only(["c", "a"])
    assert some.as_dict() == evaluate(Oracle(), [images[0], images[2]]).as_dict()


def test_the_reliability_is_that_of_all_pixels() -> None:
    rows = evaluate(Oracle(), [squares("a"), squares("b")]).reliability
    assert sum(row.count for row in rows) == 2 * 90 * 110
    assert [row.accuracy for row in rows if row.count] == [0.0, 1.0]


class TestAsDict:
    def test_every_score_has_a_value_and_an_interval(self) -> None:
        found = evaluate(Oracle(), [squares("a"), shifted("b", 8)])
        written = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        score = found.scores["seg"]
        assert written["seg"] == {"value": score.value, "low": score.low, "high": score.high}
        assert written["main"] == "v_rand"
        assert written["averaging"] == "none"

    def test_the_thresholds_are_beside_the_scores(self) -> None:
        found = evaluate(oracle(decision_threshold=0.3), [squares("a")]).as_dict()
        assert (found["threshold"], found["best_threshold"]) == (0.3, 0.5)

    def test_what_is_undefined_is_null(self) -> None:
        entry = squares("empty", np.zeros((90, 110), np.uint8))
        found = evaluate(Oracle(), [entry])
        written = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        assert written["v_rand"]["value"] is written["seg"]["value"] is None
        assert written["best_threshold"] is None
        assert found.by_image_as_dict()["empty"]["v_rand"] is None


class TestTable:
    def test_every_score_has_a_row(self) -> None:
        found = evaluate(Oracle(), [squares("a")])
        rows = [line for line in table(found, ["dark", "bright"]).splitlines() if line[:2] == "  "]
        assert len(rows) == len(found.scores) + 1, "and the heading"

    def test_scores_of_pixels_never_stand_without_those_of_objects(self) -> None:
        text = table(evaluate(Oracle(), [squares("a")]), ["dark", "bright"])
        for label in ("Dice, bright", "IoU, bright", "SEG", "AP at IoU 0.5", "V_rand"):
            assert f"\n  {label} " in text

    def test_an_interval_stands_beside_its_score(self) -> None:
        found = evaluate(Oracle(), [squares("a"), shifted("b", 8)])
        score = found.scores["seg"]
        expected = f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"
        assert expected in table(found, ["dark", "bright"])

    def test_groups_stand_beside_the_whole(self) -> None:
        found = evaluate(Oracle(), [squares("a"), narrow("b")])
        text = table(found, ["dark", "bright"], {"good": found.only("a"), "bad": found.only("b")})
        heading, *lines = text.splitlines()
        assert heading.split() == ["all", "(2)", "good", "(1)", "bad", "(1)"]
        [seg] = [line for line in lines if line.startswith("  SEG")]
        assert seg.split()[-2:] == ["1.0000", "0.2500"]

    def test_an_undefined_score_is_a_dash(self) -> None:
        entry = squares("empty", np.zeros((90, 110), np.uint8))
        text = table(evaluate(Oracle(), [entry]), ["dark", "bright"])
        [seg] = [line for line in text.splitlines() if line.startswith("  SEG")]
        assert seg.endswith(" –")

    def test_the_best_threshold_stands_below(self) -> None:
        found = evaluate(oracle(decision_threshold=0.3), [squares("a")])
        last = table(found, ["dark", "bright"]).splitlines()[-1]
        assert last == "best threshold 0.5, 0.3 taken"


def test_a_score_without_a_value_becomes_null() -> None:
    assert Score(math.nan, 0.5, math.nan).as_dict() == {"value": None, "low": 0.5, "high": None}
