"""Charts: axes with round ticks that hold what is drawn."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.shown import LOG
from training.metrics.calibration import Bin
from training.report import charts
from training.report.calibration import reliability
from training.report.curves import curves, pace

VALUES = st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1)


@given(VALUES)
def test_an_axis_holds_all_its_values_and_has_few_ticks(values: list[float]) -> None:
    axis = charts.upwards(values, "loss")
    places = [axis.place(value) for value in values]
    assert all(axis.stop - 1e-6 <= place <= axis.start + 1e-6 for place in places)
    assert 2 <= len(axis.ticks()) <= charts.MOST_TICKS + 3


@given(VALUES)
def test_no_two_ticks_are_written_alike(values: list[float]) -> None:
    axis = charts.upwards(values, "loss")
    written = [axis.written(tick) for tick in axis.ticks()]
    assert len(set(written)) == len(written)


@given(st.integers(1, 100_000))
def test_ticks_of_steps_are_whole(last: int) -> None:
    ticks = charts.across(0, last, "step").ticks()
    assert all(tick == int(tick) for tick in ticks)
    assert ticks[0] == 0 < ticks[-1] <= max(last, 1)


@pytest.mark.parametrize(
    ("length", "step"), [(0.3, 0.5), (0.5, 0.5), (17, 20), (2e-4, 2e-4), (6, 10), (1, 1)]
)
def test_a_step_is_1_2_or_5_times_a_power_of_ten(length: float, step: float) -> None:
    assert charts.round_step(length) == pytest.approx(step)


def test_loss_score_and_learning_rate_are_drawn_over_the_steps() -> None:
    drawn = curves(LOG, 100, "AP at IoU 0.5")
    assert re.findall(r"<h3>([^<]+)</h3>", drawn) == ["Loss", "AP at IoU 0.5", "Learning rate"]
    assert drawn.count('<polyline class="line"') == 3
    assert "<title>100: 0.6</title>" in drawn


def test_the_step_of_the_parameters_that_were_kept_is_marked_in_each_curve() -> None:
    drawn = curves(LOG, 50, "AP at IoU 0.5")
    assert drawn.count("kept: step 50<") == 3
    middle = (charts.LEFT + charts.WIDTH - charts.RIGHT) / 2
    assert drawn.count(f'<path class="mark" d="M{middle:.1f} ') == 3


def test_a_curve_without_a_point_is_left_out() -> None:
    assert "<h3>Loss" not in curves(LOG[1:2], 50, "IoU")
    assert curves((), 1, "IoU") == ""


def test_the_pace_is_that_of_the_middle() -> None:
    assert pace(LOG) == "Median pace: 3 steps a second."
    assert pace(()) == ""


BINS = (
    Bin(0.0, 0.5, 0.25, 0.2, 900),
    Bin(0.5, 0.75, float("nan"), float("nan"), 0),
    Bin(0.75, 1.0, 0.8, 0.5, 100),
)


def test_the_reliability_diagram_has_a_dot_for_each_bin_with_pixels() -> None:
    drawn = reliability(BINS, several=False)
    assert drawn.count("<circle") == 2
    assert "100 pixels of mean probability 0.800: 50.0% are foreground" in drawn
    assert "10.00% of the pixels" in drawn
    assert "nan" not in drawn


def test_a_well_calibrated_bin_lies_on_the_diagonal() -> None:
    drawn = reliability([Bin(0.4, 0.6, 0.5, 0.5, 10)], several=True)
    assert f'cx="{charts.LEFT + 130:.1f}" cy="{charts.TOP + 130:.1f}"' in drawn
    assert "probability of the class chosen" in drawn


def test_without_a_pixel_there_is_no_diagram() -> None:
    assert reliability(BINS[1:2], several=False) == ""
