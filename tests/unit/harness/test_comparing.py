"""Comparing runs, which must have the same machine and protocol."""

import json
from dataclasses import replace

import in_process
import pytest

from emca_deploy.cli import run
from emca_deploy.errors import InputError
from emca_deploy.harness.measure.comparing import Measured, compare_runs, differences
from emca_deploy.results.latency import verdict_of
from emca_deploy.stats.estimates import ratio_of_medians

QUICK = ["--duration", "0.3", "--max-duration", "0.3", "--warmup", "0.05", "--threads", "1", "--processes", "2", "--no-telemetry"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs; in the second, one candidate takes twice as long, and its samples are in the raw file only."""
    folder = tmp_path_factory.mktemp("runs")
    artifacts = ["fake:latency_ms=1", "fake:latency_ms=3"]
    raw = ["--raw", str(folder / "b.npz"), "--no-samples"]
    with pytest.MonkeyPatch.context() as patch:
        in_process.patch(patch)
        assert run(["profile", *artifacts, "-o", str(folder / "a.json"), *QUICK]) == 0
        assert run(["profile", artifacts[1], "fake:latency_ms=6", "-o", str(folder / "b.json"), *raw, *QUICK]) == 0
    return folder


def test_candidates_in_common_are_compared(runs, capsys):
    assert run(["compare", str(runs / "a.json"), str(runs / "b.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (comparison,) = document["comparisons"]
    assert document["differences"] == []
    assert comparison["a"] == f"fake:latency_ms=3 in {runs / 'a.json'}"
    assert comparison["ratio_p50"] == pytest.approx(1, abs=0.001)
    low, high = comparison["ratio_ci95"]
    assert low <= comparison["ratio_p50"] <= high
    assert comparison["verdict"] == verdict_of((low, high))
    assert run(["compare", str(runs / "a.json"), str(runs / "b.json")]) == 0
    out = capsys.readouterr().out
    assert "fake:latency_ms=3" in out
    assert comparison["verdict"] in out


def test_a_run_of_one_candidate_is_compared_with_another_of_one(runs):
    a, b = Measured.read(runs / "a.json"), Measured.read(runs / "b.json")
    first = Measured(a.place, replace(a.report, results=a.report.results[:1]))
    second = Measured(b.place, replace(b.report, results=b.report.results[1:]), b.raw[1:])
    (comparison,) = compare_runs(first, second).comparisons
    assert comparison.ratio_p50 > 1.5  # 1 ms against 6 ms, a difference that shows on any busy machine
    assert comparison.verdict == verdict_of(comparison.ratio_ci95)


def test_the_interval_is_that_of_runs_measured_apart_in_several_processes(runs):
    a, b = Measured.read(runs / "a.json"), Measured.read(runs / "b.json")
    (comparison,) = compare_runs(a, b).comparisons
    builds = (b.report.results[0].block_builds, a.report.results[1].block_builds)
    assert set(builds[0]) == {0, 1}
    expected = ratio_of_medians(b.blocks(0), a.blocks(1), 0, paired=False, processes=builds)
    assert (comparison.ratio_p50, comparison.ratio_ci95) == expected


def test_blocks_offline_are_the_time_per_image(runs):
    run_a = Measured.read(runs / "a.json")
    result = replace(run_a.report.results[0], scenario="offline", batch=8, block_calls=(5, 10), block_wall_ms=(80.0, 240.0))
    offline = replace(run_a, report=replace(run_a.report, results=(result,)))
    assert [block.tolist() for block in offline.blocks(0)] == [[2.0], [3.0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fingerprint": "0123"}, "different machines"),
        ({"fingerprint": None}, "machine of one of them is unknown"),
    ],
)
def test_another_machine_is_refused_and_named(runs, changes, said):
    run_a = Measured.read(runs / "a.json")
    report = run_a.report
    environment = {**report.environment, **changes}
    parts = {**report.environment["fingerprint_parts"], "cpu_model": "another one"}
    other = replace(report, environment={**environment, "fingerprint_parts": parts})
    with pytest.raises(InputError, match=said) as caught:
        compare_runs(run_a, replace(run_a, report=other))
    if changes["fingerprint"]:
        assert "another one" in caught.value.problem
    assert len(compare_runs(run_a, run_a).comparisons) == 2


def test_another_protocol_is_refused_and_named(runs):
    report = Measured.read(runs / "a.json").report
    other = replace(report, protocol=replace(report.protocol, scenario="offline", batch=8))
    assert differences(report, other) == ["different scenario (single-stream and offline)", "different batch (1 and 8)"]
    longer = replace(report, protocol=replace(report.protocol, duration_s=60.0, rounds=200, stop="time limit"))
    assert differences(report, longer) == []


def test_refusal_on_the_command_line_and_its_force(runs, tmp_path, capsys):
    document = json.loads((runs / "a.json").read_text())
    document["protocol"]["batch"] = 4
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    assert run(["compare", str(runs / "a.json"), str(other)]) == 2
    out, err = capsys.readouterr()
    assert (out, "different batch (1 and 4)" in err, "--force" in err) == ("", True, True)
    assert run(["compare", str(runs / "a.json"), str(other), "--force"]) == 0
    out, err = capsys.readouterr()
    assert "warning: different batch (1 and 4)" in err
    assert out.count("1.00x") == 2  # the same samples
    assert out.count("no difference shown") == 2


@pytest.mark.parametrize("fault", ["missing", "other run", "no samples", "nothing in common"])
def test_runs_that_cannot_be_compared(runs, tmp_path, capsys, fault):
    document = json.loads((runs / "b.json").read_text())
    (tmp_path / "b.npz").write_bytes((runs / "b.npz").read_bytes())
    if fault == "missing":
        (tmp_path / "b.npz").unlink()
    elif fault == "other run":
        document["results"][0]["samples"] += 1
    elif fault == "no samples":
        del document["raw_samples"]
    else:
        for result in document["results"]:
            result["artifact"] += " of yesterday"
    (tmp_path / "b.json").write_text(json.dumps(document))
    assert run(["compare", str(runs / "a.json"), str(tmp_path / "b.json")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 2


def test_verdicts():
    assert [verdict_of(limits) for limits in [(1.01, 1.2), (0.8, 0.99), (0.9, 1.1), (1.0, 1.1)]] == [
        "faster", "slower", "no difference shown", "no difference shown"
    ]  # fmt: skip
