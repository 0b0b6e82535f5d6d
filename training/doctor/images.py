"""What pixels tell about an image: contrast, clipping, and the bits that are in use."""

from collections.abc import Iterator

from training.doctor.finding import Finding, few
from training.doctor.record import Records

MOST_CLIPPED = 0.01
"""Share of values at the largest one; the intensity rule cuts 0.5% by itself."""
FEWER_BITS = (8, 12)


def examine_contrast(records: Records) -> Iterator[Finding]:
    """Look for images without contrast."""
    constant = [entry for entry in records.images if entry.facts.low == entry.facts.high]
    yield from few(
        (
            Finding(
                "warning",
                entry.image,
                f"every pixel has the value {entry.facts.low:g}: nothing can be learnt from it; "
                "remove it, or export it again.",
            )
            for entry in constant
        ),
        "of one value as well.",
    )


def examine_clipping(records: Records) -> Iterator[Finding]:
    """Look for images whose bright parts were cut off."""
    clipped = [entry for entry in records.images if entry.clipped > MOST_CLIPPED]
    clipped.sort(key=lambda entry: -entry.clipped)
    yield from few(
        (
            Finding(
                "warning",
                entry.image,
                f"{entry.clipped:.1%} of its values are saturated at {entry.facts.high:g}: detail "
                "there is lost; export without contrast stretching, or expose less.",
            )
            for entry in clipped
        ),
        "saturated as well.",
    )


def examine_depth(records: Records) -> Iterator[Finding]:
    """Say how many of 16 bits are in use."""
    deep = [entry.facts.high for entry in records.images if entry.facts.dtype == "uint16"]
    if not deep:
        return
    for bits in FEWER_BITS:
        if max(deep) < 1 << bits:
            yield Finding(
                "note",
                records.name,
                f"16-bit images use {bits} bits (largest value {max(deep):g}): nothing to do, "
                "intensities are scaled by each image's own percentiles.",
            )
            return
