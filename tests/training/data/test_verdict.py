"""Classes or objects: how the two are told apart, and how that is said."""

import numpy as np
import pytest

from tests.training.files import Pixels, stripes
from training.data.verdict import Survey, Verdict


def judge(*labels: Pixels, ignore: int | None = None) -> Verdict:
    survey = Survey(ignore)
    for entry in labels:
        survey.add(entry)
    return survey.verdict("auto")


@pytest.mark.parametrize("white", [1, 255])
def test_black_and_white_labels_are_two_classes(white: int) -> None:
    """Also where every white region is in one piece, as an object would be."""
    labels = np.zeros((12, 9), np.uint8)
    labels[3:7, 2:6] = white
    assert judge(labels) == Verdict(
        "semantic",
        f"The labels are semantic labels: their only values are 0 and {white}, as in a mask.",
    )


def test_few_values_in_many_pieces_are_classes() -> None:
    labels = np.repeat([[0, 60, 0, 130, 60, 0, 130, 60]], 6, axis=0).astype(np.uint8)
    assert judge(labels) == Verdict(
        "semantic", "The labels are semantic labels: 3 values lie in 2.5 pieces each in an image."
    )


def test_few_values_of_one_piece_each_are_objects() -> None:
    labels = np.repeat([[0, 1, 0, 2, 0, 3]], 6, axis=0).astype(np.uint8)
    assert judge(labels, labels) == Verdict(
        "instance",
        "The labels are instance labels: each value is in one piece in its image (1 on average).",
        is_doubtful=True,
    )


def regions(*values: int, background: int = 0) -> Pixels:
    """Draw one region for each value, on a ground."""
    ground = np.full((6, len(values)), background)
    return np.stack([ground, np.tile(values, (6, 1))], axis=2).reshape(6, -1).astype(np.uint8)


@pytest.mark.parametrize("values", [(1, 2), (254, 255), (0, 7), (3, 200)])
def test_two_values_in_all_are_a_mask_whatever_they_are(values: tuple[int, int]) -> None:
    """Also in one piece each, as classes are exported with a number each and no 0."""
    low, high = values
    labels = np.repeat([[low, high]], 6, axis=0).astype(np.uint8)
    verdict = judge(labels, labels)
    assert (verdict.kind, verdict.is_doubtful) == ("semantic", False)
    assert f"only values are {low} and {high}" in verdict.reason


def test_the_same_few_values_in_every_image_are_classes() -> None:
    """A cell with its nucleus: one piece a class, where objects would differ in number."""
    cell = regions(1, 2)
    assert judge(cell, cell).kind == "instance"
    assert judge(cell, cell, cell) == Verdict(
        "semantic",
        "The labels are semantic labels: the same 3 values lie in nearly every image.",
        is_doubtful=True,
    )


def test_objects_that_differ_in_number_are_no_classes() -> None:
    assert judge(regions(1, 2), regions(1, 2), regions(1, 2, 3), regions(1)).kind == "instance"


@pytest.mark.parametrize(("without", "kind"), [(1, "semantic"), (2, "instance")])
def test_a_class_may_be_out_of_sight_in_one_image_of_ten(without: int, kind: str) -> None:
    assert judge(*[regions(1, 2)] * (10 - without), *[regions(1)] * without).kind == kind


def test_images_on_which_nothing_is_drawn_speak_for_neither() -> None:
    assert judge(*[regions(1, 2)] * 3, *[regions(0)] * 9).kind == "semantic"


def test_one_object_an_image_with_few_exceptions_is_no_class() -> None:
    assert judge(*[regions(1)] * 19, regions(1, 2)).kind == "instance"


def test_more_than_a_few_values_in_every_image_are_objects_of_one_scene() -> None:
    for count, kind in ((8, "semantic"), (9, "instance")):
        verdict = judge(*[regions(*range(1, count + 1))] * 3)
        assert (verdict.kind, verdict.is_doubtful) == (kind, kind == "semantic")


@pytest.mark.parametrize("stray", [0, 1])
def test_few_values_that_fill_every_image_are_classes(stray: int) -> None:
    labels = np.repeat([[1, 2, 3]], 200, axis=1).reshape(20, 30).astype(np.uint8)
    labels[0, :stray] = 0
    assert judge(labels).kind == judge(labels, labels).kind == "semantic"


def test_other_values_in_every_image_that_fill_it_are_objects() -> None:
    survey = Survey()
    for first in (1, 4):
        survey.add(np.repeat(np.arange(first, first + 3, dtype=np.uint8)[None], 6, axis=0))
    assert survey.verdict("auto").kind == "instance"
    assert (survey.has_background, survey.has_few_ids) == (False, True)


def test_sixteen_values_may_be_classes_and_seventeen_are_objects() -> None:
    for count, kind in ((16, "semantic"), (17, "instance")):
        labels = np.tile(np.repeat(np.arange(count), 2), (3, 2)).astype(np.uint8)
        assert judge(labels).kind == kind


def test_many_values_are_objects_whatever_their_pieces() -> None:
    labels = (np.indices((24, 24)).sum(axis=0) % 20).astype(np.uint8)
    assert judge(labels) == Verdict(
        "instance", "The labels are instance labels: 20 distinct values, more than 16, are ids."
    )


def test_the_verdict_is_one_for_all_images_in_any_order() -> None:
    """An image that by itself looks like classes has objects if the data set has."""
    many = np.arange(1, 82, dtype=np.uint8).reshape(9, 9)
    assert judge(stripes(), many).kind == judge(many, stripes()).kind == "instance"


def test_a_value_that_comes_late_makes_classes_of_a_mask() -> None:
    late = stripes(value=2)
    assert judge(stripes(), late, late).reason.endswith(
        "3 values lie in 3 pieces each in an image."
    )


def test_the_ignored_value_is_neither_counted_nor_looked_at() -> None:
    labels = stripes()
    labels[5, 5] = 7
    assert judge(labels, ignore=7) == Verdict(
        "semantic",
        "The labels are semantic labels: their only values are 0 and 1, as in a mask; "
        "the value 7 is ignored.",
    )


def test_a_value_to_be_ignored_that_no_pixel_has_is_mentioned() -> None:
    assert judge(stripes(), ignore=9).reason.endswith(
        "; the value 9 was to be ignored, and no pixel has it."
    )


def test_what_was_asked_for_is_not_judged() -> None:
    survey = Survey()
    survey.add(stripes())
    assert survey.verdict("instance") == Verdict(
        "instance", "The labels are instance labels: as was asked."
    )
