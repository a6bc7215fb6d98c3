"""The published JSON Schemas match the records, and the documents fit them; old files can still be read."""

import importlib.util
import json
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.cli import run
from emca_deploy.errors import DataError, InputError
from emca_deploy.harness.measure.comparing import Measured
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.deploy import read_deploy_report
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.layers import LayersReport
from emca_deploy.results.sensitivity import SensitivityReport
from emca_deploy.results.sweep import SweepReport, read_cell
from emca_deploy.results.tuning import TuneReport

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT / "emca_deploy" / "results" / "schemas"
RESULTS = Path(__file__).parent / "documents"


def generator():
    pytest.importorskip("pydantic")
    spec = importlib.util.spec_from_file_location("generate_schemas", ROOT / "scripts" / "generate_schemas.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def validator(name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def read_as(record):
    return lambda path: from_json(record, json.loads(path.read_text()))


def read_profile_report(path):
    return Measured.read(path).report


READERS = {
    "profile": read_profile_report,
    "deploy": read_deploy_report,
    "validate": read_as(AccuracyReport),
    "validate-detection": read_as(DetectionReport),
    "tune": read_as(TuneReport),
    "layers": read_as(LayersReport),
    "sensitivity": read_as(SensitivityReport),
    "sweep": read_as(SweepReport),
    "sweep-cell": read_cell,
}
"""Readers of each command's document; no code reads the others."""

PRINTED = (
    "bundle",
    "bundle-layout",
    "check-preprocess",
    "compare",
    "compare-logits",
    "fleet",
    "gate",
    "history",
    "report",
    "run",
)
"""Commands whose documents no code reads."""

NOW = {"profile": 2, "deploy": 2, "validate": 1, "validate-detection": 1, "tune": 1, "layers": 1, "sensitivity": 1}
NOW |= {"sweep": 1, "sweep-cell": 1}
"""Current version of each document. A file of every version exists and must not be changed."""


@pytest.mark.parametrize("name", [*READERS, *PRINTED])
def test_published_schemas_are_up_to_date(name):
    published = generator()
    assert set(published.SCHEMAS) == {path.stem for path in SCHEMAS.glob("*.json")} == {*READERS, *PRINTED}
    expected = published.schema_of(name)
    assert json.loads((SCHEMAS / f"{name}.json").read_text()) == expected, "run: python scripts/generate_schemas.py"


def without_later_fields(document, values):
    """Leave out fields added later in the same version; they must be null or empty when an older file is read."""
    if isinstance(document, list) and isinstance(values, list) and len(document) == len(values):
        return [without_later_fields(*both) for both in zip(document, values, strict=True)]
    if isinstance(document, dict) and isinstance(values, dict):
        kept = {key: value for key, value in document.items() if key in values or value not in (None, [])}
        return {key: without_later_fields(value, values.get(key)) for key, value in kept.items()}
    return document


@pytest.mark.parametrize(("name", "version"), [(name, one + 1) for name, now in NOW.items() for one in range(now)])
def test_a_file_of_every_version_is_read_and_written_as_one_of_now(name, version):
    path = RESULTS / f"{name}-v{version}.json"
    values = json.loads(path.read_text())
    assert values["schema_version"] == version
    document = json.loads(json.dumps(to_json(READERS[name](path))))
    assert document["schema_version"] == NOW[name]
    assert list(validator(name).iter_errors(document)) == []
    if version == NOW[name]:
        assert without_later_fields(document, values) == values
        assert list(validator(name).iter_errors(values)) == []
        assert list(validator(name).iter_errors({**values, "schema_version": version + 1}))


@pytest.mark.parametrize("name", ["validate", "tune", "layers", "sensitivity"])
def test_a_version_to_come_is_refused(name):
    record = {"validate": AccuracyReport, "tune": TuneReport, "layers": LayersReport, "sensitivity": SensitivityReport}[name]
    values = json.loads((RESULTS / f"{name}-v1.json").read_text())
    with pytest.raises(DataError, match="schema version 2"):
        from_json(record, {**values, "schema_version": 2})


def test_a_document_of_profile_fits_and_a_wrong_one_does_not(capsys):
    arguments = ["fake:latency_ms=1", "fake:latency_ms=2+fake:latency_ms=2,seed=1", "fake:crash_at=1", "--warmup", "0.05"]
    limits = ["--duration", "0.1", "--max-duration", "0.1", "--threads", "1", "--processes", "1"]
    assert run(["profile", *arguments, *limits, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    check = validator("profile")
    assert list(check.iter_errors(document)) == []
    for wrong in ({**document, "schema_version": 1}, {**document, "failures": [{"name": 3}]}, {"results": []}):
        assert list(check.iter_errors(wrong))


def test_a_document_of_compare_fits(capsys):
    same = str(RESULTS / "profile-v2.json")
    assert run(["compare", same, same, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(validator("compare").iter_errors(document)) == []
    assert {comparison["verdict"] for comparison in document["comparisons"]} == {"no difference shown"}


@pytest.mark.usefixtures("in_threads")
def test_a_document_of_validate_fits(tmp_path, capsys):
    import numpy as np

    images = np.random.default_rng(0).random((6, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "val.npz", images=images, labels=np.arange(6))
    assert run(["validate", "fake:seed=1", "--reference", "fake:seed=2", "--data", str(tmp_path / "val.npz"), "--json"]) in (0, 4)
    document = json.loads(capsys.readouterr().out)
    assert list(validator("validate").iter_errors(document)) == []


def test_a_profile_of_version_1_is_read():
    values = json.loads((RESULTS / "profile-v1.json").read_text())
    assert values["schema_version"] == 1
    report = read_profile_report(RESULTS / "profile-v1.json")
    assert (report.schema_version, report.complete, report.protocol, report.failures) == (2, True, None, ())
    assert [result.latency_ms.p50 for result in report.results] == [result["latency_ms"]["p50"] for result in values["results"]]
    assert report.comparisons[0].verdict == "slower"
    document = json.loads(json.dumps(to_json(report)))
    again = to_json(read_profile_report(RESULTS / "profile-v1.json"))
    assert json.loads(json.dumps(again)) == document


def test_a_deployment_of_version_1_is_read_and_drawn(tmp_path, capsys):
    values = json.loads((RESULTS / "deploy-v1.json").read_text())
    assert values["schema_version"] == 1
    report = read_deploy_report(RESULTS / "deploy-v1.json")
    assert report.schema_version == 2
    assert [candidate.name for candidate in report.candidates] == [one["name"] for one in values["candidates"]]
    assert report.candidates[0].latency.protocol is None
    assert run(["report", str(RESULTS / "deploy-v1.json"), "-o", str(tmp_path / "page.html")]) == 0
    assert report.candidates[1].name in capsys.readouterr().out


@pytest.mark.parametrize("version", [0, 3, "1", None, 2.5])
def test_another_version_is_refused(tmp_path, version):
    for name, read in (("profile", read_profile_report), ("deploy", read_deploy_report)):
        values = json.loads((RESULTS / f"{name}-v1.json").read_text())
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**values, "schema_version": version}))
        with refusing(DataError, path):
            read(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 2}', "[" * 100_000, '{"schema_version": 2, "results": [1]}']
)
def test_what_is_no_profile_is_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with refusing(DataError, path):
        read_profile_report(path)
    with refusing(InputError, tmp_path / "none.json"):
        read_profile_report(tmp_path / "none.json")
