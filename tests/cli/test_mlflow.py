"""`--mlflow` logs results once, after they are written; nothing is lost where the server is not there.

The server's test needs all of MLflow: it runs `mlflow server` of this environment, or the program EMCA_DEPLOY_TEST_MLFLOW.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from emca_deploy.cli import run

DOCUMENTS = Path(__file__).parents[1] / "unit" / "results" / "documents"
QUICK = "[measure]\nduration = 0.1\nwarmup = 0\ntelemetry = false\n"
PLAN = f'models = ["fake:latency_ms=1", "fake:fail_at=1"]\nbackends = "fake"\nthreads = 1\n{QUICK}'
PROFILE = ["profile", "fake:latency_ms=1", "--backend", "fake", "--duration", "0.1", "--warmup", "0", "--no-telemetry"]
LONGEST_S = 120.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the URI of MLflow's store of files, the only one that mlflow-skinny has without a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return str(tmp_path / "runs")


def runs_in(uri):
    """Return the logged runs by name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'emca-deploy'")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    names = [each.info.run_name for each in found]
    assert len(set(names)) == len(names)
    return {each.info.run_name: each for each in found}


def files_of(uri, logged):
    from mlflow.tracking import MlflowClient

    return {file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(logged.info.run_id)}


@pytest.mark.usefixtures("in_process")
def test_a_profile_is_logged_with_its_intervals(folder, tmp_path, capsys):
    assert run([*PROFILE, "-o", "result.json", "--json", "--mlflow", folder]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(Path("result.json").read_text())
    ((name, logged),) = runs_in(folder).items()
    assert name == "fake:latency_ms=1"
    assert logged.info.status == "FINISHED"
    metrics = logged.data.metrics
    assert metrics["p50_ms"] == pytest.approx(document["results"][0]["latency_ms"]["p50"])
    assert metrics["p50_ms_low"] <= metrics["p50_ms"] <= metrics["p50_ms_high"]
    params = logged.data.params
    assert (params["model"], params["backend"], params["batch"]) == ("fake:latency_ms=1", "fake", "1")
    assert params["machine"] == document["environment"]["fingerprint"]
    assert logged.data.tags["emca_deploy.version"] == document["environment"]["emca_deploy"]
    assert files_of(folder, logged) == {"result.json"}


@pytest.mark.usefixtures("in_process")
def test_a_sweep_is_a_parent_with_its_cells_and_logs_none_twice(folder, capsys):
    Path("plan.toml").write_text(PLAN)
    assert run(["sweep", "plan.toml", "-o", "out", "--mlflow", folder]) != 0  # a cell failed
    first = runs_in(folder)
    assert {name: each.info.status for name, each in first.items()} == {
        "out": "FINISHED",
        "fake:latency_ms=1 fake fp32 cpu single-stream batch=1 threads=1": "FINISHED",
        "fake:fail_at=1 fake fp32 cpu single-stream batch=1 threads=1": "FAILED",
    }
    parent = first.pop("out")
    assert files_of(folder, parent) == {"sweep.json"}
    assert {each.data.tags["mlflow.parentRunId"] for each in first.values()} == {parent.info.run_id}
    for each in first.values():
        assert files_of(folder, each) == {f"{each.data.tags['emca_deploy.key']}.json"}
    Path("plan.toml").write_text(PLAN.replace("fake:fail_at=1", "fake:latency_ms=2"))
    assert run(["sweep", "plan.toml", "-o", "out", "--mlflow", folder]) == 0
    second = runs_in(folder)
    assert {name: each.info.run_id for name, each in second.items()}.items() >= {
        name: each.info.run_id for name, each in first.items()
    }.items()
    assert len(second) == 4
    capsys.readouterr()
    assert run(["history", "add", "out", "--mlflow", folder]) == 0
    assert "0 runs" in capsys.readouterr().err
    assert runs_in(folder).keys() == second.keys()


def test_a_deployment_is_a_parent_with_its_candidates(folder, tmp_path):
    shutil.copy(DOCUMENTS / "deploy-v2.json", tmp_path / "result.json")
    (tmp_path / "report.html").write_text("a page")
    assert run(["history", "add", str(tmp_path), "--mlflow", folder]) == 0
    found = runs_in(folder)
    (parent,) = (each for each in found.values() if "mlflow.parentRunId" not in each.data.tags)
    assert files_of(folder, parent) == {"result.json", "report.html"}
    children = [each for each in found.values() if each is not parent]
    assert len(children) == len(json.loads((tmp_path / "result.json").read_text())["candidates"])
    assert all({"p50_ms", "p99_ms", "size_mib"} <= each.data.metrics.keys() for each in children)
    assert sum("drop_points_high" in each.data.metrics for each in children) == len(children) - 1


def test_a_result_without_a_file_is_refused(folder, refused):
    assert "-o" in refused(*PROFILE, "--mlflow", folder)


def test_a_server_that_is_not_there_is_found_before_measuring(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    place = tmp_path / "result.json"
    shown = refused(*PROFILE, "-o", place, "--mlflow", "http://me:secret@127.0.0.1:9", code=3)
    assert "127.0.0.1:9: MLflow cannot be used: Connection refused" in shown
    assert "secret" not in shown
    assert not place.exists()


@pytest.mark.parametrize("uri", ["http://[bad", "nothing://host", "sqlite:////none/at/all.db"])
def test_an_address_that_cannot_be_used_is_refused(uri, tmp_path, refused):
    assert uri in refused(*PROFILE, "-o", tmp_path / "result.json", "--mlflow", uri, code=3)


@pytest.mark.usefixtures("in_process")
def test_a_server_that_fails_later_loses_no_measurement(folder, monkeypatch, capsys):
    from mlflow.tracking import MlflowClient

    fill = MlflowClient.log_batch

    def fail(*words, **values):
        raise ConnectionError("gone")

    monkeypatch.setattr(MlflowClient, "log_batch", fail)
    assert run([*PROFILE, "-o", "result.json", "--mlflow", folder]) == 2
    assert "p50" in Path("result.json").read_text()
    command = capsys.readouterr().err.splitlines()[-1].removeprefix("  try: ").split()
    monkeypatch.setattr(MlflowClient, "log_batch", fill)
    assert command[0] == "emca-deploy"
    assert run(command[1:]) == 0
    (logged,) = runs_in(folder).values()
    assert logged.info.status == "FINISHED"
    assert "p50_ms" in logged.data.metrics


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Yield the address of a real server, which keeps its runs in a database and its artifacts in a folder."""
    program = os.environ.get("EMCA_DEPLOY_TEST_MLFLOW") or shutil.which("mlflow")
    if program is None or (not os.environ.get("EMCA_DEPLOY_TEST_MLFLOW") and find_spec("flask") is None):
        pytest.skip("`mlflow server` is not installed: pip install mlflow, or set EMCA_DEPLOY_TEST_MLFLOW to its program")
    place = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--backend-store-uri", f"sqlite:///{place}/runs.db", "--artifacts-destination", str(place / "artifacts")]
    command = [program, "server", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--workers", "1", *options]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place, start_new_session=True)
    try:
        deadline = time.monotonic() + LONGEST_S
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (place / "log").read_text()
                assert time.monotonic() < deadline, (place / "log").read_text()
                time.sleep(0.2)
        yield f"http://{address}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_real_server_gets_runs_and_files(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(PLAN)
    for _ in range(2):
        assert run(["--quiet", "sweep", "plan.toml", "-o", "out", "--json", "--mlflow", server]) != 0
        out, _ = capsys.readouterr()
        assert len(json.loads(out)["cells"]) == 2
    found = runs_in(server)
    parent = found.pop("out")
    assert {each.info.status for each in found.values()} == {"FINISHED", "FAILED"}
    assert {each.data.tags["mlflow.parentRunId"] for each in found.values()} == {parent.info.run_id}
    assert files_of(server, parent) == {"sweep.json"}
    for each in found.values():
        assert files_of(server, each) == {f"{each.data.tags['emca_deploy.key']}.json"}
