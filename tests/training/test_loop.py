"""The loop on a problem that is learnt in seconds: what it learns, keeps, resumes and refuses."""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.architecture import Architecture
from model.errors import CheckpointError, LossNotFinite
from model.network import UNet
from training import checkpoint
from training.augmentation import TrainingImage
from training.loop import LOG_EVERY, MOMENTUM, Loop, Validation, build_optimiser, learning_rate
from training.settings import FitSettings

DATA = json.dumps({"training": {"data_sha256": "of this data"}})
OTHER_DATA = json.dumps({"training": {"data_sha256": "of other data"}})


class Killed(BaseException):
    """What ends a run from outside."""


def settings(out: Path, **changes: Any) -> FitSettings:
    small = {"base_channels": 4, "depth": 2, "tile_edge": 60, "steps": 6, "warmup_steps": 2}
    return FitSettings(out=out, **(small | {"validate_every": 2} | changes))


def discs() -> TrainingImage:
    """Draw bright discs, the objects, on a dark and noisy ground."""
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    inside = (torch.hypot(rows % 24 - 12, columns % 24 - 12) < 7).float()
    noise = torch.randn(96, 96, generator=torch.Generator().manual_seed(0)) / 5
    return TrainingImage((inside - 0.5 + noise)[None], torch.stack([inside, torch.ones(96, 96)]))


def scored(values: Iterable[float]) -> Callable[[], Validation]:
    """Stand in for validations that find these scores, one after the other."""
    rest = iter(values)
    return lambda: Validation(v_rand=next(rest), v_info=0.5, threshold=0.5)


def always() -> Callable[[], Validation]:
    return scored(itertools.repeat(0.5))


def killed_after(validations: int) -> Callable[[], Validation]:
    """Stand in for a kill in the validation after these."""
    first = scored([0.5] * validations)

    def validate() -> Validation:
        try:
            return first()
        except StopIteration:
            raise Killed from None

    return validate


def make_loop(
    asked: FitSettings,
    validate: Callable[[], Validation] | None = None,
    manifest: str = DATA,
    network: nn.Module | None = None,
    image: TrainingImage | None = None,
) -> Loop:
    asked.out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    network = network or UNet(Architecture(depth=asked.depth, base_channels=asked.base_channels))
    return Loop(network, [image or discs()], validate or always(), manifest, asked)


def parameters(loop: Loop) -> Tensor:
    return torch.cat([value.detach().flatten() for value in loop.network.parameters()])


def test_the_learning_rate_rises_along_a_line_to_its_highest(tmp_path: Path) -> None:
    asked = settings(tmp_path, steps=100, warmup_steps=4, learning_rate=0.8)
    rates = [learning_rate(step, asked) for step in range(5)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_the_learning_rate_falls_along_half_a_cosine(tmp_path: Path) -> None:
    asked = settings(tmp_path, steps=104, warmup_steps=4, learning_rate=0.8)
    rates = [learning_rate(4 + step, asked) for step in (0, 25, 50, 75, 100)]
    expected = [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5)), 0.0]
    assert rates == pytest.approx(expected)


def test_no_step_has_a_learning_rate_of_zero(tmp_path: Path) -> None:
    for steps, warmup in ((1, 0), (1, 100), (3, 3), (100, 4)):
        asked = settings(tmp_path, steps=steps, warmup_steps=warmup)
        assert all(learning_rate(step, asked) > 0 for step in range(steps))


def test_every_step_takes_the_learning_rate_of_its_number(tmp_path: Path) -> None:
    loop = make_loop(settings(tmp_path, steps=3))
    taken: list[float] = []
    loop.optimiser.register_step_pre_hook(
        lambda optimiser, *_: taken.append(optimiser.param_groups[0]["lr"])
    )
    loop.run()
    assert taken == [learning_rate(step, loop.settings) for step in range(3)]


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_the_loss_falls(tmp_path: Path, optimiser: str) -> None:
    rate = {"adamw": 1e-2, "sgd": 1e-3}[optimiser]
    asked = settings(
        tmp_path, steps=2 * LOG_EVERY, optimiser=optimiser, learning_rate=rate, validate_every=500
    )
    log = make_loop(asked).run().log
    first, second = (entry["loss"] for entry in log if entry["kind"] == "training")
    assert second < 0.8 * first


def test_stochastic_gradient_descent_has_the_momentum_of_the_paper(tmp_path: Path) -> None:
    optimiser = build_optimiser(nn.Linear(1, 1), settings(tmp_path, optimiser="sgd"))
    assert isinstance(optimiser, torch.optim.SGD)
    assert optimiser.param_groups[0]["momentum"] == MOMENTUM == 0.99


def test_the_other_optimiser_is_adamw(tmp_path: Path) -> None:
    optimiser = build_optimiser(nn.Linear(1, 1), settings(tmp_path, optimiser="adamw"))
    assert isinstance(optimiser, torch.optim.AdamW)


