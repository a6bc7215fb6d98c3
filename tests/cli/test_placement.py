"""`calibrate --placement measured`: what it tries, keeps and reuses, and what it refuses."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emca_deploy.api.placing import runs, search
from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run
from emca_deploy.harness.measure import tuning
from emca_deploy.results.codec import from_json
from emca_deploy.results.placement import MeasuredPlacement
from emca_deploy.results.tuning import Tunable

DERIVED = ("gained_percent", "lost_db", "lost_db_per_percent")


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """Remove the time limit of a search, and let few processes confirm: a short budget's result depends on the machine's load."""
    monkeypatch.setattr(tuning, "_TOLERANCE", 1000.0)
    monkeypatch.setattr(search, "PROCESSES", 1)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def few_choices(monkeypatch):
    """Limit the search to one choice and the recipe: these tests are about files."""
    monkeypatch.setattr(search.Variants, "space", lambda variants: (Tunable("float.Classifier", default=False, others=(True,)),))


def command(model: Path, images: Path, output: Path, *more: object) -> list[str]:
    quick = ["--threads", "1", "--recover", "none", "--method", "minmax", "--samples", "6", "--placement-budget", "1"]
    given = [] if "--backend" in more else ["--backend", "openvino"]
    return [
        str(a) for a in ("calibrate", model, "--data", images, "-o", output, *given, *quick, "--placement", "measured", *more)
    ]


@pytest.mark.usefixtures("few_choices", "in_threads")
def test_the_result_is_recorded_and_used_again(own, flat_images, out, capsys, files):
    output = out / "int8.onnx"
    assert run(command(own, flat_images, output, "--json")) == 0
    document = json.loads(capsys.readouterr().out)["placement"]
    found = from_json(MeasuredPlacement, {name: value for name, value in document.items() if name not in DERIVED})
    assert (found.backend, found.target, found.reused) == ("openvino", "cpu", False)
    assert [trial.changed for trial in found.rounds[0].trials] == [{"float.Classifier": True}]
    assert found.choices in ({}, {"float.Classifier": True})
    assert bool(found.choices) <= (found.verdict == "faster")
    manifest = read_manifest(output)
    record = manifest.details["placement"]
    assert (record["choices"], record["machine"], record["runtime"]) == (found.choices, found.machine, found.runtime)
    floats = [layer["name"] for layer in manifest.details["coverage"]["float_layers"]]
    assert ("head" in floats) is bool(found.choices)
    assert files(out) == {"int8.onnx", "int8.onnx.manifest.json"}
    assert own.with_name("model.openvino.placement.json").is_file()

    def nothing(*of, **named):
        raise AssertionError("measured again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "search", nothing)
        assert run(command(own, flat_images, out / "again.onnx")) == 0
        assert "reused" in capsys.readouterr().out
        assert read_manifest(out / "again.onnx").details["placement"] == record
        patch.setattr(runs, "tuned_here", lambda backend: {"machine": found.machine, "runtime": "another version"})
        with pytest.raises(AssertionError, match="measured again"):
            run(command(own, flat_images, out / "other.onnx"))
    assert not (out / "other.onnx").exists()


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_kept_choice_decides_the_placement(own, flat_images, out, capsys, monkeypatch, backend):
    """A result in the file is what is placed, whatever it is: here one that no search would find on this network."""
    monkeypatch.setattr(search, "_searched", _found)
    output = out / "int8.onnx"
    assert run(command(own, flat_images, output, "--backend", backend, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["placement"]["lost_db_per_percent"] == pytest.approx(0.02)
    assert [layer["name"] for layer in document["coverage"]["float_layers"]].count("head") == 1
    assert read_manifest(output).details["placement"]["choices"] == {"float.Classifier": True}


def _found(variants, runs, folder, wanted, progress):
    best = {"float.Classifier": True}
    return MeasuredPlacement(
        runs.backend, "cpu", best, best, "faster", 1.1, (1.05, 1.15), 1.1, 1.0, 40.0, 39.8, trials=1, seconds=1.0, rounds=()
    )


def test_what_cannot_be_measured_is_refused_before_any_work(own, flat_images, out, refused, files):
    before = files(own.parent)
    output = out / "int8.onnx"
    assert "tensorrt" in refused(*command(own, flat_images, output, "--backend", "tensorrt"))
    assert "--target" in refused(*command(own, flat_images, output, "--target", "gpu"))
    recipe = ["--placement", "recipe", "--target", "ssh://board.invalid"]
    assert "--placement measured" in refused(*command(own, flat_images, output, *recipe))
    assert str(out / "absent") in refused(*command(own, flat_images, out / "absent" / "int8.onnx"))
    assert files(own.parent) == before
    assert files(out) == set()


@pytest.mark.usefixtures("in_threads")
def test_a_budget_that_is_too_small_is_refused(own, flat_images, out, refused, monkeypatch):
    monkeypatch.setattr(tuning, "_TOLERANCE", 0.01)
    assert "--placement-budget" in refused(*command(own, flat_images, out / "int8.onnx"))
    assert not (out / "int8.onnx").exists()


def test_interrupted_nothing_is_written_but_the_ranges(own, flat_images, out, files):
    before = files(own.parent)
    words = command(own, flat_images, out / "int8.onnx", "--placement-budget", "100")
    process = subprocess.Popen(
        [sys.executable, "-m", "emca_deploy", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not any("openvino" in line or line.startswith(".") for line in files(own.parent) - before):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert files(out) == set()
    assert files(own.parent) - before == {"model.ranges.json"}


@pytest.mark.slow
def test_a_whole_search_never_keeps_what_it_did_not_show_to_be_faster(own, flat_images, out, capsys):
    assert run(command(own, flat_images, out / "int8.onnx", "--placement-budget", "20", "--json")) == 0
    found = json.loads(capsys.readouterr().out)["placement"]
    assert found["trials"] > 2
    if found["choices"]:
        assert found["verdict"] == "faster"
        assert found["ratio_ci95"][0] > 1
    assert (out / "int8.onnx").stat().st_size > 0
