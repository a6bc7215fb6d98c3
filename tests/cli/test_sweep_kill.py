"""SIGKILL of a sweep at random moments: no finished cell is lost, and no file is half-written."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from emca_deploy.cli import run
from emca_deploy.results.codec import read_json
from emca_deploy.results.sweep import SweepReport, read_cell

KILLS = 20
CELLS = 40
PLAN = f"""models = ["fake:latency_ms=1", "fake:latency_ms=2"]
backends = "fake"
threads = {list(range(1, CELLS // 2 + 1))}
[measure]
duration = 0.1
warmup = 0
telemetry = false
"""


def finished(folder):
    """Read every cell as the next run would, and return its file's time by name."""
    cells = folder / "cells"
    found = {}
    for path in cells.glob("*.json") if cells.is_dir() else ():
        if not path.name.startswith("."):
            assert read_cell(path).status == "done"
            found[path.name] = path.stat().st_mtime_ns
    if (folder / "sweep.json").exists():
        read_json(SweepReport, folder / "sweep.json", "an index", "")
    return found


@pytest.mark.slow
def test_a_sweep_survives_being_killed_at_random_moments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    moments = random.Random(0)
    kept = {}
    killed = 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", "emca_deploy", "sweep", "plan.toml", "-o", "out"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(moments.uniform(0.2, 5))
            killed += process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
        now = finished(tmp_path / "out")
        assert kept.items() <= now.items()
        kept = now
    assert killed > KILLS // 2
    assert run(["sweep", "plan.toml", "-o", "out"]) == 0
    after = finished(tmp_path / "out")
    assert len(after) == CELLS
    assert kept.items() <= after.items()
    hidden = [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]
    assert not hidden
