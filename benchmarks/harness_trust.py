"""Whether the harness can be trusted: against the runtimes' own tools, against itself beside a busy neighbour, and in simulation.

    python benchmarks/harness_trust.py --model model.onnx                 everything, about three quarters of an hour
    python benchmarks/harness_trust.py --model model.onnx --quick         the same, too short to mean much

- tools: our median against that of OpenVINO's benchmark_app (-hint none -nstreams 1 -api sync) and of ONNX Runtime, side by side
  in slices: one is stopped while the other goes on.
  onnxruntime_perf_test is in no package; where --ort-perf does not name one, a loop of `run_with_iobinding` in a fresh process,
  all that the tool does, stands in for it. Its sources link against the libonnxruntime of the Python package.
- itself: one file as two candidates, while a neighbour process takes a core (always, or for 150 of every 250 ms): how often the
  ratio is within 2 % and its interval holds 1.
- overhead: the time of a call of a runner that does nothing.
- coverage: how often nominal 95 % intervals hold the truth, for blocks that wander and runs that stop by the interval.
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
    """Return how long a tool is to run, stopped or not: until `profile`, which has to load and to warm up, is through."""
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
    # -I makes the input, -S 0 of random numbers instead of zeros.
    options = f"-I -S 0 -e cpu -x {args.threads} -m duration -t {tool_s(args)}".split()
    return ["sh", "-c", '"$@" /dev/fd/3 3>&1 >/dev/null', "sh", args.ort_perf, *options, str(model)]


def ort_tool_ms(said: str) -> float:
    # A line is: model, seconds, memory, load, number.
    return statistics.median(float(line.split(",")[1]) for line in said.splitlines() if line) * 1000


@dataclass(frozen=True)
class Ended:
    """A command that has ended: what it wrote on standard output, and when, by the monotonic clock."""

    said: str
    at_s: float


def in_turn(commands: Sequence[Sequence[str]], slice_s: float) -> list[Ended]:
    """Run commands in turn, `slice_s` seconds each before the next goes on; all but one are stopped at any moment.

    A call that is cut by a stop is among a command's slowest; its median hardly moves.
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
    """Start a command with its own process group, stopped; kill what is left of the group at the end."""
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
    """A runtime's own tool: its name, the command that runs it, and the median in ms out of what it says."""

    name: str
    command: Callable[[Path, argparse.Namespace], list[str]]
    median_ms: Callable[[str], float]


TOOLS = {
    "openvino": Tool("benchmark_app", benchmark_app, benchmark_app_ms),
    "onnxruntime": Tool("onnxruntime_perf_test", ort_tool, ort_tool_ms),
}
STAND_IN = Tool("onnxruntime_perf_test (stand-in: run_with_iobinding)", ort_loop, ort_loop_ms)


def against_tools(args: argparse.Namespace) -> dict[str, Any]:
    """Each tool and `profile` take turns; the ratio is the mean of those of the medians of runs side by side."""
    tools = TOOLS if args.ort_perf else {**TOOLS, "onnxruntime": STAND_IN}
    return {tools[backend].name: against_tool(backend, tools[backend], args) for backend in args.tools}


def mean_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the geometric mean of the ratios of pairs, and its 95 % interval by Student's t: what both had in common is gone."""
    logs = [math.log(mine / other) for mine, other in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(logs)
    half = student_t_quantile(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def against_tool(backend: str, tool: Tool, args: argparse.Namespace) -> dict[str, Any]:
    ours, theirs = [], []
    commands = [our_command(args.model, backend, args), tool.command(args.model, args)]
    for run in range(args.runs):
        first = run % 2  # neither is always the first to go on
        both = in_turn(commands[first:] + commands[:first], args.slice)
        mine, other = both[first], both[1 - first]
        assert mine.at_s < other.at_s, f"{tool.name} was through before `profile`, which then had the machine to itself"
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
    """Does nothing at all; made by the worker's own process, which has this script's folder on its path."""

    input = TensorSpec("images", "float32", (1, 3, 1, 1))
    output = TensorSpec("logits", "float32", (1, 1))
    logits = np.zeros((1, 1), np.float32)
    softmax = False

    def open(self) -> None:
        """Load nothing."""

    def to_native(self, batch: Float32Array) -> Float32Array:
        """Return the batch as it is."""
        return batch

    def infer(self, batch: Float32Array) -> Float32Array:
        """Return always the same."""
        return self.logits

    def close(self) -> None:
        """Free nothing."""

    def describe(self) -> dict[str, Any]:
        """Say nothing."""
        return {}


def overhead(args: argparse.Namespace) -> dict[str, Any]:
    """What the harness adds to a call: what it measures of a runner that does nothing."""
    spec = RunnerSpec("null", "harness_trust:NullRunner")
    (result,) = measure([spec], Protocol(duration_s=args.seconds, max_samples=200_000)).results
    return {"call_us": result.latency_ms.p50 * 1000, "p99_us": result.latency_ms.p99 * 1000, "samples": result.samples}


CASES = ((0.0, 20, 120, 20), (0.3, 20, 120, 20), (0.79, 100, 600, 5))
"""Correlation of neighbouring blocks, rounds in the least and in the longest duration, calls a block. The last are blocks of a
fifth of the length on a machine that wanders as in the second."""


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
        table.add_row("A against A beside a neighbour: within 2 %, interval holds 1", answer, "19 of 20")
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
    parser.add_argument("--shape", default="[1,3,64,64]", help="its input, for benchmark_app")
    parser.add_argument("--backend", default="openvino", help="for A against A")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--block", type=float, default=Protocol.block_s, help="seconds of a block, for A against A")
    parser.add_argument("--processes", type=int, default=CpuTarget.processes, help="of each candidate, for A against A")
    parser.add_argument("--runs", type=int, default=20, help="of each tool, a process each: processes differ by some percent")
    parser.add_argument("--head-start", type=float, default=9.0, help="seconds that a tool runs longer than `profile` measures")
    parser.add_argument("--slice", type=float, default=0.25, help="seconds before the other of a tool and `profile` goes on")
    parser.add_argument("--tools", choices=TOOLS, nargs="*", default=list(TOOLS), help="by their runtime")
    parser.add_argument("--tries", type=int, default=20, help="of A against A")
    parser.add_argument("--seed", type=int, default=0, help="of the first try")
    parser.add_argument("--neighbour", choices=NEIGHBOURS, default="steady")
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--ort-perf", help="onnxruntime_perf_test, if you have it")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON document here")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.runs, args.tries, args.simulations = 1.0, 2, 2, 20
    found = {name: PARTS[name](args) for name in args.only}
    show(found, Console())
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
