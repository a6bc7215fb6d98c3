"""Foreign text for a terminal and a shell: file names, node names and error messages may hold escape codes."""

import shlex
from collections.abc import Iterable

__all__ = ["printable", "printable_lines", "shell_line", "shell_word"]


def printable(text: str) -> str:
    """Return foreign text as one line without control characters: white space becomes a blank, others a question mark."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def printable_lines(text: str) -> str:
    """Return text without control characters, except its line feeds."""
    return "\n".join(map(printable, text.split("\n")))


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
