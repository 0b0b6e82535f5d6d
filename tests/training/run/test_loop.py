"""The loop on a problem that is learnt in seconds: what it learns, keeps, resumes and refuses."""

import contextlib
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.errors import CheckpointError, LossNotFinite, OutOfMemory, TrainingStopped
from model.network import DROPOUT
from tests.training.small import (
    discs,
    flat,
    make_loop,
    make_plan,
    make_settings,
    results_of,
    same,
)
from training.plan import Plan
from training.run import checkpoint
from training.run.dropout import TileDropout
from training.run.interruption import memory_errors_explained
from training.run.loop import LOG_EVERY, Loop
from training.run.optimisation import (
    MOMENTUM,
    average_decay,
    averaged_every,
    build_optimiser,
    learning_rate,
)
from training.run.progress import Settled, Validate, Validation

ROOT = Path(__file__).parents[3]


@pytest.fixture
def _every_thread() -> Iterator[None]:
    """Let torch compute with as many threads as the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


def scored(values: Iterable[float]) -> Validate:
    """Stand in for validations that find these scores, one after the other."""
    rest = iter(values)
    return lambda _: Validation("ap50", next(rest), threshold=0.4)


def after_step(loop: Loop, step: int, act: Callable[[], object]) -> Loop:
    """Act once, when the parameters of a step have moved."""
    done = itertools.count(loop.progress.step + 1)

    def moved(*_: object) -> None:
        if next(done) == step:
            act()

    loop.descent.optimiser.register_step_post_hook(moved)
    return loop


def uninterrupted(folder: Path, plan: Plan | None = None, **changes: Any) -> dict[str, Any]:
    """Run the whole of a run in a folder of its own."""
    make_loop(make_settings(folder / "whole", **changes), plan).run()
    return results_of(folder / "whole")


class TestLearningRate:
    def test_it_rises_along_a_line_to_its_highest(self) -> None:
        rates = [learning_rate(step, 100, 0.8, 4) for step in range(5)]
        assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])

    def test_it_falls_along_half_a_cosine(self) -> None:
        rates = [learning_rate(4 + step, 104, 0.8, 4) for step in (0, 25, 50, 75, 100)]
        expected = [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5)), 0.0]
        assert rates == pytest.approx(expected)

    @pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 100), (3, 3), (100, 4)])
    def test_no_step_has_one_of_zero(self, steps: int, warmup: int) -> None:
        assert all(learning_rate(step, steps, 1e-3, warmup) > 0 for step in range(steps))

    def test_every_step_takes_that_of_its_number(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path), make_plan(learning_rate=0.25))
        taken: list[float] = []
        loop.descent.optimiser.register_step_pre_hook(
            lambda optimiser, *_: taken.append(optimiser.param_groups[0]["lr"])
        )
        loop.run()
        warmup = loop.settings.warmup_steps
        assert taken == [learning_rate(step, 6, 0.25, warmup) for step in range(6)]


class TestOptimiser:
    def test_stochastic_gradient_descent_has_the_momentum_of_the_paper(
        self, tmp_path: Path
    ) -> None:
        optimiser = build_optimiser(nn.Linear(1, 1), make_settings(tmp_path, optimiser="sgd"))
        assert isinstance(optimiser, torch.optim.SGD)
        assert optimiser.param_groups[0]["momentum"] == MOMENTUM == 0.99

    def test_the_other_one_is_adamw_with_all_parameters_moved_at_once(self, tmp_path: Path) -> None:
        optimiser = build_optimiser(nn.Linear(1, 1), make_settings(tmp_path))
        assert isinstance(optimiser, torch.optim.AdamW)
        assert optimiser.param_groups[0]["fused"] is True

    def test_gradients_are_clipped_to_the_norm_asked_for(self, tmp_path: Path) -> None:
        asked = make_settings(tmp_path, optimiser="sgd", warmup_steps=0, clip_norm=1e-3)
        loop = make_loop(asked, make_plan(steps=1, learning_rate=0.5))
        before = flat(loop.descent.network)
        loop.run()
        moved = float((flat(loop.descent.network) - before).norm())
        assert moved == pytest.approx(0.5 * 1e-3, rel=1e-3)

    @pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
    @pytest.mark.parametrize("compute", ["bfloat16", "float32"])
    def test_the_loss_falls(self, tmp_path: Path, optimiser: str, compute: str) -> None:
        rate = {"adamw": 2e-2, "sgd": 2e-3}[optimiser]
        asked = make_settings(
            tmp_path,
            optimiser=optimiser,
            base_channels=4,
            validate_every=500,
        )
        plan = make_plan(
            learning_rate=rate,
            steps=2 * LOG_EVERY,
            compute=compute,
            ridges=False,
            border_weight=0.0,
            elastic=False,
            object_share=0.0,
        )
        log = make_loop(asked, plan).run().log
        first, second = (entry["loss"] for entry in log if entry["kind"] == "training")
        assert second < 0.8 * first

    def test_a_step_is_that_of_plain_torch(self, tmp_path: Path) -> None:
        """Without dropout, against the loss and AdamW written out with their defaults."""
        loop = make_loop(make_settings(tmp_path), make_plan(steps=1, compute="float32"))
        loop.descent.dropout.probability = 0.0
        plain = make_loop(make_settings(tmp_path / "plain")).descent.network
        plain.dropout = nn.Identity()  # type: ignore[assignment]  # nothing is dropped
        tiles = loop.sampler.draw(0, range(2))
        loop.run()
        losses = nn.functional.cross_entropy(plain(tiles.pixels), tiles.labels, reduction="none")
        (losses * tiles.weights).sum().div(tiles.weights.sum()).backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        torch.optim.AdamW(plain.parameters(), lr=1e-3).step()
        difference = (flat(loop.descent.network) - flat(plain)).abs().max()
        assert float(difference) < 1e-6


class TestDropout:
    def test_the_network_drops_as_the_paper_has_it_but_by_tile(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        assert isinstance(loop.descent.network.dropout, TileDropout)
        assert loop.descent.network.dropout.probability == DROPOUT
        assert loop.descent.network.dropout.device == loop.sampler.device

    def test_every_tile_is_named_by_seed_step_and_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        named: list[tuple[int, int, int]] = []
        begin = TileDropout.begin

        def note(dropout: TileDropout, seed: int, step: int, places: Sequence[int]) -> None:
            named.extend((seed, step, place) for place in places)
            begin(dropout, seed, step, places)

        monkeypatch.setattr(TileDropout, "begin", note)
        make_loop(make_settings(tmp_path, seed=5), make_plan(steps=3)).run()
        assert named == [(5, step, place) for step in range(3) for place in range(2)]


class TestRunningMean:
    @pytest.mark.parametrize(
        ("steps", "horizon", "every"),
        [
            (1, 1, 1),
            (10, 1, 1),
            (40, 4, 1),
            (400, 40, 2),
            (2000, 200, 10),
            (5000, 500, 10),
            (10**6, 1000, 10),
        ],
    )
    def test_it_is_over_a_tenth_of_the_steps_taken_in_now_and_then(
        self, steps: int, horizon: int, every: int
    ) -> None:
        assert averaged_every(steps) == every
        assert average_decay(steps) == pytest.approx(1 - every / horizon)

    def test_of_a_long_run_every_second_step_is_taken_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("training.run.descent.averaged_every", lambda _: 2)
        loop = make_loop(make_settings(tmp_path), make_plan(steps=5))
        loop.run()
        assert int(loop.descent.averaged.n_averaged) == 2

    def test_it_is_that_of_the_parameters_after_every_step(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path), make_plan(steps=40))
        passed: list[Tensor] = []
        loop.descent.optimiser.register_step_post_hook(
            lambda *_: passed.append(flat(loop.descent.network))
        )
        loop.run()
        mean = passed[0]
        for parameters in passed[1:]:
            mean = 0.75 * mean + 0.25 * parameters
        np.testing.assert_allclose(flat(loop.descent.averaged.module), mean, rtol=1e-5, atol=1e-7)
        assert not torch.equal(mean, passed[-1])

    def test_it_is_what_is_validated_and_kept(self, tmp_path: Path) -> None:
        seen: list[Tensor] = []

        def validate(network: nn.Module) -> Validation:
            seen.append(flat(network))
            return Validation("ap50", 0.5, 0.5)

        loop = make_loop(
            make_settings(tmp_path, validate_every=40), make_plan(steps=40), validate=validate
        )
        loop.run()
        assert torch.equal(seen[-1], flat(loop.descent.averaged.module))
        best = checkpoint.load(loop.folder.best)["model"]
        assert same(best, dict(loop.descent.averaged.module.state_dict()))


class TestResume:
    """To the last bit: parameters, their running mean, the optimiser's state, losses and log."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_between_two_checkpoints_loses_nothing(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        asked = make_settings(tmp_path / "stopped", validate_every=4)
        stopped = after_step(make_loop(asked), 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(TrainingStopped, match=r"step 3 of 6; .* --resume goes on") as caught:
            stopped.run()
        assert caught.value.numbers == {"signal": number}
        resumed = make_loop(asked)
        resumed.resume()
        assert resumed.progress.step == 3
        resumed.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path, validate_every=4))

    @pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
    def test_nothing_of_the_new_process_has_a_part_in_it(
        self, tmp_path: Path, optimiser: str
    ) -> None:
        asked = make_settings(tmp_path / "stopped", optimiser=optimiser)
        plan = make_plan(steps=30)  # so many that the running mean is none of one step alone
        stopped = make_loop(asked, plan)
        after_step(stopped, 13, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStopped):
            stopped.run()
        resumed = make_loop(asked, plan)
        torch.manual_seed(99)
        descent = resumed.descent
        for value in itertools.chain(descent.network.parameters(), descent.averaged.parameters()):
            nn.init.normal_(value)
        resumed.resume()
        resumed.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path, plan, optimiser=optimiser))

    def test_a_run_can_be_stopped_at_every_step(self, tmp_path: Path) -> None:
        """Also at those that are logged, validated, or the last one."""
        asked = make_settings(tmp_path / "stopped", validate_every=3)
        for step in range(1, 7):
            loop = make_loop(asked)
            if step > 1:
                loop.resume()
            after_step(loop, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(TrainingStopped, match=f"step {step} of 6"):
                loop.run()
        loop = make_loop(asked)
        loop.resume()
        loop.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path, validate_every=3))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_a_validation_and_the_resumed_run_begins_it_anew(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        def give_up(_: nn.Module) -> Validation:
            os.kill(os.getpid(), number)
            raise AssertionError("it was not ended")

        asked = make_settings(tmp_path / "stopped", validate_every=3)
        with pytest.raises(TrainingStopped, match="step 3 of 6"):
            make_loop(asked, validate=give_up).run()
        resumed = make_loop(asked)
        resumed.resume()
        resumed.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path, validate_every=3))

    def test_a_run_that_is_killed_in_a_validation_loses_no_step(self, tmp_path: Path) -> None:
        class Killed(BaseException):
            pass

        def kill(_: nn.Module) -> Validation:
            raise Killed

        asked = make_settings(tmp_path / "killed", validate_every=3)
        with pytest.raises(Killed):
            make_loop(asked, validate=kill).run()
        resumed = make_loop(asked)
        resumed.resume()
        assert resumed.progress.step == 3
        resumed.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path, validate_every=3))

    @pytest.mark.parametrize("step", [1, 5])
    def test_a_run_that_was_killed_loses_the_steps_since_its_last_checkpoint_and_no_more(
        self, tmp_path: Path, step: int
    ) -> None:
        """Before the first validation as well."""
        asked = make_settings(tmp_path / "killed", validate_every=4)

        def kill() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            after_step(make_loop(asked), step, kill).run()
        resumed = make_loop(asked)
        resumed.resume()
        assert resumed.progress.step == {1: 0, 5: 4}[step]
        resumed.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path, validate_every=4))

    def test_a_process_killed_while_it_writes_a_checkpoint_leaves_the_one_before(
        self, tmp_path: Path
    ) -> None:
        """A real process and a real SIGKILL; half a file lies beside the whole one."""
        asked = make_settings(tmp_path / "killed")
        script = (
            "import os, sys; from pathlib import Path; from tests.training.small import *\n"
            "def wait(_):\n"
            "    if loop.progress.step == 4: print('now', flush=True); sys.stdin.read()\n"
            f"loop = make_loop(make_settings(Path({str(asked.out)!r})))\n"
            "os.fsync = wait\n"
            "loop.run()\n"
        )
        command = [sys.executable, "-c", script]
        with subprocess.Popen(  # noqa: S603 (the script above)
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"now\n"
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert {"last.partial", "last.pt", "best.pt"} <= {path.name for path in asked.out.iterdir()}
        resumed = make_loop(asked)
        resumed.resume()
        assert resumed.progress.step == 2
        resumed.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path))

    def test_a_finished_run_stays_as_it_was(self, tmp_path: Path) -> None:
        done = make_loop(make_settings(tmp_path), make_plan(steps=5))
        done.run()
        before = results_of(tmp_path)
        again = make_loop(make_settings(tmp_path), make_plan(steps=5))
        again.resume()
        assert again.run() == done.progress
        assert same(results_of(tmp_path), before)

    @pytest.mark.usefixtures("_every_thread")
    def test_with_every_thread_of_the_machine_it_is_as_exact(self, tmp_path: Path) -> None:
        """A network and tiles that are large enough to be shared by threads."""
        changes, plan = {"base_channels": 8}, make_plan(tile_edge=60)
        asked = make_settings(tmp_path / "stopped", **changes)
        stopped = after_step(
            make_loop(asked, plan), 3, lambda: os.kill(os.getpid(), signal.SIGTERM)
        )
        with pytest.raises(TrainingStopped):
            stopped.run()
        resumed = make_loop(asked, plan)
        resumed.resume()
        resumed.run()
        assert same(results_of(asked.out), uninterrupted(tmp_path, plan, **changes))

    def test_the_best_score_so_far_is_remembered(self, tmp_path: Path) -> None:
        asked = make_settings(tmp_path)
        first = after_step(
            make_loop(asked, validate=scored([0.9])),
            3,
            lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        with pytest.raises(TrainingStopped):
            first.run()
        second = make_loop(asked, validate=scored([0.6, 0.7]))
        second.resume()
        second.run()
        assert checkpoint.load(tmp_path / "best.pt")["validation"]["step"] == 2

    def test_a_folder_that_was_moved_is_resumed(self, tmp_path: Path) -> None:
        make_loop(make_settings(tmp_path / "here")).run()
        (tmp_path / "here").rename(tmp_path / "there")
        moved = make_loop(make_settings(tmp_path / "there", resume=True))
        moved.resume()
        assert moved.progress.step == 6


class TestSeed:
    def test_it_repeats_a_run_to_the_last_bit(self, tmp_path: Path) -> None:
        for name in ("one", "other"):
            make_loop(make_settings(tmp_path / name, seed=3)).run()
        assert same(results_of(tmp_path / "one"), results_of(tmp_path / "other"))

    def test_another_one_gives_another_run(self, tmp_path: Path) -> None:
        for seed in (3, 4):
            make_loop(make_settings(tmp_path / str(seed), seed=seed)).run()
        assert not same(results_of(tmp_path / "3"), results_of(tmp_path / "4"))

    def test_what_others_draw_meanwhile_changes_nothing(self, tmp_path: Path) -> None:
        """As the report, or a library, may."""

        def validate(_: nn.Module) -> Validation:
            torch.rand(5)
            np.random.random()  # noqa: NPY002 (the old global state is what is not to matter)
            return Validation("ap50", 0.5, 0.5)

        for name, way in (("one", validate), ("other", scored(itertools.repeat(0.5)))):
            make_loop(make_settings(tmp_path / name), validate=way).run()
        results = [results_of(tmp_path / name)["training"] for name in ("one", "other")]
        assert same(*results)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "plan", "said"),
        [
            ({"clip_norm": 2.0}, {}, "clip_norm 1.0, now 2.0"),
            ({"seed": 7, "optimiser": "sgd"}, {}, "optimiser adamw, now sgd; seed 0, now 7"),
            ({}, {"compute": "float32"}, "planned compute bfloat16, now float32"),
            ({}, {"steps": 8}, "planned steps 6, now 8"),
            ({}, {"tile_edge": 26}, "planned tile_edge 24, now 26"),
            ({}, {"ridges": False}, "planned ridges True, now False"),
        ],
    )
    def test_a_run_is_not_resumed_with_other_settings_or_another_plan(
        self, tmp_path: Path, settings: dict[str, Any], plan: dict[str, Any], said: str
    ) -> None:
        make_loop(make_settings(tmp_path)).run()
        other = make_loop(make_settings(tmp_path, **settings), make_plan(**plan))
        with pytest.raises(CheckpointError, match=f"with other settings: {re.escape(said)}"):
            other.resume()

    def test_a_run_is_not_resumed_on_other_data(self, tmp_path: Path) -> None:
        make_loop(make_settings(tmp_path)).run()
        with pytest.raises(CheckpointError, match=r"last\.pt was trained on other data"):
            make_loop(make_settings(tmp_path), data="of other data").resume()

    def test_what_changes_no_parameter_may_change(self, tmp_path: Path) -> None:
        make_loop(make_settings(tmp_path)).run()
        asked = make_settings(tmp_path, tensorboard=True, resume=True, data=Path("elsewhere"))
        make_loop(asked, make_plan(reasons={})).resume()

    def test_a_folder_without_a_checkpoint_is_not_resumed(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"There is no checkpoint .*last\.pt"):
            make_loop(make_settings(tmp_path)).resume()


