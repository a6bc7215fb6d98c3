"""Schedulers and workers as people start them: TLS, other versions, and processes that are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from emca_deploy.artifacts import sha256_file
from emca_deploy.cli import run
from emca_deploy.results.codec import read_json
from emca_deploy.results.sweep import SweepReport, read_cell
from zoo.networks import squeeze_excitation, to_onnx

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

SWEEP = [sys.executable, "-m", "emca_deploy", "sweep", "plan.toml", "-o", "out"]
LONG = """models = ["fake:latency_ms=1", "fake:latency_ms=2", "fake:latency_ms=3"]
backends = "fake"
threads = 1
[measure]
duration = 2.0
warmup = 0
telemetry = false
"""


def wait_for(condition, seconds=90):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Started:
    """Processes that a test started; each is killed at its end."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []

    def start(self, *words, env=None):
        log = (self.folder / f"{len(self.processes)}.log").open("w")
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **(env or {})})
        self.processes.append(process)
        return process

    def scheduler(self, *more, protocol="tcp"):
        port = free_port()
        address = f"{protocol}://127.0.0.1:{port}"
        words = ["--host", address, "--no-dashboard", *more]
        return address, self.start(sys.executable, "-m", "distributed.cli.dask_scheduler", *words)

    def worker(self, address, name, *more, env=None):
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name, "--resources", "latency=1", *more]
        return self.start(sys.executable, "-m", "distributed.cli.dask_worker", address, *words, env=env)


@pytest.fixture
def started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Started(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def status(capsys, address, *words):
    """Return the usable workers of a cluster, or nothing while it has none."""
    capsys.readouterr()
    run(["fleet", "status", "--cluster", address, "--json", *words])
    out = capsys.readouterr().out
    return json.loads(out)["workers"] if out else []


def cells(folder):
    return {path.stem: read_cell(path) for path in (folder / "out" / "cells").glob("*.json")}


def test_tls(started, tmp_path, capsys):
    """The commands of docs/howto/fleet.md make certificates that work; a client without one is refused."""
    for words in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=fleet-ca -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=fleet -keyout fleet.key -out fleet.csr",
        "x509 -req -days 2 -in fleet.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out fleet.pem",
    ):
        subprocess.run(["openssl", *words.split()], check=True, capture_output=True, cwd=tmp_path)
    tls = ["--tls-ca-file", "ca.pem", "--tls-cert", "fleet.pem", "--tls-key", "fleet.key"]
    address, _ = started.scheduler("--protocol", "tls", *tls, protocol="tls")
    started.worker(address, "one", *tls)
    ours = ["--tls-ca", "ca.pem", "--tls-cert", "fleet.pem", "--tls-key", "fleet.key"]
    wait_for(lambda: status(capsys, address, *ours))
    (tmp_path / "plan.toml").write_text(LONG.replace("2.0", "0.1"))
    assert run(["sweep", "plan.toml", "-o", "out", "--cluster", address, *ours]) == 0
    assert {cell.status for cell in cells(tmp_path).values()} == {"done"}
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout x.key -out x.pem"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True, cwd=tmp_path)
    assert run(["fleet", "status", "--cluster", address, "--tls-ca", "ca.pem", "--tls-cert", "x.pem", "--tls-key", "x.key"]) == 3
    assert run(["fleet", "status", "--cluster", address, "--tls-ca", "no.pem", "--tls-cert", "x.pem", "--tls-key", "x.key"]) == 2


def test_a_killed_worker_costs_its_cell_only(started, tmp_path, capsys):
    """Its cell runs again on the other worker."""
    address, _ = started.scheduler()
    first, _ = started.worker(address, "a"), started.worker(address, "b")
    wait_for(lambda: len(status(capsys, address)) == 2)
    (tmp_path / "plan.toml").write_text(LONG)
    sweep = started.start(*SWEEP, "--cluster", address)
    wait_for(lambda: any(worker["running"] for worker in status(capsys, address)))
    first.kill()  # of one machine, the first by name measures
    assert sweep.wait(120) == 0
    found = cells(tmp_path)
    assert len(found) == 3
    assert {cell.status for cell in found.values()} == {"done"}
    assert any(cell.worker.startswith("b ") for cell in found.values())


