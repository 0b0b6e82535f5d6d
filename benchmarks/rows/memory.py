"""Peak memory and time for 1, 10 and 100 megapixels; measured by `benchmarks.memory`."""

import importlib
from collections.abc import Iterator

from benchmarks.row import Row


def measure(*, quick: bool) -> Iterator[Row]:  # noqa: ARG001 (a row like the others)
    """Give its rows."""
    for found in importlib.import_module("benchmarks.memory").measure():
        yield Row.from_fields({"name": "peak memory"} | found)
