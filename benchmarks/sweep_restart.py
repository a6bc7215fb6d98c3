"""How long a sweep of 40 cells takes from its start to the beginning of its first new cell.

    python benchmarks/sweep_restart.py [--runs 10] [--json FILE]

The plan is the bundled network on both processor backends, in fp32 and INT8, for two scenarios and five batches, with accuracy.
The first run measures all cells briefly (one to two minutes); then one cell's file is removed before each timed run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

PLAN = """models = ["{checkpoint}"]
image_size = 64
backends = ["onnxruntime", "openvino"]
precision = ["fp32", "int8"]
scenario = ["single-stream", "offline"]
batch = [1, 2, 4, 8, 16]
threads = 1
data = "{calibration}"
val = "{validation}"
limit = 100
samples = 16
recover = "none"
[measure]
duration = 0.1
warmup = 0
telemetry = false
"""

CHILD = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from emca_deploy.api.sweep import SweepRequest, sweep

@contextmanager
def stage(name):
    print(name, time.process_time(), time.monotonic(), flush=True)
    yield None

sweep(SweepRequest(Path("plan.toml"), Path("out")), stage)
"""


def first_stage_s(folder: Path) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first stage of work, and its processor time until then."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=folder, check=True, capture_output=True, text=True)
    _, processor_s, until = done.stdout.splitlines()[0].rsplit(" ", 2)
    return float(until) - started, float(processor_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from emca_deploy.data import bundled

    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = (bundled.bundled_checkpoint(), bundled.bundled_calibration_images(), bundled.bundled_test_images())
        text = PLAN.format(**dict(zip(("checkpoint", "calibration", "validation"), paths, strict=True)))
        (folder / "plan.toml").write_text(text, encoding="utf-8")
        subprocess.run([sys.executable, "-m", "emca_deploy", "sweep", "plan.toml", "-o", "out"], cwd=folder, check=True)
        cells = sorted((folder / "out" / "cells").glob("*.json"))
        seconds, processor = [], []
        for index in range(arguments.runs):
            cells[index % len(cells)].unlink()
            for times, found in zip((seconds, processor), first_stage_s(folder), strict=True):
                times.append(found)
            print(f"run {index + 1}: {seconds[-1]:.2f} s, {processor[-1]:.2f} s of the processor")
    print(
        f"{len(cells)} cells, {len(seconds)} runs: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s; "
        f"processor median {statistics.median(processor):.2f} s"
    )
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps({"cells": len(cells), "seconds": seconds, "processor_seconds": processor}, indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
