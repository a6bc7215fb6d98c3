import json
from pathlib import Path

import pytest

from emca_deploy.cli import run

DOCUMENTS = Path(__file__).parents[1] / "unit" / "results" / "documents"
QUICK = ["--duration", "4", "--max-duration", "4", "--warmup", "0", "--threads", "1", "--no-telemetry"]


@pytest.fixture
def profiled(tmp_path, in_process, capsys):
    """Return a function that measures fake artifacts on a simulated clock and returns the result file."""

    def measure(name, *artifacts, seed=0, processes=8):
        path = tmp_path / name
        words = [*QUICK, "--processes", str(processes), "--seed", str(seed), "-o", str(path)]
        assert run(["profile", *artifacts, *words]) == 0
        capsys.readouterr()
        return path

    return measure


@pytest.fixture
def decided(capsys):
    """Return a function that runs `gate --json` and returns the exit code and the verdict of each requirement."""

    def gate(*words):
        capsys.readouterr()
        code = run(["gate", *map(str, words), "--json"])
        document = json.loads(capsys.readouterr().out)
        assert document["passed"] == (code == 0)
        return code, {each["requirement"]: each for each in document["decisions"]}

    return gate


def test_latencies_of_a_profile_are_decided_by_intervals(profiled, decided):
    path = profiled("one.json", "fake:latency_ms=5")
    code, found = decided(path, "--require", "p50<=5.5ms,p99<=9ms,throughput>=150/s", "--require", "p99.9<=20ms")
    assert code in (0, 4)
    assert found["p50<=5.5ms"]["verdict"] == found["throughput>=150/s"]["verdict"] == "pass"
    assert found["p50<=5.5ms"]["low"] <= found["p50<=5.5ms"]["value"] <= found["p50<=5.5ms"]["high"]
    assert found["p99.9<=20ms"]["verdict"] == "undecided"
    assert found["p99.9<=20ms"]["seconds_needed"] > 4
    code, found = decided(path, "--require", "p50<=4ms")
    assert (code, found["p50<=4ms"]["verdict"]) == (4, "fail")


def test_undecided_requirements_pass_if_that_is_allowed(profiled, decided):
    path = profiled("one.json", "fake:latency_ms=5")
    assert decided(path, "--require", "p99.9<=20ms")[0] == 4
    assert decided(path, "--require", "p99.9<=20ms", "--allow-undecided")[0] == 0
    assert decided(path, "--require", "p99.9<=20ms,p50<=1ms", "--allow-undecided")[0] == 4


def test_the_first_candidate_of_a_profile_is_the_baseline(profiled, decided):
    path = profiled("both.json", "fake:latency_ms=5", "fake:latency_ms=6")
    code, found = decided(path, "--require", "slowdown<=10%")
    (one,) = found.values()
    assert (code, one["verdict"], one["candidate"], one["baseline"]) == (4, "fail", "fake:latency_ms=6", "fake:latency_ms=5")
    assert one["low"] > 10
    assert decided(path, "--require", "slowdown<=30%")[0] == 0
    assert decided(path, "--require", "p50<=5.5ms", "--artifact", "fake:latency_ms=5")[0] == 0


def test_two_runs_differ_by_more_than_their_intervals(profiled, decided):
    before, after = profiled("before.json", "fake:latency_ms=5"), profiled("after.json", "fake:latency_ms=5", seed=1)
    code, found = decided(after, "--baseline", before, "--require", "slowdown<=3%")
    (one,) = found.values()
    assert (code, one["verdict"]) == (4, "undecided")
    assert one["high"] > 30  # 3.09 times the default spread of two runs
    assert "--confirm" in one["hint"]
    slow = profiled("slow.json", "fake:latency_ms=10")
    assert decided(slow, "--baseline", before, "--require", "slowdown<=3%")[1]["slowdown<=3%"]["verdict"] == "fail"


def test_runs_of_another_machine_or_protocol_are_not_compared(profiled, refused, tmp_path):
    path = profiled("one.json", "fake:latency_ms=5")
    values = json.loads(path.read_text())
    values["environment"]["fingerprint"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(values))
    refused("gate", path, "--baseline", tmp_path / "other.json", "--require", "slowdown<=3%")


