"""Foreign text for a terminal and a shell: file names, node names and error messages may hold escape codes."""

import re
import shlex
from collections.abc import Iterable

__all__ = ["encodable", "parse_duration", "printable", "printable_lines", "shell_line", "shell_word"]

_DURATION = re.compile(r"((?:[0-9]{1,12}\.?[0-9]{0,12}|\.[0-9]{1,12})(?:[eE][+-]?[0-9]{1,2})?)(ms|s|m|h)?", re.ASCII)
_IN_ASCII = str.maketrans("\u2264\u2588\u2593\u2592\u2591", "<#=-.")
"""At most, and the fillings of a bar, where there is nothing but ASCII."""

_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration such as "90", "90s", "20m", "1.5h" or "500ms"; None for another text."""
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else float(match[1]) * _SECONDS[match[2] or "s"]


def printable(text: str) -> str:
    """Return foreign text as one line without control characters: white space becomes a blank, others a question mark."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def printable_lines(text: str) -> str:
    """Return text without control characters, except its line feeds."""
    return "\n".join(map(printable, text.split("\n")))


def encodable(text: str, encoding: str) -> str:
    """Return text with other characters, as wide, in place of those that an encoding such as "ascii" lacks."""
    if text.isascii():
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "replace").decode(encoding)
    return text


def shell_word(text: str) -> str:
    r"""Return one word of a command line, to paste into bash or zsh; control characters are escaped: `$'conv1\x1b'`."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(char) for char in text) + "'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if char.isprintable():
        return char
    # A file's name holds bytes that are not UTF-8 as low surrogates; other surrogates come from JSON.
    handler = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", handler))


def shell_line(words: Iterable[str]) -> str:
    """Return words as one command line."""
    return " ".join(map(shell_word, words))
