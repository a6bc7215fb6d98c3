"""Measure the fleet: `python benchmarks/fleet.py shards [VAL]|overhead|kills`; run it on an otherwise idle machine.

shards: images/s of two pinned local workers over one, five times each in turn, on the bundled images or those in VAL.
overhead: milliseconds that a call of a worker adds to its work. kills: SIGKILL of the sweep or of one of its workers at 20 random
moments; no finished cell may be lost.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from emca_deploy.api.fleet import ClusterOptions
from emca_deploy.data.bundled import bundled_checkpoint, bundled_test_images
from emca_deploy.fleet.cluster import connected
from emca_deploy.fleet.fleet import Fleet
from emca_deploy.requests import DeploymentRequest
from emca_deploy.results.codec import to_json
from emca_deploy.results.sweep import read_cell
from emca_deploy.targets.registry import parse
from emca_deploy.targets.shipment import Shipment

MEASURE = "[measure]\nduration = 0.1\nwarmup = 0\ntelemetry = false\n"
SHARDS = f"""models = "{bundled_checkpoint()}"
precision = "fp32"
backends = "onnxruntime"
image_size = 64
threads = 1
val = "{sys.argv[2] if len(sys.argv) > 2 else bundled_test_images()}"
{MEASURE}"""
FAKES = f'models = ["fake:latency_ms=1", "fake:latency_ms=2"]\nbackends = "fake"\nthreads = {list(range(1, 21))}\n{MEASURE}'
TIMES, CALLS, KILLS = 5, 100, 20


def sweep(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "emca_deploy", "sweep", str(folder / "plan.toml"), "-o", str(folder / "out"), *words]


def shards(folder: Path) -> None:
    (folder / "plan.toml").write_text(SHARDS)
    rates: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(TIMES):
        for workers, found in rates.items():
            subprocess.run(sweep(folder, "--local-workers", workers, "--pin"), check=True, capture_output=True)
            for path in (folder / "out" / "shared").glob("accuracy-*/accuracy.json"):
                found.append(json.loads(path.read_text())["images_per_s"])
            for kind in ("accuracy", "logits"):
                for path in (folder / "out" / "shared").glob(f"{kind}-*/*"):
                    path.unlink()
            for path in (folder / "out" / "cells").iterdir():
                path.unlink()
    one, two = (statistics.median(found) for found in rates.values())
    print(f"1 worker {one:.0f} images/s, 2 workers {two:.0f} images/s: {two / one:.2f}x")


def overhead(folder: Path) -> None:
    del folder
    request = DeploymentRequest("cpu", ("onnxruntime",))
    began = time.perf_counter()
    for _ in range(CALLS):
        parse("cpu").deployment(request.backends)
    work_s = time.perf_counter() - began
    with connected(ClusterOptions(local_workers=2)) as client, Fleet(client) as fleet:
        call_s = []
        for _ in range(CALLS):
            began = time.perf_counter()
            fleet.call("deployment", to_json(request), Shipment(), lambda worker: True, "overhead", alone=True)
            call_s.append(time.perf_counter() - began)
    ms = 1e3 * (statistics.median(call_s) - work_s / CALLS)
    print(f"a call adds {ms:.1f} ms to its work (median of {CALLS}, 95th percentile {1e3 * sorted(call_s)[-CALLS // 20]:.1f} ms)")


def children(parent: int) -> list[int]:
    """Return the processes that any thread of a process started."""
    found = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for path in found for pid in path.read_text().split()]


def finished(folder: Path) -> dict[str, int]:
    """Read every cell, which raises for a half-written one, and return the times of the files by name."""
    cells = folder / "out" / "cells"
    found = [path for path in cells.glob("*.json") if not path.name.startswith(".")] if cells.is_dir() else []
    return {path.name: path.stat().st_mtime_ns for path in found if read_cell(path).status == "done"}


def kills(folder: Path) -> None:
    (folder / "plan.toml").write_text(FAKES)
    moments, kept = random.Random(0), dict[str, int]()
    whom = {"sweep": 0, "worker": 0}
    for number in range(KILLS):
        with subprocess.Popen(sweep(folder, "--local-workers", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            time.sleep(moments.uniform(1, 10))
            workers = children(run.pid)
            one = moments.choice(workers) if number % 2 and workers else run.pid
            whom["sweep" if one == run.pid else "worker"] += 1
            os.kill(one, signal.SIGKILL)
            if one != run.pid:
                time.sleep(moments.uniform(0, 3))
                run.kill()
        now = finished(folder)
        assert kept.items() <= now.items(), "a finished cell was lost"
        kept = now
    subprocess.run(sweep(folder, "--local-workers", "2"), check=True, capture_output=True)
    after = finished(folder)
    assert kept.items() <= after.items()
    assert len(after) == 40
    print(f"killed {whom}: {len(kept)} cells were finished by then and kept, all 40 after one more run")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fleet-") as place:
        {"shards": shards, "overhead": overhead, "kills": kills}[sys.argv[1]](Path(place))
