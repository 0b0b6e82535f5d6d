"""Settings of a run: of the command line alone, checked when built, repeated by a command."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_settings import CliApp

from model.geometry import Geometry
from training.data.dataset import read_dataset
from training.data.split import split
from training.settings import SAMPLES, FitSettings, explain

NOT_ASKED = {"ridges": None, "elastic": True}
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1).filter(
    lambda text: not text.startswith("-")
)
SOME: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.sampled_from(["auto", "semantic", "instance"]),
        "ignore": st.integers(-32768, 65535),
        "init": st.sampled_from([Path("cells.onnx"), Path("em 2.onnx")]),
        "name": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True),
        "data_name": WORDS,
        "licence": WORDS,
        "citation": WORDS,
        "pixel_size": st.floats(1e-6, 1e6),
        "base_channels": st.integers(1, 512),
        "variant": st.sampled_from(["paper", "release"]),
        "steps": st.integers(1, 10**9),
        "batch": st.integers(1, 64),
        "tile_edge": st.integers(12, 60).map(lambda tiles: 16 * tiles + 60),
        "intensity": st.sampled_from(["percentile:0.5,99.5", "range:-100,1e4"]),
        "border_weight": st.floats(0, 100),
        "border_sigma": st.floats(0.1, 100),
        "ridges": st.booleans(),
        "object_share": st.floats(0, 1),
        "largest_zoom": st.floats(1, 10),
        "main_score": st.sampled_from(["ap50", "v_rand", "iou"]),
        "elastic": st.booleans(),
        "optimiser": st.sampled_from(["adamw", "sgd"]),
        "learning_rate": st.floats(1e-9, 1),
        "warmup_steps": st.integers(0, 1000),
        "compute": st.sampled_from(["bfloat16", "float32"]),
        "folds": st.integers(5, 9),
        "fold": st.integers(0, 4),
        "seed": st.integers(0, 2**40),
        "device": st.sampled_from(["auto", "cpu", "cuda"]),
        "precision": st.sampled_from(["fp32", "fp16"]),
        "tensorboard": st.booleans(),
    },
)


def parse(words: list[str]) -> FitSettings:
    return CliApp.run(FitSettings, cli_args=words)


def complaint(words: list[str]) -> str:
    """Give words with something wrong in them to the command line's parser."""
    with pytest.raises(ValidationError) as caught:
        parse(words)
    return explain(caught.value)


def test_the_samples_can_be_split_by_the_default_settings(tmp_path: Path) -> None:
    """`python -m training.fit --out RUN` works where there is no other data."""
    default = FitSettings(out=tmp_path)
    assert default.data == SAMPLES
    training, validation = split(read_dataset(SAMPLES), default.folds, default.fold)
    assert (len(training), len(validation)) == (3, 1)


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    text = capsys.readouterr().out
    options = {f"--{name.replace('_', '-')}" for name in FitSettings.model_fields} - {"--data"}
    assert {option for option in options if f"{option} " in text} == options


