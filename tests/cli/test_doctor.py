"""`emca-deploy doctor` and the known problems that it reports."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from emca_deploy._machine import CpuInfo
from emca_deploy.api import doctor as api
from emca_deploy.api.doctor import MachineFacts, find_traps, load_failure
from emca_deploy.cli import run
from emca_deploy.results.codec import from_json

SERVER = CpuInfo("a server", "x86_64", 8, 4, ("avx2", "avx512f", "avx512_vnni"), 8)
HEALTHY = MachineFacts(SERVER, ("performance",), (), ("onnxruntime", "openvino", "torch"))


def traps_of(facts: MachineFacts) -> list[str]:
    return [trap.id for trap in find_traps(facts)]


def with_cpu(**changes: object) -> MachineFacts:
    return replace(HEALTHY, cpu=replace(SERVER, **changes))


def test_a_healthy_machine_has_none() -> None:
    assert traps_of(HEALTHY) == []
    assert traps_of(with_cpu(quota_cores=8.0)) == []
    assert traps_of(with_cpu(architecture="aarch64", instruction_sets=("asimddp",))) == []


def test_bf16_without_amx() -> None:
    sets = SERVER.instruction_sets
    assert traps_of(with_cpu(instruction_sets=(*sets, "avx512_bf16"))) == ["bf16-default"]
    assert traps_of(with_cpu(instruction_sets=(*sets, "avx512_bf16", "amx_bf16", "amx_int8"))) == []


def test_no_dot_products() -> None:
    (old,) = find_traps(with_cpu(instruction_sets=("avx2",)))
    assert old.id == "no-int8-dot-product"
    assert "saturate" in old.problem
    (board,) = find_traps(with_cpu(architecture="aarch64", instruction_sets=()))
    assert "asimddp" in board.problem
    assert traps_of(with_cpu(model="unknown", instruction_sets=())) == []


@pytest.mark.parametrize(("quota", "threads"), [(2.5, 2), (0.5, 1)])
def test_a_quota_below_the_cores(quota: float, threads: int) -> None:
    (trap,) = find_traps(with_cpu(quota_cores=quota))
    assert trap.id == "cgroup-quota"
    assert f"may use {quota:g} of 8 cores" in trap.problem
    assert f"--threads at {threads} " in trap.remedy


def test_a_governor_that_follows_the_load() -> None:
    (trap,) = find_traps(replace(HEALTHY, governors=("performance", "schedutil")))
    assert trap.id == "governor"
    assert "schedutil" in trap.problem


def test_a_gpu_without_a_backend() -> None:
    facts = replace(HEALTHY, gpus=("NVIDIA H100",))
    assert traps_of(facts) == ["gpu-unused"]
    assert traps_of(replace(facts, usable=(*facts.usable, "tensorrt"))) == []
    assert traps_of(replace(facts, with_cuda=("torch",))) == []


def test_why_a_library_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raises_here.py").write_text("raise ImportError('libodd.so: cannot open shared object file')")
    (tmp_path / "dies_here.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert load_failure("json") is None
    assert load_failure("raises_here") == "ImportError: libodd.so: cannot open shared object file"
    assert load_failure("dies_here") == "its import ends with code -4"


@pytest.fixture(scope="module")
def document() -> dict[str, object]:
    done = subprocess.run([sys.executable, "-m", "emca_deploy", "doctor", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_document(document: dict) -> None:
    assert document["schema_version"] == 1
    assert set(document) >= {"backends", "cpu", "threads", "traps", "memory_mib", "python"}
    assert set(document["backends"]) == {"onnxruntime", "openvino", "torch", "tensorrt", "tensorrt-rtx"}
    ort = document["backends"]["onnxruntime"]
    assert (ort["usable"], ort["version"], ort["reason"]) == (True, version("onnxruntime"), None)
    assert all(status["remedy"] for status in document["backends"].values() if not status["usable"])
    assert document["cpu"]["logical_cores"] >= document["threads"] >= 1
    assert all(set(trap) == {"id", "problem", "remedy"} for trap in document["traps"])


def test_a_person_reads_the_same(document: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(api, "doctor", lambda: from_json(api.DoctorReport, document))  # as found a moment ago
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("onnxruntime", version("onnxruntime"), "ready", document["cpu"]["model"], document["python"]):
        assert word in shown
    for trap in document["traps"]:
        assert trap["problem"] in shown


@pytest.mark.slow  # test_new_backend.py has a library that raises, and the test above one that dies
def test_a_library_that_does_not_load_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-m", "emca_deploy", "doctor", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)["backends"]["openvino"]
    assert status["usable"] is False
    assert "does not load" in status["reason"]