class TestCheckpoints:
    def test_they_load_without_running_anything(self, tmp_path: Path) -> None:
        make_loop(make_settings(tmp_path)).run()
        for name in ("last.pt", "best.pt"):
            state = torch.load(tmp_path / name, weights_only=True)
            assert {"model", "manifest", "plan", "source", "validation"} <= state.keys()

    def test_they_say_what_was_planned_and_where_the_data_is(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        loop.run()
        best = checkpoint.load(tmp_path / "best.pt")
        assert best["plan"] == loop.sampler.plan.model_dump(mode="json")
        assert best["source"] == loop.settings.source()

    @pytest.mark.parametrize(
        ("scores", "step"), [([0.6, 0.9, 0.8], 4), ([0.9, 0.8, 0.7], 2), ([0.5, 0.5, 0.5], 6)]
    )
    def test_the_best_score_is_kept_of_equal_ones_the_last(
        self, tmp_path: Path, scores: list[float], step: int
    ) -> None:
        loop = make_loop(make_settings(tmp_path), validate=scored(scores))
        kept: dict[int, Tensor] = {}
        loop.descent.optimiser.register_step_post_hook(
            lambda *_: kept.__setitem__(loop.progress.step + 1, flat(loop.descent.network))
        )
        loop.run()
        best = checkpoint.load(tmp_path / "best.pt")
        assert best["validation"] == {
            "kind": "validation",
            "step": step,
            "score": "ap50",
            "value": max(scores),
            "threshold": 0.4,
            "rule": None,
        }
        weights = torch.cat([best["model"][name].flatten() for name, _ in named(loop)])
        assert torch.equal(weights, kept[step])

    def test_a_disk_that_is_full_leaves_the_last_one_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loop = make_loop(make_settings(tmp_path / "full"))
        fsync = os.fsync

        def sync(file: int) -> None:
            if loop.progress.step == 4:
                raise OSError(28, "No space left on device")
            fsync(file)

        monkeypatch.setattr(os, "fsync", sync)
        with pytest.raises(CheckpointError, match="No space left on device"):
            loop.run()
        monkeypatch.undo()
        resumed = make_loop(make_settings(tmp_path / "full"))
        resumed.resume()
        assert resumed.progress.step == 2
        resumed.run()
        assert same(results_of(tmp_path / "full"), uninterrupted(tmp_path))

    def test_a_log_that_cannot_be_written_stays_whole_and_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loop = make_loop(make_settings(tmp_path / "full"))
        fsync, before = os.fsync, list[str]()
        partial = loop.folder.log.with_suffix(".partial")

        def sync(file: int) -> None:
            if loop.progress.step == 4 and Path(f"/proc/self/fd/{file}").readlink() == partial:
                before.append(loop.folder.log.read_text())
                raise OSError(28, "No space left on device")
            fsync(file)

        monkeypatch.setattr(os, "fsync", sync)
        said = r"log\.jsonl cannot be written: No space left on device\. .* --resume"
        with pytest.raises(CheckpointError, match=said):
            loop.run()
        monkeypatch.undo()
        assert loop.folder.log.read_text() == before[0]
        assert [json.loads(line)["step"] for line in before[0].splitlines()] == [2]
        resumed = make_loop(make_settings(tmp_path / "full"))
        resumed.resume()
        resumed.run()
        assert same(results_of(tmp_path / "full"), uninterrupted(tmp_path))


class TestNothingToMeasure:
    """Where an earlier run settled threshold and rule, and every image is trained on."""

    def settled(self, out: Path, **changes: Any) -> Loop:
        found = Settled(0.4, {"smallest_area": 3})
        return make_loop(make_settings(out, **changes), validate=lambda _: found)

    def test_no_validation_is_logged(self, tmp_path: Path) -> None:
        log = self.settled(tmp_path).run().log
        assert [(entry["kind"], entry["step"]) for entry in log] == [("training", 6)]

    def test_tensorboard_is_told_of_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[Any] = []
        follow = contextlib.nullcontext(lambda entry: told.append(entry["kind"]))
        monkeypatch.setattr("training.run.loop.follow", lambda *_: follow)
        self.settled(tmp_path, tensorboard=True).run()
        assert told == ["training"]

    def test_the_bar_shows_no_score(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.settled(tmp_path).run()
        said = capsys.readouterr().err
        assert "loss=" in said
        assert "best" not in said

    def test_the_last_parameters_are_kept_with_threshold_and_rule(self, tmp_path: Path) -> None:
        loop = self.settled(tmp_path, validate_every=4)
        loop.run()
        best = checkpoint.load(tmp_path / "best.pt")
        assert same(best["model"], dict(loop.descent.averaged.module.state_dict()))
        assert best["validation"] == {
            "kind": "settled",
            "step": 6,
            "threshold": 0.4,
            "rule": {"smallest_area": 3},
        }

    def test_it_is_resumed_to_the_last_bit(self, tmp_path: Path) -> None:
        stopped = self.settled(tmp_path / "stopped")
        after_step(stopped, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStopped):
            stopped.run()
        resumed = self.settled(tmp_path / "stopped")
        resumed.resume()
        resumed.run()
        self.settled(tmp_path / "whole").run()
        assert same(*(results_of(tmp_path / name) for name in ("stopped", "whole")))


def named(loop: Loop) -> Iterable[tuple[str, nn.Parameter]]:
    return loop.descent.network.named_parameters()


class SteepNetwork(nn.Module):
    """A network whose loss is finite and whose gradient is not: that of √x at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout()

    def forward(self, tile: Tensor) -> Tensor:
        inner = tile[:, :, 8:-8, 8:-8]
        return torch.cat([inner + self.zero.sqrt(), -inner], dim=1)


class TestLossNotFinite:
    @pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_an_image_of_such_pixels_ends_the_run_with_the_last_checkpoint_whole(
        self, tmp_path: Path, value: float
    ) -> None:
        """One of two images; with this seed it is drawn at step 7 for the first time."""
        broken = replace(discs(1), image=np.full((1, 48, 60), value, np.float32))
        asked = make_settings(tmp_path, seed=2)
        plan = make_plan(steps=20, batch=1)
        with pytest.raises(LossNotFinite, match="The loss is nan at step 7; the checkpoint of"):
            make_loop(asked, plan, [discs(0), broken]).run()
        resumed = make_loop(asked, plan, [discs(0), broken])
        resumed.resume()
        assert resumed.progress.step == 6
        assert torch.isfinite(flat(resumed.descent.network)).all()
        assert torch.isfinite(flat(resumed.descent.averaged)).all()

    def test_the_parameters_stay_what_they_were(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        draw = loop.sampler.draw
        loop.sampler.draw = lambda *names: replace(  # type: ignore[method-assign]  # a seam
            tiles := draw(*names), pixels=tiles.pixels * math.nan
        )
        before = flat(loop.descent.network)
        with pytest.raises(LossNotFinite, match="The loss is nan at step 0"):
            loop.run()
        assert torch.equal(flat(loop.descent.network), before)

    def test_a_gradient_that_is_not_finite_ends_the_run(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path), network=SteepNetwork())
        with pytest.raises(LossNotFinite, match="The norm of the gradient is"):
            loop.run()
        assert torch.equal(flat(loop.descent.network), torch.zeros(1))

    def test_the_message_says_what_to_change(self, tmp_path: Path) -> None:
        loop = make_loop(
            make_settings(tmp_path), make_plan(learning_rate=0.25), network=SteepNetwork()
        )
        with pytest.raises(LossNotFinite, match=r"a lower --learning-rate \(now 0\.25\)"):
            loop.run()


class TestOutOfMemory:
    SAID = r"does not fit the memory; the last checkpoint is whole\. Take a smaller --tile-edge"

    @staticmethod
    def reserve() -> Tensor:
        """Ask torch for more memory than any machine has."""
        return torch.empty(1 << 60)

    @staticmethod
    def fail_on_gpu() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    @staticmethod
    def fail_in_python() -> None:
        raise MemoryError

    @pytest.mark.parametrize("fail", [reserve, fail_on_gpu, fail_in_python])
    def test_a_step_that_does_not_fit_says_what_to_lower(
        self, tmp_path: Path, fail: Callable[[], object]
    ) -> None:
        loop = make_loop(make_settings(tmp_path))
        loop.descent.network.register_forward_pre_hook(
            lambda *_: fail() if loop.progress.step == 3 else None
        )
        with pytest.raises(OutOfMemory, match=self.SAID), memory_errors_explained():
            loop.run()
        again = make_loop(make_settings(tmp_path))
        again.resume()
        assert again.progress.step == 2

    def test_tiles_that_do_not_fit_say_it_too(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        loop.sampler.draw = lambda *_: self.fail_in_python()  # type: ignore[method-assign,assignment]  # a seam
        with pytest.raises(OutOfMemory, match=self.SAID), memory_errors_explained():
            loop.run()

    def test_a_validation_that_does_not_fit_says_it_too(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path), validate=lambda _: self.reserve())  # type: ignore[arg-type,return-value]  # it fails
        with pytest.raises(OutOfMemory, match=self.SAID), memory_errors_explained():
            loop.run()

    def test_another_fault_of_torch_is_not_mistaken_for_it(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        loop.descent.network.register_forward_pre_hook(lambda *_: torch.zeros(2) @ torch.zeros(3))
        with pytest.raises(RuntimeError, match="size"), memory_errors_explained():
            loop.run()


class TestSignals:
    def test_they_are_given_back_after_the_run(self, tmp_path: Path) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        make_loop(make_settings(tmp_path)).run()
        after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        assert after == before

    def test_the_step_under_way_is_finished_first(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        loop.descent.network.register_forward_pre_hook(
            lambda *_: os.kill(os.getpid(), signal.SIGTERM) if loop.progress.step == 2 else None
        )
        with pytest.raises(TrainingStopped, match="Stopped at step 3 of 6"):
            loop.run()


class TestLog:
    def test_the_last_step_is_validated_and_logged_whatever_its_number(
        self, tmp_path: Path
    ) -> None:
        log = make_loop(make_settings(tmp_path), make_plan(steps=5)).run().log
        assert [(entry["kind"], entry["step"]) for entry in log] == [
            ("validation", 2),
            ("validation", 4),
            ("training", 5),
            ("validation", 5),
        ]

    def test_it_has_the_mean_loss_of_the_steps_since_its_last_line(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path), make_plan(steps=LOG_EVERY + 2))
        losses: list[float] = []
        step = loop.descent.step
        loop.descent.step = lambda *of: losses.append(step(*of)) or losses[-1]  # type: ignore[method-assign,func-returns-value]  # a seam
        log = [entry for entry in loop.run().log if entry["kind"] == "training"]
        expected = [np.mean(losses[:LOG_EVERY]), np.mean(losses[LOG_EVERY:])]
        assert [entry["loss"] for entry in log] == pytest.approx(expected)

    @pytest.mark.parametrize("resumed", [False, True])
    def test_its_pace_is_that_of_the_steps_whatever_lies_between_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
    ) -> None:
        """A step takes a second, a validation a hundred; the clock starts anew after a stop."""
        now = 0.0

        def take(seconds: float) -> None:
            nonlocal now
            now += seconds

        def validate(_: nn.Module) -> Validation:
            take(100.0)
            return Validation("ap50", 0.5, 0.5)

        def prepared() -> Loop:
            asked = make_settings(tmp_path, validate_every=40)
            loop = make_loop(asked, make_plan(steps=2 * LOG_EVERY + 5), validate=validate)
            loop.descent.optimiser.register_step_post_hook(lambda *_: take(1.0))
            return loop

        monkeypatch.setattr("training.run.loop.time.perf_counter", lambda: now)
        loop = prepared()
        if resumed:
            after_step(loop, 45, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(TrainingStopped):
                loop.run()
            loop, now = prepared(), 0.0
            loop.resume()
        log = [entry for entry in loop.run().log if entry["kind"] == "training"]
        assert [entry["steps_per_second"] for entry in log] == [1.0, 1.0, 1.0]

    def test_tensorboard_reads_along_where_it_was_asked_for(self, tmp_path: Path) -> None:
        for asked in (False, True):
            out = tmp_path / str(asked)
            loop = make_loop(make_settings(out, tensorboard=asked))
            loop.run()
            assert any(loop.folder.tensorboard.glob("events.*")) == asked

    def test_it_is_one_json_object_a_line(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        loop.run()
        lines = loop.folder.log.read_text().splitlines()
        assert [json.loads(line) for line in lines] == loop.progress.log

    def test_before_the_first_step_it_is_empty(self, tmp_path: Path) -> None:
        loop = make_loop(make_settings(tmp_path))
        found: list[str] = []
        loop.descent.network.register_forward_pre_hook(
            lambda *_: found.append(loop.folder.log.read_text())
        )
        loop.run()
        assert found[0] == ""

    def test_the_bar_shows_the_loss_and_the_best_score(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_loop(make_settings(tmp_path), validate=scored([0.6, 0.9, 0.8])).run()
        last = capsys.readouterr().err.split("\r")[-1]
        assert "6/6" in last
        assert "loss=" in last
        assert "best ap50=0.9000" in last


def test_every_step_takes_the_tiles_of_its_number(tmp_path: Path) -> None:
    """They are drawn in another thread while the step before is computed."""
    loop = make_loop(make_settings(tmp_path), make_plan(steps=4))
    seen: list[Tensor] = []
    loop.descent.network.register_forward_pre_hook(lambda _, tiles: seen.append(tiles[0].clone()))
    loop.run()
    sampler = make_loop(make_settings(tmp_path)).sampler
    expected = torch.cat([sampler.draw(step, range(2)).pixels for step in range(4)])
    assert torch.equal(torch.cat(seen), expected)
