"""Measure how often `gate --confirm` is wrong: false alarms with one file against itself, and a true slowdown that it must find.

    python benchmarks/gate_rates.py --model model.onnx -o benchmarks/results/gate-rates-xeon-2core.json
    python benchmarks/gate_rates.py --simulate 2000 --pairs benchmarks/results/gate-rates-xeon-2core.json

The first command takes about half a minute a comparison and continues where it was stopped. It alternates two kinds: the file
against a copy of itself, and against the copy with a runner that waits 5 % of each call's time. It requires `slowdown<=3%`.
The second command draws comparisons from the recorded pairs of processes, in runs of neighbours (circular block bootstrap), which
keeps their spread and correlation; without --pairs, from the 140 pairs of results/harness-tools-epyc-zen3-2core.json.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.backends.registry import open_runner
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.measure.protocol import BLOCK_S
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.environment import collect_environment
from emca_deploy.requirements.confirming import LOOK_PAIRS, Confirmed, measured_until_decided, stage_request
from emca_deploy.requirements.documents import MeasuredCandidate
from emca_deploy.results.latency import ProfileReport
from emca_deploy.results.requirements import parse_requirements, verdict_of_interval
from emca_deploy.stats.run_length import run_length
from emca_deploy.targets.candidates import CandidateOptions, candidate

REQUIRED = parse_requirements(["slowdown<=3%"])
SLOWDOWN = 0.05
KINDS = {"itself": 0.0, "slower": SLOWDOWN}
RECORDED = Path(__file__).parent / "results" / "harness-tools-epyc-zen3-2core.json"


def waiting(share: float, **kwargs: Any) -> Any:
    """Return a runner that waits after each call for this share of the call's time."""
    runner: Any = open_runner(**kwargs)
    infer: Callable[[Any], Any] = runner.infer

    def slow(batch: Any) -> Any:
        began = time.perf_counter_ns()
        answer = infer(batch)
        end = time.perf_counter_ns()
        end += int(share * (end - began))
        while time.perf_counter_ns() < end:
            pass
        return answer

    runner.infer = slow
    return runner


def specs_of(model: Path, copy: Path, share: float, threads: int) -> list[RunnerSpec]:
    options = CandidateOptions(threads=threads, batch=1)
    first, second = (replace(candidate(str(path), "onnxruntime", options), name=str(path)) for path in (model, copy))
    slow = replace(second, factory=f"{Path(__file__).stem}:waiting", kwargs={"share": share, **second.kwargs})
    return [first, slow if share else second]


def protocol(number: int, seed: int) -> Protocol:
    """Return the protocol of a stage of `gate --confirm`."""
    request = stage_request(("", ""), MeasuredCandidate("", ""), number)
    return Protocol(
        warmup_s=request.warmup_s,
        block_s=BLOCK_S["single-stream"],
        duration_s=request.duration_s,
        max_duration_s=request.max_duration_s,
        seed=seed + number,
        processes=request.processes or 1,
        load_together=request.load_together,
    )


def verdict(found: Confirmed) -> str:
    _, low, high = found.interval()
    return verdict_of_interval(REQUIRED[0], low, high)