@pytest.mark.parametrize("name", sorted(set(FitSettings.model_fields) - {"resume"}))
def test_every_setting_has_a_line_of_help(name: str) -> None:
    assert FitSettings.model_fields[name].description


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--folds", "1"], "error: --folds 1: Input should be greater than or equal to 2"),
        (["--seed", "-1"], "error: --seed -1: Input should be greater than or equal to 0"),
        (["--pixel-size", "0"], "error: --pixel-size 0: Input should be greater than 0"),
        (["--intensity", "range:0"], "error: --intensity range:0: String should match"),
        (["--object-share", "1.5"], "error: --object-share 1.5: Input should be less than or"),
        (["--largest-zoom", "0.9"], "error: --largest-zoom 0.9: Input should be greater than or"),
        (["--border-sigma", "0"], "error: --border-sigma 0: Input should be greater than 0"),
        (["--steps", "many"], "error: --steps many: Input should be a valid integer"),
        (["--optimiser", "lion"], "error: --optimiser lion: Input should be 'adamw' or 'sgd'"),
        (["--learning-rate", "0"], "error: --learning-rate 0: Input should be greater than 0"),
        (["--depth", "7"], "error: --depth 7: Input should be less than or equal to 6"),
        (["--name", "My Model"], "error: --name My Model: String should match"),
        (["--classes", "cell,"], "error: --classes : String should have at least 1 character"),
        (["--precision", "int8"], "error: --precision int8: Input should be 'fp32' or 'fp16'"),
        (["--tile-edge", "570"], "error: An input edge of 570 px does not fit 4 poolings; 556 and"),
        (["--fold", "5"], "error: fold must lie below folds; found 5 and 5"),
        (
            ["--cross-validate", "--settled-by", "run"],
            "error: cross_validate holds images out, settled_by trains on all; take one",
        ),
        (
            ["--settled-by", "run", "--steps", "9", "--no-ridges", "--no-elastic"],
            "error: settled_by takes the plan of that run; leave out "
            "--steps, --ridges, --no-elastic",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_option(
    words: list[str], expected: str, tmp_path: Path
) -> None:
    assert complaint(["--out", str(tmp_path), *words]).startswith(expected)


def test_a_missing_folder_is_asked_for() -> None:
    assert complaint([]) == "error: --out is required"


def test_every_wrong_value_has_a_line_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        FitSettings(out=tmp_path, steps=0, batch=0)
    lines = explain(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == ["--steps", "--batch"]


def test_a_word_that_is_no_option_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["--out", str(tmp_path), "--epochs", "3"])
    assert "unrecognized arguments: --epochs" in capsys.readouterr().err


def test_the_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "7")
    assert parse(["--out", str(tmp_path)]).steps == FitSettings(out=tmp_path).steps != 7


@settings(max_examples=60, deadline=None)
@given(SOME)
def test_the_command_repeats_the_run(changes: dict[str, Any]) -> None:
    asked = FitSettings(out=Path("em"), data=Path("cells"), **changes)
    words = shlex.split(asked.command())
    assert words[:3] == ["python", "-m", "training.fit"]
    assert parse(words[3:]) == asked


@pytest.mark.parametrize("classes", [("background", "cell wall"), ("a", "b", "c's")])
def test_the_command_repeats_the_names_of_the_classes(classes: tuple[str, ...]) -> None:
    asked = FitSettings(out=Path("em"), data=Path("cells"), classes=classes)
    assert parse(shlex.split(asked.command())[3:]).classes == classes


@pytest.mark.parametrize("changes", [{"resume": True}, {"plan_only": True}])
def test_the_command_makes_the_whole_run(changes: dict[str, Any]) -> None:
    """Also where this start of it went on from a checkpoint, or only planned."""
    asked = FitSettings(out=Path("em"), data=Path("cells"), **changes)
    assert asked.command() == "python -m training.fit cells --out em"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], NOT_ASKED),
        (["--ridges"], {"ridges": True}),
        (["--no-ridges"], {"ridges": False}),
        (["--no-elastic"], {"elastic": False}),
        (["--resume"], {"resume": True}),
        (["--plan-only"], {"plan_only": True}),
        (["--classes", "background,cell"], {"classes": ("background", "cell")}),
        (["--intensity", "range:0,255"], {"intensity": "range:0,255"}),
    ],
)
def test_options_are_typed_as_the_page_says(words: list[str], expected: dict[str, Any]) -> None:
    found = parse(["cells", "--out", "em", *words]).model_dump()
    assert found.items() >= (NOT_ASKED | expected).items()


def test_a_flag_takes_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["cells", "--out", "em", "--ridges=false"])
    assert "--no-ridges" in capsys.readouterr().err


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 2000))
def test_a_tile_edge_is_taken_just_if_the_network_can_have_it(depth: int, edge: int) -> None:
    asked: dict[str, Any] = {"out": Path("em"), "depth": depth, "tile_edge": edge}
    if Geometry(depth).is_valid(edge):
        assert FitSettings(**asked).tile_edge == edge
    else:
        with pytest.raises(ValidationError, match="does not fit"):
            FitSettings(**asked)


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FitSettings(out=tmp_path).steps = 3  # type: ignore[misc]  # that is the point


def test_the_source_says_how_the_data_is_read_and_divided_again(tmp_path: Path) -> None:
    asked = FitSettings(out=tmp_path, data=tmp_path / "a" / "..", labels="instance", ignore=255)
    assert asked.source() == {
        "data": str(tmp_path.resolve()),
        "labels": "instance",
        "ignore": 255,
        "folds": 5,
        "fold": 2,
    }


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
