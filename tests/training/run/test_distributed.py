"""Several processes: what each computes of a batch, and that together they are one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import TrainingError
from tests.conftest import ROOT
from tests.training.conftest import BLOBS, TINY, Run
from tests.training.small import make_loop, make_plan, make_settings, results_of, same
from training.run.distributed import World, join

Pair = tuple[Path, subprocess.CompletedProcess[str]]
SCRIPT = """
import sys
from training import fit
from training.run import storage
from training.tiles.store import Layout

def noted(act, word):
    return lambda *of: print(f"{word} {of[FOLDER[word]].name}", flush=True) or act(*of)

FOLDER = {"written": 0, "mapped": 1}
storage.write = noted(storage.write, "written")
Layout.mapped = noted(Layout.mapped, "mapped")
sys.exit(fit.main())
"""
"""The command, which also says what each process does with a store."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Train in two processes what the fixture `run` trains in one."""
    folder = tmp_path_factory.mktemp("pair") / "Blobs of mine"
    script = folder.parent / "fit.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(BLOBS), "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # noqa: S603 (the words above)
        [*command, *TINY], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return folder, done


class TestTwoProcesses:
    def test_they_end_well(self, pair: Pair) -> None:
        assert pair[1].returncode == 0, pair[1].stderr

    def test_they_have_the_loss_curve_of_one_process(self, pair: Pair, run: Run) -> None:
        found, expected = (
            [entry["loss"] for entry in results_of(folder)["progress"]["log"] if "loss" in entry]
            for folder in (pair[0], run.folder)
        )
        assert found == pytest.approx(expected, abs=1e-4)

    def test_they_come_to_the_parameters_of_one_process_to_the_last_bit(
        self, pair: Pair, run: Run
    ) -> None:
        """And to its optimiser's state and its scores, with convolutions in bfloat16."""
        assert same(results_of(pair[0]), results_of(run.folder))

    def test_they_give_the_network_of_one_process(self, pair: Pair, run: Run) -> None:
        one, other = (folder / "best.pt" for folder in (pair[0], run.folder))
        models = [torch.load(path, weights_only=True)["model"] for path in (one, other)]
        assert same(*models)

    def test_one_of_them_writes_and_prints(self, pair: Pair, run: Run) -> None:
        folder, done = pair
        assert done.stdout.count("training on 2, validating on 1") == 1
        assert done.stdout.count("on cpu, 2 process(es)") == 1
        assert {path.name for path in folder.iterdir()} == {
            path.name for path in run.folder.iterdir()
        }

    def test_one_of_them_stores_the_training_images_and_both_map_them(self, pair: Pair) -> None:
        said = pair[1].stdout
        assert (said.count("written store-0"), said.count("mapped store-0")) == (1, 2)
        assert (said.count("written"), said.count("mapped")) == (1, 2)


class TestWorld:
    @settings(deadline=None)
    @given(st.integers(1, 8), st.integers(1, 8))
    def test_every_tile_is_computed_by_one_process(self, size: int, tiles_each: int) -> None:
        places = [World(rank, size).places(size * tiles_each) for rank in range(size)]
        assert {len(part) for part in places} == {tiles_each}
        assert sorted(place for part in places for place in part) == list(range(size * tiles_each))

    @pytest.mark.parametrize(("size", "batch", "better"), [(2, 1, 2), (2, 3, 2), (3, 8, 6)])
    def test_a_batch_that_cannot_be_shared_is_refused_by_name(
        self, size: int, batch: int, better: int
    ) -> None:
        said = (
            f"A batch of {batch} tiles cannot be shared by {size} processes; take --batch {better}"
        )
        with pytest.raises(TrainingError, match=said):
            World(0, size).places(batch)

    def test_a_run_refuses_such_a_batch_before_its_first_step(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="cannot be shared"):
            make_loop(make_settings(tmp_path), make_plan(batch=3), world=World(0, 2))

    def test_the_first_one_leads(self) -> None:
        assert [World(rank, 3).leads for rank in range(3)] == [True, False, False]

    def test_the_first_one_of_a_machine_leads_it(self) -> None:
        worlds = [World(rank, 4, rank // 2, rank % 2) for rank in range(4)]
        assert [world.leads_machine for world in worlds] == [True, False, True, False]
        assert World().leads_machine

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ({"GROUP_RANK": "1", "LOCAL_RANK": "3"}, World(11, 16, 1, 3)),
            ({"LOCAL_RANK": "3"}, World(11, 16, 11, 0)),
            ({}, World(11, 16, 11, 0)),
        ],
    )
    def test_what_torchrun_does_not_tell_is_taken_for_another_machine(
        self, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], expected: World
    ) -> None:
        for name in ("GROUP_RANK", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"WORLD_SIZE": "16", **told}.items():
            monkeypatch.setenv(name, value)
        for name in ("init_process_group", "destroy_process_group"):
            monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 11)
        with join(torch.device("cpu")) as world:
            assert world == expected

    def test_those_that_do_not_lead_say_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        for rank in range(3):
            World(rank, 3).say(f"rank {rank}")
        assert capsys.readouterr().out == "rank 0\n"

    def test_one_process_has_nobody_to_wait_for(self) -> None:
        alone = World()
        alone.wait()
        assert alone.same("a plan") == "a plan"
        assert [alone.any(flag) for flag in (True, False)] == [True, False]
        assert float(alone.total(torch.tensor(2.5))) == 2.5

    def test_a_total_is_no_part_of_the_graph(self) -> None:
        value = torch.ones(1, requires_grad=True)
        assert not World().total(value * 2).requires_grad

    def test_without_torchrun_there_is_one_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        with join(torch.device("cpu")) as world:
            assert world == World(rank=0, size=1)
            assert not torch.distributed.is_initialized()
