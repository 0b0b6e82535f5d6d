"""Masks in COCO run-length encoding, those of a whole label map at once.

A mask is the lengths of its runs, column by column, outside and inside in turn. From the fourth
on, a length is written as its difference to the one before the last, in characters of 5 bits:

    0  0  1
    0  1  1   of ids, the mask of 1 is 3 outside, 3 inside, so that 3, 3 is written: "33"

Source: pycocotools, maskApi.c (`rleEncode`, `rleToString`).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 5
MORE = 1 << BITS
"""What marks a character that is not the last of its number."""

NUMBERS_A_TIME = 1 << 14
"""Numbers written at a time: what they take meanwhile fits a core's cache."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of equal values in a map, column by column; those of one value stand together."""

    shape: tuple[int, int]
    """Height and width of the map, in px."""
    starts: Integers
    """(r,) first pixel of each run; pixels are numbered column by column."""
    stops: Integers
    """(r,) first pixel after each run."""
    bounds: Integers
    """(n + 1,): the runs of the i-th value are those from bounds[i] to bounds[i + 1]."""

    @classmethod
    def of(cls, values: NDArray[Any], wanted: range) -> "Runs":
        """Find the runs in a map (H, W) of whole numbers.

        Args:
            values: The map.
            wanted: The values whose runs are kept, also where there are none.
        """
        pixels = values.ravel("F")
        starts = np.concatenate(([0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1))
        stops = np.append(starts[1:], pixels.size)
        found = pixels[starts]
        order = np.argsort(found, kind="stable")
        bounds = np.searchsorted(found, np.arange(wanted.start, wanted.stop + 1), sorter=order)
        order = order[bounds[0] : bounds[-1]]
        height, width = values.shape
        return cls((height, width), starts[order], stops[order], bounds - bounds[0])

    def areas(self) -> list[int]:
        """Give how many pixels have each value."""
        sums = np.concatenate(([0], np.cumsum(self.stops - self.starts)))
        areas: list[int] = np.diff(sums[self.bounds]).tolist()
        return areas

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Give left, top, width and height of each value's pixels; all 0 if there are none."""
        (left, first_row), (right, last_row) = (
            np.divmod(pixels, self.shape[0]) for pixels in (self.starts, self.stops - 1)
        )
        turns = right > left  # such a run has the last row of one column and the first of the next
        tops = np.where(turns, 0, first_row)
        bottoms = np.where(turns, self.shape[0] - 1, last_row)
        boxes = np.zeros((self.bounds.size - 1, 4), np.int64)
        held, firsts, lasts = self._held()
        if held.size:
            edges = left[firsts], np.minimum.reduceat(tops, firsts)
            ends = right[lasts], np.maximum.reduceat(bottoms, firsts)
            boxes[held] = np.transpose([*edges, ends[0] - edges[0] + 1, ends[1] - edges[1] + 1])
        return [(x, y, width, height) for x, y, width, height in boxes.tolist()]

    def counts(self) -> list[str]:
        """Write each value's mask. Each step lets other threads run, as `np.insert` would not."""
        numbers, bounds = self._lengths()
        text, taken = _write(_differences(numbers, bounds))
        characters = np.add.reduceat(taken, bounds[:-1], dtype=np.int64)
        ends = np.concatenate(([0], np.cumsum(characters))).tolist()
        return [text[start:stop] for start, stop in pairwise(ends)]

    def _held(self) -> tuple[Integers, Integers, Integers]:
        """Say which values have runs, and which are the first and the last of them."""
        held = np.flatnonzero(np.diff(self.bounds))
        return held, self.bounds[held], self.bounds[held + 1] - 1

    def _lengths(self) -> tuple[Integers, Integers]:
        """Give the lengths outside and inside in turn, and where those of each value begin."""
        held, firsts, lasts = self._held()
        lengths = np.empty((self.starts.size, 2), np.int64)
        lengths[:, 0] = self.starts
        lengths[1:, 0] -= self.stops[:-1]
        lengths[firsts, 0] = self.starts[firsts]
        lengths[:, 1] = self.stops - self.starts
        rests = np.full(self.bounds.size - 1, self.shape[0] * self.shape[1])
        rests[held] -= self.stops[lasts]
        bounds = 2 * self.bounds
        bounds[1:] += np.cumsum(rests > 0)
        is_run = np.ones(bounds[-1], np.bool_)
        is_run[bounds[1:][rests > 0] - 1] = False
        numbers = np.empty(bounds[-1], np.int64)
        numbers[is_run] = lengths.ravel()
        numbers[~is_run] = rests[rests > 0]
        return numbers, bounds


def _differences(numbers: Integers, bounds: Integers) -> Integers:
    differences = numbers.copy()
    differences[2:] -= numbers[:-2]
    for place in range(3):
        early = bounds[:-1] + place
        early = early[early < bounds[1:]]
        differences[early] = numbers[early]
    return differences


def _write(numbers: Integers) -> tuple[str, NDArray[np.uint8]]:
    """Write whole numbers, and say how many characters each took."""
    parts = [
        _write_part(numbers[start : start + NUMBERS_A_TIME])
        for start in range(0, numbers.size, NUMBERS_A_TIME)
    ]
    none = np.zeros(0, np.uint8)
    return "".join(text for text, _ in parts), np.concatenate(
        [none, *(taken for _, taken in parts)]
    )


def _write_part(numbers: Integers) -> tuple[str, NDArray[np.uint8]]:
    magnitudes = np.where(numbers < 0, ~numbers, numbers)
    most = int(magnitudes.max()).bit_length() // BITS + 1  # one bit is the sign's
    taken = np.ones(numbers.size, np.uint8)
    for place in range(1, most):
        taken += magnitudes >> BITS * place - 1 > 0
    characters = np.empty((numbers.size, most), np.uint8)
    for place in range(most):
        characters[:, place] = numbers >> BITS * place & (MORE - 1)
        characters[taken > place + 1, place] |= MORE
    used = np.arange(most) < taken[:, np.newaxis]
    return (characters[used] + np.uint8(ord("0"))).tobytes().decode(), taken
