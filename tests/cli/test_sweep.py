"""`sweep`: cells are measured once, kept in files, and never lost."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from emca_deploy.api import sweep as module
from emca_deploy.api.sweeping import cells
from emca_deploy.cli import run
from emca_deploy.results.codec import read_json
from emca_deploy.results.sweep import SweepReport, read_cell
from zoo.networks import squeeze_excitation, to_onnx

QUICK = "[measure]\nduration = 0.1\nwarmup = 0\ntelemetry = false\n"
FAKE = f'models = ["fake:latency_ms=1", "fake:latency_ms=2"]\nbackends = "fake"\nthreads = [1, 2]\n{QUICK}'
BROKEN = f'models = ["fake:latency_ms=1", "fake:fail_at=1"]\nbackends = "fake"\nthreads = 1\n{QUICK}'


def document(capsys):
    return json.loads(capsys.readouterr().out)


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}


def index(folder):
    return read_json(SweepReport, folder / "sweep.json", "an index", "")


@pytest.mark.usefixtures("in_process")
def test_a_second_run_measures_nothing_again(plan, tmp_path, capsys):
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--json"]) == 0
    first = document(capsys)
    before = stamps(tmp_path / "out")
    assert {row["status"] for row in first["cells"]} == {"done"}
    assert {f"{row['key']}.json" for row in first["cells"]} == set(before)
    assert run(["sweep", "plan.toml", "-o", "out", "--json"]) == 0
    assert stamps(tmp_path / "out") == before
    assert document(capsys)["cells"] == first["cells"]
    fastest = [row for row in first["cells"] if row["pareto"]]
    assert {row["cell"]["model"] for row in fastest} == {"fake:latency_ms=1", "fake:latency_ms=2"}  # no accuracy: one each


@pytest.mark.usefixtures("in_process")
def test_a_changed_plan_adds_cells(plan, tmp_path):
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--only", "backends=fake", "--only", "threads=1"]) == 0
    before = stamps(tmp_path / "out")
    assert len(before) == 2
    plan(FAKE.replace("[1, 2]", "[1, 3]"))
    assert run(["sweep", "plan.toml", "-o", "out"]) == 0
    after = stamps(tmp_path / "out")
    assert len(after) == 4
    assert before.items() <= after.items()
    plan(FAKE.replace("duration = 0.1", "duration = 0.2"))
    assert run(["sweep", "plan.toml", "-o", "out"]) == 0
    assert len(stamps(tmp_path / "out")) == 8


@pytest.mark.usefixtures("in_process")
def test_a_failed_cell_is_kept_and_stops_nothing(plan, tmp_path, capsys):
    plan(BROKEN)
    assert run(["sweep", "plan.toml", "-o", "out", "--json"]) == 2
    rows = {row["cell"]["model"]: row for row in document(capsys)["cells"]}
    assert rows["fake:latency_ms=1"]["status"] == "done"
    failed = rows["fake:fail_at=1"]
    assert (failed["status"], failed["exit_code"]) == ("failed", 2)
    assert failed["reason"]
    kept = read_cell(tmp_path / "out" / "cells" / f"{failed['key']}.json")
    assert kept.failure is not None
    assert kept.failure.remedy
    before = stamps(tmp_path / "out")
    assert run(["sweep", "plan.toml", "-o", "out"]) == 2
    assert stamps(tmp_path / "out") == before
    assert run(["sweep", "plan.toml", "-o", "out", "--retry-failed"]) == 2
    changed = {name for name, stamp in stamps(tmp_path / "out").items() if stamp != before[name]}
    assert changed == {f"{failed['key']}.json"}


def test_a_dry_run_writes_nothing(plan, tmp_path, capsys):
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--dry-run", "--json"]) == 0
    rows = document(capsys)["cells"]
    assert {row["status"] for row in rows} == {"pending"}
    assert all(row["estimate_s"] > 0 for row in rows)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_a_spent_budget_lists_what_was_not_measured(plan, tmp_path, capsys):
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--budget", "0", "--json"]) == 0
    report = document(capsys)
    assert not report["complete"]
    assert all(row["status"] == "pending" and row["reason"] for row in report["cells"])
    assert not stamps(tmp_path / "out")


@pytest.mark.usefixtures("in_process")
def test_within_a_budget_likely_cells_come_first_and_the_others_are_predicted(plan, tmp_path, monkeypatch, capsys):
    seconds = itertools.count(0, 18)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    plan(FAKE.replace("[1, 2]", "[1, 2, 3, 4]"))
    assert run(["sweep", "plan.toml", "-o", "out", "--budget", "1m", "--json"]) == 0
    rows = document(capsys)["cells"]
    assert any(row["status"] == "done" for row in rows)
    left = [row for row in rows if row["status"] == "pending"]
    assert left
    for row in left:
        low, high = row["predicted_ci95_ms"]
        assert low < row["predicted_ms"] < high
        assert 0 <= row["front_chance"] <= 1
        assert row["reason"]


@pytest.mark.parametrize("only", ["backend=openvino", "*int8*", "threads=7"])
def test_a_condition_without_a_cell_is_refused(only, plan, tmp_path, refused):
    plan(FAKE)
    assert only in refused("sweep", "plan.toml", "-o", "out", "--only", only)
    assert not (tmp_path / "out").exists()


def test_a_condition_on_an_unknown_value_is_refused(plan, refused):
    plan(FAKE)
    assert "nearest: backend" in refused("sweep", "plan.toml", "-o", "out", "--only", "bakend=fake")


@pytest.mark.usefixtures("in_process")
def test_an_interrupt_keeps_finished_cells(plan, tmp_path, monkeypatch):
    plan(FAKE)
    measured = cells.profile
    calls = []

    def third_is_interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(cells, "profile", third_is_interrupted)
    assert run(["sweep", "plan.toml", "-o", "out"]) == 130
    assert len(stamps(tmp_path / "out")) == 2
    assert [row.status for row in index(tmp_path / "out").cells] == ["done", "done", "pending", "pending"]
    before = stamps(tmp_path / "out")
    assert run(["sweep", "plan.toml", "-o", "out"]) == 0
    assert before.items() <= stamps(tmp_path / "out").items()
    assert len(stamps(tmp_path / "out")) == 4


@pytest.mark.usefixtures("in_process")
def test_a_lost_or_damaged_index_is_made_again(plan, tmp_path, capsys):
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out", "--json"]) == 0
    first = document(capsys)
    (tmp_path / "out" / "sweep.json").write_text("{")
    assert run(["sweep", "plan.toml", "-o", "out", "--json"]) == 0
    assert document(capsys)["cells"] == first["cells"]


def start(*words):
    command = [sys.executable, "-m", "emca_deploy", "sweep", "plan.toml", "-o", "out", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_killed_sweep_goes_on_and_a_second_one_is_refused_meanwhile(plan, tmp_path, refused):
    plan(FAKE.replace("duration = 0.1", "duration = 30").replace("threads = [1, 2]", "threads = 1"))
    with start() as process:
        try:
            wait_for((tmp_path / "out" / "sweep.json").exists)
            said = refused("sweep", "plan.toml", "-o", "out")
            assert str(process.pid) in said
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert not stamps(tmp_path / "out")
    assert run(["sweep", "plan.toml", "-o", "out", "--budget", "0"]) == 0


@pytest.mark.usefixtures("in_threads")
def test_a_changed_model_is_a_changed_cell_and_shared_work_is_done_once(plan, tmp_path, capsys):
    """One model, two batches: one calibration and one accuracy for each precision."""
    network = to_onnx(squeeze_excitation, size=16)
    onnx.save(network, tmp_path / "net.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)
    for name, some in (("data", pixels[:4]), ("val", pixels[4:])):
        np.savez(tmp_path / f"{name}.npz", images=some, labels=np.arange(4) % 3)
    text = 'models = ["net.onnx"]\nbackends = "onnxruntime"\nbatch = [1, 2]\nthreads = 1\nrecover = "none"\nsamples = 4\n'
    plan(f'{text}data = "data.npz"\nval = "val.npz"\n{QUICK}')
    assert run(["sweep", "plan.toml", "-o", "out", "--json"]) == 0
    first = document(capsys)
    assert {(row["cell"]["precision"], row["cell"]["batch"]) for row in first["cells"] if row["status"] == "done"} == {
        (precision, batch) for precision in ("fp32", "int8") for batch in (1, 2)
    }
    assert all(row["metric"] == "top-1" for row in first["cells"])
    assert any(row["pareto"] for row in first["cells"])
    for one in first["cells"]:
        kept = read_cell(tmp_path / "out" / "cells" / f"{one['key']}.json")
        assert set(kept.files) == {"model", "logits", "reference_logits"}
        assert (kept.files["logits"] == kept.files["reference_logits"]) == (one["cell"]["precision"] == "fp32")
        assert (tmp_path / "out" / kept.artifact).is_file()
        assert all((tmp_path / "out" / file).is_file() or file == "net.onnx" for file in kept.files.values())
    made = sorted(path.name.partition("-")[0] for path in (tmp_path / "out" / "shared").iterdir())
    assert made == ["accuracy"] * 2 + ["engine"] * 4 + ["int8", "logits", "ranges"]
    (tmp_path / "net.onnx").rename(tmp_path / "moved.onnx")
    plan((tmp_path / "plan.toml").read_text().replace("net.onnx", "moved.onnx"))
    assert run(["sweep", "plan.toml", "-o", "out", "--dry-run", "--json"]) == 0
    assert {row["key"]: row["status"] for row in document(capsys)["cells"]} == {row["key"]: "done" for row in first["cells"]}
    plan((tmp_path / "plan.toml").read_text().replace("moved.onnx", "net.onnx"))
    network.doc_string = "another file of the same network"
    onnx.save(network, tmp_path / "net.onnx")
    assert run(["sweep", "plan.toml", "-o", "out", "--dry-run", "--json"]) == 0
    keys = {row["key"] for row in document(capsys)["cells"]}
    assert not keys & {row["key"] for row in first["cells"]}


@pytest.mark.slow
@pytest.mark.usefixtures("in_threads")
def test_probes_predict_a_real_network(plan, tmp_path, monkeypatch, capsys):
    """Two small probes are measured once; the cells that the budget leaves have a prediction of a plausible size."""
    from emca_deploy.api.sweeping import probes

    monkeypatch.setattr(probes, "_PROBES", (probes._PROBES[5], probes._PROBES[9]))
    monkeypatch.setattr(probes, "PROBE_S", 0.1)
    onnx.save(to_onnx(squeeze_excitation, size=16), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", images=np.zeros((4, 20, 20, 3), np.uint8))
    text = 'models = ["net.onnx"]\nbackends = "onnxruntime"\nbatch = [1, 2, 4]\nthreads = 1\nrecover = "none"\nsamples = 4\n'
    plan(f'{text}data = "data.npz"\n{QUICK}')
    clock = module.time.monotonic
    measured = []

    def monotonic():  # the budget is spent after the third cell
        return clock() + 1e6 * (len(measured) >= 3)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic))
    keep = module.SweepFolder.keep
    monkeypatch.setattr(module.SweepFolder, "keep", lambda folder, result: measured.append(result) or keep(folder, result))
    assert run(["sweep", "plan.toml", "-o", "out", "--budget", "10h", "--json"]) == 0
    rows = document(capsys)["cells"]
    done, left = ([row for row in rows if row["status"] == status] for status in ("done", "pending"))
    assert (len(done), len(left)) == (3, 3)
    slowest = max(row["p50_ms"] for row in done)
    assert all(slowest / 1000 < row["predicted_ms"] < slowest * 1000 for row in left)
    (folder,) = (tmp_path / "out" / "shared").glob("probes-*")
    assert {path.name for path in folder.glob("*.json")} >= {"onnxruntime-fp32-1.json", "onnxruntime-int8-1.json"}


@pytest.mark.usefixtures("in_process")
def test_an_interrupt_whose_cleaning_up_fails_is_no_failed_cell(plan, tmp_path, monkeypatch, capsys):
    def profile(*_):
        try:
            raise KeyboardInterrupt
        finally:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(cells, "profile", profile)
    plan(FAKE)
    assert run(["sweep", "plan.toml", "-o", "out"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert stamps(tmp_path / "out") == {}
