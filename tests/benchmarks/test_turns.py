from functools import partial

import pytest

from benchmarks.turns import in_turns, ratio, seconds_of, timed


def test_contestants_take_turns_after_one_that_does_not_count() -> None:
    order: list[str] = []

    seconds = in_turns({name: partial(order.append, name) for name in "ab"}, 2)

    assert order == ["a", "b", "a", "b", "a", "b"]
    assert [len(turns) for turns in seconds.values()] == [2, 2]


def test_a_turn_gives_what_came_of_it_beside_its_time() -> None:
    seconds, found = timed(lambda: "mask")
    assert (seconds >= 0, found) == (True, "mask")
    assert seconds_of(lambda: "mask") >= 0


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    seconds = {"a": [2.0, 40.0, 9.0], "b": [1.0, 10.0, 3.0]}

    assert ratio(seconds, "a", "b") == pytest.approx(3)
