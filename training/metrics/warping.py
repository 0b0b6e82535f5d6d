"""Warping error: what still differs when a boundary may move but nothing may merge or split.

A pixel is simple where flipping it changes no topology: no object or hole appears, vanishes, merges
or splits. Objects are 4-connected, their background is 8-connected, and outside of the image is
background.

    reference ──flip simple pixels that differ, as long as there are any──> warped ─┐
    found ──────────────────────────────────────────────────────────────────────────┴─> difference
"""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""The neighbours of a pixel, one after the other around it."""


def _simple_rings() -> Mask:
    """Tell for each of the 256 rings of neighbours whether the pixel within is simple.

    Source: Yokoi et al. 1975, An analysis of topological properties of digitized binary pictures
    using local features (a pixel is simple where its 4-connectivity number is 1).
    """
    ring = (np.arange(256)[:, np.newaxis] >> np.arange(8)) & 1
    corners = ring * np.roll(ring, -1, axis=1) * np.roll(ring, -2, axis=1)
    number: NDArray[np.int_] = (ring - corners)[:, ::2].sum(axis=1)
    return np.asarray(number == 1)


_IS_SIMPLE = _simple_rings()


def warp(reference: Mask, found: Mask, allowed: Mask | None = None) -> Mask:
    """Deform a reference towards what was found, without changing its topology.

    Pixels that differ and are simple are flipped until there are none. That is a greedy descent: it
    ends where no single flip helps, and its order is fixed, so that a result repeats. In one round,
    those pixels are flipped together that lie on one of four grids of every second row and column:
    none is in the ring of another, so the order among them does not matter.

    Args:
        reference: (H, W) bool, True inside of objects.
        found: (H, W) bool.
        allowed: (H, W) bool, True where pixels may be flipped; None allows all.

    Returns:
        (H, W) bool with the topology of the reference.

    Raises:
        ValueError: The shapes differ.

    Source: Jain et al. 2010, Boundary learning by optimization with topological constraints.
    """
    if reference.shape != found.shape:
        raise ValueError(f"masks of one image differ in shape: {reference.shape}, {found.shape}")
    warped, target = (np.pad(mask, 1).ravel() for mask in (reference, found))
    movable = np.pad(np.ones_like(found) if allowed is None else allowed, 1).ravel()
    width = found.shape[1] + 2
    ring = np.array([row * width + column for row, column in _RING])
    waiting = np.flatnonzero(movable & (warped != target))
    while waiting.size:
        grid = waiting // width % 2 * 2 + waiting % width % 2
        flipped = np.concatenate(
            [_flip_simple(warped, waiting[grid == index], ring) for index in range(4)]
        )
        near = np.unique(flipped[:, np.newaxis] + ring)
        waiting = near[movable[near] & (warped[near] != target[near])]
    return warped.reshape(-1, width)[1:-1, 1:-1]


def warping_error(found: Mask, reference: Mask, allowed: Mask | None = None) -> float:
    """Give the share of pixels that differ after `warp`, of those that are allowed to.

    It is 0 for the same topology in about the same place, and nan where no pixel is allowed.

    Args:
        found: (H, W) bool, True inside of objects.
        reference: (H, W) bool.
        allowed: (H, W) bool, True where pixels count and may be flipped; None allows all.

    Raises:
        ValueError: The shapes differ.

    Figures of the ISBI 2012 challenge are lower: of these pixels they count those that split or
    merge, at the threshold where they are fewest (Arganda-Carreras et al. 2015).

    Source: Jain et al. 2010: all pixels that differ, at the one threshold that made the mask.
    """
    differs = warp(reference, found, allowed) != found
    counted = differs if allowed is None else differs[allowed]
    return float(counted.mean()) if counted.size else float("nan")


def part(objects: NDArray[np.int32]) -> Mask:
    """Give the mask of objects, with those that touch parted by a line of 1 px.

    Args:
        objects: (H, W) ids, 0 outside of objects.

    Returns:
        (H, W) bool; no two objects are connected (4-connectivity).
    """
    mask = objects != 0
    below = (objects[:-1] != objects[1:]) & mask[1:]
    right = (objects[:, :-1] != objects[:, 1:]) & mask[:, 1:]
    mask[:-1] &= ~below
    mask[:, :-1] &= ~right
    return np.asarray(mask, dtype=np.bool_)


def _flip_simple(
    warped: Mask, places: NDArray[np.intp], ring: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Flip those of the places that are simple, and say which."""
    codes = np.zeros(places.size, np.uint8)
    for bit, offset in enumerate(ring):
        codes |= warped[places + offset].astype(np.uint8) << np.uint8(bit)
    flipped = places[_IS_SIMPLE[codes]]
    warped[flipped] ^= True
    return flipped
