"""The folder of artefacts, before any is read."""

import os
from pathlib import Path

import pytest

from model.errors import ArtefactNotFound
from service.models.folder import Stamp, look


def test_artefacts_are_found_by_name_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "a.onnx.part", ".a.onnx.x1y2z3", "report.html"):
        (tmp_path / name).touch()
    assert [path.name for path in look(tmp_path)] == ["a.onnx", "b.onnx"]


def test_a_folder_without_artefacts_is_an_error_as_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.txt").touch()
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ArtefactNotFound, match=r"holds no \.onnx artefact"):
            look(folder)


def test_a_link_that_leads_nowhere_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "lost.onnx").symlink_to(tmp_path / "nowhere")
    assert Stamp.of(tmp_path / "lost.onnx") is None
    (tmp_path / "there.onnx").touch()
    assert [path.name for path in look(tmp_path)] == ["there.onnx"]


def test_a_stamp_changes_with_size_and_time_and_not_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 1))
    first = Stamp.of(path)
    assert first == Stamp.of(path)
    path.write_bytes(b"22")
    os.utime(path, ns=(1, 1))
    longer = Stamp.of(path)
    os.utime(path, ns=(2, 2))
    assert len({first, longer, Stamp.of(path)}) == 3
