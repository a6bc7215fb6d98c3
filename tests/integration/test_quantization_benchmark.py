"""The benchmark against other quantizers: its measurements, its stored results, and its message for a missing peer."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--limit", "40", "--images", "16", "--threads", "1"]

pytestmark = pytest.mark.slow


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on the bundled images, as `folder` has no other data set."""
    command = [sys.executable, str(BENCHMARKS / "quantization.py"), "--data", str(folder), "--output", str(folder / "out.json")]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def rows(folder: Path) -> dict[str, dict]:
    document = json.loads((folder / "out.json").read_text())
    return {row["candidate"]: row for row in document["rows"]}


def test_accuracy_is_compared_and_kept_and_a_missing_peer_named(tmp_path):
    only = ["--only", "NNCF MIXED", "--only", "ours, onnxruntime*", "--only", "*MinMax"]
    arguments = ["--parts", "accuracy", *SMALL, "--recover", "none", *only]
    first = run(tmp_path, *arguments)
    assert first.returncode == 0, first.stderr
    assert "the 2,000 bundled test images" in first.stderr
    kept = rows(tmp_path)
    mine = kept["ours, onnxruntime placement, recover none"]
    assert mine["figures"]["samples"] == 40
    assert mine["figures"]["calibration_images"] == 16
    assert mine["figures"]["sqnr_db"] > 25
    assert kept["fp32"]["figures"]["top1"] > 80
    (nncf,) = (line for line in first.stdout.splitlines() if "NNCF MIXED" in line)
    if find_spec("nncf") is None:
        assert "nncf is not installed" in nncf
        assert "NNCF MIXED" not in kept
    else:
        assert kept["NNCF MIXED"]["figures"]["sqnr_db"] > 15
    assert kept["quantize_static MinMax"]["figures"]["sqnr_db"] > 15
    assert {"cpu", "versions", "created"} <= kept["quantize_static MinMax"]["environment"].keys()

    del kept["quantize_static MinMax"]
    (tmp_path / "out.json").write_text(json.dumps(json.loads((tmp_path / "out.json").read_text()) | {"rows": [*kept.values()]}))
    second = run(tmp_path, *arguments[:-1], "ours, onnxruntime*")
    assert second.returncode == 0, second.stderr
    assert rows(tmp_path) == kept  # nothing is measured again: even the times are equal
    assert "fp32 logits" not in second.stderr


def test_measuring_again_leaves_the_figures_of_others(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from peers.store import Row, Store

    path = tmp_path / "out.json"
    old = [Row("cost", "resnet18", name, {"threads": 1}, {"seconds": 1}) for name in ("mine", "another's")]
    for row in old:
        Store(path).add(row)
    again = Store(path, again=True)
    assert again.find("cost", "resnet18", "mine", {"threads": 1}) is None
    new = again.add(Row("cost", "resnet18", "mine", {"threads": 1}, {"seconds": 2}))
    assert again.find("cost", "resnet18", "mine", {"threads": 1}) == new  # measured in this run
    seconds = {row["candidate"]: row["figures"]["seconds"] for row in json.loads(path.read_text())["rows"]}
    assert seconds == {"mine": 2, "another's": 1}
    path.write_text("{}")
    assert Store(path, again=True).find("cost", "resnet18", "mine", {"threads": 1}) is None


def test_bad_arguments_are_said_in_two_lines_and_change_nothing(tmp_path):
    (tmp_path / "out.json").write_text("{}")
    for arguments, words in (
        (["--parts", "speed"], "no part 'speed'"),
        (["--parts", "accuracy"], "not a result of this benchmark"),
        (["--parts", "accuracy", "--again", "--arch", "resnet7"], "no trained network of resnet7"),
        (["--parts", "accuracy", "--again", "--checkpoints", str(tmp_path / "nowhere")], "no such folder"),
    ):
        done = run(tmp_path, *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 2
    assert (tmp_path / "out.json").read_text() == "{}"


def test_latency_and_cost_come_with_ratios(tmp_path):
    only = ["--only", "ours*", "--only", "fp32", "--only", "quantize_static MinMax"]
    tiny = ["--cost-images", "2", "4", "--repeats", "1", "--duration", "0.3", "--recover", "none"]
    done = run(tmp_path, "--parts", "latency,cost", "--arch", "emca_eca_resnet18", *SMALL, *only, *tiny)
    assert done.returncode == 0, done.stderr
    kept = rows(tmp_path)
    report = kept["onnxruntime"]["figures"]["report"]
    assert [c["a"] for c in report["comparisons"]] == ["quantize_static MinMax", "fp32"]
    assert all(c["ratio_ci95"][0] <= c["ratio_p50"] <= c["ratio_ci95"][1] for c in report["comparisons"])
    cost = kept["ours, minmax, recover none"]["figures"]
    assert (cost["few"], cost["many"]) == (2, 4)
    assert cost["peak_rss_mib"] > cost["start_rss_mib"] > 10
    assert cost["ratios"][0] > 0