def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path: Path) -> None:
    asked = settings(
        tmp_path, steps=1, optimiser="sgd", learning_rate=0.5, warmup_steps=0, clip_norm=1e-3
    )
    loop = make_loop(asked)
    before = parameters(loop)
    loop.run()
    assert float((parameters(loop) - before).norm()) == pytest.approx(0.5 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_run_that_was_killed_and_resumed_is_bit_for_bit_the_run_that_was_not(
    tmp_path: Path, optimiser: str
) -> None:
    """The kill comes at step 4, the last checkpoint is of step 2; dropout goes on as it was."""
    whole = make_loop(settings(tmp_path / "whole", optimiser=optimiser))
    whole.run()
    killed = make_loop(settings(tmp_path / "killed", optimiser=optimiser), killed_after(1))
    with pytest.raises(Killed):
        killed.run()
    resumed = make_loop(settings(tmp_path / "killed", optimiser=optimiser))
    torch.manual_seed(99)
    for value in resumed.network.parameters():
        nn.init.normal_(value)
    resumed.resume()
    assert resumed.progress.step == 2
    resumed.run()
    assert torch.equal(parameters(resumed), parameters(whole))
    assert [entry["step"] for entry in resumed.progress.log if entry["kind"] == "validation"] == [
        2,
        4,
        6,
    ]


def test_a_finished_run_that_is_resumed_stays_as_it_was(tmp_path: Path) -> None:
    done = make_loop(settings(tmp_path, steps=5))
    done.run()
    again = make_loop(settings(tmp_path, steps=5))
    again.resume()
    assert again.run() == done.progress
    assert torch.equal(parameters(again), parameters(done))


def test_a_run_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    make_loop(settings(tmp_path)).run()
    other = make_loop(settings(tmp_path, steps=8, clip_norm=2.0))
    with pytest.raises(CheckpointError, match=r"steps 6, now 8; clip_norm 1\.0, now 2\.0"):
        other.resume()


def test_a_run_is_not_resumed_on_other_data(tmp_path: Path) -> None:
    make_loop(settings(tmp_path)).run()
    with pytest.raises(CheckpointError, match=r"last\.pt was trained on other data"):
        make_loop(settings(tmp_path), manifest=OTHER_DATA).resume()


def test_a_folder_that_was_moved_is_resumed(tmp_path: Path) -> None:
    make_loop(settings(tmp_path / "here")).run()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = make_loop(settings(tmp_path / "there", resume=True))
    moved.resume()
    assert moved.progress.step == 6


def test_a_folder_without_a_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint .*last\.pt"):
        make_loop(settings(tmp_path)).resume()


class TestLossNotFinite:
    def test_pixels_that_are_not_numbers_end_the_run(self, tmp_path: Path) -> None:
        image = discs()
        loop = make_loop(
            settings(tmp_path), image=TrainingImage(image.pixels * math.nan, image.targets)
        )
        with pytest.raises(LossNotFinite, match="The loss is nan at step 0"):
            loop.run()

    def test_the_parameters_stay_what_they_were(self, tmp_path: Path) -> None:
        image = discs()
        loop = make_loop(
            settings(tmp_path), image=TrainingImage(image.pixels * math.nan, image.targets)
        )
        before = parameters(loop)
        with pytest.raises(LossNotFinite):
            loop.run()
        assert torch.equal(parameters(loop), before)

    def test_a_gradient_that_is_not_finite_ends_the_run(self, tmp_path: Path) -> None:
        loop = make_loop(settings(tmp_path), network=SteepNetwork())
        with pytest.raises(LossNotFinite, match="The norm of the gradient is"):
            loop.run()

    def test_the_message_says_what_to_change(self, tmp_path: Path) -> None:
        loop = make_loop(settings(tmp_path, learning_rate=0.25), network=SteepNetwork())
        with pytest.raises(LossNotFinite, match=r"a lower --learning-rate \(now 0\.25\)"):
            loop.run()


class SteepNetwork(nn.Module):
    """A network whose loss is finite and whose gradient is not: that of √x at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, tile: Tensor) -> Tensor:
        inner = tile[:, :, 20:-20, 20:-20]
        return torch.cat([inner + self.zero.sqrt(), -inner], dim=1)


def test_the_checkpoint_of_the_best_validation_is_kept(tmp_path: Path) -> None:
    loop = make_loop(settings(tmp_path), scored([0.6, 0.9, 0.8]))
    kept: list[Tensor] = []
    find = loop.validate

    def validate() -> Validation:
        kept.append(parameters(loop))
        return find()

    loop.validate = validate
    loop.run()
    best = checkpoint.load(loop.folder.best)
    assert (best["validation"]["step"], best["validation"]["v_rand"]) == (4, 0.9)
    weights = torch.cat([best["model"][name].flatten() for name, _ in named(loop)])
    assert torch.equal(weights, kept[1])


def named(loop: Loop) -> Iterable[tuple[str, nn.Parameter]]:
    return loop.network.named_parameters()


def test_the_last_step_is_validated_and_logged_whatever_its_number(tmp_path: Path) -> None:
    log = make_loop(settings(tmp_path, steps=5)).run().log
    assert [(entry["kind"], entry["step"]) for entry in log] == [
        ("validation", 2),
        ("validation", 4),
        ("training", 5),
        ("validation", 5),
    ]


def test_the_log_is_one_json_object_a_line(tmp_path: Path) -> None:
    loop = make_loop(settings(tmp_path))
    loop.run()
    lines = loop.folder.log.read_text().splitlines()
    assert [json.loads(line) for line in lines] == loop.progress.log


def test_the_progress_bar_shows_the_loss_and_the_best_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_loop(settings(tmp_path), scored([0.6, 0.9, 0.8])).run()
    last = capsys.readouterr().err.split("\r")[-1]
    assert "6/6" in last
    assert "loss=" in last
    assert "v_rand=0.9000" in last
