"""The process of a candidate, started by `worker.Worker`, with a `channel` on pipes of its own.

The output of a runtime goes to stderr, which the coordinator keeps for its error messages.
"""

import ctypes
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from itertools import cycle
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Int64Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.errors import EmcaError, InputError, ModelError
from emca_deploy.harness.clock import no_garbage_collection, time_calls
from emca_deploy.harness.measure.channel import Channel
from emca_deploy.harness.measure.crowd import call_at_once
from emca_deploy.harness.measure.pacing import pace
from emca_deploy.harness.measure.usage import UsageLog
from emca_deploy.harness.spec import LoadedModel, RunnerSpec, Saturable
from emca_deploy.machines.machine_state import read_cpu_times
from emca_deploy.machines.memory import peak_rss_mib
from emca_deploy.results.codec import from_json
from emca_deploy.tasks.inputs import random_images

if TYPE_CHECKING:
    from emca_deploy.harness.measure.stages import Chain

__all__ = ["input_shape", "main", "make_runner", "serve"]

_RUNNERS = "emca_deploy.backends.registry:open_runner"
"""Imported by name, since only the process that runs a candidate knows backends."""

_PR_SET_PDEATHSIG = 1


def input_shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    """Return the shape (batch, 3, H, W) of a model's input at a batch size.

    Raises:
        InputError: the model's batch is fixed at another size.
        ModelError: the height or width is dynamic.
    """
    first, *rest = spec.shape
    if isinstance(first, int) and first != batch:
        remedy = f"use --batch {first}, or export with --batch dynamic"
        raise InputError(f"the model's batch size is fixed at {first}, not {batch}", remedy)
    sizes = [size for size in rest if isinstance(size, int)]
    if len(sizes) != len(rest):
        raise ModelError(f"input '{spec.name}' has a dynamic size: {spec.shape}", "set it with --image-size")
    return (batch, *sizes)


def make_runner(spec: RunnerSpec) -> LoadedModel:
    """Return the runner of a spec, not yet open."""
    module, _, function = (spec.factory or _RUNNERS).partition(":")
    runner: LoadedModel = getattr(import_module(module), function)(**spec.kwargs)
    return runner


