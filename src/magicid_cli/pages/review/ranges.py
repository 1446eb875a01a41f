"""A part of a file, as browsers ask for it when a person moves about in a video (RFC 9110, section 14)."""

import re

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Unsatisfiable(Exception):
    """A range that lies outside the file."""


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The wanted bytes, as (first, one past the last).

    Args:
        header: the value of `Range`, or None.
        size: of the file, in bytes.

    Returns:
        None where the whole file should be sent: no range, or one of a form that may be ignored, such as several.

    Raises:
        Unsatisfiable: none of the bytes is there.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        first, stop = max(0, size - int(found[2])), size
    else:
        first, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < first:
            return None  # not a valid range, which is to be ignored
    if first >= stop:
        raise Unsatisfiable
    return first, stop