def test_a_killed_scheduler_ends_the_run_and_the_next_one_goes_on(started, tmp_path, capsys):
    address, scheduler = started.scheduler()
    started.worker(address, "a")
    wait_for(lambda: status(capsys, address))
    (tmp_path / "plan.toml").write_text(LONG)
    sweep = started.start(*SWEEP, "--cluster", address)
    wait_for(lambda: len(cells(tmp_path)) == 1)
    scheduler.kill()
    assert sweep.wait(60) == 3
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert before
    index = read_json(SweepReport, tmp_path / "out" / "sweep.json", "an index", "")
    assert {row.status for row in index.cells} == {"done", "pending"}
    assert run(["sweep", "plan.toml", "-o", "out", "--local-workers", "1"]) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert before.items() <= after.items()
    assert len(after) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_sweep_that_ends_leaves_no_local_worker(number, code, started, tmp_path):
    (tmp_path / "plan.toml").write_text(LONG.replace("2.0", "30"))
    sweep = started.start(*SWEEP, "--local-workers", "2", env={"FLEET_OF": str(tmp_path)})

    def left():
        mark, found = f"FLEET_OF={tmp_path}".encode(), []
        for pid in [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]:
            try:
                found += [pid] if mark in Path(f"/proc/{pid}/environ").read_bytes() else []
            except OSError:
                continue
        return found

    wait_for((tmp_path / "out" / "sweep.json").exists)
    wait_for(lambda: len(left()) > 3)
    time.sleep(1)
    sweep.send_signal(number)
    assert sweep.wait(30) == code
    wait_for(lambda: not left(), 30)
    assert not list((tmp_path / "out" / "cells").iterdir())


def test_files_travel_once_to_each_worker(started, tmp_path, capsys):
    """Each worker's cache has each file under its sha256; the images are in disjoint ranges."""
    onnx.save(to_onnx(squeeze_excitation, size=16), tmp_path / "net.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 20, 20, 3), np.uint8)
    np.savez(tmp_path / "val.npz", images=pixels, labels=np.arange(300) % 3)
    address, _ = started.scheduler()
    for name in ("a", "b"):
        started.worker(address, name, "--local-directory", str(tmp_path / name))
    wait_for(lambda: len(status(capsys, address)) == 2)
    quick = "[measure]\nduration = 0.1\nwarmup = 0\ntelemetry = false\n"
    plan = 'models = "net.onnx"\nbackends = "onnxruntime"\nprecision = "fp32"\nbatch = [1, 2]\nthreads = 1\nval = "val.npz"\n'
    (tmp_path / "plan.toml").write_text(plan + quick)
    assert run(["sweep", "plan.toml", "-o", "out", "--cluster", address]) == 0
    held = {name: [path for path in (tmp_path / name).rglob("emca-deploy/*") if path.is_file()] for name in ("a", "b")}
    assert all(sha256_file(path) == path.name for paths in held.values() for path in paths)
    images = {name: {path.name for path in paths if b"images.npy" in path.read_bytes()} for name, paths in held.items()}
    assert len(images["a"]) == len(images["b"]) == 1
    assert images["a"] != images["b"]


def test_a_worker_of_another_version_is_left_out(started, tmp_path, capsys):
    other = tmp_path / "other" / "emca_deploy"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "_version.py").write_text('__version__ = "0.0.1"\n')
    address, _ = started.scheduler()
    started.worker(address, "old", env={"PYTHONPATH": str(tmp_path / "other")})
    wait_for(lambda: status(capsys, address))
    (worker,) = status(capsys, address)
    assert "0.0.1" in worker["unusable"]
    (tmp_path / "plan.toml").write_text(LONG)
    assert run(["sweep", "plan.toml", "-o", "out", "--cluster", address]) == 3
    assert "0.0.1" in capsys.readouterr().err


def test_another_kind_of_machine_is_told_apart(started, tmp_path, capsys):
    """A worker with one core has another fingerprint: its cells name the machine, and are no cells of this one."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    address, _ = started.scheduler()
    words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", "one-core", "--resources", "latency=1"]
    started.start("taskset", "-c", "0", sys.executable, "-m", "distributed.cli.dask_worker", address, *words)
    wait_for(lambda: status(capsys, address))
    (tmp_path / "plan.toml").write_text(LONG.replace("2.0", "0.1"))
    assert run(["sweep", "plan.toml", "-o", "out", "--cluster", address, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["cells"]
    (worker,) = status(capsys, address)
    assert all(worker["fingerprint"] in row["machine"] and row["machine"] in row["name"] for row in rows)
    theirs = cells(tmp_path)
    assert {cell.inputs["fingerprint"] for cell in theirs.values()} == {worker["fingerprint"]}
    assert run(["sweep", "plan.toml", "-o", "out", "--dry-run", "--json"]) == 0
    own = json.loads(capsys.readouterr().out)["cells"]
    assert {row["status"] for row in own} == {"pending"}
    assert not {row["key"] for row in own} & theirs.keys()
