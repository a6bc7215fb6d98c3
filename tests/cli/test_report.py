"""`emca-deploy report`."""

import json
from dataclasses import replace

import pytest

from emca_deploy.artifacts import Manifest
from emca_deploy.cli import run
from emca_deploy.results.accuracy import AccuracyReport, ConfidenceBin, Flip, Flips, ReferenceComparison
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.corruptions import CorruptedCell, CorruptedClass, CorruptedKind, CorruptionReport
from emca_deploy.results.deploy import DeployCandidate, DeployReport, Picture
from emca_deploy.results.latency import LatencyResult, ProtocolRecord
from emca_deploy.results.layers import KINDS, ArtifactLayers, Layer, LayersReport
from emca_deploy.results.ledger import DropLedger, LedgerStage
from emca_deploy.results.load import LatencySummary
from emca_deploy.results.sensitivity import Cost, SensitivityReport, UnitSensitivity

BLOCKS = 12


def candidate(name, p50_ms, drop):
    backend, precision = name.split()
    samples = tuple(p50_ms * (0.9 + 0.02 * (index % 10)) for index in range(20 * BLOCKS))
    summary = LatencySummary(p50_ms * 0.9, *([p50_ms] * 5), p50_ms, p50_ms * 1.2, 0.1, (p50_ms * 0.99, p50_ms * 1.01))
    latency = LatencyResult(
        f"{name}.onnx", backend, precision, "cpu", "single-stream", 1, summary, 1000 / p50_ms, len(samples), 5.0, 6.0, 90.0,
        True, (), samples, block_calls=(20,) * BLOCKS, block_builds=tuple(block // 3 for block in range(BLOCKS)),
        protocol=ProtocolRecord("single-stream", "p90", 1, 0, BLOCKS, 0.1, 2.0, None, 0.01, 64, "fixed duration", "call"),
    )  # fmt: skip
    lost = round(100 * drop)
    flips = Flips(lost + 2, lost + 1, 1, (Flip(3, "a.png", 0, 0, 1),))
    bins = (ConfidenceBin(4000, 55.0, 50.0), ConfidenceBin(6000, 97.0, 96.0))
    reference = ReferenceComparison(
        "onnxruntime fp32", 91.0, 99.0, 99.0, 30.0, drop, (drop - 0.1, drop + 0.1), flips=flips, reliability=bins, ece=2.6
    )
    ratio = 8.0 / p50_ms
    accuracy = AccuracyReport(name, 10_000, 91.0 - drop, 99.0, reference, reliability=bins, ece=2.6)
    return DeployCandidate(name, 10.0, latency, accuracy, ratio, (ratio, ratio))


def write(folder, *rows, **changes):
    candidates = (candidate("onnxruntime fp32", 8.0, 0.0), *(candidate(*row) for row in rows))
    values = {
        "environment": {"fingerprint": "0123"},
        "pictures": (Picture(3, "a.png", 28, 28, "QUJD"),),
        "classes": ("coat", "bag"),
    }
    report = DeployReport(
        "a model", "onnxruntime fp32", candidates, {}, {}, command="emca-deploy demo", created="2026-01-02T03:04:05+00:00",
        seconds=60.0, **{**values, **changes},
    )  # fmt: skip
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(to_json(report)))
    return folder


@pytest.fixture
def deployment(tmp_path):
    return write(tmp_path / "out", ("openvino int8", 2.0, 0.1), ("openvino fp32", 4.0, 0.0), ("onnxruntime int8", 1.5, 2.0))


def document(capsys, *arguments):
    assert run(["report", *map(str, arguments), "--format", "json"]) == 0
    return from_json(DeployReport, json.loads(capsys.readouterr().out))


def test_requirements_on_a_deployment_are_decided_by_intervals(deployment, capsys):
    found = document(capsys, deployment, "--require", "drop<=0.5", "--require", "p50<=5ms, slowdown<=0%")
    (group,) = found.groups
    assert (group.best, found.requirements) == ("openvino int8", ("drop<=0.5", "p50<=5ms", "slowdown<=0%"))
    verdicts = {each.key: each for each in group.cells}
    assert {key: each.outcome for key, each in verdicts.items()} == {
        "openvino int8": "best", "openvino fp32": "slower", "onnxruntime int8": "fails", "onnxruntime fp32": "fails",
    }  # fmt: skip
    low, ratio, high = verdicts["openvino fp32"].time_ratio
    assert 1 < low <= ratio <= high
    assert ratio == pytest.approx(2)
    slowdown = next(each for each in verdicts["openvino fp32"].decisions if each.figure == "slowdown")
    assert (slowdown.baseline, round(slowdown.value)) == ("onnxruntime fp32", -50)
    narrow = document(capsys, deployment, "--require", "drop<=0.11").groups[0]
    assert {each.key: each.outcome for each in narrow.cells}["openvino int8"] == "undecided"  # 0.1 points, by the point within


