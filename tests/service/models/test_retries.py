"""When what went wrong is tried again."""

from pathlib import Path

from service.models.retries import FIRST_S, MOST_S, Retries

A, B = Path("a.onnx"), Path("b.onnx")


class Time:
    """A clock, and the retries that go by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.retries = Retries(lambda: self.now)

    def tries(self, *troubled: Path, until: float) -> list[float]:
        """Look every second; give the times of those looks at which all that is troubled is due."""
        times = []
        while self.now < until:
            if self.retries.due(set(troubled)) == set(troubled):
                times.append(self.now)
            self.now += 1
        return times


def test_each_wait_is_twice_as_long_as_the_one_before_up_to_a_bound() -> None:
    times = Time().tries(A, until=4 * MOST_S)
    waits = [after - before for before, after in zip([0, *times], times, strict=False)]
    assert waits == [60, 120, 240, 480, 960, 960, 960]
    assert (waits[0], waits[-1]) == (FIRST_S, MOST_S)


def test_what_goes_wrong_again_before_its_wait_is_over_waits_on() -> None:
    """Or what starts well and fails at once would be tried every minute, for ever."""
    time = Time()
    assert time.tries(A, until=FIRST_S + 1) == [FIRST_S]
    assert time.retries.due(set()) == set()
    assert time.tries(A, until=4 * FIRST_S) == [3 * FIRST_S]


def test_what_was_sound_until_its_wait_was_over_begins_anew() -> None:
    time = Time()
    time.tries(A, until=FIRST_S + 1)
    time.now = 3 * FIRST_S
    time.retries.due(set())
    assert time.tries(A, until=5 * FIRST_S) == [4 * FIRST_S]


def test_every_file_has_a_wait_of_its_own() -> None:
    time = Time()
    time.retries.due({A})
    time.now = FIRST_S / 2
    time.retries.due({A, B})
    time.now = FIRST_S
    assert time.retries.due({A, B}) == {A}
