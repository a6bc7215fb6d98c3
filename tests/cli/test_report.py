"""`emca-deploy report`."""

import json
from dataclasses import asdict

import pytest

from emca_deploy.cli import run
from emca_deploy.results.accuracy import AccuracyReport, ReferenceComparison
from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.latency import LatencyResult, LatencySummary


def candidate(name, p50_ms, drop):
    backend, precision = name.split()
    summary = LatencySummary(p50_ms * 0.9, *([p50_ms] * 5), p50_ms, p50_ms * 1.2, 0.1, (p50_ms * 0.99, p50_ms * 1.01))
    latency = LatencyResult(
        f"{name}.onnx", backend, precision, "cpu", "single-stream", 1, summary, 1000 / p50_ms, 3, 5.0, 6.0, 90.0, True,
        (), (p50_ms * 0.9, p50_ms, p50_ms * 1.2),
    )  # fmt: skip
    reference = ReferenceComparison("onnxruntime fp32", 91.0, 99.0, 99.0, 30.0, drop, (drop - 0.1, drop + 0.1))
    ratio = 8.0 / p50_ms
    return DeployCandidate(name, 10.0, latency, AccuracyReport(name, 100, 91.0 - drop, 99.0, reference), ratio, (ratio, ratio))


@pytest.fixture
def deployment(tmp_path):
    candidates = (candidate("onnxruntime fp32", 8.0, 0.0), candidate("openvino int8", 2.0, 0.1))
    report = DeployReport(
        "a model", "onnxruntime fp32", candidates, {}, {}, {}, "emca-deploy demo", "2026-01-02T03:04:05+00:00", 60.0
    )
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(asdict(report)))
    return folder


def test_draws_the_page_and_prints_the_table(deployment, tmp_path, capsys):
    assert run(["report", str(deployment), "-o", str(tmp_path / "page.html")]) == 0
    assert "openvino int8: 4.0x faster" in (tmp_path / "page.html").read_text()
    assert "openvino int8: 4.0x faster" in capsys.readouterr().out


def test_writes_into_the_folder_when_not_told_where(deployment):
    assert run(["report", str(deployment)]) == 0
    assert sorted(path.name for path in deployment.iterdir()) == ["report.html", "result.json"]


def refused(arguments, capsys):
    assert run(["report", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert [line.split(":")[0] for line in lines] == ["error", "  try"]
    return lines[0]


def test_no_such_folder(tmp_path, capsys):
    assert "result.json" in refused([tmp_path / "none"], capsys)


def test_a_folder_without_a_result(tmp_path, capsys):
    assert "has no result.json" in refused([tmp_path], capsys)


def test_a_result_of_somebody_else_leaves_no_page(tmp_path, capsys):
    (tmp_path / "result.json").write_text('{"schema_version": 1, "hello": 2}')
    assert "not a result" in refused([tmp_path], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_another_schema_version(deployment, capsys):
    document = json.loads((deployment / "result.json").read_text())
    (deployment / "result.json").write_text(json.dumps({**document, "schema_version": 99}))
    assert "schema version 99" in refused([deployment], capsys)


def test_an_unwritable_place(deployment, tmp_path, capsys):
    assert "cannot be written" in refused([deployment, "-o", tmp_path / "none" / "page.html"], capsys)


def test_a_result_is_never_replaced_by_its_report(deployment, capsys):
    before = (deployment / "result.json").read_bytes()
    refused([deployment, "-o", deployment / "result.json"], capsys)
    assert (deployment / "result.json").read_bytes() == before
