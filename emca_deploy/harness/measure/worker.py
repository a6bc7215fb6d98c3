"""The coordinator's end of a worker: starts the process, sends commands, and makes sure that it ends."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from emca_deploy import errors
from emca_deploy.arrays import Float64Array, Int64Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.errors import EmcaError, InputError, WorkerError
from emca_deploy.harness.measure.channel import Channel
from emca_deploy.harness.measure.pacing import Frames
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.memory import peak_rss_mib
from emca_deploy.requests import TaskName
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.latency import Scenario
from emca_deploy.tasks.task import Arrays

if TYPE_CHECKING:
    from emca_deploy.harness.measure.feed import Wanted

__all__ = ["LogitsPart", "Opened", "Prepared", "Worker"]

# The child gets the parent's import path: `-m` would put the working folder first, which may hold a user's random.py.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; from emca_deploy.harness.measure.worker_main import main; raise SystemExit(main())"
)
_TAIL_BYTES = 4000
_TAIL_LINES = 3
_END_S = 10.0


@dataclass(frozen=True)
class Opened:
    """A worker's answer when its model is loaded; `load_ms` is the time of the runner's `open` only."""

    input: TensorSpec
    output: TensorSpec
    load_ms: float
    task: TaskName = "classification"
    runtime: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A worker's answer after its first call.

    Attributes:
        in_flight: Number of requests that it will keep in flight.
        runtime: Version and settings of the runtime; offline they may differ from those in `Opened`.
    """

    first_inference_ms: float
    in_flight: int = 1
    runtime: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LogitsPart:
    """A message of `Worker.logits`: the record of a batch (`Task.record`), or at the end labels and summary."""

    done: int
    total: int
    arrays: Arrays = field(default_factory=dict)
    labels: Int64Array | None = None
    summary: dict[str, Any] = field(default_factory=dict)


