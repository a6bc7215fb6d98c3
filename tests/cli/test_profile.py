import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emca_deploy.cli import run
from emca_deploy.harness.measure.raw_samples import read_raw
from emca_deploy.results.latency import verdict_of

QUICK_IN_SEVERAL = ["--duration", "0.2", "--max-duration", "0.4", "--warmup", "0.05", "--threads", "1"]
QUICK = [*QUICK_IN_SEVERAL, "--processes", "1"]
FAKE = "fake:latency_ms=1"
SLOW = pytest.mark.slow


def test_json_is_as_the_design_says_and_alone_on_stdout(capsys):
    assert run(["profile", FAKE, "fake:latency_ms=3", "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {
        "schema_version", "results", "comparisons", "environment", "protocol", "complete", "failures"
    }  # fmt: skip
    assert (document["schema_version"], document["complete"], document["failures"]) == (2, True, [])
    first, second = document["results"]
    assert (first["artifact"], first["backend"], first["precision"], first["target"]) == (FAKE, "fake", "fp32", "cpu")
    assert (first["scenario"], first["batch"]) == ("single-stream", 1)
    bounds = {f"{name}_upper95" for name in ("p90", "p95", "p99", "p99_9")}
    assert set(first["latency_ms"]) == {"min", "mean", "p50", "p90", "p95", "p99", "p99_9", "max", "std", "p50_ci95"} | bounds
    assert len(first["samples_ms"]) == first["samples"] > 0
    for name in ("load_ms", "first_inference_ms", "peak_rss_mib", "throughput_images_per_s"):
        assert first[name] > 0
    assert isinstance(first["stable"], bool)
    assert isinstance(first["warnings"], list)
    (comparison,) = document["comparisons"]
    assert (comparison["a"], comparison["b"]) == (second["artifact"], first["artifact"])
    assert comparison["ratio_p50"] < 1
    assert comparison["verdict"] == verdict_of(tuple(comparison["ratio_ci95"]))


@pytest.mark.usefixtures("in_process")
def test_protocol_is_declared_for_the_run_and_every_result(capsys):
    arguments = ["--max-duration", "0.6", "--seed", "7", "--batch", "2"]
    assert run(["profile", FAKE, "fake:latency_ms=2", "--json", *QUICK, *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    protocol = document["protocol"]
    assert (protocol["scenario"], protocol["headline"], protocol["batch"], protocol["seed"]) == ("single-stream", "p90", 2, 7)
    assert (protocol["duration_s"], protocol["max_duration_s"], protocol["block_s"]) == (0.2, 0.6, 0.02)
    assert protocol["stop"] in ("interval within 1 %", "time limit")
    assert protocol["timing_boundary"].startswith("host call")
    for result in document["results"]:
        assert {**result["protocol"], "warm_up": None} == protocol
        assert result["protocol"]["warm_up"]["calls"] >= 3
        assert len(result["block_calls"]) == protocol["rounds"]
        assert sum(result["block_calls"]) == result["samples"]


@pytest.mark.usefixtures("in_process")
def test_a_duration_that_is_no_less_than_the_most_is_kept_to(capsys):
    assert run(["profile", FAKE, "--json", *QUICK, "--max-duration", "0.2"]) == 0
    protocol = json.loads(capsys.readouterr().out)["protocol"]
    assert (protocol["rounds"], protocol["stop"]) == (10, "fixed duration")


@pytest.mark.usefixtures("in_process")
def test_table_names_every_artifact_and_warnings_go_to_stderr(capsys):
    assert run(["profile", FAKE, "fake:latency_ms=3", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert FAKE in out
    assert "fake:latency_ms=3" in out
    assert "images/s" in out
    assert "p99.9" in err
    assert "warning:" not in out


@pytest.mark.usefixtures("in_process")
def test_offline_uses_batches(capsys):
    assert run(["profile", FAKE, "--scenario", "offline", "--json", *QUICK]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["batch"] == 8
    seconds = sum(result["block_wall_ms"]) / 1000
    assert result["throughput_images_per_s"] == pytest.approx(8 * result["samples"] / seconds)
    assert seconds * 1000 >= sum(result["samples_ms"])
    low, high = result["throughput_ci95"]
    assert low <= high
    assert result["protocol"]["headline"] == "throughput"


@pytest.mark.usefixtures("in_process")
def test_output_file_is_the_same_document(tmp_path, capsys):
    path = tmp_path / "result.json"
    assert run(["profile", FAKE, "--json", "-o", str(path), *QUICK]) == 0
    assert json.loads(path.read_text()) == json.loads(capsys.readouterr().out)
    assert os.listdir(tmp_path) == ["result.json"]  # noqa: PTH208


@pytest.mark.usefixtures("in_process")
def test_raw_samples_lie_beside_the_document_and_may_replace_its_own(tmp_path, capsys):
    raw, path = tmp_path / "raw.npz", tmp_path / "result.json"
    assert run(["profile", FAKE, "--raw", str(raw), "-o", str(path), "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["raw_samples"] == "raw.npz"
    (candidate,) = read_raw(raw).candidates
    assert list(candidate.calls_ns / 1e6) == pytest.approx(document["results"][0]["samples_ms"])
    assert list(candidate.block_calls) == document["results"][0]["block_calls"]
    assert run(["profile", FAKE, "--raw", str(raw), "-o", str(path), "--no-samples", *QUICK]) == 0
    (result,) = json.loads(path.read_text())["results"]
    assert result["samples_ms"] == []
    assert result["samples"] == len(read_raw(raw).candidates[0].calls_ns)
    assert run(["profile", FAKE, "--no-samples", *QUICK]) == 2
    assert run(["profile", FAKE, "--raw", str(raw), "-o", str(raw), *QUICK]) == 2


@pytest.mark.usefixtures("in_process")
def test_several_builds_are_one_candidate(capsys):
    builds = "fake:latency_ms=2+fake:latency_ms=2,seed=3"
    assert run(["profile", FAKE, builds, "--json", *QUICK]) == 0
    first, second = json.loads(capsys.readouterr().out)["results"]
    assert "builds" not in first
    assert (second["artifact"], second["builds"]) == (builds, builds.split("+"))
    assert set(second["block_builds"]) == {0, 1}
    assert run(["profile", "fake:latency_ms=2+", *QUICK]) == 2
    assert run(["profile", "fake:seed=1+fake:seed=1", *QUICK]) == 2


@pytest.mark.usefixtures("in_process")
def test_same_artifact_twice_has_two_names(capsys):
    assert run(["profile", FAKE, FAKE, "--json", *QUICK]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert comparison["a"] != comparison["b"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.onnx"], 2, "missing.onnx"),
        ([FAKE, "--target", "gpu:0"], 2, FAKE),
        ([FAKE, "--target", "ssh://me@"], 2, "'ssh://me@'"),
        ([FAKE, "--target", "moon"], 2, "'moon'"),
        ([FAKE, "--backend", "onnx"], 2, "nearest: onnxruntime"),
        ([FAKE, "--backend", "onnxruntime"], 2, FAKE),
        (["fake:speed=1"], 2, "'speed=1'"),
        (["fake:crash_at=1"], 1, "41"),
        (["fake:fail_at=3"], 2, "fake:fail_at=3"),
        ([FAKE, "-o", "no/such/folder/r.json"], 2, "no/such/folder/r.json"),
        ([], 2, "ARTIFACT"),
        ([FAKE, "--batch", "0"], 2, "--batch"),
    ],
)
def test_bad_input_is_two_lines_and_a_code(arguments, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["profile", *arguments, *QUICK]) == code
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_old_result(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    assert run(["profile", "fake:crash_at=4", "-o", str(path), *QUICK]) == 1
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_one_candidate_that_fails_does_not_fail_the_others(tmp_path, capsys):
    path = tmp_path / "result.json"
    assert run(["profile", FAKE, "fake:fail_at=30", "fake:crash_at=1", "-o", str(path), *QUICK]) == 1
    out, err = capsys.readouterr()
    assert FAKE in out
    for name in ("fake:crash_at=1", "fake:fail_at=30"):
        assert f"error: {name}: " in err
    assert err.count("\n  try: ") == 2
    document = json.loads(path.read_text())
    assert document["complete"] is False
    assert [result["artifact"] for result in document["results"]] == [FAKE]
    assert [(f["name"], f["exit_code"]) for f in document["failures"]] == [("fake:crash_at=1", 1), ("fake:fail_at=30", 2)]


def test_a_full_disk_leaves_no_file_and_still_shows_the_table(tmp_path):
    command = [sys.executable, "-m", "emca_deploy", "profile", FAKE, "-o", str(tmp_path / "result.json"), *QUICK]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert done.returncode == 2
    assert FAKE in done.stdout
    assert "result.json: cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def children_of(pid):
    """Return the processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("after_s", [0.0, pytest.param(0.3, marks=SLOW), 0.8, pytest.param(1.5, marks=SLOW)])
def test_an_interrupt_keeps_what_is_measured_and_leaves_no_process(tmp_path, after_s):
    path = tmp_path / "result.json"
    arguments = [FAKE, "fake:latency_ms=2", "-o", str(path), "--duration", "30", "--warmup", "0.2", "--threads", "1"]
    command = [sys.executable, "-m", "emca_deploy", "profile", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert wait_for(lambda: children_of(process.pid) or process.poll() is not None)
            time.sleep(after_s)
            workers = children_of(process.pid)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert [p.name for p in tmp_path.iterdir()] == (["result.json"] if path.exists() else [])
    if path.exists():
        document = json.loads(path.read_text())
        assert document["complete"] is False
        assert document["protocol"]["stop"] == "interrupted"
        assert all(result["samples"] > 0 for result in document["results"])
        assert FAKE in out


@pytest.mark.parametrize("command", ["profile", "validate"])
def test_help_has_an_example_and_loads_no_runtime(command):
    code = (
        "import sys; from emca_deploy.cli import run; run([sys.argv[1], '--help']); "
        "raise SystemExit(' '.join({'torch', 'onnx', 'onnxruntime', 'openvino', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=False)
    assert f"emca-deploy {command} model" in done.stdout
    assert done.stderr.strip() == ""


@pytest.mark.usefixtures("in_process")
def test_what_is_compared_runs_in_several_processes_unless_told_otherwise(capsys):
    def processes(*arguments):
        assert run(["profile", *arguments, "--json", *QUICK_IN_SEVERAL]) == 0
        document = json.loads(capsys.readouterr().out)
        return document["protocol"]["processes"], len(set(document["results"][0].get("block_builds", [0])))

    asked, ran = processes(FAKE, "fake:latency_ms=3")
    assert asked == 8
    assert ran >= 8
    assert processes(FAKE) == (1, 1)
    assert processes(FAKE, "fake:latency_ms=3", "--processes", "1") == (1, 1)
