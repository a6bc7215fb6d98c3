"""The parts of the GPU benchmark that need no GPU: refusals, the dry run, and its tables from real measurements."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console

from emca_deploy._machine import find_gpus
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.codec import to_json
from emca_deploy.tasks.classification import compare

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(autouse=True, scope="module")
def libraries():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(SCRIPT.parent))  # as Python does for a script, which imports its neighbours
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_benchmark"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(script: ModuleType, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path / "out.json")])
    assert script.main() == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "error: target 'gpu:0': no NVIDIA driver is installed here"
    assert len(err.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arch", "resnet19"], "no architecture is called 'resnet19'"),
        (["--target", "cpu"], "target 'cpu'"),
        (["--dry-run", "--output", "OUT"], "another machine, version or size"),
    ],
)
def test_bad_arguments(script: ModuleType, tmp_path: Path, capsys, monkeypatch, arguments: list[str], words: str) -> None:
    output = tmp_path / "out.json"
    output.write_text("{}")
    monkeypatch.setattr(sys, "argv", ["gpu.py", *(str(output) if word == "OUT" else word for word in arguments)])
    assert script.main() == 2
    assert words in capsys.readouterr().err
    assert output.read_text() == "{}"


@pytest.mark.slow
def test_a_dry_run_builds_every_engine(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    done = run("--dry-run", "--arch", "resnet18", "--size", "32", "--batches", "2", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "dry run: built, not run" in done.stdout
    assert "0 failures" in done.stdout
    assert "skipped: tensorrt-rtx has no timing tool in its wheel" in done.stdout
    document = json.loads(output.read_text())
    assert "no timing tool" in document["vendor"]["skipped"]
    row = document["architectures"]["resnet18, batch 2"]
    assert list(row["engines"]) == ["fp32", "fp16", "int8"]
    int8 = row["engines"]["int8"]
    assert int8["int8_convolutions"] == int8["quantized_convolutions"] == 19
    assert row["engines"]["fp16"]["engine_mib"] < 0.6 * row["engines"]["fp32"]["engine_mib"]
    assert {"engine int8", "torch eager", "torch compiled fp16 channels-last"} <= set(row["names"])


def test_the_tables(script: ModuleType, capsys) -> None:
    names = ["torch compiled fp16 channels-last", "engine int8"]
    kwargs = [{"backend": "fake", "artifact": f"fake:latency_ms={latency}"} for latency in (4, 1)]
    specs = [RunnerSpec(name, kwargs=own) for name, own in zip(names, kwargs, strict=True)]
    report = to_json(measure(specs, Protocol(warmup_s=0.05, block_s=0.02, duration_s=0.1)))
    report["results"][1]["device_ms"] = {"p50": 0.125}
    logits = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    accuracy = to_json(compare("engine int8", logits, logits.argmax(axis=1), "fp32 on the CPU", logits + np.float32(0.001)))
    console = Console(width=160)
    console.print(script.latency_table("resnet18", 1, {"names": names, **report}))
    console.print(script.accuracy_table({"engine int8": accuracy}))
    lines = capsys.readouterr().out.splitlines()
    (first,) = (number for number, line in enumerate(lines) if "engine int8" in line and "0.125" in line)
    (baseline,) = (number for number, line in enumerate(lines) if names[0] in line and "times" not in line)
    assert first < baseline  # fastest first
    assert any("100.00" in line and "engine int8" in line for line in lines)


@pytest.fixture
def vendor(script: ModuleType) -> ModuleType:
    return sys.modules["vendor_time"]


def summary(low: float, middle: float, high: float) -> dict[str, object]:
    return {"p50": middle, "p50_ci95": [low, high]}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (summary(0.995, 1.0, 1.005), "within 2%"),
        (summary(0.97, 1.0, 1.03), "not shown"),
        (summary(1.04, 1.05, 1.06), "beyond 2%"),
        (summary(0.94, 0.95, 0.96), "beyond 2%"),
    ],
)
def test_a_vendors_median_is_held_against_both_intervals(vendor: ModuleType, ours: dict[str, object], verdict: str) -> None:
    theirs = [summary(0.998, 1.0, 1.001), summary(0.997, 0.999, 1.0), summary(0.999, 1.001, 1.002)]
    row = vendor.vendor_row(ours, theirs)
    assert row["verdict"] == verdict
    assert row["trtexec_ms"] == 1.0
    assert row["ratio"] == ours["p50"]
    assert row["interval"][0] < row["ratio"] < row["interval"][1]


def test_trtexec_of_another_version_is_not_compared(vendor: ModuleType) -> None:
    from emca_deploy.backends.tensorrt.tool.find import Trtexec

    tool = Trtexec("/usr/src/tensorrt/bin/trtexec", (10, 3, 0))
    assert vendor._same_version(tool, "10.3.0.30") == (tool, "")
    found, reason = vendor._same_version(tool, "10.13.3.9")
    assert found is None
    assert "cannot load engines" in reason


def test_without_trtexec_the_reason_is_kept(vendor: ModuleType, tmp_path: Path) -> None:
    tool, reason = vendor.find_vendor_tool("tensorrt", str(tmp_path / "trtexec"))
    assert tool is None
    assert "there is no trtexec" in reason


def test_trtexec_times_the_engines(vendor: ModuleType, tmp_path: Path) -> None:
    """A stand-in with the output of trtexec 10.3: three processes, whose files are read and removed."""
    from emca_deploy.backends.tensorrt.tool.find import find_trtexec

    folder = Path(__file__).parents[1] / "unit" / "backends" / "tensorrt" / "tool"
    (tmp_path / "options.json").write_bytes((folder / "options.json").read_bytes())
    (tmp_path / "behaviour.json").write_text(json.dumps({"version": "100300"}))
    path = tmp_path / "trtexec"
    path.write_text(f"#!{sys.executable} -SE\n{(folder / 'stand_in.py').read_text()}")
    path.chmod(0o755)
    engine = tmp_path / "fp32-1.engine"
    engine.write_bytes(b"an engine of 100300")
    tool = find_trtexec(path=str(path))
    found = vendor.compare_with_vendor(tool, {"fp32": engine, "int8": engine}, {"fp32": summary(0.9, 1.0, 1.1)}, 1, 0.5)
    assert list(found) == ["fp32"]  # our measurement of the other one failed
    assert found["fp32"].get("trtexec_version") == "10.3.0", found
    assert len(found["fp32"]["runs"]) == 3
    assert found["fp32"]["trtexec_ms"] > 0
    found["fp16"] = {"error": "it crashed"}
    console = Console(width=160, record=True)
    console.print(vendor.vendor_table({"engines": {"resnet18, batch 1": found}}))
    text = console.export_text()
    assert "resnet18, batch 1, fp32" in text
    assert "it crashed" in text
