"""`profile` where calls come at a rate, several at once, or beside those of another model."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from emca_deploy import results
from emca_deploy.cli import run

QUICK = ["--scenario", "paced", "--duration", "5", "--warmup", "0.1", "--threads", "1", "--no-telemetry"]
SCHEMA = json.loads((Path(results.__file__).parent / "schemas/profile.json").read_text())


@pytest.mark.usefixtures("in_process")
def test_the_document_and_the_table_have_a_row_for_each_rate(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "result.json"
    arguments = ["fake:latency_ms=2", "fake:latency_ms=30", "--rate", "20,50", "--deadline", "25ms", "-o", str(path)]
    assert run(["profile", *arguments, *QUICK]) == 0
    document = json.loads(path.read_text())
    jsonschema.validate(document, SCHEMA)
    assert (document["protocol"]["rates"], document["protocol"]["deadline_ms"]) == ([20, 50], 25)
    assert document["protocol"]["stop"] == "fixed duration"
    found = {
        (one["artifact"], each["rate_per_s"]): each["misses"]["share"] for one in document["results"] for each in one["paced"]
    }
    assert found == {
        ("fake:latency_ms=2", 20): 0,
        ("fake:latency_ms=2", 50): 0,
        ("fake:latency_ms=30", 20): 1,
        ("fake:latency_ms=30", 50): 1,
    }
    text = capsys.readouterr().out
    assert "% over 25 ms" in text
    assert text.count("100 (") == 2
    assert run(["compare", str(path), str(path)]) == 0  # by the calls made back to back


@pytest.mark.usefixtures("in_process")
def test_a_deadline_without_rates_finds_the_highest(capsys):
    assert (
        run(["profile", "fake:latency_ms=10", "--deadline", "20ms", "--json", *QUICK[:2], "--duration", "0.5", *QUICK[4:]]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    (result,) = document["results"]
    assert 90 < result["highest_rate"]["rate_per_s"] < 100.5
    assert len(result["highest_rate"]["tried_per_s"]) == 8
    assert document["protocol"]["stop"] == "highest rate found"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_an_interrupt_in_the_search_keeps_the_rates_so_far(tmp_path):
    path = tmp_path / "result.json"
    arguments = ["fake:latency_ms=1", "-o", str(path), "--deadline", "5ms", *QUICK, "--duration", "0.4"]
    with subprocess.Popen([sys.executable, "-m", "emca_deploy", "profile", *arguments], stderr=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            while process.poll() is None and not children.read_text():
                time.sleep(0.05)
            (worker,) = children.read_text().split()
            time.sleep(2.5)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert not Path(f"/proc/{worker}").exists()
    document = json.loads(path.read_text())
    jsonschema.validate(document, SCHEMA)
    assert document["complete"] is False
    assert "highest_rate" not in document["results"][0]


@pytest.mark.usefixtures("in_threads")
def test_calls_at_once_and_two_models_at_once(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "result.json"
    quick = ["--duration", "0.2", "--warmup", "0", "--no-telemetry", "--processes", "1", "-o", str(path)]
    assert run(["profile", "fake:latency_ms=2", "--co-run", "fake:latency_ms=3", "--concurrency", "1,2", *quick]) == 0
    document = json.loads(path.read_text())
    jsonschema.validate(document, SCHEMA)
    assert [one["artifact"] for one in document["results"]] == ["fake:latency_ms=2", "fake:latency_ms=3"]
    assert [one["co_run"]["other"] for one in document["results"]] == ["fake:latency_ms=3", "fake:latency_ms=2"]
    assert [[each["callers"] for each in one["concurrency"]] for one in document["results"]] == [[1, 2], [1, 2]]
    text = capsys.readouterr().out
    assert text.count("knee") == 2
    assert "while fake:latency_ms=3 runs" in text


@pytest.mark.usefixtures("in_threads")
def test_real_images_beside_random_input(capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    path = tmp_path / "result.json"
    quick = ["--duration", "0.2", "--warmup", "0", "--no-telemetry", "-o", str(path)]
    assert run(["profile", "fake:latency_ms=2", "--data", str(tmp_path / "images.npz"), "--batch", "3", *quick]) == 0
    document = json.loads(path.read_text())
    jsonschema.validate(document, SCHEMA)
    (result,) = document["results"]
    assert result["real_images"]["images"] == 63  # whole batches of at most 64
    assert result["real_images"]["latency_ms"]["min"] >= 2
    low, high = result["real_images"]["ratio_ci95"]
    assert low <= result["real_images"]["ratio"] <= high
    assert "63 real images" in capsys.readouterr().out
    assert run(["profile", "fake", "--data", str(tmp_path / "images.npz"), "--batch", "71", *quick]) == 2
    assert "71" in capsys.readouterr().err


@pytest.mark.usefixtures("in_threads")
def test_stages_from_image_files_to_answers_add_up(capsys, tmp_path):
    for name in range(3):
        Image.new("RGB", (40, 30), (name, 9, 99)).save(tmp_path / f"{name}.png")
    path = tmp_path / "result.json"
    quick = ["--duration", "0.2", "--warmup", "0", "--no-telemetry", "-o", str(path)]
    assert run(["profile", "fake:latency_ms=2", "--data", str(tmp_path), "--end-to-end", *quick]) == 0
    document = json.loads(path.read_text())
    jsonschema.validate(document, SCHEMA)
    (result,) = document["results"]
    stages = result["end_to_end"]["stages_mean_ms"]
    assert list(stages) == ["decode", "resize", "normalize", "copy", "infer", "post-process"]
    assert stages["infer"] >= 2
    assert min(stages.values()) > 0
    assert sum(stages.values()) == pytest.approx(result["end_to_end"]["latency_ms"]["mean"])
    bar = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("\N{FULL BLOCK}"))
    assert 50 < len(bar.strip()) < 70
    np.savez(tmp_path / "images.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    assert run(["profile", "fake", "--data", str(tmp_path / "images.npz"), "--end-to-end", *quick]) == 2
