"""Fates: what became of each object, in agreement with the scores of objects."""

import numpy as np
import pytest
from hypothesis import given

from tests.training.drawn import SMALL_IDS, Ids, blocks, with_borders
from training.metrics.objects import Overlaps
from training.report.fates import Fate, Fates


def row(text: str) -> Ids:
    """Read ids of one row of pixels, a digit each."""
    return np.array([[int(digit) for digit in text]], np.intp)


def fates_of(found: str, annotated: str) -> tuple[list[int], list[int]]:
    fates = Fates.of(row(found), row(annotated))
    return fates.found[1:].tolist(), fates.annotated[1:].tolist()


def test_an_object_that_overlaps_by_half_is_matched_with_its_partner() -> None:
    fates = Fates.of(row("0022220111"), row("0333330000"))
    assert fates.found.tolist() == [Fate.NONE, Fate.ALONE, Fate.MATCHED]
    assert fates.annotated.tolist() == [Fate.NONE] * 3 + [Fate.MATCHED]
    assert fates.partners.tolist() == [0, 0, 3]


def test_an_object_that_nothing_overlaps_is_alone_on_either_side() -> None:
    assert fates_of("1100000", "0000111") == ([Fate.ALONE], [Fate.ALONE])


def test_too_small_an_overlap_leaves_both_alone() -> None:
    assert fates_of("1111100000", "0000111111") == ([Fate.ALONE], [Fate.ALONE])


def test_two_objects_in_one_are_merged_on_both_sides() -> None:
    assert fates_of("1111111", "1110222") == ([Fate.MERGED], [Fate.MERGED] * 2)


def test_one_object_in_two_is_split_on_both_sides() -> None:
    assert fates_of("1110222", "1111111") == ([Fate.SPLIT] * 2, [Fate.SPLIT])


def test_of_a_merger_that_matches_one_object_only_the_other_is_merged() -> None:
    assert fates_of("1111111111", "1111111122") == ([Fate.MATCHED], [Fate.MATCHED, Fate.MERGED])


def test_a_crumb_of_an_object_that_matches_is_split_off() -> None:
    assert fates_of("1111111022", "1111111111") == ([Fate.MATCHED, Fate.SPLIT], [Fate.MATCHED])


def test_the_count_names_each_fate_that_occurs() -> None:
    fates = Fates.of(row("1111111022000330"), row("1110222000044330"))
    assert fates.count() == "1 of 4 objects found, 1 missed, 2 merged, 1 extra"


def test_an_empty_image_has_no_objects_at_all() -> None:
    assert Fates.of(row("000"), row("000")).count() == "0 of 0 objects found"


@given(SMALL_IDS, SMALL_IDS)
def test_what_occurs_has_a_fate_and_nothing_else_has(found: Ids, annotated: Ids) -> None:
    fates = Fates.of(found.astype(np.intp), annotated.astype(np.intp))
    for given_ids, of in ((found, fates.found), (annotated, fates.annotated)):
        assert set(np.flatnonzero(of)) == set(np.unique(given_ids)) - {0}


@pytest.mark.parametrize("seed", range(5))
def test_objects_without_a_partner_are_the_errors_of_average_precision(seed: int) -> None:
    annotated = with_borders(blocks(seed, 12)).astype(np.intp)
    found = np.roll(np.where(annotated % 5 == 1, annotated > 0, annotated), 1).astype(np.intp)
    matching = Overlaps.of(found, annotated).match(0.5)
    fates = Fates.of(found, annotated)
    assert 0 < matching.matched < matching.reference
    assert np.count_nonzero(fates.annotated == Fate.MATCHED) == matching.matched
    assert np.count_nonzero(fates.annotated > Fate.MATCHED) == (
        matching.reference - matching.matched
    )
    assert np.count_nonzero(fates.found > Fate.MATCHED) == matching.found - matching.matched
