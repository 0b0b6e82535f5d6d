import json

import pytest

from benchmarks.row import Row, table


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("at the bar", 1.08, at_most=1.08), "met"),
        (Row("above it", 1.09, at_most=1.08), "missed"),
        (Row("at the bar", 2.2, at_least=2.2), "met"),
        (Row("below it", 2.1, at_least=2.2), "missed"),
        (Row("not a number", float("nan"), at_least=2.2), "missed"),
        (Row("no bar", 1.0), ""),
        (Row("not measured", at_least=2.2), "failed"),
    ],
)
def test_a_row_says_whether_its_bar_is_met(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_the_table_has_number_bar_verdict_and_reason_of_every_row() -> None:
    lines = table(
        [Row("slow", 1.5, at_most=1.08), Row("gone", at_least=1, says="not installed")]
    ).splitlines()

    assert lines[1].split() == ["slow", "1.5", "≤", "1.08", "missed"]
    assert lines[2].split() == ["gone", "–", "≥", "1", "failed", "not", "installed"]


def test_a_long_reason_is_wrapped_and_not_cut() -> None:
    words = [f"word{number}" for number in range(60)]

    text = table([Row("row", 1.0, says=" ".join(words))])

    assert [word for word in text.split() if word in words] == words


def test_a_row_survives_being_written_and_read() -> None:
    row = Row("name", 1.5, at_most=2, unit="s", says="why", numbers={"seconds": [1.0, 2.0]})

    assert Row.from_fields(json.loads(row.line())) == row


def test_what_a_row_has_no_field_for_is_one_of_its_numbers() -> None:
    row = Row.from_fields({"name": "memory", "found": 5.0, "bytes": 7, "numbers": {"idle": 1}})

    assert row == Row("memory", 5.0, numbers={"idle": 1, "bytes": 7})
