"""Event files for TensorBoard: what the log holds, under the same steps."""

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]  # it ships no types

from model.errors import TrainingError
from tests.training.shown import LOG
from training.run.tensorboard import follow, scalars


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Give steps and values of every tag, rounded: they are written in 32 bits."""
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_losses_rates_and_scores_are_written_at_their_steps(tmp_path: Path) -> None:
    with follow(tmp_path) as tell:
        for entry in LOG:
            tell(entry)
    written = read(tmp_path)
    assert written["training/loss"] == [(50, 0.7), (100, 0.3)]
    assert written["validation/ap50"] == [(50, 0.4), (100, 0.6)]
    assert set(written) == {
        "training/loss",
        "training/learning_rate",
        "training/steps_per_second",
        "validation/ap50",
        "validation/threshold",
    }


def test_an_entry_can_be_read_before_the_run_ends(tmp_path: Path) -> None:
    with follow(tmp_path) as tell:
        tell(LOG[0])
        assert "training/loss" in read(tmp_path)


def test_steps_that_are_done_again_are_not_shown_twice(tmp_path: Path) -> None:
    with follow(tmp_path) as tell:
        for entry in LOG:
            tell(entry)
    with follow(tmp_path, step=50) as tell:
        tell({**LOG[2], "loss": 0.25})
    assert read(tmp_path)["training/loss"] == [(50, 0.7), (100, 0.25)]


def test_what_an_entry_lacks_is_left_out() -> None:
    entry = {"kind": "validation", "step": 5, "score": "iou", "value": 0.5, "threshold": None}
    assert scalars(entry) == {"validation/iou": 0.5}


def test_without_the_package_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"unet-service\[tensorboard\]"), follow(tmp_path):
        pytest.fail("it was followed")
