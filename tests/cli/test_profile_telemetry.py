"""Telemetry on the command line, with an executable named tegrastats that prints a recorded line."""

import json
import os
import time
from pathlib import Path

import pytest

from emca_deploy.cli import run

LINE = (
    "06-18-2025 11:25:24 RAM 3452/7620MB (lfb 25x4MB) SWAP 1518/16384MB (cached 174MB) CPU [1%@1420,2%@1420] GR3D_FREQ 7% "
    "cpu@50.031C tj@50.25C VDD_IN 4824mW/4824mW VDD_CPU_GPU_CV 518mW/518mW VDD_SOC 1475mW/1475mW"
)
PROFILE = ["profile", "fake:latency_ms=2", "--duration", "0.6", "--max-duration", "0.6", "--warmup", "0.05", "--threads", "1"]


@pytest.fixture
def tegrastats(tmp_path, monkeypatch):
    place = tmp_path / "tegrastats"
    place.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nwhile :; do echo '{LINE}'; sleep 0.02; done\n")
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_rails_and_energy_are_in_the_result_and_the_process_is_gone(tegrastats, capsys):
    assert run([*PROFILE, "--json"]) == 0
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)["results"]
    telemetry = result["telemetry"]
    power = telemetry["sources"]["tegrastats"]["power"]
    assert power["VDD_IN"]["power_w"] == pytest.approx(4.824)
    assert power["VDD_IN"]["idle_power_w"] == pytest.approx(4.824)
    assert power["VDD_IN"]["net_energy_per_inference_mj"] == pytest.approx(0, abs=1e-9)
    # 4.824 W over the duration of a call, a little longer than its latency, which excludes the time between calls
    assert power["VDD_IN"]["energy_per_inference_mj"] >= 4.824 * result["latency_ms"]["mean"] * 0.99
    assert telemetry["sources"]["tegrastats"]["values"]["gpu_load_percent"]["mean"] == 7
    assert telemetry["idle_s"] >= 1
    assert "energy" not in telemetry
    assert "note: tegrastats: no values of the GPU's clock" in captured.err
    pid = (tegrastats / "pid").read_text().strip()
    end = time.monotonic() + 10
    while Path("/proc", pid).exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path("/proc", pid).exists()


def test_without_telemetry_nothing_is_started(tegrastats, capsys):
    assert run([*PROFILE, "--json", "--no-telemetry"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert "telemetry" not in result
    assert not (tegrastats / "pid").exists()


def test_machine_is_told_before_and_after_with_its_fingerprint(capsys):
    assert run([*PROFILE, "--json", "--no-telemetry"]) == 0
    environment = json.loads(capsys.readouterr().out)["environment"]
    assert environment["state"]["time_ns"] < environment["state_after"]["time_ns"]
    assert len(environment["fingerprint"]) == 16
    assert environment["fingerprint_parts"]["usable_cores"] <= len(os.sched_getaffinity(0))
