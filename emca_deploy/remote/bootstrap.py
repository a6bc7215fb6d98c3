"""Runs on the far side, sent as text: probes it, takes and gives files. Stands alone, and runs on Python 3.6."""

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["main", "root"]

PIECE = 1 << 20
OLDEST = (3, 10)
KEEP_BYTES = 8 << 30
CUT_OFF = 4
DATE = 1000000000


def say(mark: str, **message: Any) -> None:
    """Print one message; the line break before it ends what some banner left open."""
    sys.stdout.write("\n" + mark + json.dumps(message) + "\n")
    sys.stdout.flush()


def root() -> Path:
    """Return the folder that all of ours lies in here."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "emca-deploy"


def probe(mark: str, name: str, packages: str) -> int:
    """Say what this Python is, found by that name, and has of some packages; return 0 only where it will do.

    The packages are JSON: module -> distributions that may bring it.
    """
    from importlib.util import find_spec

    have = {name: version(found) for name, found in json.loads(packages).items() if find_spec(name) is not None}
    place = root()
    while not place.is_dir() and place.parent != place:
        place = place.parent
    disk = os.statvfs(str(place))
    say(
        mark,
        python=name if "/" in name else sys.executable,  # a script may set things up for the Python that it starts
        version=".".join(map(str, sys.version_info[:3])),
        have=have,
        root=str(root()),
        machine=os.uname().machine,
        system=os.uname().sysname,
        free_bytes=disk.f_bavail * disk.f_frsize,
        clock=time.time(),
    )
    return 0 if sys.version_info[:2] >= OLDEST and "numpy" in have else 3


def version(distributions: Any) -> Any:
    """Return the version of the first distribution that is installed, None where it does not say."""
    try:
        from importlib import metadata
    except ImportError:  # before Python 3.8
        return None
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def receive(mark: str, digest: str, size: int) -> int:
    """Take a file from standard input, from where an earlier attempt ended; it has its name only once its hash is right."""
    import fcntl

    folder = root() / "blobs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place, part = folder / digest, folder / (digest + ".part")
    with part.open("ab+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # whoever sends the same file at the same time waits here, and finds it below
        if place.is_file() and hash_of(place).hexdigest() == digest:
            touch(place)
            drop(part)
            say(mark, have=size, done=True)
            return 0
        drop(place)
        if part.stat().st_size > size:
            stream.truncate(0)
        have, total = part.stat().st_size, hash_of(part)
        make_room(folder, size - have)
        say(mark, have=have, done=False)
        try:
            if not take(stream, total, size - have):
                return CUT_OFF
            os.fsync(stream.fileno())
        except OSError:
            drop(part)  # a full disk is not made fuller
            raise
        if total.hexdigest() == digest:
            touch(part)
            part.rename(place)
        else:
            drop(part)
        say(mark, done=True, wrong=total.hexdigest() != digest)
    return 0


def touch(path: Path) -> None:
    """Note that a file is in use. Its date is always the same: what `validate` keeps is known by size and date of the images."""
    os.utime(str(path), (time.time(), DATE))


def take(stream: IO[bytes], total: Any, missing: int) -> bool:
    """Write and hash what comes; return whether all did. What came before the line broke stays."""
    while missing:
        piece = os.read(0, min(PIECE, missing))
        if not piece:
            break
        stream.write(piece)
        total.update(piece)
        missing -= len(piece)
    stream.flush()
    return not missing


def send(mark: str, path: str, start: int) -> int:
    """Give a file, from a byte on."""
    with Path(path).open("rb") as stream:
        say(mark, size=stream.seek(0, 2))
        stream.seek(start)
        for piece in iter(lambda: stream.read(PIECE), b""):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


def hash_of(path: Path) -> Any:
    """Hash a file, read in pieces."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(PIECE), b""):
            total.update(piece)
    return total


def make_room(folder: Path, wanted: int) -> None:
    """Remove what was not used for longest, until all is within the limit."""
    kept = sorted((path for path in folder.iterdir() if path.suffix != ".part"), key=lambda path: path.stat().st_atime)
    total = sum(path.stat().st_size for path in kept)
    while kept and total + wanted > KEEP_BYTES:
        oldest = kept.pop(0)
        total -= oldest.stat().st_size
        drop(oldest)


def drop(path: Path) -> None:
    """Remove a file that may be gone."""
    with suppress(FileNotFoundError):
        path.unlink()


def main() -> int:
    """Do what the command line says."""
    sys.path[:] = [folder for folder in sys.path if folder]  # not the folder we happen to be in
    what, mark, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    try:
        if what == "probe":
            return probe(mark, rest[0], rest[1])
        if what == "receive":
            return receive(mark, rest[0], int(rest[1]))
        if what == "send":
            return send(mark, rest[0], int(rest[1]))
        sys.path.insert(0, rest[0])
        from emca_deploy.targets.agent.main import main as serve

        return serve(mark)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        say(mark, error=reason, code=error.errno, path=str(error.filename or root()))
        return 5


if __name__ == "__main__":
    sys.exit(main())