class Worker:
    """A candidate in a process of its own. A context manager: the process has ended whenever the block is left.

    Start it in a thread that lives as long as the worker: the kernel ends the worker when that thread ends. Every method raises
    WorkerError where the process has ended or does not answer; an error of the runner or data set keeps its class.

    Args:
        spec: Candidate to run.
        timeout_s: Longest wait for an answer.

    Attributes:
        cpu_s: Processor seconds of the process at its last `prepare`, `block` or `paced`.
        device_ms: Milliseconds of each call of the last `block` by the accelerator's clock, (calls,) float64; None without one.
        window_ns: Start and end of the last `block` or `paced` by `time.monotonic_ns`, which all processes of a machine share.
        usage: Counts around each call of the last `block`, (calls, 3) int64, see `UsageLog`; (0, 3) where there are none.
        steal_ms: Milliseconds that the hypervisor gave to other machines during the last `block`, of all cores; None if unknown.
        peak_rss_mib: Peak memory of the process; 0 until `note_peak`, `finish` or `abandon`.
        opened: Answer to `open`; None before.
    """

    def __init__(self, spec: RunnerSpec, timeout_s: float = 300.0) -> None:
        self.spec = spec
        self.cpu_s = 0.0
        self.peak_rss_mib = 0.0
        self.opened: Opened | None = None
        self.window_ns = (0, 0)
        self.device_ms: Float64Array | None = None
        self.usage: Int64Array = np.zeros((0, 3), np.int64)
        self.steal_ms: float | None = None
        self._timeout_s = timeout_s
        self._ahead: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._stderr: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "enter the worker first"
        return self._process.pid

    def __enter__(self) -> "Worker":
        self._stderr = tempfile.TemporaryFile()  # unlike a pipe, a file never blocks its writer
        command = [sys.executable, "-c", _BOOT, str(os.getpid()), *sys.path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._channel = Channel(os.dup(self._process.stdout.fileno()), os.dup(self._process.stdin.fileno()))
        self._process.stdin.close()
        self._process.stdout.close()
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        assert self._process is not None
        if self._channel is not None:
            self._channel.close()
        if kind is not None:
            self._kill()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._stderr is not None:
                self._stderr.close()

    def begin(self, batch: int, seed: int, scenario: Scenario = "single-stream") -> None:
        """Send `open` and `prepare` ahead, so several workers load at the same time; these methods then only wait for answers."""
        self._send("open", spec=to_json(self.spec))
        self._send("prepare", batch=batch, seed=seed, scenario=scenario)
        self._ahead = ["open", "prepare"]

    def open(self) -> Opened:
        """Load the model."""
        self.opened = from_json(Opened, self._ask("open", spec=to_json(self.spec))[0])
        return self.opened

    def prepare(self, batch: int, seed: int, scenario: Scenario = "single-stream") -> Prepared:
        """Make a seeded standard normal input of `batch` images, infer once, and get ready for a scenario."""
        answer, _ = self._ask("prepare", batch=batch, seed=seed, scenario=scenario)
        self.cpu_s = float(answer.pop("cpu_s"))
        return from_json(Prepared, answer)

    def block(self, seconds: float, min_calls: int = 1, max_calls: int = 1_000_000, lead_calls: int = 0) -> Int64Array:
        """Infer for some seconds and return nanoseconds of each call, or offline of each request, (calls,) int64.

        The limits on calls are those of `clock.time_calls`. Unmeasured `lead_calls` refill the caches after other candidates.
        """
        wanted = {"seconds": seconds, "min_calls": min_calls, "max_calls": max_calls, "lead_calls": lead_calls}
        answer, arrays = self._ask("block", extra_s=seconds, **wanted)
        self.cpu_s = float(answer["cpu_s"])
        self.window_ns = (int(answer["start_ns"]), int(answer["end_ns"]))
        self.device_ms = np.asarray(answer["device_ms"], np.float64) if "device_ms" in answer else None
        self.usage, self.steal_ms = np.asarray(arrays["usage"], np.int64), answer["steal_ms"]
        return np.asarray(arrays["latencies_ns"], np.int64)

    def crowd(self, callers: int, seconds: float, max_calls: int = 1_000_000) -> tuple[Int64Array, float]:
        """Infer in several threads for some seconds, each with a loaded model of its own.

        Returns:
            Nanoseconds of each call of every thread, (calls,) int64, and calls per second of all threads.
        """
        answer, arrays = self._ask("crowd", extra_s=seconds, callers=callers, seconds=seconds, max_calls=max_calls)
        self.cpu_s = float(answer["cpu_s"])
        self.window_ns = (int(answer["start_ns"]), int(answer["end_ns"]))
        return np.asarray(arrays["latencies_ns"], np.int64), float(answer["calls_per_s"])

    def real(self, seconds: float, max_calls: int = 1_000_000) -> tuple[Int64Array, int]:
        """Infer real images of the spec's data set for some seconds, after one unmeasured call.

        Returns:
            Nanoseconds of each call, (calls,) int64, and the number of different images.
        """
        answer, arrays = self._ask("real", extra_s=seconds, seconds=seconds, max_calls=max_calls)
        self.cpu_s = float(answer["cpu_s"])
        self.window_ns = (int(answer["start_ns"]), int(answer["end_ns"]))
        return np.asarray(arrays["latencies_ns"], np.int64), int(answer["images"])

    def chain(self, seconds: float, max_images: int = 1_000_000) -> Int64Array:
        """Run images of the spec's data set from file to answer for some seconds.

        Returns:
            Nanoseconds of each stage of each image, (images, stages) int64; see `stages.Chain`.
        """
        answer, arrays = self._ask("chain", extra_s=seconds, seconds=seconds, max_images=max_images)
        self.cpu_s = float(answer["cpu_s"])
        self.window_ns = (int(answer["start_ns"]), int(answer["end_ns"]))
        return np.asarray(arrays["stages_ns"], np.int64)

    def start_block(self, seconds: float, max_calls: int = 1_000_000, lead_calls: int = 0) -> None:
        """Start a block without waiting for it; `block` with the same arguments then waits and returns it."""
        self._send("block", seconds=seconds, min_calls=1, max_calls=max_calls, lead_calls=lead_calls)
        self._ahead.append("block")

    def paced(self, rate_per_s: float, frames: int, lead_calls: int = 0) -> Frames:
        """Infer once for each frame of an open loop, and return the frames' times; see `pacing.pace`.

        Unmeasured `lead_calls` before the first frame refill the caches after other candidates.
        """
        wanted = {"rate_per_s": rate_per_s, "frames": frames, "lead_calls": lead_calls}
        answer, arrays = self._ask("paced", extra_s=(frames + 1) / rate_per_s, **wanted)
        self.cpu_s = float(answer["cpu_s"])
        self.window_ns = (int(answer["start_ns"]), int(answer["end_ns"]))
        due, begin, answered = (np.asarray(arrays[name], np.int64) for name in ("due_ns", "begin_ns", "answered_ns"))
        return Frames(due, begin, answered, float(answer["period_ns"]))

    def logits(self, wanted: "Wanted") -> Iterator[LogitsPart]:
        """Run a data set, and yield its parts as they come; the last one has the labels of all images and the summary."""
        self._send("logits", wanted=to_json(wanted))
        while True:
            message, arrays = self._receive(self._timeout_s)
            if "summary" in message:
                labels = np.asarray(arrays["labels"], np.int64) if "labels" in arrays else None
                yield LogitsPart(message["done"], message["total"], labels=labels, summary=message["summary"])
                return
            yield LogitsPart(message["done"], message["total"], arrays)

    def note_peak(self) -> None:
        """Keep the peak resident memory of the process until now, whatever the process does later."""
        self.peak_rss_mib = float(self._ask("peak")[0]["peak_rss_mib"])

    def finish(self) -> float:
        """Close the model and return the peak resident memory of the process in MiB, until `note_peak` where that was called."""
        answer, _ = self._ask("close")
        self.peak_rss_mib = self.peak_rss_mib or float(answer["peak_rss_mib"])
        return self.peak_rss_mib

    def abandon(self) -> None:
        """End the process now, whatever it does, and keep its peak memory."""
        if self._process is not None and self._process.poll() is None:
            self.peak_rss_mib = max(self.peak_rss_mib, peak_rss_mib(self._process.pid) or 0.0)
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _ask(self, do: str, extra_s: float = 0.0, **arguments: Any) -> tuple[dict[str, Any], Arrays]:
        if do in self._ahead:
            self._ahead.remove(do)
        else:
            self._send(do, **arguments)
        return self._receive(self._timeout_s + extra_s)

    def _send(self, do: str, **arguments: Any) -> None:
        assert self._channel is not None, "enter the worker first"
        try:
            self._channel.send({"do": do, **arguments})
        except BrokenPipeError as exc:
            raise self._died() from exc

    def _receive(self, timeout_s: float) -> tuple[dict[str, Any], Arrays]:
        assert self._channel is not None
        try:
            message, arrays = self._channel.receive(timeout_s)
        except TimeoutError as exc:
            self._kill()
            problem = f"{self.spec.name}: no answer for {timeout_s:.0f} s, so its process was stopped"
            raise WorkerError(problem, "use fewer images, a smaller batch, more threads or another backend") from exc
        except EOFError as exc:
            raise self._died() from exc
        if "error" in message:
            raise self._error_of(message)
        return message, arrays

    def _error_of(self, message: dict[str, Any]) -> EmcaError:
        kind = getattr(errors, message["error"], None) if message["error"] in errors.__all__ else None
        if kind is None:
            return WorkerError(f"{self.spec.name}: {message['problem']}", "try another backend, or build the artifact again")
        problem: str = message["problem"]
        known = (self.spec.name, self.spec.artifact)
        if kind is InputError and not any(part and part in problem for part in known):
            problem = f"{self.spec.name}: {problem}"
        error: EmcaError = kind(problem, message["remedy"])
        return error

    def _died(self) -> WorkerError:
        assert self._process is not None
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        tail = self._tail()
        problem = f"{self.spec.name}: its process {how}" + (f": {tail}" if tail else "")
        if code == -signal.SIGKILL:
            return WorkerError(problem, "the kernel was probably out of memory: use a smaller --batch, or fewer artifacts")
        return WorkerError(problem, "the runtime crashed: try another backend or version, or build the artifact again")

    def _tail(self) -> str:
        assert self._stderr is not None
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-_TAIL_LINES:])
