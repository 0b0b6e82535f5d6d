"""The report: one page that needs no other file, and shows what the model does."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from model.artefact import ScoreRecord
from model.errors import CheckpointError
from model.instances import InstanceRule
from model.runtime import Runtime
from tests.training.shown import LOG, Oracle, describe, image, images, page_of, pictures, tissue
from tests.training.small import make_plan
from training.data.dataset import AnnotatedImage
from training.data.labels import objects_of
from training.evaluate import evaluate, examine
from training.metrics.evaluation import Evaluation
from training.metrics.table import SECTIONS
from training.report import painting, write_report
from training.report.examples import choose, look
from training.report.hints import HINTS, hint, lower_is_better
from training.report.record import plan_table
from training.report.scores import worst_first
from training.run.folder import RunFolder

VOID = {"meta", "input", "br"}


@dataclass
class Elements(HTMLParser):
    """The elements of a page, which must be closed in the order in which they were opened."""

    found: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(page)
    parser.close()
    assert parser.opened == []
    return parser.found


@pytest.fixture(scope="module")
def shown() -> list[AnnotatedImage]:
    return images(12)


@pytest.fixture(scope="module")
def evaluation(shown: list[AnnotatedImage]) -> Evaluation:
    return evaluate(Oracle(), shown)


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, shown: list[AnnotatedImage], evaluation: Evaluation
) -> str:
    return page_of(tmp_path_factory.mktemp("run"), Oracle(), shown, evaluation)


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    found = elements(page)
    assert not {tag for tag, _ in found} & {"script", "link", "iframe", "img", "object"}
    links = [attrs[name] or "" for _, attrs in found for name in ("href", "src") if name in attrs]
    assert links
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_every_reference_inside_the_page_leads_somewhere(page: str) -> None:
    found = elements(page)
    anchors = [attrs["id"] for _, attrs in found if "id" in attrs]
    assert len(set(anchors)) == len(anchors)
    inner = {attrs["href"] for _, attrs in found if str(attrs.get("href")).startswith("#")}
    assert inner <= {f"#{anchor}" for anchor in anchors}


def test_the_main_score_stands_first_with_its_interval(page: str, evaluation: Evaluation) -> None:
    score = evaluation.scores["ap50"]
    assert f"<strong>{score.value:.3f}</strong> <span>{score.low:.3f} – {score.high:.3f}" in page
    assert page.index("<strong>") < page.index("<table")


def test_the_table_has_every_score_with_its_interval(page: str, evaluation: Evaluation) -> None:
    for name, score in evaluation.scores.items():
        digits = {"warping_error": 6, "hausdorff_95": 2}.get(name, 4)
        value, low, high = (f"{part:.{digits}f}" for part in (score.value, score.low, score.high))
        assert f"<td>{value}</td><td>{low} – {high}</td>" in page, name


def test_scores_of_objects_stand_before_those_of_pixels(page: str) -> None:
    sections = re.findall(r'scope="rowgroup">([^<]+)<', page)
    assert sections[0] == "Objects"
    assert {section.lower() for section in sections} == set(SECTIONS)


def test_every_score_has_a_hint() -> None:
    names = {name for section in SECTIONS.values() for name in section}
    assert names == set(HINTS)
    assert hint("iou_3") == HINTS["iou"]
    assert hint("hausdorff_95_1") == HINTS["hausdorff_95"]


def test_errors_are_told_from_scores() -> None:
    assert lower_is_better("hausdorff_95")
    assert lower_is_better("pixel_error")
    assert not lower_is_better("iou_1")


def test_of_one_image_no_interval_is_shown(tmp_path: Path) -> None:
    page = page_of(tmp_path, Oracle(), images(1))
    assert "One image tells nothing" in page
    assert "nan" not in page
    assert "the only one" in page


def test_the_page_owns_up_to_what_was_chosen_on_the_images_that_it_scores(
    tmp_path: Path, page: str
) -> None:
    assert "at a threshold of 0.5. It was chosen on these very images." in page
    model = Oracle(describe().model_copy(update={"instances": InstanceRule()}))
    again = page_of(tmp_path, model, images(1))
    assert "It and the rule that tells objects apart were chosen on these very images." in again
    several = page_of(tmp_path, Oracle(describe("semantic", 3)), [tissue(0)])
    assert "chosen on these" not in several


def test_a_file_made_of_every_image_has_a_page_without_scores_that_says_whose_it_carries(
    tmp_path: Path,
) -> None:
    scores = ScoreRecord(of="cd" * 32, images=("a", "b"), values={"main": "ap50"})
    model = Oracle(describe().model_copy(update={"scores": scores}))
    folder, log = RunFolder(tmp_path), [entry for entry in LOG if entry["kind"] == "training"]
    write_report(folder, cast("Runtime", model), (), None, make_plan(), log)
    page = folder.report.read_text(encoding="utf-8")
    elements(page)
    assert re.findall(r"<h2[^>]*>([^<]+)<", page) == ["Curves", "Plan", "File"]
    assert re.findall(r"<h3[^>]*>([^<]+)<", page) == ["Loss", "Learning rate"]
    said = f"No image was held out: the scores that the file carries are those of {'cd' * 32}"
    assert said in page
    assert "without the 2 images" in page
    assert "The score is measured" not in page
    assert plan_table(make_plan()) in page
    assert model.runs == []


def test_a_page_that_cannot_be_written_is_named(
    tmp_path: Path, shown: list[AnnotatedImage], evaluation: Evaluation
) -> None:
    with pytest.raises(CheckpointError, match=r"report\.html cannot be written"):
        page_of(tmp_path / "nowhere", Oracle(), shown, evaluation)


def test_the_plan_stands_with_its_reasons(page: str) -> None:
    plan = make_plan(reasons={"batch": "small", "ridges": "some touch"})
    lines = plan_table(plan)
    assert "<td>tiles a step</td><td>2 </td><td>small</td>" in lines
    assert "<td>yes </td><td>some touch</td>" in lines
    assert plan_table(make_plan()) in page


def test_the_file_is_named_by_its_digest_and_the_command_that_made_it(page: str) -> None:
    assert Oracle().artefact.sha256 in page
    assert "<pre>none</pre>" in page


def test_words_of_others_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    manifest = describe(licence=evil, data=evil, citation=evil, command=evil)
    classes = tuple(entry.model_copy(update={"name": evil}) for entry in manifest.classes)
    model = Oracle(manifest.model_copy(update={"classes": classes}))
    page = page_of(tmp_path, model, [replace(entry, name=f"{evil}") for entry in images(1)])
    assert "script" not in {tag for tag, _ in elements(page)}
    assert page.count("&lt;script&gt;") > 5


def test_the_worst_images_come_first_then_the_median_and_the_best(
    page: str, evaluation: Evaluation
) -> None:
    values = {name: scores["ap50"] for name, scores in evaluation.by_image.items()}
    order = sorted(values, key=lambda name: values[name])
    assert len(set(values.values())) > 8
    found = re.findall(r'<figcaption><b>([^<]+)</b> <span class="pill">([^<]+)<', page)
    assert [values[name] for name, _ in found[:8]] == [values[name] for name in order[:8]]
    assert found[0][1] == "worst, 1 of 12"
    assert ("best, 12 of 12") in dict(found).values()
    assert any("median" in why for _, why in found)
    assert len(found) == 9


def test_few_images_are_all_shown_once(evaluation: Evaluation) -> None:
    few = evaluation.only(evaluation.images[:4])
    assert list(choose(few)) == worst_first(few)


def test_images_without_a_score_come_last(evaluation: Evaluation) -> None:
    empty = np.zeros((96, 96), np.int32)
    dark = np.zeros((1, 96, 96), np.uint8)
    blank = AnnotatedImage("blank", dark, empty.astype(np.uint8), empty)
    both = replace(
        evaluation,
        images=("blank", *evaluation.images),
        tallies=(examine(Oracle(), unlit(blank), "none")[1], *evaluation.tallies),
    )
    assert np.isnan(both.by_image["blank"]["ap50"])
    assert worst_first(both)[-1] == "blank"
    assert "best" not in choose(both).get("blank", "")


def unlit(entry: AnnotatedImage) -> AnnotatedImage:
    """Give an image that is ignored whole: what is found in it does not count."""
    return replace(entry, ignored=np.ones(entry.semantic.shape, bool))


def test_no_image_is_read_or_segmented_that_is_not_shown(
    tmp_path: Path, shown: list[AnnotatedImage], evaluation: Evaluation
) -> None:
    class Counted(Sequence[AnnotatedImage]):
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return len(shown)

        def __getitem__(self, index: Any) -> Any:
            self.read.append(index)
            return shown[index]

    model, counted = Oracle(), Counted()
    page_of(tmp_path, model, counted, evaluation)
    names = [shown[index].name for index in counted.read]
    assert names == list(choose(evaluation))
    assert len(model.runs) == len(names) < len(shown)


def test_the_bytes_of_an_image_stand_once_beside_three_layers(
    page: str, evaluation: Evaluation
) -> None:
    count = len(choose(evaluation))
    assert len(pictures(page, "jpeg")) == count
    assert len(pictures(page, "png")) == 3 * count
    assert page.count("<use href=") == 3 * count


def test_a_prediction_shows_the_objects_that_were_scored(tmp_path: Path) -> None:
    rule = InstanceRule(seed_threshold=0.7, smallest_area=60)
    model = Oracle(describe().model_copy(update={"instances": rule}))
    entry = image(3)
    annotation, prediction, _ = pictures(page_of(tmp_path, model, [entry]), "png")
    seen = look(model, entry, "none")
    np.testing.assert_array_equal(annotation[..., 3] > 0, seen.annotated > 0)
    np.testing.assert_array_equal(prediction[..., 3] > 0, seen.found > 0)
    matched, apart = examine(model, entry, "none")[1].quotients["ap50"]
    assert np.count_nonzero(seen.fates.found) + np.count_nonzero(seen.fates.annotated) == (
        matched + apart
    )


def test_what_is_ignored_is_neither_found_nor_wrong(tmp_path: Path) -> None:
    entry = image(3)
    ignored = np.zeros((96, 96), bool)
    ignored[:48] = True
    entry = replace(
        entry,
        ignored=ignored,
        objects=np.where(ignored, 0, entry.objects),
        semantic=np.where(ignored, 0, entry.semantic).astype(np.uint8),
    )
    page = page_of(tmp_path, Oracle(), [entry])
    _, prediction, errors = pictures(page, "png")
    half = prediction.shape[0] // 2
    assert not prediction[:half, :, 3].any()
    assert {tuple(colour) for colour in errors[:half][errors[:half, :, 3] > 0][:, :3]} == {
        (0xDF, 0xE6, 0xEE)
    }
    assert "hatched: left out of all scores" in page


def test_several_classes_are_shown_in_their_colours(tmp_path: Path) -> None:
    manifest = describe("semantic", 3)
    page = page_of(tmp_path, Oracle(manifest), [tissue(0), tissue(1)])
    annotation = pictures(page, "png")[0]
    assert {tuple(colour) for colour in annotation[annotation[..., 3] > 0][:, :3]} == {
        (0xE6, 0x9F, 0x00),
        (0x56, 0xB4, 0xE9),
    }
    assert painting.ERRORS["other class"] in page
    assert painting.ERRORS["merged"] not in page
    assert "<h2>IoU, mean of classes</h2>" in page


def test_pixels_of_one_class_are_red_where_missed_and_blue_where_extra(tmp_path: Path) -> None:
    manifest = describe("semantic").model_copy(update={"decision_threshold": 0.5})
    entry = image(5)
    page = page_of(tmp_path, Oracle(manifest), [entry])
    errors = pictures(page, "png")[2]
    seen = look(Oracle(manifest), entry, "none")
    red = (errors[..., :3] == (0xFF, 0x4D, 0x5E)).all(axis=2)
    assert red.any()
    assert (seen.semantic[red] == 1).all()
    assert (seen.labels[red] == 0).all()
    assert "<h2>V_rand</h2>" in page


def test_rotations_are_averaged_where_the_evaluation_averaged_them(tmp_path: Path) -> None:
    model, shown = Oracle(), images(1)
    evaluation = evaluate(model, shown, "rotations")
    model.runs.clear()
    page = page_of(tmp_path, model, shown, evaluation)
    assert len(model.runs) == 8
    assert "averaged over rotations and mirrors" in page


def test_ten_large_and_noisy_images_leave_the_page_below_6_megabytes(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    entry = image(0)
    semantic, pixels = (np.tile(array, (7, 7)) for array in (entry.semantic, entry.image[0]))
    noisy = np.clip(pixels + np.random.default_rng(0).normal(0, 60, pixels.shape), 0, 255)
    large = AnnotatedImage(
        "large", noisy[np.newaxis].astype(np.uint8), semantic, objects_of(semantic)
    )
    page = page_of(tmp_path, Oracle(), [large] * len(evaluation.images), evaluation)
    assert len(pictures(page, "jpeg")) == len(choose(evaluation))
    assert 1e6 < len(page) < 6e6
