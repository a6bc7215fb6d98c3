"""Measure how often the interval of a miss share holds the true one, and the upper bound of p99 the true p99.

    python benchmarks/paced.py --simulate 1000
    python benchmarks/paced.py --model model.onnx --rate 20 --deadline-ms 12 -o benchmarks/results/paced-MACHINE.json

The second one makes fresh runs of `profile --scenario paced` beside a neighbour that works on every core now and then. The true
share of a run is that of all other runs together. It goes on where an earlier one ended.
"""

import argparse
import json
import multiprocessing
import os
import random
import time
from math import log
from pathlib import Path

import numpy as np

from emca_deploy import profile
from emca_deploy.requests import ProfileRequest
from emca_deploy.stats.confidence import exceedance_interval, percentile_bound, share_interval

WORKS_S, RESTS_S = 0.2, 0.8
"""Mean times that the neighbour works and rests; both are drawn from exponential distributions."""

DEADLINE = 20.0
CASES = ((0.5, 2.0, 0.2), (2.0, 8.0, 0.2), (0.5, 5.0, 0.02), (0.05, 0.5, 0.5))
"""Mean seconds that a simulated neighbour works and rests, and the share of frames that miss the deadline while it works."""


def simulate(runs: int) -> None:
    """Print how often the bound and the intervals hold on simulated frames."""
    rng = np.random.default_rng(0)
    right = sum((percentile_bound(np.sort(rng.exponential(size=2000)), 99) or 0) >= log(100) for _ in range(runs))
    print(f"upper bound of p99 right: {right} of {runs}")
    print("works s, rests s, missed: true share, interval holds it, plain binomial interval holds it, mean width")
    for works_s, rests_s, missed in CASES:
        truth, held, plain, widths = missed * works_s / (works_s + rests_s), 0, 0, []
        for _ in range(runs):
            blocks = frames_beside(rng, works_s, rests_s, missed)
            share, (low, high) = exceedance_interval(blocks, DEADLINE)
            total = sum(map(len, blocks))
            low_plain, high_plain = share_interval(round(share * total), total, 0.95)
            held, plain = held + (low <= truth <= high), plain + (low_plain <= truth <= high_plain)
            widths.append(high - low)
        print(f"{works_s}, {rests_s}, {missed}: {truth:.4f}, {held} of {runs}, {plain} of {runs}, {np.mean(widths):.3f}")


def frames_beside(rng: np.random.Generator, works_s: float, rests_s: float, missed: float) -> list[np.ndarray]:
    """Return the latencies in ms of 20 blocks of 30 frames at 30 a second, a second apart, beside a neighbour."""
    now_s, blocks, busy = 0.0, [], bool(rng.random() < works_s / (works_s + rests_s))
    change_s = rng.exponential(works_s if busy else rests_s)
    for _ in range(20):
        block = []
        for _ in range(30):
            now_s += 1 / 30
            while change_s < now_s:
                busy = not busy
                change_s += rng.exponential(works_s if busy else rests_s)
            late = busy and rng.random() < missed
            block.append(DEADLINE + rng.exponential(5.0) if late else min(rng.gamma(20, 0.5) * (1.5 if busy else 1.0), DEADLINE))
        now_s += 1.0
        blocks.append(np.array(block))
    return blocks


def neighbour(seed: int) -> None:
    """Work now and then, until this process is ended."""
    rng = random.Random(seed)
    while True:
        end = time.monotonic() + rng.expovariate(1 / WORKS_S)
        while time.monotonic() < end:
            sum(range(1000))
        time.sleep(rng.expovariate(1 / RESTS_S))


def measure(options: argparse.Namespace) -> None:
    """Make the runs that are missing, and print how often their intervals hold the share of the others."""
    runs = json.loads(options.output.read_text())["runs"] if options.output.exists() else []
    neighbours = [
        multiprocessing.Process(target=neighbour, args=(len(runs) * 100 + core,), daemon=True)
        for core in range(os.cpu_count() or 1)
    ]
    for each in neighbours:
        each.start()
    try:
        while len(runs) < options.runs:
            request = ProfileRequest(
                (options.model,),
                scenario="paced",
                rates=(options.rate,),
                deadline_ms=options.deadline_ms,
                duration_s=options.duration,
                telemetry=False,
                seed=len(runs),
            )
            (result,) = profile(request).results
            (paced,) = result.paced
            misses = paced.misses
            runs.append(
                {
                    "frames": paced.frames,
                    "missed": misses.frames,
                    "ci95": misses.share_ci95,
                    "valid": paced.valid,
                    "late": paced.late_starts,
                    "p50_ms": paced.latency_ms.p50,
                }
            )
            document = {
                "rate_per_s": options.rate,
                "deadline_ms": options.deadline_ms,
                "duration_s": options.duration,
                "load": os.getloadavg(),
                "runs": runs,
            }
            options.output.write_text(json.dumps(document, indent=1) + "\n")
            print(runs[-1], flush=True)
    finally:
        for each in neighbours:
            each.terminate()
    held = plain = 0
    for run in runs:
        others = [other for other in runs if other is not run]
        truth = sum(other["missed"] for other in others) / sum(other["frames"] for other in others)
        low, high = run["ci95"]
        low_plain, high_plain = share_interval(run["missed"], run["frames"], 0.95)
        held, plain = held + (low <= truth <= high), plain + (low_plain <= truth <= high_plain)
    print(f"holds the share of the others: {held} of {len(runs)}; a plain binomial interval: {plain} of {len(runs)}")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", type=int, metavar="RUNS")
    parser.add_argument("--model")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--deadline-ms", type=float, default=12.0)
    parser.add_argument("--duration", type=float, default=15.0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.simulate:
        simulate(options.simulate)
    if options.model:
        measure(options)


if __name__ == "__main__":
    main()