def test_a_deployment_and_an_accuracy_together(decided, tmp_path):
    deployed = json.loads((DOCUMENTS / "deploy-v2.json").read_text())
    flips = {"total": 30, "lost": 12, "won": 10, "images": []}
    reference = {**deployed["candidates"][1]["accuracy"]["reference"], "flips": flips, "top1_drop": 0.02}
    deployed["candidates"][1]["accuracy"] |= {"samples": 10_000, "top1": 91.0, "reference": reference}
    (tmp_path / "result.json").write_text(json.dumps(deployed))
    code, found = decided(tmp_path, "--require", "drop<=0.2,size<=43MiB,top1>=90%")
    assert (code, {each["verdict"] for each in found.values()}) == (0, {"pass"})
    assert {each["candidate"] for each in found.values()} == {"openvino fp32"}
    code, found = decided(tmp_path, "--require", "drop<=0.1,size<=12MiB")
    assert code == 4
    assert found["size<=12MiB"]["verdict"] == "fail"
    assert found["drop<=0.1"]["images_needed"] > 10_000


def test_a_detectors_drop(decided):
    path = DOCUMENTS / "validate-detection-v1.json"
    code, found = decided(path, "--require", "drop<=5")
    assert (code, found["drop<=5"]["verdict"]) == (0, "pass")
    assert decided(path, "--require", "drop<=-5")[0] == 4


def test_energy_has_the_spread_between_runs(decided, tmp_path):
    values = json.loads((DOCUMENTS / "profile-v2.json").read_text())
    del values["results"][1]
    power = {"power_w": 10.0, "energy_per_inference_mj": 20.0, "samples": 50}
    values["results"][0]["telemetry"]["sources"] = {"rapl": {"power": {"total": power}}}
    (tmp_path / "result.json").write_text(json.dumps(values))
    code, found = decided(tmp_path, "--require", "energy<=30mJ,energy<=21mJ")
    assert (code, [each["verdict"] for each in found.values()]) == (4, ["pass", "undecided"])
    assert 20 < found["energy<=30mJ"]["high"] < 30


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["profile-v2.json", "--require", "drop<=1"], "validate"),
        (["validate-v1.json", "--require", "p99<=8ms"], "profile"),
        (["validate-v1.json", "--require", "slowdown<=3%"], "--baseline"),
        (["profile-v2.json", "--require", "energy<=20mJ"], "profile"),
        (["profile-v2.json", "--require", "p98<=1ms"], "p99"),
        (["profile-v2.json", "--require", "p50<=1ms", "--artifact", "fake:latency_ms=11"], "fake:latency_ms=1"),
        (["tune-v1.json", "--require", "p50<=1ms"], "profile"),
        (["profile-v1.json", "--require", "p99<=1ms"], ""),
    ],
)
def test_refusals_name_what_to_do(words, named, refused, monkeypatch):
    monkeypatch.chdir(DOCUMENTS)
    assert named in refused("gate", *words).splitlines()[1]


def test_a_missed_requirement_is_an_error_of_two_lines(capsys, monkeypatch):
    monkeypatch.chdir(DOCUMENTS)
    assert run(["gate", "validate-detection-v1.json", "--require", "drop<=-5,drop<=5"]) == 4
    out, err = capsys.readouterr()
    problem, remedy = err.splitlines()
    assert problem.startswith("error: ")
    assert remedy.startswith("  try: ")
    assert out.count("fail") == out.count("pass") == 1


def test_confirm_measures_both_until_the_slowdown_is_decided(profiled, decided):
    path = profiled("both.json", "fake:latency_ms=5", "fake:latency_ms=5,seed=1")
    code, found = decided(path, "--require", "slowdown<=3%", "--confirm")
    (same,) = found.values()
    assert (code, same["verdict"], same["baseline"]) == (0, "pass", "fake:latency_ms=5")
    path = profiled("one.json", "fake:latency_ms=5.25", processes=1)
    code, found = decided(path, "--baseline", "fake:latency_ms=5", "--require", "slowdown<=3%,p50<=6ms")
    slower = found["slowdown<=3%"]
    assert (code, slower["verdict"], found["p50<=6ms"]["verdict"]) == (4, "fail", "pass")
    assert slower["value"] == pytest.approx(5, abs=0.5)
    assert 3 < slower["low"] <= slower["value"] <= slower["high"]


def test_an_artifact_that_is_missing_or_fails_is_an_error(profiled, refused):
    path = profiled("one.json", "fake:latency_ms=5", processes=1)
    refused("gate", path, "--baseline", "none.onnx", "--require", "slowdown<=3%")
    refused("gate", path, "--baseline", "fake:latency_ms=5,fail_at=3", "--require", "slowdown<=3%")
    refused("gate", path, "--baseline", "fake:latency_ms=5", "--require", "slowdown<=3%")  # the candidate itself
    values = json.loads(path.read_text())
    values["environment"]["fingerprint"] = "another machine"
    path.write_text(json.dumps(values))
    refused("gate", path, "--baseline", "fake:latency_ms=5,seed=1", "--require", "slowdown<=3%")


