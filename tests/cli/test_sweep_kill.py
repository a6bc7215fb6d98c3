"""SIGKILL of a sweep at random moments: no finished cell is lost, and no file is half-written."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run
from emca_deploy.results.codec import read_json
from emca_deploy.results.sweep import SweepReport, read_cell
from zoo.networks import squeeze_excitation, to_onnx

KILLS = 20
QUICK = "[measure]\nduration = 0.1\nwarmup = 0\ntelemetry = false\n"
FAKES = f"""models = ["fake:latency_ms=1", "fake:latency_ms=2"]
backends = "fake"
threads = {list(range(1, 21))}
{QUICK}"""
NETWORK = f"""models = "net.onnx"
backends = ["onnxruntime", "openvino"]
batch = [1, 2, 3]
threads = 1
data = "data.npz"
val = "val.npz"
samples = 4
{QUICK}"""


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


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with a small network and images of four classes."""
    monkeypatch.chdir(tmp_path)
    onnx.save(to_onnx(squeeze_excitation, size=16), tmp_path / "net.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)
    for name, some in (("data", pixels[:4]), ("val", pixels[4:])):
        np.savez(tmp_path / f"{name}.npz", images=some, labels=np.arange(4))


@pytest.mark.slow
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("plan", "cells"), [(FAKES, 40), (NETWORK, 12)], ids=["cells", "shared work"])
def test_a_sweep_survives_being_killed_at_random_moments(plan, cells, tmp_path):
    (tmp_path / "plan.toml").write_text(plan)
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
    assert len(after) == cells
    assert kept.items() <= after.items()
    hidden = [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]
    assert not hidden
    for path in (tmp_path / "out" / "shared").rglob("*.manifest.json"):
        assert read_manifest(path.with_name(path.name.removesuffix(".manifest.json"))) is not None
