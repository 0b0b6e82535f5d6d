"""What the documents point to is there."""

import re

import pytest

from service.settings import Settings
from tests.conftest import ROOT

DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/operate.md",
    "docs/samples/README.md",
    "docs/train-your-own.md",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("model/pretrained/*.md")),
]
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


def test_every_command_that_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)|`make (\w+)`", text, re.MULTILINE)
    modules = re.findall(r"python -m ([\w.]+)", text)

    assert targets
    assert modules
    for target in targets:
        assert f"\n{''.join(target)}: " in makefile
    for module in modules:
        if module.split(".")[0] in ROOMS.split("|"):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
