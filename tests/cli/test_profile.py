import json
import os
import subprocess
import sys

import pytest

from emca_deploy.cli import run

QUICK = ["--duration", "0.2", "--warmup", "0.05", "--threads", "1"]
FAKE = "fake:latency_ms=1"


def test_json_is_as_the_design_says_and_alone_on_stdout(capsys):
    assert run(["profile", FAKE, "fake:latency_ms=3", "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"schema_version", "results", "comparisons", "environment"}
    first, second = document["results"]
    assert (first["artifact"], first["backend"], first["precision"], first["target"]) == (FAKE, "fake", "fp32", "cpu")
    assert (first["scenario"], first["batch"]) == ("single-stream", 1)
    assert set(first["latency_ms"]) == {"min", "mean", "p50", "p90", "p95", "p99", "p99_9", "max", "std", "p50_ci95"}
    assert len(first["samples_ms"]) == first["samples"] > 0
    for name in ("load_ms", "first_inference_ms", "peak_rss_mib", "throughput_images_per_s"):
        assert first[name] > 0
    assert isinstance(first["stable"], bool)
    assert isinstance(first["warnings"], list)
    (comparison,) = document["comparisons"]
    assert (comparison["a"], comparison["b"]) == (second["artifact"], first["artifact"])
    assert comparison["ratio_p50"] < 1


def test_table_names_every_artifact_and_warnings_go_to_stderr(capsys):
    assert run(["profile", FAKE, "fake:latency_ms=3", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert FAKE in out
    assert "fake:latency_ms=3" in out
    assert "images/s" in out
    assert "p99.9" in err
    assert "warning:" not in out


def test_offline_uses_batches(capsys):
    assert run(["profile", FAKE, "--scenario", "offline", "--json", *QUICK]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["batch"] == 8
    mean_ms = sum(result["samples_ms"]) / result["samples"]
    assert result["throughput_images_per_s"] == pytest.approx(8000 / mean_ms)


def test_output_file_is_the_same_document(tmp_path, capsys):
    path = tmp_path / "result.json"
    assert run(["profile", FAKE, "--json", "-o", str(path), *QUICK]) == 0
    assert json.loads(path.read_text()) == json.loads(capsys.readouterr().out)
    assert os.listdir(tmp_path) == ["result.json"]  # noqa: PTH208


def test_same_artifact_twice_has_two_names(capsys):
    assert run(["profile", FAKE, FAKE, "--json", *QUICK]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert comparison["a"] != comparison["b"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.onnx"], 2, "missing.onnx: no such file"),
        ([FAKE, "--target", "gpu:0"], 3, "target 'gpu:0'"),
        ([FAKE, "--target", "ssh://me@board"], 3, "target 'ssh://me@board'"),
        ([FAKE, "--target", "moon"], 2, "no target is called 'moon'"),
        ([FAKE, "--backend", "onnx"], 2, "nearest: onnxruntime"),
        ([FAKE, "--backend", "onnxruntime"], 2, "is a fake, not for backend"),
        (["fake:speed=1"], 2, "cannot read 'speed=1'"),
        (["fake:crash_at=1"], 1, "fake:crash_at=1: its process ended with exit code 41"),
        (["fake:fail_at=3"], 2, "call 3 fails, as asked"),
        ([FAKE, "-o", "no/such/folder/r.json"], 2, "cannot be written"),
        ([], 2, "Missing argument"),
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


@pytest.mark.parametrize("command", ["profile", "validate"])
def test_help_has_an_example_and_loads_no_runtime(command):
    code = (
        "import sys; from emca_deploy.cli import run; run([sys.argv[1], '--help']); "
        "raise SystemExit(' '.join({'torch', 'onnx', 'onnxruntime', 'openvino', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=False)
    assert f"emca-deploy {command} model" in done.stdout
    assert done.stderr.strip() == ""
