"""Files and folders that appear whole or not at all; the next run in a folder removes the leftovers of a killed run."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from emca_deploy._text import shell_word
from emca_deploy.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["atomic_write", "check_writable", "hidden_folder", "make_folder"]

_PREFIX = ".emca-deploy-"
_OURS = re.compile(r"\.emca-deploy-[a-z0-9_]{8}(?:\..{0,64})?")
_LONGEST_SUFFIX = 64
_ATTEMPTS = 100


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, with the same suffix; on success rename it to `path`, on failure remove it.

    An OSError of the caller's code about another file passes unchanged.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or `path` is a folder or a device.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder", "name a file")
        if path.exists() and not path.is_file():  # renaming over /dev/null would replace the device
            raise OutputError(f"{path}: is not a regular file", "name a file")
        _check_name(path)
        _sweep(path.parent.absolute())
        descriptor, temporary = _locked_file(path)
    except OSError as exc:
        raise _output_error(path, exc) from exc
    try:
        yield temporary
        _publish(temporary, path)
    except OSError as exc:
        if exc.filename is not None and not str(exc.filename).startswith((str(temporary), str(path))):
            raise
        raise _output_error(path, exc) from exc
    finally:
        temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder if it does not exist; its parent must exist.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
    except FileNotFoundError as exc:
        remedy = f"make it first: mkdir -p {shell_word(str(path.parent))}"
        raise OutputError(f"{path}: its parent folder does not exist", remedy) from exc
    except OSError as exc:
        raise OutputError(f"{path}: cannot be made: {exc.strerror}", "choose a folder you can write to") from exc


@contextmanager
def hidden_folder(place: Path) -> Iterator[Path]:
    """Yield a hidden folder in `place` for intermediate files, and remove it in the end.

    Raises:
        OutputError: the folder cannot be made.
    """
    try:
        _sweep(place.absolute())
        descriptor, folder = _locked_folder(place)
    except OSError as exc:
        raise OutputError(f"{place}: cannot be written: {exc.strerror}", "choose a place you can write to") from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def check_writable(path: Path, remedy: str = "") -> None:
    """Refuse a file that cannot be written, before the work whose result it will hold.

    Raises:
        OutputError: its folder is missing or cannot be written to; the error has this remedy, if there is one.
    """
    try:
        _check_name(path)
        descriptor, temporary = _locked_file(path)
    except OSError as exc:
        raise _output_error(path, exc, remedy) from exc
    temporary.unlink(missing_ok=True)
    if descriptor is not None:
        os.close(descriptor)


def _check_name(path: Path) -> None:
    """Refuse a name that the file system cannot hold before the file is written."""
    with suppress(FileNotFoundError):
        os.lstat(path)


def _locked_file(path: Path) -> tuple[int | None, Path]:
    """Return a new hidden file next to `path`, and a descriptor that holds its lock while this process lives."""
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    for _ in range(_ATTEMPTS):
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=suffix, dir=path.parent)
        if fcntl is None:
            os.close(descriptor)
            return None, Path(name)
        if _holds(descriptor, Path(name)):
            return descriptor, Path(name)
        os.close(descriptor)
    raise FileExistsError(errno.EEXIST, "no temporary name is free", str(path))


def _locked_folder(place: Path) -> tuple[int | None, Path]:
    """Return a new hidden folder in `place`, and a descriptor that holds its lock while this process lives."""
    for _ in range(_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        if fcntl is None:
            return None, folder
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            if _holds(descriptor, folder):
                return descriptor, folder
            os.close(descriptor)
    raise FileExistsError(errno.EEXIST, "no temporary name is free", str(place))


def _holds(descriptor: int, path: Path) -> bool:
    """Lock a new file or folder, and return whether no other run's sweep removes it, or removed it before it was locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # the file system has no locks
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@lru_cache(maxsize=64)
def _sweep(folder: Path) -> None:
    """Remove what killed runs left in a folder: the hidden files and folders without a lock. Done once per process."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and not entry.is_symlink():
                with suppress(OSError):
                    _remove_unless_locked(Path(entry.path))


def _remove_unless_locked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(
            descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # fails where a living process holds it, or where there are no locks
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _publish(temporary: Path, path: Path) -> None:
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)  # mkstemp gives 0600
    temporary.replace(path)


def _output_error(path: Path, exc: OSError, remedy: str = "") -> OutputError:
    remedies = {
        "ENOENT": f"make the folder first: mkdir -p {shell_word(str(path.parent))}",
        "ENOSPC": "free space there, or write elsewhere",
        "EMFILE": "allow this process more open files: ulimit -n 1024",
    }
    code = errno.errorcode.get(exc.errno or 0, "")
    remedy = remedy or remedies.get(code, "choose a place you can write to")
    return OutputError(f"{path}: cannot be written: {exc.strerror or exc}", remedy)
