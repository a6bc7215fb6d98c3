import json
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.cli import run

DOCUMENTS = Path(__file__).parents[1] / "unit" / "results" / "documents"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "history.db"


@pytest.fixture
def runs(tmp_path):
    """Return a function that writes profiles of one artifact with these medians, a day apart."""
    values = json.loads((DOCUMENTS / "profile-v2.json").read_text())
    del values["results"][1]
    (result,) = values["results"]
    middle = result["latency_ms"]["p50"]

    def write(medians, day=1):
        paths = []
        for index, median in enumerate(medians):
            factor = median / middle
            latency = {name: np.multiply(value, factor).tolist() for name, value in result["latency_ms"].items()}
            samples = [each * factor for each in result["samples_ms"]]
            environment = {**values["environment"], "created": f"2026-01-{day + index:02}T00:00:00+00:00"}
            one = {**values, "environment": environment, "results": [{**result, "latency_ms": latency, "samples_ms": samples}]}
            paths.append(tmp_path / f"{day + index}.json")
            paths[-1].write_text(json.dumps(one))
        return [str(path) for path in paths]

    return write


def shown(store, capsys, *words):
    capsys.readouterr()
    assert run(["history", "show", *words, "--store", str(store), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_figure_over_time_with_its_change(runs, store, capsys):
    rng = np.random.default_rng(0)
    paths = runs([*rng.normal(5, 0.05, 12), *rng.normal(6, 0.05, 10)])
    assert run(["history", "add", *reversed(paths), "--store", str(store)]) == 0
    assert "22 added, 0 known" in capsys.readouterr().err
    assert run(["history", "add", *paths, "--store", str(store)]) == 0
    assert "0 added, 22 known" in capsys.readouterr().err
    document = shown(store, capsys, "p50")
    (series,) = document["series"]
    assert (series["artifact"], series["backend"], series["batch"]) == ("fake:latency_ms=1", "fake", 1)
    assert [point["created"] for point in series["points"]] == sorted(point["created"] for point in series["points"])
    (change,) = series["changes"]
    assert (change["index"], change["unit"]) == (12, "%")
    assert change["change_ci95"][0] < 20 < change["change_ci95"][1]
    assert change["change"] == pytest.approx(20, abs=2)
    assert run(["history", "show", "p50", "--store", str(store)]) == 0
    assert capsys.readouterr().out.count("2026-01-") >= 22
    assert shown(store, capsys, "p50", "--artifact", "fake:latency_ms=1")["series"] == document["series"]


def test_documents_of_all_kinds_share_a_store(store, capsys):
    names = ["profile-v1", "profile-v2", "deploy-v1", "deploy-v2", "validate-v1", "validate-detection-v1"]
    assert run(["history", "add", *(str(DOCUMENTS / f"{name}.json") for name in names), "--store", str(store)]) == 0
    assert {series["artifact"] for series in shown(store, capsys, "drop")["series"]} >= {"model.int8.onnx"}
    assert all(": " in series["artifact"] for series in shown(store, capsys, "size")["series"])
    assert shown(store, capsys, "energy")["series"] == []


def test_refusals(store, refused):
    refused("history", "add", DOCUMENTS / "tune-v1.json", "--store", store)
    assert not store.exists()
    run(["history", "add", str(DOCUMENTS / "profile-v2.json"), "--store", str(store)])
    assert "p50" in refused("history", "show", "p5", "--store", store)
    assert "fake:latency_ms=1" in refused("history", "show", "p50", "--artifact", "fake:latency_ms=11", "--store", store)


def test_the_gate_compares_with_the_newest_run_and_the_spread(runs, store, capsys, refused):
    rng = np.random.default_rng(1)
    old = runs(5 * np.exp(rng.normal(0, 0.004, 14)))
    (new,) = runs([5.02], day=20)
    gate = ["gate", new, "--baseline", "history", "--store", str(store), "--require", "slowdown<=500%"]
    refused(*gate)
    run(["history", "add", *old, new, "--store", str(store)])
    capsys.readouterr()
    run([*gate, "--json"])
    (decision,) = json.loads(capsys.readouterr().out)["decisions"]
    assert "2026-01-14" in decision["baseline"]
    assert "15 runs in the history" in decision["method"]
    few = [*gate[:1], new, "--baseline", old[-1], *gate[4:], "--json"]
    run(few)
    (same,) = json.loads(capsys.readouterr().out)["decisions"]
    assert (same["low"], same["high"]) == (decision["low"], decision["high"])
    run([*few[:-5], "--store", str(store) + ".none", *few[-3:]])
    (default,) = json.loads(capsys.readouterr().out)["decisions"]
    assert "default" in default["method"]
