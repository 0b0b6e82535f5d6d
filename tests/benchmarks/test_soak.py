"""A short soak: the requests of the long one, and what must be left behind, which is nothing."""

from pathlib import Path

from benchmarks.soak.__main__ import SHARES, Outcome, soak
from benchmarks.usage import Usage
from model.architecture import Architecture
from tests.service.conftest import write_artefact

SMALL = Architecture(depth=2, base_channels=2)
REQUESTS = 200


def test_no_good_request_fails_and_nothing_is_left_behind(tmp_path: Path) -> None:
    write_artefact(tmp_path, SMALL)

    outcome = soak(tmp_path, REQUESTS)

    assert set(outcome.counts) == set(SHARES)
    assert outcome.wrong == []
    assert outcome.held
    assert not any(outcome.held.values())
    assert outcome.exit_code == 0
    assert outcome.orphans == 0
    assert {sample.children for sample in outcome.samples} == {2}


def outcome_of(memory: list[int], threads: int = 5, **changes: object) -> Outcome:
    """Give a soak in which all went well, but for what is changed."""
    samples = [Usage(size, 5, 2, 9) for size in memory]
    samples[-1] = Usage(memory[-1], threads, 2, 9)
    fields: dict[str, object] = {
        "counts": {"good": 1},
        "wrong": [],
        "samples": samples,
        "held": {"unet_requests_held": 0.0},
        "exit_code": 0,
        "orphans": 0,
    }
    return Outcome(**(fields | changes))  # type: ignore[arg-type]  # each of its own type


LEVEL = [100, 90, 100, 110, 100, 90, 110, 100, 100, 100]


def test_memory_that_grows_at_first_and_then_stays_is_no_fault() -> None:
    assert outcome_of([10 * step for step in range(10)] + LEVEL).faults() == []


def test_memory_that_grows_in_the_second_half_is_a_fault() -> None:
    assert outcome_of(LEVEL + [100 + 10 * step for step in range(10)]).faults() == ["memory grew"]


def test_as_many_threads_as_there_were_in_the_first_half_are_no_fault() -> None:
    outcome = outcome_of(LEVEL, threads=6)
    outcome.samples[1] = Usage(LEVEL[1], 6, 2, 9)

    assert outcome.faults() == []


def test_all_that_is_left_behind_is_a_fault() -> None:
    outcome = outcome_of(
        LEVEL,
        threads=6,
        wrong=["grey: 500"],
        held={"unet_requests_held": 1.0},
        exit_code=-9,
        orphans=1,
    )

    assert outcome.faults() == [
        "grey: 500",
        "unet_requests_held is not 0",
        "threads grew from 5 to 6",
        "the server ended with -9",
        "1 children outlived it",
    ]
