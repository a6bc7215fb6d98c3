"""A result.json is checked and read completely, or refused with the place of the error."""

import json

import pytest

from emca_deploy.errors import InputError
from emca_deploy.reporting.html import render_html
from emca_deploy.results.codec import to_json
from emca_deploy.results.deploy import read_deploy_report


@pytest.fixture
def written(typical, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(to_json(typical)))
    return tmp_path


def test_reads_back_what_was_written(written, typical):
    assert render_html(read_deploy_report(written)) == render_html(typical)
    assert render_html(read_deploy_report(written / "result.json")) == render_html(typical)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("title",), 5, "title"),
        (("candidates",), [], "no candidates"),
        (("baseline",), "other", "baseline is not among"),
        (("candidates", 1, "latency", "latency_ms", "p50"), "fast", "candidates[1].latency.latency_ms.p50"),
        (("candidates", 1, "latency", "latency_ms", "p50"), float("nan"), "p50"),
        (("candidates", 1, "latency", "samples_ms"), [1.0, -2.0], "negative"),
        (("candidates", 1, "latency", "samples_ms"), [1.0, None], "samples_ms[1]"),
        (("candidates", 1, "accuracy", "reference", "top1_drop_ci95"), [1.0], "top1_drop_ci95"),
        (("candidates", 1, "speedup_ci95"), "xy", "speedup_ci95"),
        (("candidates", 1, "accuracy"), None, "not"),
        (("environment",), [], "environment"),
        (("schema_version",), 99, "schema version 99"),
    ],
)
def test_refuses_what_does_not_belong(written, place, value, told):
    document = json.loads((written / "result.json").read_text())
    target = document
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    (written / "result.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"result\.json") as caught:
        read_deploy_report(written)
    assert told in caught.value.problem


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe\x00", b"5", b"null", b"[" * 100_000])
def test_refuses_what_is_no_result(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(InputError):
        read_deploy_report(tmp_path)
