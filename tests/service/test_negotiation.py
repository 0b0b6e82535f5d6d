"""Which format an answer has."""

import pytest

from model.errors import FormatNotAcceptable
from service.negotiation import AnswerFormat, choose_format


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, AnswerFormat.PNG),
        ("", AnswerFormat.PNG),
        ("*/*", AnswerFormat.PNG),
        ("image/*", AnswerFormat.PNG),
        ("application/*", AnswerFormat.JSON),
        ("application/json", AnswerFormat.JSON),
        ("APPLICATION/JSON", AnswerFormat.JSON),
        ("application/json; charset=utf-8", AnswerFormat.JSON),
        ("text/html, application/json", AnswerFormat.JSON),
        ("image/png, application/json", AnswerFormat.PNG),
        ("image/png;q=0.8, application/json", AnswerFormat.JSON),
        ("image/png;q=0.8, application/json;q=0.7", AnswerFormat.PNG),
        ("*/*;q=0.1, application/json;q=0.2", AnswerFormat.JSON),
        ("image/png;q=0, */*", AnswerFormat.JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", AnswerFormat.PNG),
        ("image/png; q=nonsense, application/json;q=0.1", AnswerFormat.JSON),
        ("image/png; q=nan, application/json;q=0.1", AnswerFormat.JSON),
    ],
)
def test_the_best_range_of_accept_chooses(accept: str | None, chosen: AnswerFormat) -> None:
    assert choose_format(None, accept) is chosen


@pytest.mark.parametrize(
    ("asked", "chosen"), [("png", AnswerFormat.PNG), ("json", AnswerFormat.JSON)]
)
def test_the_parameter_wins_over_accept(asked: str, chosen: AnswerFormat) -> None:
    other = next(entry for entry in AnswerFormat if entry is not chosen)
    assert choose_format(asked, f"{other}, {chosen};q=0") is chosen


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "image/png;q=0", "*/*;q=0", "png"])
def test_a_client_that_accepts_no_format_is_told_which_there_are(accept: str) -> None:
    with pytest.raises(FormatNotAcceptable, match="image/png, application/json"):
        choose_format(None, accept)


@pytest.mark.parametrize("asked", ["gif", "", "PNG", "image/png"])
def test_a_client_that_asks_for_another_format_is_told_which_there_are(asked: str) -> None:
    with pytest.raises(FormatNotAcceptable, match="png, json"):
        choose_format(asked, None)
