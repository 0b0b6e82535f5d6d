"""The end of a run: what an artefact takes over from another one, and what a full disk leaves."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from model.architecture import Architecture
from model.artefact import Artefact, PrecisionScore, ScoreRecord, pack
from model.errors import CheckpointError
from tests.conftest import graph_of, manifest_of
from tests.training.files import write_many
from tests.training.small import make_plan, make_settings
from training import conclusion
from training.conclusion import finish, with_scores_of
from training.preparation import Prepared
from training.run.folder import RunFolder
from training.run.progress import Progress

NETWORK = Architecture(depth=1, base_channels=2)
MANIFEST = manifest_of(NETWORK)
SCORES = ScoreRecord(images=("a", "b"), values={"main": "ap50", "ap50": {"value": 0.5}})
BF16 = PrecisionScore(score="ap50", fp32=0.5, this=0.499)


def settling(**changes: Any) -> Artefact:
    """Give what an earlier run made."""
    return Artefact(Path("model.onnx"), "ab" * 32, MANIFEST.model_copy(update=changes))


class TestScoresTakenOver:
    def test_they_name_their_file_and_bring_what_may_be_computed_in(self) -> None:
        found = with_scores_of(MANIFEST, settling(scores=SCORES, precisions={"bf16": BF16}))
        assert found.scores == SCORES.model_copy(update={"of": "ab" * 32})
        assert found.precisions == {"bf16": BF16}

    def test_where_there_are_none_nothing_may_be_computed_in_either(self) -> None:
        assert with_scores_of(MANIFEST, settling(precisions={"bf16": BF16})) == MANIFEST


class TestAFullDisk:
    """It is full when a file of this name is written."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
        data = pack(graph_of(NETWORK), MANIFEST)
        monkeypatch.setattr(conclusion, "export", lambda *_: data)
        (tmp_path / "run").mkdir()
        return RunFolder(tmp_path / "run")

    def fails(self, folder: RunFolder, settled: Artefact | None) -> str:
        """Finish a run; give the message."""
        dataset = write_many(folder.path.parent / "data", 2)
        prepared = Prepared(dataset, dataset, (), make_plan(), MANIFEST, settled)
        with pytest.raises(CheckpointError) as caught:
            finish(make_settings(folder.path), folder, prepared, Progress())
        assert not folder.model.exists()
        return str(caught.value)

    @pytest.mark.parametrize("name", ["model.draft", "report.html"])
    def test_a_file_that_cannot_be_written_is_named_with_how_to_go_on(
        self, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        partial = (folder.path / name).with_suffix(".partial")

        def sync(file: int) -> None:
            if Path(f"/proc/self/fd/{file}").readlink() == partial:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", sync)
        assert self.fails(folder, settling(scores=SCORES)) == (
            f"{folder.path / name} cannot be written: No space left on device. "
            "The last checkpoint is whole; make room, and go on with --resume."
        )

    def test_so_is_a_draft_that_cannot_be_written_with_its_scores(
        self, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fill(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(conclusion, "settle_and_score", fill)
        said = self.fails(folder, None)
        assert said.startswith(f"{folder.draft} cannot be written: No space left on device.")
