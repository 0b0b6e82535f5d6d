"""Settings of a run: of the command line alone, checked when built, repeated by a command."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

from training.dataset import read_dataset
from training.fit import main
from training.settings import SAMPLES, FitSettings, explain

NOT_REPEATED = {"data", "out", "resume"}


def parse(words: list[str]) -> FitSettings:
    return CliApp.run(FitSettings, cli_args=words)


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line with something wrong in it."""
    assert main(words) == 2
    return capsys.readouterr().err


def test_the_samples_can_be_split_by_the_default_settings(tmp_path: Path) -> None:
    """`python -m training.fit --out RUN` works where there is no other data."""
    default = FitSettings(out=tmp_path)
    assert default.data == SAMPLES
    training, validation = read_dataset(SAMPLES).split(default.blocks, default.validation_block)
    assert (len(training), len(validation)) == (3, 1)


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    options = {f"--{name.replace('_', '-')}" for name in FitSettings.model_fields} - {"--data"}
    assert {option for option in options if f"{option} " in text} == options


@pytest.mark.parametrize("name", sorted(set(FitSettings.model_fields) - {"resume"}))
def test_every_setting_has_a_line_of_help(name: str) -> None:
    assert FitSettings.model_fields[name].description


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--blocks", "1"], "error: --blocks 1: Input should be greater than or equal to 2"),
        (["--steps", "many"], "error: --steps many: Input should be a valid integer"),
        (["--optimiser", "lion"], "error: --optimiser lion: Input should be 'adamw' or 'sgd'"),
        (["--learning-rate", "0"], "error: --learning-rate 0: Input should be greater than 0"),
        (["--depth", "7"], "error: --depth 7: Input should be less than or equal to 6"),
        (["--name", "My Model"], "error: --name My Model: String should match"),
        (["--classes", "cell,"], "error: --classes : String should have at least 1 character"),
        (["--precision", "int8"], "error: --precision int8: Input should be 'fp32' or 'fp16'"),
        (["--tile-edge", "570"], "error: An input edge of 570 px does not fit 4 poolings; 556 and"),
        (["--validation-block", "5"], "error: validation_block must lie below blocks; found 5"),
    ],
)
def test_a_wrong_value_is_named_with_its_option(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint(["--out", str(tmp_path), *words], capsys).startswith(expected)


def test_a_missing_folder_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint([], capsys) == "error: --out is required\n"


def test_every_wrong_value_has_a_line_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        FitSettings(out=tmp_path, steps=0, batch=0)
    lines = explain(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == ["--steps", "--batch"]


def test_a_word_that_is_no_option_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path), "--epochs", "3"])
    assert "unrecognized arguments: --epochs" in capsys.readouterr().err


def test_the_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "7")
    assert parse(["--out", str(tmp_path)]).steps == FitSettings(out=tmp_path).steps != 7


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classes": ("background", "cell wall"), "licence": "CC0 'as is'"},
        {"optimiser": "sgd", "learning_rate": 0.03, "depth": 2, "tile_edge": 92},
        {"seed": -1, "precision": "fp32", "variant": "release", "border_weight": 0.0},
    ],
)
def test_the_command_repeats_the_run(changes: dict[str, Any], tmp_path: Path) -> None:
    asked = FitSettings(out=tmp_path / "em", data=tmp_path / "cells", **changes)
    words = shlex.split(asked.command())
    assert words[:3] == ["python", "-m", "training.fit"]
    repeated = parse(words[3:])
    assert repeated.model_dump(exclude=NOT_REPEATED) == asked.model_dump(exclude=NOT_REPEATED)
    assert (repeated.data, repeated.out) == (Path("cells"), Path("em"))


def test_the_command_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    command = FitSettings(out=tmp_path / "a" / "em", data=tmp_path / "b" / "cells").command()
    assert command == "python -m training.fit cells --out em"


def test_a_folder_of_dots_has_its_real_name_in_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "em").mkdir()
    monkeypatch.chdir(tmp_path / "em")
    assert FitSettings(out=Path()).command() == "python -m training.fit membranes --out em"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("em-2.0", "em-2.0"), ("RUN", "run"), ("Blobs of mine!", "blobs-of-mine"), ("細胞", "model")],
)
def test_the_folder_gives_a_name_that_a_model_may_have(
    folder: str, expected: str, tmp_path: Path
) -> None:
    assert FitSettings(out=tmp_path / folder).model_name == expected


def test_a_name_that_is_given_is_taken(tmp_path: Path) -> None:
    assert FitSettings(out=tmp_path, name="nuclei").model_name == "nuclei"
