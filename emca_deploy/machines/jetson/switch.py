"""Sets a board's power mode while a run lasts, and restores the old one however the run ends.

Ctrl-C, SIGTERM and a lost terminal all end the run in order. For what cannot be caught (SIGKILL, power off), a note in
/var/lib/emca-deploy says which mode to restore; the next run on the board does so.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from emca_deploy.artifacts import write_json
from emca_deploy.errors import EmcaError, InputError, MissingError, OutputError
from emca_deploy.interrupts import interrupt
from emca_deploy.machines.jetson.files import board_root, core_numbers, read_text, run_tool
from emca_deploy.machines.jetson.modes import PowerMode, PowerModes, read_power_modes

__all__ = ["FOLDER", "LOCK", "NOTE", "Note", "hold_power_mode", "is_held", "left_behind", "restore_left_behind"]

FOLDER = "var/lib/emca-deploy"
"""Folder of the note and the lock, below the root. Runs over ssh on a board without Python use the same folder."""
NOTE = "power-mode.json"
LOCK = "power-mode.lock"
"""File that the holder of the power mode keeps locked (flock)."""
CORES_S = 2.0
NEEDS_ROOT = "run it as root (sudo), or set the mode yourself before: sudo nvpmodel -m NUMBER"


@dataclass(frozen=True)
class Note:
    """A file that exists while a run holds another power mode than the board's own.

    Attributes:
        restore: Number of the mode to restore.
        name: Name of the mode to restore.
        held: Number of the mode that the run set.
    """

    restore: int
    name: str
    held: int


def left_behind(root: Path | None = None, modes: PowerModes | None = None) -> Note | None:
    """Return the note of a run that was killed before it could restore the power mode, or None."""
    root = board_root() if root is None else root
    if _read_note(root) is None or is_held(root):
        return None
    return _fitting_note(root, modes or read_power_modes(root))


def restore_left_behind(root: Path | None = None) -> Note | None:
    """Restore the power mode that a killed run left, and return its note; None if there is nothing to do.

    A note is deleted unused if another mode has been set since.

    Raises:
        MissingError: root is missing, or the mode cannot be set.
    """
    root = board_root() if root is None else root
    if _read_note(root) is None or is_held(root):
        return None
    with _locked(root):
        note = _fitting_note(root, read_power_modes(root))
        if note is not None:
            _set(root, PowerMode(note.restore, note.name))
        _note_place(root).unlink(missing_ok=True)
    return note


def _fitting_note(root: Path, modes: PowerModes) -> Note | None:
    """Return the note if the mode that its run set is still on."""
    note = _read_note(root)
    fits = note is not None and modes.current is not None and modes.current.id == note.held != note.restore
    return note if fits else None


@contextmanager
def hold_power_mode(wanted: str, root: Path | None = None) -> Iterator[PowerMode]:
    """Set a power mode, by name or number, and yield it; at the end the old mode is restored.

    Raises:
        UnknownNameError: the board has no such mode.
        MissingError: nvpmodel or root is missing, the mode needs a reboot, or the old mode cannot be restored.
        InputError: another run holds a power mode.
    """
    root = board_root() if root is None else root
    modes = read_power_modes(root)
    mode = modes.find(wanted)
    if modes.current is None:
        raise MissingError(f"the current power mode cannot be read: {modes.note}", NEEDS_ROOT)
    if mode.id == modes.current.id and left_behind(root, modes) is None:
        yield mode
        return
    ending = (signal.SIGTERM, signal.SIGHUP)
    with _locked(root):
        leftover = _fitting_note(root, modes)
        before = PowerMode(leftover.restore, leftover.name) if leftover else modes.current
        # SIGTERM and a lost terminal end the run as Ctrl-C does, unless the program handles them.
        with _signals(interrupt, [number for number in ending if signal.getsignal(number) == signal.SIG_DFL]):
            try:
                _write_note(root, Note(before.id, before.name, mode.id))
                _set(root, mode)
                yield mode
            finally:
                with _signals(signal.SIG_IGN, (signal.SIGINT, *ending)):  # it takes a second
                    _restore(root, before)


def _restore(root: Path, before: PowerMode) -> None:
    try:
        _set(root, before)
    except EmcaError as exc:
        raise MissingError(
            f"the power mode {before.name} could not be restored: {exc.problem}", f"sudo nvpmodel -m {before.id}"
        ) from exc
    _note_place(root).unlink(missing_ok=True)


def _set(root: Path, mode: PowerMode) -> None:
    """Set a mode, and raise a MissingError if it is not on then."""
    current = read_power_modes(root).current
    if current is not None and current.id == mode.id:
        return
    answer = run_tool(root, "nvpmodel", "-m", str(mode.id))
    current = read_power_modes(root).current
    if current is not None and current.id == mode.id:
        _await_cores(root, mode)
        return
    if "reboot" in answer.lower():
        raise MissingError(
            f"power mode {mode.name} needs a reboot, and emca-deploy never reboots a board",
            f"sudo nvpmodel -m {mode.id}, answer yes, and run this again in that mode without --power-mode",
        )
    said = " ".join(answer.split())[-200:]
    raise MissingError(f"nvpmodel does not set power mode {mode.name}" + (f": {said}" if said else ""), NEEDS_ROOT)


def _await_cores(root: Path, mode: PowerMode) -> None:
    """Wait for a while until as many cores are on as the mode says."""
    end = time.monotonic() + CORES_S
    while mode.cores is not None and time.monotonic() < end:
        online = read_text(root / "sys/devices/system/cpu/online")
        if online is None or len(core_numbers(online)) == mode.cores:
            return
        time.sleep(CORES_S / 50)


def _note_place(root: Path) -> Path:
    return root / FOLDER / NOTE


def _read_note(root: Path) -> Note | None:
    try:
        values: dict[str, Any] = json.loads(_note_place(root).read_text(encoding="utf-8"))
        return Note(int(values["restore"]), str(values["name"]), int(values["held"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write_note(root: Path, note: Note) -> None:
    try:
        write_json(_note_place(root), asdict(note))
    except OutputError as exc:
        raise MissingError(exc.problem, NEEDS_ROOT) from exc


def is_held(root: Path) -> bool:
    """Return whether a living run holds the power mode; the kernel releases the lock of one that died."""
    import fcntl

    try:
        descriptor = os.open(root / FOLDER / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lock the board's power mode against other runs: an InputError if one holds it, a MissingError without root."""
    import fcntl

    place = root / FOLDER / LOCK
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        raise MissingError(f"setting the power mode: {place}: {exc.strerror}", NEEDS_ROOT) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise InputError("another emca-deploy holds the board's power mode", "wait until it has ended") from exc
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], Any] | int, numbers: Sequence[int]) -> Iterator[None]:
    """Handle signals in the block. Only the main thread may; in another one the program's own handlers stay."""
    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if in_main}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