def test_the_choice_is_on_the_page_the_terminal_and_in_markdown(deployment, tmp_path, capsys):
    rule = ("--require", "drop<=0.5, p50<=5ms")
    assert run(["report", str(deployment), *rule, "-o", str(tmp_path / "page.html")]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    assert run(["report", str(deployment), *rule, "--format", "markdown"]) == 0
    for text in (printed, page, capsys.readouterr().out):
        assert "openvino int8: the fastest that keeps all requirements" in " ".join(text.split())
    assert page.index("Why not the other 3 candidates") < page.index("<h2>Candidates</h2>")
    assert page.count('class="badge">recommended') == 1


def test_two_deployments_are_compared_by_intervals(deployment, tmp_path, capsys, refused):
    other = write(tmp_path / "other", ("openvino int8", 3.0, 0.1), ("torch fp32", 4.0, 0.0))
    changes = {each.key: each for each in document(capsys, deployment, "--against", other).changes}
    assert set(changes) == {"onnxruntime fp32", "openvino int8"}
    assert changes["openvino int8"].time_ratio[2] < 1
    low, _, high = changes["onnxruntime fp32"].time_ratio
    assert low < 1 < high
    assert run(["report", str(deployment), "--against", str(other)]) == 0
    assert "no difference shown" in capsys.readouterr().out
    assert 'id="changes"' in (deployment / "report.html").read_text()
    refused("report", str(deployment), "--against", str(tmp_path / "none"))


def test_the_details_have_what_the_folder_has(deployment):
    manifest = Manifest("engine", "ab" * 32, "int8", "openvino", inputs={"model": "cd" * 32}, command="emca-deploy demo")
    (deployment / "openvino int8.onnx").write_bytes(b"")
    (deployment / "openvino int8.onnx.manifest.json").write_text(json.dumps(to_json(manifest)))
    layer = Layer("stem.conv", "Convolution", "convolution", "int8", 0.5, 100.0)
    share = dict.fromkeys(KINDS, 0.0) | {"convolution": 100.0}
    measured = ArtifactLayers("x/openvino int8.onnx", "openvino", "int8", 1, 2, (layer,), 0.5, None, None, None, share, 9)
    other = replace(measured, precision="fp32", layers=(replace(layer, name="other.conv"),))
    (deployment / "layers.json").write_text(json.dumps(to_json(LayersReport((measured, other)))))
    unit = UnitSensitivity("body.one", "block", "body.one*", 2, 50.0, Cost(40.0, 0.1), Cost(50.0, 0.1), 30.0, 60.0)
    units = SensitivityReport("model.onnx", "openvino", "x", "minmax", 300, 100, 0, Cost(38.0, 0.2), (unit,))
    (deployment / "sensitivity.json").write_text(json.dumps(to_json(units)))
    (deployment / "damaged.json").write_text('{"units": 3}')
    assert run(["report", str(deployment)]) == 0
    page = (deployment / "report.html").read_text()
    parts = page.split('<details class="cell"')
    int8 = next(part for part in parts if "<h3>openvino int8</h3>" in part)
    for expected in ("ab" * 32, "cd" * 32, "stem.conv", "body.one", "ECE 2.60 %", "coat became bag", "lost: it is coat"):
        assert expected in int8
        assert expected not in parts[0]
    assert 'class="picture flip-3"' in int8
    assert page.count("url(data:image/jpeg;base64,QUJD)") == 1  # four candidates show it
    assert 'data-series="' in int8
    fp32 = next(part for part in parts if "<h3>openvino fp32</h3>" in part)
    assert "other.conv" not in page
    assert "stem.conv" not in fp32
    assert "body.one" not in fp32


def test_the_page_has_what_validate_and_profile_left_in_the_folder(deployment):
    stages = (LedgerStage("graph", 90.0, 0.0, 0, 0.0), LedgerStage("runtime", 19.5, 99.0, 7, 0.4, "<stem>", "keeps 13.5 dB"))
    accuracy = candidate("openvino int8", 2.0, 0.1).accuracy
    ledger = DropLedger(500, 19.4, 8, 0.4, stages, 1.0, "runtime")
    (deployment / "explained.json").write_text(json.dumps(to_json(replace(accuracy, artifact="explained", ledger=ledger))))
    cells = tuple(CorruptedCell(strength, 250, 80.0, 81.5, 1.5, (0.1, 2.9), 5, 1) for strength in range(1, 6))
    worst = CorruptedClass(1, "bag", 250, 70.0, 75.0)
    kinds = (CorruptedKind("fog", "weather", 80.0, 81.5, 1.5, cells),)
    rain = CorruptionReport(250, (250,), None, 80.0, 81.5, 1.5, kinds, "fog", 1, worst)
    (deployment / "rain.json").write_text(json.dumps(to_json(replace(accuracy, artifact="wet", corruptions=rain))))
    (deployment / "damaged.json").write_text('{"ledger": 1}')
    assert run(["report", str(deployment)]) == 0
    page = (deployment / "report.html").read_text()
    assert "Where the change of explained comes from" in page
    assert "&lt;stem&gt;: keeps 13.5 dB" in page
    assert "wet on corrupted images" in page
    assert "1: 1.50 (0.10 to 2.90)" in page


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
