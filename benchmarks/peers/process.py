"""Run a quantization in its own process, which isolates its memory and its time."""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from peers.job import Job, Outcome
from peers.quantizers import METHODS, Images

__all__ = ["main", "quantize"]

# Like the harness's workers, the child has the parent's import path.
_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from peers.process import main; main(*sys.argv[1:3])"
_TAIL_CHARACTERS = 300
_PR_SET_PDEATHSIG = 1


def quantize(job: Job) -> Outcome:
    """Run a job in a new process; its errors are in the outcome."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        request, answer = Path(folder) / "job.json", Path(folder) / "outcome.json"
        request.write_text(json.dumps(job.to_dict()), encoding="utf-8")
        command = [sys.executable, "-c", _BOOT, str(request), str(answer), *(path or str(Path.cwd()) for path in sys.path)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "NNCF_CI": "1"}  # no telemetry
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=False)
        if answer.is_file():
            return Outcome(**json.loads(answer.read_text(encoding="utf-8")))
        log.seek(0)
        tail = " ".join(log.read().decode(errors="replace").split())[-_TAIL_CHARACTERS:]
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        return Outcome("failed", f"its process ended with {how}: {tail}")


def main(request: str, answer: str) -> None:
    """Entry point of that process: read the job, run it, write the outcome."""
    if sys.platform.startswith("linux"):  # the parent may be killed while a library ignores signals
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    job = Job.from_dict(json.loads(Path(request).read_text(encoding="utf-8")))
    outcome = _work(job)
    part = Path(answer).with_suffix(".part")
    part.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    part.replace(answer)


def _work(job: Job) -> Outcome:
    method = METHODS[job.method]
    versions = {}
    for name in method.distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            return Outcome("missing", f"{name} is not installed")
    _confine(job)
    images = Images(job)
    for module in method.modules:
        import_module(module)
    before = _memory_mib("VmRSS")
    started = time.perf_counter()
    try:
        method.quantize(job, images)
    except MemoryError:
        return Outcome("failed", f"needs more than {job.memory_mib / 1024:.1f} GiB", len(images), versions=versions)
    except Exception as exc:  # a peer raises classes of its own
        reason = " ".join(str(exc).split())[:_TAIL_CHARACTERS]
        if "bad_alloc" in reason or "Failed to allocate memory" in reason:
            reason = f"needs more than {job.memory_mib / 1024:.1f} GiB"
        return Outcome("failed", f"{type(exc).__name__}: {reason}", len(images), versions=versions)
    seconds = time.perf_counter() - started
    return Outcome("done", "", len(images), seconds, before, _memory_mib("VmHWM"), versions)


def _confine(job: Job) -> None:
    """Limit the process's cores and memory: most peers use all cores, and one uses all memory."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    limit = int(job.memory_mib) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _memory_mib(field: str) -> float:
    """Return a field of /proc/self/status; unlike getrusage's peak it excludes the parent's memory."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status: this benchmark needs Linux")
