"""Foreign text made fit for a terminal and for a shell: file names, node names and causes of errors may hold escape codes."""

import shlex
from collections.abc import Iterable

__all__ = ["printable", "printable_lines", "shell_line", "shell_word"]


def printable(text: str) -> str:
    """Return foreign text as one line that a terminal only shows.

    White space becomes a blank, any other character that a terminal would obey a question mark.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def printable_lines(text: str) -> str:
    """Return text of ours with foreign names in it, its line feeds kept."""
    return "\n".join(map(printable, text.split("\n")))


def shell_word(text: str) -> str:
    r"""Return one word of a command line, as a person can paste it into bash or zsh.

    Characters that a terminal would obey are written as escapes: `$'conv1\x1b'`.
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(char) for char in text) + "'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if char.isprintable():
        return char
    # A file's name holds bytes that are no UTF-8 as surrogates; others come from JSON, and no file has them in its name.
    handler = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", handler))


def shell_line(words: Iterable[str]) -> str:
    """Return a command line of these words."""
    return " ".join(map(shell_word, words))
