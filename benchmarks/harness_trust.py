"""Check the harness against the runtimes' own tools, against itself next to a busy process, and in simulation.

    python benchmarks/harness_trust.py --model model.onnx                 everything, about three quarters of an hour
    python benchmarks/harness_trust.py --model model.onnx --quick         the same, too short to be meaningful

- tools: our median against that of OpenVINO's benchmark_app (-hint none -nstreams 1 -api sync) and of ONNX Runtime's tool, in
  turns: one is stopped while the other runs. No package contains onnxruntime_perf_test; without --ort-perf, a loop of
  `run_with_iobinding` in a new process, which is all that the tool does, replaces it. The tool's sources link against the
  libonnxruntime of the Python package.
- itself: one file as two candidates, while another process uses a core (always, or for 150 of every 250 ms): how often the
  ratio is within 2 % and its interval contains 1.
- overhead: the time of a call of a runner that does nothing.
- coverage: how often nominal 95 % intervals contain the true value, for drifting blocks and runs that stop by the interval.
"""

import argparse
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.measure.rounds import planned_looks, precise
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.stats.estimates import median_ci, student_t_quantile
from emca_deploy.targets.candidates import CandidateOptions, candidate
from emca_deploy.targets.cpu import CpuTarget

NEIGHBOURS = {
    "steady": """
import os
parent = os.getppid()
while os.getppid() == parent:  # a benchmark that is killed must not leave it behind
    for _ in range(1_000_000):
        pass
""",
    "pulsing": """
import os
import time
parent = os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + 0.15
    while time.monotonic() < end:
        pass
    time.sleep(0.1)
""",
}

ORT_LOOP = """
import json, sys, time
import numpy as np
import onnxruntime as ort
model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
given, wanted = session.get_inputs()[0], session.get_outputs()[0]
shape = [size if isinstance(size, int) else 1 for size in given.shape]
binding = session.io_binding()
binding.bind_ortvalue_input(given.name, ort.OrtValue.ortvalue_from_numpy(np.random.rand(*shape).astype(np.float32)))
binding.bind_output(wanted.name)
def run(seconds):
    found, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        found.append(time.perf_counter_ns() - start)
    return found
run(min(1.0, seconds / 2))
print(json.dumps(run(seconds)))
"""


def spec_of(model: Path, backend: str, threads: int, name: str) -> RunnerSpec:
    found = candidate(str(model), backend, CandidateOptions(threads=threads, batch=1))
    return replace(found, name=name)


def our_command(model: Path, backend: str, args: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "emca_deploy", "profile", f"{backend}={model}", "--threads", str(args.threads), "--untuned"]
    length = ["--duration", str(args.seconds), "--max-duration", str(args.seconds), "--processes", "1"]
    return [*command, *length, "--no-telemetry", "--json"]


def our_median_ms(said: str) -> float:
    return float(json.loads(said)["results"][0]["latency_ms"]["p50"])


def tool_s(args: argparse.Namespace) -> int:
    """Return how long a tool has to run, including stops: until `profile`, which loads and warms up first, has ended."""
    return math.ceil(args.seconds + args.head_start)


def benchmark_app(model: Path, args: argparse.Namespace) -> list[str]:
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(model), "-d", "CPU", "-api", "sync"]
    command += ["-hint", "none", "-nstreams", "1", "-nthreads", str(args.threads), "-infer_precision", "f32"]
    return [*command, "-t", str(tool_s(args)), "-shape", args.shape]


def benchmark_app_ms(said: str) -> float:
    found = re.search(r"Median:\s*([0-9.]+) ms", said)
    assert found is not None, said[-2000:]
    return float(found[1])


def ort_loop(model: Path, args: argparse.Namespace) -> list[str]:
    return [sys.executable, "-c", ORT_LOOP, str(model), str(args.threads), str(tool_s(args))]


def ort_loop_ms(said: str) -> float:
    return statistics.median(json.loads(said)) / 1e6


def ort_tool(model: Path, args: argparse.Namespace) -> list[str]:
    # -I makes the input, -S 0 fills it with random numbers instead of zeros.
    options = f"-I -S 0 -e cpu -x {args.threads} -m duration -t {tool_s(args)}".split()
    return ["sh", "-c", '"$@" /dev/fd/3 3>&1 >/dev/null', "sh", args.ort_perf, *options, str(model)]


def ort_tool_ms(said: str) -> float:
    # The fields of a line: model, seconds, memory, load, number.
    return statistics.median(float(line.split(",")[1]) for line in said.splitlines() if line) * 1000


@dataclass(frozen=True)
class Ended:
    """A finished command: its standard output, and the time of each line by the monotonic clock."""

    said: str
    at_s: float


