"""What the documents point to is there."""

import contextlib
import functools
import importlib
import io
import re

import pytest

from service.settings import Settings
from tests.conftest import ROOT

DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/ablation.md",
    "docs/operate.md",
    "docs/samples/README.md",
    "docs/train-your-own.md",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("model/pretrained/*.md")),
]
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
ROOMS = "model|service|training|tests|docs|docker|benchmarks"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    spans = re.findall(rf"`((?:{ROOMS})/[\w./-]*)`", text)

    assert not re.search(r"@[A-Z]+@", text), "a placeholder was left"
    for path in links:
        assert (ROOT / name).parent.joinpath(path).exists(), path
    for path in spans:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["README.md", "docs/operate.md"])
def test_every_setting_that_a_document_names_is_one(name: str) -> None:
    text = (ROOT / name).read_text()
    named = {match.lower() for match in re.findall(r"UNET_SERVICE_([A-Z_]+)", text)}
    shortened = {match.lower() for match in re.findall(r"`_([A-Z_]+)`", text)}

    assert named | shortened <= set(Settings.model_fields)


def test_the_readme_s_sample_is_in_the_repository() -> None:
    text = (ROOT / "README.md").read_text()

    for path in re.findall(r"image=@(docs/[\w./-]+)", text):
        assert (ROOT / path).is_file()


def test_nothing_says_where_it_was_written() -> None:
    names = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "Makefile", "pyproject.toml"]
    for name in names:
        assert not re.search(r"/(root|home|work)/", (ROOT / name).read_text()), name


def commands(text: str) -> list[tuple[str, set[str]]]:
    """Give module and options of every `python -m` of ours, in blocks, in prose, or under torchrun.

    What follows is the command's up to the end of its line, of its code span, or a comment.
    """
    lines = re.findall(rf"-m ((?:{ROOMS})[\w.]*)([^`\n]*)", text.replace("\\\n", " "))
    return [
        (module.rstrip("."), set(OPTION.findall(rest.split(" #")[0].split(" | ")[0])))
        for module, rest in lines
    ]


@functools.cache
def options_of(module: str) -> set[str]:
    """Ask a module for its options, as one types them."""
    is_package = (ROOT / module.replace(".", "/")).is_dir()
    program = importlib.import_module(f"{module}.__main__" if is_package else module)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        program.main(["--help"])
    return set(OPTION.findall(said.getvalue()))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_that_a_document_names_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)|`make (\w+)`", text, re.MULTILINE):
        assert f"\n{''.join(target)}: " in makefile
    for module, options in commands(text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
        if options - {"--help"}:
            assert options <= options_of(module), module


def test_commands_are_found_in_blocks_in_prose_and_over_several_lines() -> None:
    text = """
    X=1 .venv/bin/python -m training.fit data --out run  # not --this
    torchrun --nproc-per-node 2 -m training.fit data \\
      --resume
    Say `python -m service --help`. Or --that, or python -m venv --clear.
    """
    assert commands(text) == [
        ("training.fit", {"--out"}),
        ("training.fit", {"--resume"}),
        ("service", {"--help"}),
    ]


def test_an_option_that_is_not_there_is_told_from_one_that_is() -> None:
    assert "--no-ridges" in options_of("training.fit")
    assert "--invented" not in options_of("training.fit")


def test_the_readme_names_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert commands(text)
    assert re.search(r"^make serve", text, re.MULTILINE)
