"""How long a client says that it waits."""

import pytest

from model.errors import PreferenceInvalid
from service.deadline import asked_wait_s

FOR_EVER = float("inf")


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("wait=30", 30),
        ("respond-async, wait=5", 5),
        ("WAIT = 007", 7),
        ('wait="12"', 12),
        ("wait=3;foo=bar, handling=lenient", 3),
        ("wait=1, wait=2", 1),
        ("wait=1, wait=never", 1),
        ('note="a, wait=9", wait=4', 4),
        ("", FOR_EVER),
        ("respond-async", FOR_EVER),
        ("awaiting=3", FOR_EVER),
        ('note="wait=3"', FOR_EVER),
    ],
)
def test_the_wait_is_read_among_other_preferences(prefer: str, wait_s: float) -> None:
    assert asked_wait_s(prefer) == wait_s


@pytest.mark.parametrize(
    "value",
    ["", "0", "-1", "1.5", "ten", "30s", "1e3", "inf", "nan", "\u0663", "9" * 10, '"', "1_0"],
)
def test_what_is_no_number_of_seconds_is_refused_by_name(value: str) -> None:
    with pytest.raises(PreferenceInvalid, match="whole seconds"):
        asked_wait_s(f"respond-async, wait={value}")


def test_what_is_shown_of_a_wait_is_short_and_printable() -> None:
    with pytest.raises(PreferenceInvalid) as caught:
        asked_wait_s("wait=\x1b" + "x" * 5000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