@pytest.mark.parametrize(
    "change",
    [{"samples": 0}, {"samples": 10**12}, {"top1": 101.0}, {"reference": {"flips": {"total": 9, "lost": 9, "won": 9}}}],
)
def test_contradicting_counts_are_refused(change, refused, tmp_path):
    values = json.loads((DOCUMENTS / "validate-v1.json").read_text())
    reference = {**values["reference"], **change.get("reference", {}), "top1_drop": 0.0}
    (tmp_path / "result.json").write_text(json.dumps({**values, "top1": 50.0, **change, "reference": reference}))
    refused("gate", tmp_path, "--require", "top1>=40%,drop<=1")


@pytest.fixture
def mixed(tmp_path):
    """A result with a hostile candidate's name: one requirement passes, one fails, one is undecided."""
    values = json.loads((DOCUMENTS / "validate-detection-v1.json").read_text())
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**values, "artifact": "a|b`<i>@me\n::error::x,y:%\x1b[31m"}))
    return [path, "--require", "drop<=5,drop<=-5,drop<=0.5"]


def test_junit_has_a_case_for_each_decision(mixed, decided, tmp_path):
    junit = pytest.importorskip("junitparser")
    assert decided(*mixed, "--junit", tmp_path / "gate.xml")[0] == 4
    (suite,) = junit.JUnitXml.fromfile(str(tmp_path / "gate.xml"))
    assert (suite.tests, suite.failures, suite.skipped) == (3, 2, 0)
    assert [[result.type for result in case.result] for case in suite] == [[], ["fail"], ["undecided"]]
    decided(*mixed, "--junit", tmp_path / "gate.xml", "--allow-undecided")
    (suite,) = junit.JUnitXml.fromfile(str(tmp_path / "gate.xml"))
    assert (suite.failures, suite.skipped) == (1, 1)


def test_annotations_are_escaped(mixed, capsys):
    assert run(["gate", *map(str, mixed), "--github", "--json"]) == 4
    out, err = capsys.readouterr()
    json.loads(out)
    commands = [line for line in err.splitlines() if line.startswith("::")]
    assert [line.split(" ")[0] for line in commands] == ["::error", "::error"]
    for line in commands:
        title = line.removeprefix("::error title=").split("::")[0]
        assert "%3A%3Aerror%3A%3Ax%2Cy%3A%25" in title
        assert "\x1b" not in line
        assert "99.8 %25" in line
    assert run(["gate", str(mixed[0]), "--require", "drop<=5", "--github"]) == 0
    assert capsys.readouterr().err.startswith("::notice ")


def test_markdown_holds_no_markup_of_a_name(mixed, decided, tmp_path):
    decided(*mixed, "--markdown", tmp_path / "gate.md")
    lines = (tmp_path / "gate.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and "&lt;" in line]
    assert len(rows) == 3
    for row in rows:
        assert row.count("|") == 6
        assert not any(text in row for text in ("<i>", "`", "@"))
    assert sum("images like these" in line for line in lines) == 1


def test_an_unwritable_file_is_found_before_anything_is_measured(mixed, refused, tmp_path):
    refused("gate", *mixed, "--junit", tmp_path / "none" / "gate.xml")
    refused("gate", *mixed, "--markdown", mixed[0])


def test_few_processes_count_for_less(profiled, decided):
    few = profiled("few.json", "fake:latency_ms=5", "fake:latency_ms=5,seed=1", processes=2)
    many = profiled("many.json", "fake:latency_ms=5", "fake:latency_ms=5,seed=1", processes=4)
    two, four = (decided(path, "--require", "slowdown<=3%")[1]["slowdown<=3%"] for path in (few, many))
    assert (two["verdict"], four["verdict"]) == ("undecided", "pass")
    assert two["high"] > 7.5  # 3.09 times the spread of two pairs
    assert "--processes" in two["hint"]
    assert decided(few, "--require", "slowdown<=20%,p90<=6ms")[0] == 0


def test_folder_of_a_sweep_is_called_one(tmp_path, capsys):
    (tmp_path / "sweep.json").write_text("{}")
    assert run(["gate", str(tmp_path), "--require", "p99<=1ms"]) == 2
    assert "emca-deploy report" in capsys.readouterr().err