def in_turn(commands: Sequence[Sequence[str]], slice_s: float) -> list[Ended]:
    """Run commands in turns of `slice_s` seconds; all but one are stopped at any moment.

    A call interrupted by a stop is among a command's slowest; the median hardly changes.
    """
    with ExitStack() as closing:
        files = [closing.enter_context(tempfile.TemporaryFile("w+")) for _ in commands]
        started = [closing.enter_context(stopped_process(*pair)) for pair in zip(commands, files, strict=True)]
        ends_s: dict[int, float] = {}
        while running := [process for process in started if process.pid not in ends_s]:
            for process in running:
                os.killpg(process.pid, signal.SIGCONT)
                try:
                    code = process.wait(slice_s)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGSTOP)
                    continue
                assert code == 0, (process.args, code)
                ends_s[process.pid] = time.monotonic()
        for file in files:
            file.seek(0)
        return [Ended(file.read(), ends_s[process.pid]) for file, process in zip(files, started, strict=True)]


@contextmanager
def stopped_process(command: Sequence[str], said: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, stopped, in its own process group; kill the remaining group at the end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        os.killpg(process.pid, signal.SIGSTOP)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Tool:
    """A runtime's own tool: its name, its command, and the function that reads the median in ms from its output."""

    name: str
    command: Callable[[Path, argparse.Namespace], list[str]]
    median_ms: Callable[[str], float]


TOOLS = {
    "openvino": Tool("benchmark_app", benchmark_app, benchmark_app_ms),
    "onnxruntime": Tool("onnxruntime_perf_test", ort_tool, ort_tool_ms),
}
STAND_IN = Tool("onnxruntime_perf_test (stand-in: run_with_iobinding)", ort_loop, ort_loop_ms)


def against_tools(args: argparse.Namespace) -> dict[str, Any]:
    """Run each tool and `profile` in turns; the ratio is the mean over pairs of runs of the ratios of their medians."""
    tools = TOOLS if args.ort_perf else {**TOOLS, "onnxruntime": STAND_IN}
    return {tools[backend].name: against_tool(backend, tools[backend], args) for backend in args.tools}


def mean_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the geometric mean of the ratios of pairs and its 95 % interval by Student's t; pairing removes common drift."""
    logs = [math.log(mine / other) for mine, other in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(logs)
    half = student_t_quantile(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def against_tool(backend: str, tool: Tool, args: argparse.Namespace) -> dict[str, Any]:
    ours, theirs = [], []
    commands = [our_command(args.model, backend, args), tool.command(args.model, args)]
    for run in range(args.runs):
        first = run % 2  # the order alternates
        both = in_turn(commands[first:] + commands[:first], args.slice)
        mine, other = both[first], both[1 - first]
        assert mine.at_s < other.at_s, f"{tool.name} ended before `profile`, which then ran alone"
        ours.append(our_median_ms(mine.said))
        theirs.append(tool.median_ms(other.said))
        print(f"{tool.name}: {ours[-1]:.3f} / {theirs[-1]:.3f} = {ours[-1] / theirs[-1]:.4f}", file=sys.stderr, flush=True)
    ratio, ratio_ci95 = mean_ratio(ours, theirs)
    return {
        "ours_ms": statistics.median(ours),
        "theirs_ms": statistics.median(theirs),
        "ratio": ratio,
        "ratio_ci95": ratio_ci95,
        "runs": [ours, theirs],
    }


@contextmanager
def neighbour(kind: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOURS[kind]])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def against_itself(args: argparse.Namespace) -> dict[str, Any]:
    ratios, holds = [], []
    with neighbour(args.neighbour):
        for seed in range(args.seed, args.seed + args.tries):
            specs = [spec_of(args.model, args.backend, args.threads, name) for name in ("A", "A again")]
            specs = [replace(spec, kwargs={**spec.kwargs, "spin": False}) for spec in specs]
            protocol = Protocol(duration_s=args.seconds, block_s=args.block, seed=seed, processes=args.processes)
            (comparison,) = measure(specs, protocol).comparisons
            low, high = comparison.ratio_ci95
            ratios.append(comparison.ratio_p50)
            holds.append(low <= 1 <= high)
            print(f"seed {seed}: {ratios[-1]:.4f} ({low:.4f} to {high:.4f})", file=sys.stderr, flush=True)
    good = sum(held and abs(ratio - 1) <= 0.02 for ratio, held in zip(ratios, holds, strict=True))
    return {"tries": args.tries, "within_2_percent_and_holding_1": good, "ratios": ratios, "holds": holds}


class NullRunner:
    """Runner that does nothing; the worker process, which has this script's folder on its path, creates it."""

    input = TensorSpec("images", "float32", (1, 3, 1, 1))
    output = TensorSpec("logits", "float32", (1, 1))
    logits = np.zeros((1, 1), np.float32)
    softmax = False
    task = "classification"

    def open(self) -> None:
        """Do nothing: there is nothing to load."""

    def to_native(self, batch: Float32Array) -> Float32Array:
        """Return the batch unchanged."""
        return batch

    def infer(self, batch: Float32Array) -> Float32Array:
        """Return the same logits for every batch."""
        return self.logits

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def answers(self) -> dict[str, Any]:
        """Return no outputs: the logits are the only one."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return no versions."""
        return {}


def overhead(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what the harness adds to a call: the latency of a runner that does nothing."""
    spec = RunnerSpec("null", "harness_trust:NullRunner")
    (result,) = measure([spec], Protocol(duration_s=args.seconds, max_samples=200_000)).results
    return {"call_us": result.latency_ms.p50 * 1000, "p99_us": result.latency_ms.p99 * 1000, "samples": result.samples}


CASES = ((0.0, 20, 120, 20), (0.3, 20, 120, 20), (0.79, 100, 600, 5))
"""Correlation of neighbouring blocks, rounds in the minimum and in the maximum duration, calls per block. The last case has
blocks of a fifth of the length on a machine that drifts like the second's."""


def wandering(rng: np.random.Generator, rounds: int, alike: float, calls: int) -> list[Float64Array]:
    blocks, level = [], rng.standard_normal()
    for _ in range(rounds):
        level = alike * level + math.sqrt(1 - alike**2) * rng.standard_normal()
        blocks.append(1 + 0.02 * level + 0.02 * rng.laplace(size=calls))
    return blocks


def coverage(args: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for alike, least, longest, calls in CASES:
        rng = np.random.default_rng(0)
        fixed = stopped = 0
        for run in range(args.simulations):
            blocks = wandering(rng, longest, alike, calls)
            looks = (*planned_looks(least, longest), longest)
            rounds = next((look for look in looks if precise(blocks[:look], 0.01, run)), longest)
            intervals = [median_ci(blocks[:count], run) for count in (least, rounds)]
            fixed, stopped = (n + (low <= 1 <= high) for n, (low, high) in zip((fixed, stopped), intervals, strict=True))
        found[f"{least} to {longest} blocks, neighbours correlated {alike:g}"] = {
            "fixed": fixed / args.simulations,
            "stopped_by_interval": stopped / args.simulations,
        }
    return found


def show(found: dict[str, Any], console: Console) -> None:
    table = Table("question", "answer", "wanted")
    for tool, values in found.get("tools", {}).items():
        low, high = values["ratio_ci95"]
        times = f"{values['ours_ms']:.3f} / {values['theirs_ms']:.3f} ms"
        answer = f"{times} = {values['ratio']:.4f} ({low:.4f} to {high:.4f})"
        table.add_row(f"median, ours / {tool}", answer, "0.98 to 1.02")
    if "itself" in found:
        values = found["itself"]
        answer = f"{values['within_2_percent_and_holding_1']} of {values['tries']}"
        table.add_row("one file twice, next to a busy process: within 2 %, interval contains 1", answer, "19 of 20")
    if "overhead" in found:
        table.add_row("a call of a runner that does nothing", f"{found['overhead']['call_us']:.1f} us", "below 20 us")
    for what, values in found.get("coverage", {}).items():
        answer = f"{values['fixed']:.1%} of the least duration, {values['stopped_by_interval']:.1%} stopped by the interval"
        table.add_row(f"coverage of 95 % intervals, {what}", answer, "90 % to 99 %")
    console.print(table)


PARTS = {"tools": against_tools, "itself": against_itself, "overhead": overhead, "coverage": coverage}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an .onnx file")
    parser.add_argument("--shape", default="[1,3,64,64]", help="input shape for benchmark_app")
    parser.add_argument("--backend", default="openvino", help="backend of the comparison of a file with itself")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of each measurement")
    parser.add_argument(
        "--block", type=float, default=Protocol.block_s, help="seconds of a block when a file is compared with itself"
    )
    parser.add_argument(
        "--processes", type=int, default=CpuTarget.processes, help="processes per candidate when a file is compared with itself"
    )
    parser.add_argument(
        "--runs", type=int, default=20, help="runs of each tool, one process each: processes differ by some percent"
    )
    parser.add_argument("--head-start", type=float, default=9.0, help="seconds a tool runs longer than `profile` measures")
    parser.add_argument("--slice", type=float, default=0.25, help="seconds of a turn of a tool or `profile`")
    parser.add_argument("--tools", choices=TOOLS, nargs="*", default=list(TOOLS), help="runtimes of the tools")
    parser.add_argument("--tries", type=int, default=20, help="comparisons of a file with itself")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first comparison")
    parser.add_argument("--neighbour", choices=NEIGHBOURS, default="steady")
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--ort-perf", help="path of onnxruntime_perf_test, if available")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.runs, args.tries, args.simulations = 1.0, 2, 2, 20
    found = {name: PARTS[name](args) for name in args.only}
    show(found, Console())
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
