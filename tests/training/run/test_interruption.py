"""Signals outside of the steps of a run."""

import signal
from pathlib import Path

import pytest

from training.data.forms import reading
from training.run.distributed import World
from training.run.interruption import STOPPING, Interrupted, Signals, Terminated, termination_raised


def test_the_first_process_of_a_machine_is_ended_by_an_exception() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), termination_raised(World()):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_others_end_at_once_also_while_they_wait() -> None:
    """Inside of a collective call no handler of Python runs."""
    before = signal.getsignal(signal.SIGTERM)
    with termination_raised(World(1, 2, 0, 1)):
        assert signal.getsignal(signal.SIGTERM) is before


def test_it_is_taken_for_ctrl_c_by_those_who_tidy_up_after_that() -> None:
    assert issubclass(Terminated, KeyboardInterrupt)


@pytest.mark.parametrize("number", STOPPING)
def test_what_is_given_up_is_no_fault_of_the_file_under_way(number: signal.Signals) -> None:
    with Signals() as signals:
        with pytest.raises(Interrupted), signals.raised(), reading(Path("a.tif")):
            signal.raise_signal(number)
        signal.raise_signal(number)  # afterwards it is noted alone
    assert signals.first == number
