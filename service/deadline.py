"""How long a client waits for its answer, as it says in `Prefer: wait=` (RFC 7240, section 4.3)."""

import re
from urllib.request import parse_http_list

from model.errors import PreferenceInvalid

_MAX_SHOWN_CHARACTERS = 60


def asked_wait_s(prefer: str) -> float:
    """Read the preference `wait`; where there is none, the client waits for ever.

    Args:
        prefer: The values of all headers `Prefer`, joined by commas. Of several waits, the first
            counts; other preferences are passed over.

    Raises:
        PreferenceInvalid: The wait is no whole number of seconds from 1 on.
    """
    for preference in parse_http_list(prefer):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            return _seconds(value.strip().removeprefix('"').removesuffix('"'))
    return float("inf")


def _seconds(value: str) -> float:
    if not re.fullmatch("0*[1-9][0-9]{0,8}", value, re.ASCII):
        shown = re.sub(r"[^ -~]", "?", value[:_MAX_SHOWN_CHARACTERS])
        raise PreferenceInvalid(
            f"The header Prefer has wait={shown!r}; it takes whole seconds from 1 on, as in "
            "'Prefer: wait=30'."
        )
    return float(value)