def compare(model: Path, copy: Path, kind: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    specs = specs_of(model, copy, KINDS[kind], args.threads)

    def stage(number: int) -> ProfileReport:
        return measure(specs, protocol(number, seed))

    before = os.getloadavg()[0]
    found = measured_until_decided(stage, REQUIRED, args.max_duration)
    value, low, high = found.interval()
    load = [before, os.getloadavg()[0]]
    ends = [end if np.isfinite(end) else None for end in (low, high)]
    return {
        "verdict": verdict(found),
        "percent": value,
        "ends": ends,
        "seconds": found.seconds,
        "ratios": list(found.ratios),
        "load": load,
    }


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Run the comparisons that the output file lacks, and write it after each."""
    document: dict[str, Any] = {"model": args.model.name, "command": sys.argv, "environment": collect_environment()}
    document |= {kind: [] for kind in KINDS}
    if args.output.exists():
        document |= {kind: json.loads(args.output.read_text())[kind] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for path in (args.model, args.model.with_name(f"{args.model.name}.manifest.json")):
            if path.exists():
                shutil.copy(path, folder)
        for number in range(args.repeats):
            for kind in KINDS:
                if len(document[kind]) <= number:
                    document[kind].append(compare(args.model, Path(folder) / args.model.name, kind, 1000 * number, args))
                    temporary = args.output.with_suffix(".part")
                    temporary.write_text(json.dumps(document, indent=1) + "\n")
                    temporary.replace(args.output)
                    tell(document)
    return document


def tell(document: dict[str, Any]) -> None:
    for kind in KINDS:
        if done := document[kind]:
            said = {name: sum(one["verdict"] == name for one in done) for name in ("pass", "fail", "undecided")}
            seconds = statistics.median(one["seconds"] for one in done)
            deviation = np.std([ratio - np.mean(one["ratios"]) for one in done for ratio in one["ratios"]])
            print(f"{kind}: {said} of {len(done)}, median {seconds:.0f} s, pairs differ by {100 * deviation:.2f} %", flush=True)


def recorded_pairs(path: Path | None) -> Float64Array:
    """Return centred logarithms of the ratio of a pair of processes, in the order of their time."""
    if path is not None:
        document = json.loads(path.read_text())
        series = [np.array(one["ratios"]) for kind in KINDS for one in document[kind]]
    else:
        runs = [tool["runs"] for tool in json.loads(RECORDED.read_text())["tools"].values()]
        series = [np.log(np.array(ours) / np.array(theirs)) for ours, theirs in runs]
    return np.concatenate([each - each.mean() for each in series])


def drawn(pool: Float64Array, rng: np.random.Generator) -> Iterator[float]:
    """Yield recorded pairs forever, in circular runs of as many neighbours as are correlated."""
    length = run_length(pool)
    while True:
        start = int(rng.integers(len(pool)))
        yield from (float(pool[(start + step) % len(pool)]) for step in range(length))


def simulate(pool: Float64Array, shift: float, args: argparse.Namespace, rng: np.random.Generator) -> tuple[str, int]:
    """Return the verdict of a drawn comparison, and its number of pairs."""
    source, ratios = drawn(pool, rng), list[float]()
    while len(ratios) < args.most_pairs:
        ratios += [next(source) + float(np.log1p(shift)) for _ in range(args.stage_pairs)]
        looks = len(ratios) // args.stage_pairs
        if (said := verdict(Confirmed(tuple(ratios), 0.0, looks))) != "undecided":
            return said, len(ratios)
    return "undecided", len(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("gate-rates.json"))
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-duration", type=float, default=120.0)
    parser.add_argument("--simulate", type=int, default=0, metavar="N", help="draw N comparisons of each kind instead")
    parser.add_argument("--pairs", type=Path, help="file of an earlier run, whose pairs are drawn")
    parser.add_argument("--stage-pairs", type=int, default=LOOK_PAIRS)
    parser.add_argument("--most-pairs", type=int, default=5 * LOOK_PAIRS)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the recorded spread")
    args = parser.parse_args()
    if not args.simulate:
        measured(args)
        return
    pool = args.scale * recorded_pairs(args.pairs)
    print(f"{len(pool)} recorded pairs differ by {100 * float(np.std(pool)):.2f} %")
    for kind, shift in KINDS.items():
        rng = np.random.default_rng(0)
        done = [simulate(pool, shift, args, rng) for _ in range(args.simulate)]
        shares = {name: sum(each[0] == name for each in done) / len(done) for name in ("pass", "fail", "undecided")}
        print(f"{kind}: {shares}, median {statistics.median(each[1] for each in done):.0f} pairs")


if __name__ == "__main__":
    main()
