"""`sweep --cluster` and `fleet status` on a real Dask scheduler with two worker processes."""

import json
import shutil

import numpy as np
import onnx
import pytest

from emca_deploy.cli import run
from emca_deploy.results.sweep import read_cell
from zoo.networks import squeeze_excitation, to_onnx

pytest.importorskip("distributed")

QUICK = "[measure]\nduration = 0.1\nwarmup = 0\ntelemetry = false\n"
FAKE = f'models = ["fake:latency_ms=1", "fake:fail_at=1"]\nbackends = "fake"\nthreads = 1\n{QUICK}'


@pytest.fixture(scope="session")
def cluster():
    """The address of a scheduler with two workers on this machine."""
    import logging

    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        resources={"latency": 1},
        silence_logs=logging.CRITICAL,
    ) as started:
        yield started.scheduler_address


def document(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_fleet_writes_the_files_of_a_local_sweep(plan, tmp_path, cluster, capsys):
    """The cells have the same keys, so that either kind of run continues the other; a failed cell stops nothing."""
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--cluster", cluster, "--json"]) == 2
    rows = {row["cell"]["model"]: row for row in document(capsys)["cells"]}
    assert {name: row["status"] for name, row in rows.items()} == {"fake:latency_ms=1": "done", "fake:fail_at=1": "failed"}
    assert "machine" not in rows["fake:latency_ms=1"]
    kept = read_cell(tmp_path / "out" / "cells" / f"{rows['fake:latency_ms=1']['key']}.json")
    assert kept.worker == rows["fake:latency_ms=1"]["worker"]
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert run(["sweep", "plan.toml", "-o", "out"]) == 2
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()} == before


def test_accuracy_in_shards_is_that_of_a_local_run(plan, tmp_path, cluster, monkeypatch, capsys):
    """Logits, their order, labels and the accuracy are equal to the last bit."""
    from emca_deploy.fleet import shards

    monkeypatch.setattr(shards, "FEWEST_IMAGES", 16)
    onnx.save(to_onnx(squeeze_excitation, size=16), tmp_path / "net.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 20, 20, 3), np.uint8)
    np.savez(tmp_path / "val.npz", images=pixels, labels=np.arange(50) % 3)
    plan(f'models = "net.onnx"\nbackends = "onnxruntime"\nprecision = "fp32"\nthreads = 1\nlimit = 45\nval = "val.npz"\n{QUICK}')
    found = {}
    for name, words in (("fleet", ["--cluster", cluster]), ("local", [])):
        assert run(["sweep", "plan.toml", "-o", "out", "--json", *words]) == 0
        (row,) = document(capsys)["cells"]
        cell = read_cell(tmp_path / "out" / "cells" / f"{row['key']}.json")
        with np.load(tmp_path / "out" / cell.files["logits"]) as kept:
            found[name] = cell, {key: kept[key] for key in kept.files}
        shutil.rmtree(tmp_path / "out")
    (fleet, ours), (local, theirs) = found["fleet"], found["local"]
    assert fleet.key == local.key
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
    assert fleet.accuracy.top1 == local.accuracy.top1
    assert fleet.accuracy.reference.agreement == local.accuracy.reference.agreement


def test_status_names_machines_backends_and_the_latency_worker(cluster, capsys):
    assert run(["fleet", "status", "--cluster", cluster, "--json"]) == 0
    report = document(capsys)
    assert report["machines"] == 1
    assert [worker["measures"] for worker in report["workers"]] == [True, False]  # two workers share this machine
    assert all("onnxruntime" in worker["backends"] and worker["resources"] == {"latency": 1.0} for worker in report["workers"])
    assert run(["fleet", "status", "--cluster", cluster]) == 0
    assert "measures" in capsys.readouterr().out


def test_a_dry_run_on_a_fleet_writes_nothing(plan, tmp_path, cluster, capsys):
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--cluster", cluster, "--dry-run", "--json"]) == 0
    assert all(row["status"] == "pending" for row in document(capsys)["cells"])
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_does_not_answer_is_missing(plan, monkeypatch, capsys):
    from emca_deploy.fleet import cluster as module

    monkeypatch.setattr(module, "CONNECT_S", "0.2s")
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--cluster", "tcp://127.0.0.1:1"]) == 3
    assert "tcp://127.0.0.1:1" in capsys.readouterr().err