class _Session:
    """The commands of a worker; each returns its answer, or sends several."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._runner: LoadedModel | None = None
        self._name, self._artifact = "", Path()
        self._batch: npt.NDArray[Any] | None = None
        self._saturated: Saturable | None = None
        self._crowd: list[LoadedModel] = []
        self._real: list[npt.NDArray[Any]] = []
        self._chain: Chain | None = None

    def open(self, spec: dict[str, Any]) -> dict[str, Any]:
        wanted = from_json(RunnerSpec, spec)
        runner = make_runner(wanted)
        start_ns = perf_counter_ns()
        runner.open()
        load_ms = (perf_counter_ns() - start_ns) / 1e6
        wanted.check_files()
        self._runner, self._spec, self._name = runner, wanted, wanted.name
        self._artifact = Path(str(wanted.kwargs.get("artifact", "")))
        answer = {"input": asdict(runner.input), "output": asdict(runner.output), "task": runner.task}
        return {**answer, "load_ms": load_ms, "runtime": runner.describe()}

    def prepare(self, batch: int, seed: int, scenario: str) -> dict[str, Any]:
        runner = self._loaded()
        shape = input_shape(runner.input, batch)
        # Already in the model's layout and type, since the conversion is not measured.
        self._batch = random_images(np.random.default_rng(seed), shape, runner.to_native)
        start_ns = perf_counter_ns()
        runner.infer(self._batch)
        first_inference_ms = (perf_counter_ns() - start_ns) / 1e6
        in_flight = 1
        if scenario == "offline" and isinstance(runner, Saturable):
            in_flight = runner.start_offline(self._batch)
            self._saturated = runner
        answer = {"first_inference_ms": first_inference_ms, "in_flight": in_flight, "runtime": runner.describe()}
        # Libraries and the model stay anyway. A collection that visits them before each block takes 10 to 24 ms and empties the
        # caches: the first call is 5 to 12 % slower, and the median of a block of six calls 1 %.
        gc.collect()
        gc.freeze()
        return {**answer, "cpu_s": time.process_time()}

    def block(self, seconds: float, min_calls: int, max_calls: int, lead_calls: int) -> None:
        wanted = (seconds, min_calls, max_calls)
        usage, before = UsageLog(), read_cpu_times()
        with no_garbage_collection():  # before the window, so the collection is not part of it
            start_ns = time.monotonic_ns()
            device: dict[str, Any] = {}
            if self._saturated is not None:
                latencies_ns = self._saturated.run_offline(*wanted)
            else:
                latencies_ns, device = self._one_after_the_other(usage, lead_calls, *wanted)
            window = {"start_ns": start_ns, "end_ns": time.monotonic_ns()}
        after = read_cpu_times()
        steal_ms = None if before is None or after is None else 1000 * (after.steal_s - before.steal_s)
        answer = {"cpu_s": time.process_time(), "steal_ms": steal_ms, **window, **device}
        self._channel.send(answer, {"latencies_ns": latencies_ns, "usage": usage.rows()})

    def _one_after_the_other(
        self, usage: UsageLog, lead_calls: int, seconds: float, min_calls: int, max_calls: int
    ) -> tuple[Int64Array, dict[str, Any]]:
        runner, batch = self._loaded(), self._batch
        assert batch is not None
        for _ in range(lead_calls):
            runner.infer(batch)
        device_ms: list[float | None] = []
        has_clock = hasattr(runner, "device_ms")

        def note() -> None:
            usage.note()
            if has_clock:
                device_ms.append(getattr(runner, "device_ms", None))

        usage.start()
        latencies_ns = time_calls(lambda: runner.infer(batch), seconds, min_calls, max_calls, note)
        return latencies_ns, {"device_ms": device_ms} if has_clock and None not in device_ms else {}

    def paced(self, rate_per_s: float, frames: int, lead_calls: int) -> None:
        runner, batch = self._loaded(), self._batch
        assert batch is not None, "prepare comes first"
        with no_garbage_collection():
            start_ns = time.monotonic_ns()
            for _ in range(lead_calls):
                runner.infer(batch)
            found = pace(lambda: runner.infer(batch), rate_per_s, frames)
            window = {"start_ns": start_ns, "end_ns": time.monotonic_ns()}
        arrays = {"due_ns": found.due_ns, "begin_ns": found.start_ns, "answered_ns": found.end_ns}
        self._channel.send({"cpu_s": time.process_time(), "period_ns": found.period_ns, **window}, arrays)

    def crowd(self, callers: int, seconds: float, max_calls: int) -> None:
        batch = self._batch
        assert batch is not None, "prepare comes first"
        while len(self._crowd) < callers - 1:
            other = make_runner(self._spec)
            other.open()
            self._crowd.append(other)
        start_ns = time.monotonic_ns()
        with no_garbage_collection():
            found = call_at_once([self._loaded(), *self._crowd[: callers - 1]], batch, seconds, max_calls)
        window = {"start_ns": start_ns, "end_ns": time.monotonic_ns()}
        calls_per_s = sum(len(each) / each.sum() * 1e9 for each in found)
        arrays = {"latencies_ns": np.concatenate(found)}
        self._channel.send({"cpu_s": time.process_time(), "calls_per_s": calls_per_s, **window}, arrays)

    def real(self, seconds: float, max_calls: int) -> None:
        from emca_deploy.harness.measure.real_images import real_batches

        runner, batch = self._loaded(), self._batch
        assert batch is not None, "prepare comes first"
        if not self._real:
            self._real = real_batches(self._spec, runner, len(batch))
        runner.infer(self._real[0])
        turns = cycle(self._real)
        start_ns = time.monotonic_ns()
        latencies_ns = time_calls(lambda: runner.infer(next(turns)), seconds, 1, max_calls)
        window = {"start_ns": start_ns, "end_ns": time.monotonic_ns()}
        answer = {"cpu_s": time.process_time(), "images": sum(map(len, self._real)), **window}
        self._channel.send(answer, {"latencies_ns": latencies_ns})

    def chain(self, seconds: float, max_images: int) -> None:
        from emca_deploy.harness.measure.stages import Chain

        self._chain = self._chain or Chain(self._spec, self._loaded())
        start_ns = time.monotonic_ns()
        stages_ns = self._chain.run(seconds, max_images)
        window = {"start_ns": start_ns, "end_ns": time.monotonic_ns()}
        self._channel.send({"cpu_s": time.process_time(), **window}, {"stages_ns": stages_ns})

    def logits(self, wanted: dict[str, Any]) -> None:
        from emca_deploy.harness.measure.feed import Wanted, feed

        feed(self._name, self._loaded(), from_json(Wanted, wanted), self._channel.send, self._artifact)

    def peak(self) -> dict[str, Any]:
        return {"peak_rss_mib": _peak_rss_mib()}

    def close(self) -> dict[str, Any]:
        peak = _peak_rss_mib()
        for runner in (*self._crowd, *filter(None, (self._runner,))):
            runner.close()
        return {"peak_rss_mib": peak}

    def _loaded(self) -> LoadedModel:
        assert self._runner is not None, "open comes first"
        return self._runner


def _peak_rss_mib() -> float:
    from_proc = peak_rss_mib()
    if from_proc is not None:
        return from_proc
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, even when the parent is killed during a call."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the request
        os._exit(1)


def _take_over_pipes() -> Channel:
    """Move the channel away from stdin and stdout, where a library may print."""
    channel = Channel(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return channel


def _error(error: Exception) -> dict[str, Any]:
    if isinstance(error, EmcaError):
        return {"error": type(error).__name__, "problem": error.problem, "remedy": error.remedy}
    traceback.print_exc()
    return {"error": "crash", "problem": f"{type(error).__name__}: {error}", "remedy": ""}


def main() -> int:
    """Serve the coordinator, whose process id is the first argument, until it sends close or ends."""
    _die_with(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator handles Ctrl-C
    serve(_take_over_pipes())
    return 0


def serve(channel: Channel) -> None:
    """Run the commands of the other end of a channel until it sends close or ends."""
    session = _Session(channel)
    commands: dict[str, Callable[..., dict[str, Any] | None]] = {
        name: getattr(session, name)
        for name in ("open", "prepare", "block", "paced", "crowd", "real", "chain", "logits", "peak", "close")
    }
    try:
        while True:
            message, _ = channel.receive()
            name = message.pop("do")
            try:
                answer = commands[name](**message)
            except Exception as exc:  # the coordinator reports it
                answer = _error(exc)
            if answer is not None:
                channel.send(answer)
            if name == "close":
                return
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    raise SystemExit(main())
