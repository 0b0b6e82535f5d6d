"""Which format an answer has: `format=` where it is given, else the best of `Accept`."""

from enum import StrEnum

from model.errors import FormatNotAcceptable


class AnswerFormat(StrEnum):
    """Formats of a mask, the default first; the value is the media type."""

    PNG = "image/png"
    JSON = "application/json"


def choose_format(asked: str | None, accept: str | None) -> AnswerFormat:
    """Choose the answer's format.

    Args:
        asked: `png` or `json`; it wins.
        accept: The header `Accept`; without one, or with a wildcard, the default is taken.

    Raises:
        FormatNotAcceptable: listing the formats that there are.
    """
    if asked is not None:
        names = {entry.name.lower(): entry for entry in AnswerFormat}
        if asked not in names:
            raise FormatNotAcceptable(
                f"There is no format {asked[:64]!r}; there are {', '.join(names)}."
            )
        return names[asked]
    weights = {entry: _weight(entry, accept or "*/*") for entry in AnswerFormat}
    best = max(AnswerFormat, key=lambda entry: weights[entry])
    if not weights[best]:
        raise FormatNotAcceptable(
            f"None of {', '.join(AnswerFormat)} is in Accept: {(accept or '')[:128]}."
        )
    return best


def _weight(offered: AnswerFormat, accept: str) -> float:
    """Weigh a media type by the most specific range that holds it. Source: RFC 9110, 12.5.1."""
    major = offered.value.split("/")[0]
    ranks = {offered.value: 3, f"{major}/*": 2, "*/*": 1}
    found = (0, 0.0)
    for part in accept.lower().split(","):
        media_range, *parameters = [piece.strip() for piece in part.split(";")]
        if media_range in ranks:
            found = max(found, (ranks[media_range], _quality(parameters)))
    return found[1]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(0.0, float(value)), 1.0)  # in this order, nan is 0
            except ValueError:
                return 0.0
    return 1.0
