"""Numbers as people read them, for pages: each function is a filter of their templates too."""

from __future__ import annotations


def number(value: float | int | bool | None) -> str:
    """Four significant digits, whole numbers with thousands separators."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value != value:
        return "–"
    if isinstance(value, int) or (abs(value) < 1e15 and value == int(value)):
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def count(value: int) -> str:
    """A whole number with thousands separators."""
    return f"{value:,}"


def percent(part: float, whole: float = 1.0) -> str:
    """ "12.3 %", and "<0.1 %" rather than a zero that is none; "–" of nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1 %"
    return f"{share:.1f} %" if share < 99.95 or part == whole else ">99.9 %"


def duration(seconds: float | None) -> str:
    """Hours from two of them on, minutes from two on, seconds, or milliseconds."""
    if seconds is None:
        return "–"
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def size(count: float | None) -> str:
    """A number of bytes in B, KiB, MiB or GiB."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def moment(text: object) -> str:
    """An ISO 8601 time with a blank between date and time."""
    return f"{text}".replace("T", " ").replace("+00:00", " UTC")


FILTERS = {
    "count": count,
    "number": number,
    "percent": percent,
    "seconds": duration,
    "bytes": size,
    "moment": moment,
}
