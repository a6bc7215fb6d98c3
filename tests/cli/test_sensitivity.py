"""`emca-deploy sensitivity` as a user runs it."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from emca_deploy.cli import run


@pytest.fixture(scope="module")
def own(model, tmp_path_factory, alone):
    return alone(model, tmp_path_factory.mktemp("own"))


def arguments(model, data, *more):
    return [
        str(a) for a in ("sensitivity", model, "--data", data, "--backend", "openvino", "--threads", 1, "--samples", 11, *more)
    ]


@pytest.fixture(scope="module")
def document(own, flat_images):
    """Output and files of a first run."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert run(arguments(own, flat_images, "--json")) == 0
    assert f"note: {flat_images} has 10 images, fewer than --samples 11; all were used" in err.getvalue()
    return json.loads(out.getvalue())


def test_json_has_every_layer_and_block(document, own):
    assert (document["artifact"], document["backend"], document["samples"]) == (str(own), "openvino", 10)
    assert document["simulated_with"].startswith("onnxruntime ")
    assert [unit["kind"] for unit in document["units"]].count("layer") == 13
    assert [unit["kind"] for unit in document["units"]].count("block") == 4
    assert set(document["units"][0]["alone"]) == {"sqnr_db", "flips_percent"}
    side = own.with_name("model.openvino.sensitivity.json")
    assert len(json.loads(side.read_text())["found"]) == 1 + 2 * 17


def test_a_second_run_prints_the_table_and_draws_the_page(document, own, flat_images, tmp_path, capsys, files):
    page = tmp_path / "page.html"
    before = files(own.parent)
    assert run(arguments(own, flat_images, "-o", page)) == 0
    out = capsys.readouterr().out
    assert "simulated in float" in out
    names = [unit["pattern"] for unit in document["units"]]
    rows = [line.split()[0] for line in out.splitlines() if line.split() and line.split()[0] in names]
    assert rows == names  # most sensitive first, as in the document
    text = page.read_text()
    assert text.count("<svg") == 2
    assert all(name in text for name in names)
    for foreign in ("http:", "https:", "<script", "src=", "@import"):
        assert foreign not in text.replace("http://www.w3.org/2000/svg", "")
    assert files(tmp_path) == {"page.html"}
    assert files(own.parent) == before


def test_ctrl_c_keeps_what_was_measured(own, flat_images, tmp_path, files):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (own, Path(f"{own}.manifest.json")):
        (folder / path.name).hardlink_to(path)
    model, page = folder / own.name, tmp_path / "page.html"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "emca_deploy", *arguments(model, flat_images, "-o", page)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    side = model.with_name("model.openvino.sensitivity.json")
    end = time.monotonic() + 120
    while not side.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err
    assert files(tmp_path) == {
        f"model/{name}" for name in (own.name, f"{own.name}.manifest.json", side.name, "model.ranges.json")
    }
    assert json.loads(side.read_text())["found"]


def test_bad_input_is_refused_before_anything_is_measured(own, flat_images, tmp_path, refused, files):
    before = files(own.parent)
    assert "openvino" in refused(*arguments(own, flat_images, "--backend", "openvin"))
    assert "mkdir -p" in refused(*arguments(own, flat_images, "-o", tmp_path / "missing" / "page.html"))
    assert "is a folder" in refused(*arguments(own, flat_images, "-o", tmp_path))
    assert "no such file" in refused(*arguments(tmp_path / "none.onnx", flat_images))
    assert str(tmp_path / "nothing") in refused(*arguments(own, tmp_path / "nothing"))
    assert files(own.parent) == before
    assert files(tmp_path) == set()
