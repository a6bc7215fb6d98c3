"""What a worker does. A cluster calls these functions by name; they take and return bytes, text and JSON documents only."""

import hashlib
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from emca_deploy._machine import cpu_info
from emca_deploy._version import __version__
from emca_deploy.backends.registry import available
from emca_deploy.errors import EmcaError, WorkerError
from emca_deploy.machines.fingerprint import fingerprint_of, machine_parts
from emca_deploy.targets.agent.run_folder import Run
from emca_deploy.targets.agent.work import serve

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

__all__ = ["cell_of", "describe", "machine_id", "put", "stop", "work"]

CACHE = "emca-deploy"
NUMERIC = ("architecture", "cpu", "instruction_sets", "gpus")
"""Parts of a fingerprint that decide the last bits of a model's answers."""
FIRST_IMPORTS = ("emca_deploy.targets.cpu", "onnx")
"""What the first request would import; all workers do it at their start instead, at the same time."""

_running: dict[str, tuple[str, threading.Event]] = {}
"""What this worker runs, and the event that stops it, by the id of the sweep."""


def machine_id() -> str:
    """Return what tells machines apart: all processes of one kernel have the same, also in containers."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()


def describe(cores: Mapping[str, int], dask_worker: Any) -> dict[str, Any]:
    """Return what this worker is. With an entry in `cores` for its address, its threads and processes first get this core only.

    Variables that Dask sets for its workers are removed: they would change how fast a runtime is.
    """
    if dask_worker.address in cores:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                os.sched_setaffinity(int(thread.name), (cores[dask_worker.address],))
    _forget_dask_variables()
    for name in FIRST_IMPORTS:
        with suppress(ImportError):
            import_module(name)
    cpu, parts = cpu_info(), machine_parts()
    found = {name: status.version for name, status in available().items() if status.version}
    return {
        "version": __version__,
        "host": platform.node(),
        "machine": machine_id(),
        "cpu": cpu.model,
        "cores": cpu.logical_cores,
        "gpus": list(parts["gpus"]),
        "fingerprint": fingerprint_of(parts),
        "numeric": fingerprint_of({name: parts[name] for name in NUMERIC}),
        "backends": found,
    }


def _forget_dask_variables() -> None:
    import dask

    for name, value in (dask.config.get("distributed.nanny.pre-spawn-environ", {}) or {}).items():
        if os.environ.get(name) == str(value):
            del os.environ[name]


def put(digest: str, offset: int, content: bytes, size: int, dask_worker: Any) -> str:
    """Write a piece of a file into this worker's cache; the last piece completes it once its sha256 is right.

    Dask passes itself as `dask_worker`.

    Returns:
        "" if all went well, else what went wrong.
    """
    place = _cache(dask_worker) / digest
    part = place.with_name(f"{digest}.part")
    try:
        with part.open("r+b" if offset else "wb") as stream:
            stream.seek(offset)
            stream.write(content)
        if offset + len(content) < size:
            return ""
        with part.open("rb") as stream:
            found = hashlib.sha256()
            while piece := stream.read(1 << 20):
                found.update(piece)
        if found.hexdigest() != digest:
            part.unlink()
            return "it arrived damaged"
        part.rename(place)
    except OSError as exc:
        return f"{part}: {exc.strerror}"
    return ""


def cell_of() -> str:
    """Return the name of what this worker runs now, or ""."""
    return next((name for name, _ in list(_running.values())), "")


def stop(run: str) -> None:
    """Have the work of a sweep end at its next step."""
    if run in _running:
        _running[run][1].set()


def work(
    name: str, document: Mapping[str, Any], files: Mapping[str, str], title: str, run: str, *, alone: bool
) -> dict[str, Any]:
    """Run a request on this worker.

    Args:
        name: Kind of the request, as the agent knows it.
        document: The request; names of `files` in it stand for files of this worker's cache.
        files: sha256 of each file by its name.
        title: What is run, for `fleet status`.
        run: Id of the sweep.
        alone: Whether nothing else of any sweep may run on this machine at the same time.

    Returns:
        "report", "notes" and "files" (bytes by name), or "error", "problem" and "remedy".
    """
    event = threading.Event()
    _running[run] = (title, event)
    from distributed import get_worker

    cache = _cache(get_worker())
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=cache))
    try:
        for short, digest in files.items():
            place = folder / short
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(cache / digest, place)  # not a symbolic link: runtimes look for weights next to the file itself
        with _machine(alone=alone):
            return _served(name, document, list(files), folder, event)
    except EmcaError as exc:
        return {"error": type(exc).__name__, **_renamed({"problem": exc.problem, "remedy": exc.remedy}, str(folder) + "/", "")}
    except _StoppedError:
        return {"error": "stopped", "problem": "the run was stopped", "remedy": "run the same command again"}
    finally:
        _running.pop(run, None)
        shutil.rmtree(folder, ignore_errors=True)


def _served(name: str, document: Mapping[str, Any], files: list[str], folder: Path, event: threading.Event) -> dict[str, Any]:
    made = Run("fleet", folder)
    notes: list[str] = []

    def say(kind: str, **values: Any) -> None:
        if kind == "note":
            notes.append(values["text"])
        if event.is_set():
            raise _StoppedError

    for short in sorted(files, key=len, reverse=True):
        document = _renamed(document, short, str(folder / short))
    report = serve(name, {key: _own_file(key, value, folder) for key, value in document.items()}, made, say)
    content = {key: path.read_bytes() for key, path in made.made.items()}
    return {**_renamed({"report": report, "notes": notes}, str(folder) + "/", ""), "files": content}


def _own_file(key: str, value: Any, folder: Path) -> Any:
    """Return a value of a request; a file to be written is in the folder of the run."""
    return str(folder / value) if key in ("output", "logits") and value is not None else value


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, Mapping):
        return {key: _renamed(item, old, new) for key, item in value.items()}
    return [_renamed(item, old, new) for item in value] if isinstance(value, list | tuple) else value


def _cache(worker: Any) -> Path:
    """Return the folder of a worker's files, which Dask removes at its end."""
    folder = Path(worker.local_directory) / CACHE
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _machine(*, alone: bool) -> Iterator[None]:
    """Hold this machine, alone or together with others that do not need it alone, whichever worker or sweep they belong to.

    A run that waits to be alone holds the gate, which stops others that come after it.
    """
    if fcntl is None:
        yield
        return
    folder = Path(tempfile.gettempdir())
    try:
        gate, room = (
            os.open(folder / f"emca-deploy-{os.getuid()}-{name}.lock", os.O_RDWR | os.O_CREAT, 0o600) for name in ("gate", "room")
        )
    except OSError as exc:
        raise WorkerError(f"{folder}: cannot be written: {exc.strerror}", "make it writable, or set TMPDIR") from exc
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
    finally:
        os.close(room)
        os.close(gate)


class _StoppedError(Exception):
    """The sweep was stopped."""
