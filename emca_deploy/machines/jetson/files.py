"""Small files of a board, and its own tools. Tests read a recorded tree instead of /."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from emca_deploy.errors import MissingError

__all__ = ["BOARD_ROOT", "board_root", "core_numbers", "find_tool", "read_number", "read_text", "run_tool"]

BOARD_ROOT = "EMCA_DEPLOY_BOARD_ROOT"
"""Environment variable, for tests only: a folder to read instead of /."""

TOOL_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin")
TIMEOUT_S = 30.0


def board_root() -> Path:
    """Return the root of the file system that describes the board: /, unless a test says otherwise."""
    return Path(os.environ.get(BOARD_ROOT) or "/")


def read_text(path: Path) -> str | None:
    """Return a small file's text without NULs and outer blanks, or None where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", errors="replace").replace("\0", "").strip()
    except OSError:  # missing, not permitted, or a sensor that is switched off
        return None


def read_number(path: Path) -> int | None:
    """Return the integer that a small file begins with, or None. Some drivers write a unit after it."""
    words = (read_text(path) or "").split()
    try:
        return int(words[0]) if words else None
    except ValueError:
        return None


def core_numbers(text: str) -> set[int]:
    """Return the numbers of "0-3,5", as the kernel and jetson_clocks list cores."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d{1,3})(?:-(\d{1,3}))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def find_tool(root: Path, name: str) -> Path | None:
    """Return the path of a tool of the board, or None. /usr/sbin is searched even if it is not on the user's PATH."""
    for folder in TOOL_FOLDERS:
        place = root / folder / name
        if place.is_file() and os.access(place, os.X_OK):
            return place
    found = shutil.which(name) if root == Path("/") else None
    return Path(found) if found else None


def run_tool(root: Path, name: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> str:
    """Run a tool of the board, and return what it printed on both streams. Its input is empty: no question is answered yes.

    Raises:
        MissingError: it is not installed, does not start, or does not end.
    """
    place = find_tool(root, name)
    if place is None:
        raise MissingError(f"{name} is not installed", "it comes with JetPack; in a container, mount it from the board")
    try:
        # A session of its own: a Ctrl-C in the terminal must not stop it half-way.
        done = subprocess.run(
            [str(place), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            start_new_session=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as exc:
        raise MissingError(f"{name} {' '.join(arguments)} did not end within {timeout_s:g} s", f"run it by hand: {name}") from exc
    except OSError as exc:
        raise MissingError(f"{name} does not start: {exc.strerror}", f"run it by hand: {place}") from exc
    return done.stdout.decode("utf-8", errors="replace")
