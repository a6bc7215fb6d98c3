"""Formats numbers and text from outside, alike on the terminal and on the page."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from math import floor, isfinite, log10
from typing import Any

from emca_deploy._text import printable as plain

__all__ = ["NONE", "facts", "fixed", "interval", "moment", "plain", "shortened", "signed", "significant", "uniform", "upper"]

NONE = "-"
"""Text for a missing value."""

_UNITS = {"mib": "MiB", "mhz": "MHz", "ms": "ms", "s": "s"}


def fixed(value: float | None, decimals: int = 2) -> str:
    """Return a number with fixed decimals and separated thousands, never "-0.00"; "-" for None."""
    return NONE if value is None else f"{round(value, decimals) + 0.0:,.{decimals}f}"


def shortened(name: str, most: int) -> str:
    """Return the end of a name, at most `most` characters."""
    name = plain(name)
    return name if len(name) <= most else f"\N{HORIZONTAL ELLIPSIS}{name[1 - most :]}"


def significant(value: float | None) -> str:
    """Return a number with three significant digits, without exponent: 0.0123, 1.23, 12.3, 1,234; "-" for None."""
    return fixed(value, _decimals(abs(value or 0.0)))


def uniform(values: Sequence[float | None]) -> list[str]:
    """Return a column of numbers with the same decimals: three significant digits for the smallest."""
    smallest = min((abs(value) for value in values if value), default=1.0)
    return [fixed(value, _decimals(smallest)) for value in values]


def moment(iso: str) -> str:
    """Return a readable time stamp in UTC; other text is unchanged."""
    try:
        return datetime.fromisoformat(iso).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return iso


def _decimals(magnitude: float) -> int:
    return min(max(2 - floor(log10(magnitude)), 0), 6) if magnitude and isfinite(magnitude) else 2


def interval(limits: Sequence[float], decimals: int = 2) -> str:
    """Return "low to high"; a dash between them would look like a sign."""
    return f"{fixed(limits[0], decimals)} to {fixed(limits[1], decimals)}"


def upper(bound: float | None) -> str:
    """Return "\N{LESS-THAN OR EQUAL TO} 12.3", the upper bound of a percentile; "no bound" for None (too few calls)."""
    return "no bound" if bound is None else f"\N{LESS-THAN OR EQUAL TO} {significant(bound)}"


def signed(value: float) -> str:
    """Return a change with its sign: "+0.05", "-0.05", "0.00"."""
    change = round(value, 2) + 0.0
    return f"{change:+.2f}" if change else "0.00"


def facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Flatten a record into (term, description) pairs; a unit at the end of a key moves after the number."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = facts(value)
            pairs += [(f"{_term(key)[0]}: {term}", text) for term, text in inner] or [(_term(key)[0], NONE)]
        else:
            term, unit = _term(str(key))
            pairs.append((term, _described(value, unit)))
    return pairs


def _term(key: str) -> tuple[str, str]:
    """Split "memory_mib" into ("memory", "MiB")."""
    stem, _, last = key.rpartition("_")
    return (stem.replace("_", " "), _UNITS[last]) if stem and last in _UNITS else (key.replace("_", " "), "")


def _described(value: Any, unit: str) -> str:
    if value is None or value == "":
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = fixed(value, 1).removesuffix(".0") if unit else f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.7g}"
    elif isinstance(value, Iterable) and not isinstance(value, str):
        text = ", ".join(_described(item, "") for item in value) or "none"
    else:
        text = str(value)
    return f"{text} {unit}".strip()
