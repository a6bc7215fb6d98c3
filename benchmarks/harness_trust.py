"""Whether the harness can be trusted: against the runtimes' own tools, against itself beside a busy neighbour, and in simulation.

    python benchmarks/harness_trust.py --model model.onnx                 everything, about half an hour
    python benchmarks/harness_trust.py --model model.onnx --quick         the same, too short to mean much

- tools: our median against that of OpenVINO's benchmark_app (-hint none -nstreams 1 -api sync) and of ONNX Runtime, in turn.
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
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from emca_deploy.artifacts import TensorSpec
from emca_deploy.harness.latency import Protocol, measure
from emca_deploy.harness.spec import Float32Array, RunnerSpec
from emca_deploy.harness.stats import Float64Array, median_ci, ratio_of_medians
from emca_deploy.harness.stopping import planned_looks, precise
from emca_deploy.targets.local import LocalOptions, candidate
from emca_deploy.targets.profiling import PROCESSES

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
    found = candidate(str(model), backend, LocalOptions(threads=threads, batch=1))
    return replace(found, name=name)


def our_median_ms(model: Path, backend: str, args: argparse.Namespace) -> float:
    report = measure([spec_of(model, backend, args.threads, backend)], Protocol(duration_s=args.seconds))
    return report.results[0].latency_ms.p50


def benchmark_app_ms(model: Path, args: argparse.Namespace) -> float:
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(model), "-d", "CPU", "-api", "sync"]
    command += ["-hint", "none", "-nstreams", "1", "-nthreads", str(args.threads), "-infer_precision", "f32"]
    command += ["-t", str(max(1, round(args.seconds))), "-shape", args.shape]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Median:\s*([0-9.]+) ms", said)
    assert found is not None, said[-2000:]
    return float(found[1])


def ort_tool_ms(model: Path, args: argparse.Namespace) -> float:
    if args.ort_perf:
        with tempfile.NamedTemporaryFile() as result:
            # -I makes the input, -S 0 of random numbers instead of zeros. A line is: model, seconds, memory, load, number.
            options = f"-I -S 0 -e cpu -x {args.threads} -m duration -t {max(1, round(args.seconds))}".split()
            subprocess.run([args.ort_perf, *options, str(model), result.name], capture_output=True, check=True)
            lines = Path(result.name).read_text(encoding="utf-8").splitlines()
            return statistics.median(float(line.split(",")[1]) for line in lines if line) * 1000
    command = [sys.executable, "-c", ORT_LOOP, str(model), str(args.threads), str(args.seconds)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return statistics.median(json.loads(said)) / 1e6


def against_tools(args: argparse.Namespace) -> dict[str, Any]:
    """Each tool and the harness take turns; the ratio is that of the medians over all turns, with its interval by turns."""
    found = {}
    for backend in args.tools:
        name, tool = TOOLS[backend]
        ours, theirs = [], []
        for turn in range(args.turns):
            for mine in (turn % 2 == 0, turn % 2 == 1):
                (ours if mine else theirs).append(our_median_ms(args.model, backend, args) if mine else tool(args.model, args))
        shown = name if backend == "openvino" or args.ort_perf else f"{name} (stand-in: run_with_iobinding)"
        ratio, ratio_ci95 = ratio_of_medians([np.array([ms]) for ms in ours], [np.array([ms]) for ms in theirs])
        found[shown] = {
            "ours_ms": statistics.median(ours),
            "theirs_ms": statistics.median(theirs),
            "ratio": ratio,
            "ratio_ci95": ratio_ci95,
            "turns": [ours, theirs],
        }
    return found


TOOLS = {"openvino": ("benchmark_app", benchmark_app_ms), "onnxruntime": ("onnxruntime_perf_test", ort_tool_ms)}


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

    def open(self) -> None:
        """Load nothing."""

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
    parser.add_argument("--processes", type=int, default=PROCESSES, help="of each candidate, for A against A")
    parser.add_argument("--turns", type=int, default=20, help="of each tool, a process each: processes differ by some percent")
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
        args.seconds, args.turns, args.tries, args.simulations = 1.0, 1, 2, 20
    found = {name: PARTS[name](args) for name in args.only}
    show(found, Console())
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
