"""`layers`: both runtimes in one table, a plot, and profiles of trtexec."""

import json
import os
from xml.etree import ElementTree

import pytest

from emca_deploy.api import layers
from emca_deploy.artifacts import manifest_path
from emca_deploy.cli import run
from emca_deploy.results.codec import from_json
from emca_deploy.results.layers import LayersReport

QUICK = ["--calls", "5", "--threads", "1"]


@pytest.fixture(scope="module")
def engine(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "model.ov"
    assert run(["build", str(model), "--backend", "openvino", "-o", str(path)]) == 0
    return path


def test_both_runtimes_tell_attention_and_add_up(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(layers, "PROBE_S", 0.0)  # the fewest calls suffice: this test does not need the peak rate
    plot, output = tmp_path / "layers.svg", tmp_path / "layers.json"
    names = [f"{backend}={model}" for backend in ("onnxruntime", "openvino")]
    assert run(["layers", *names, *QUICK, "--json", "--plot", str(plot), "-o", str(output)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert json.loads(output.read_text()) == document
    ElementTree.fromstring(plot.read_text())
    for result in from_json(LayersReport, document).results:
        assert sum(result.share_percent.values()) == pytest.approx(100)
        assert result.share_percent["convolution"] > 10
        assert result.share_percent["attention"] > 0
        assert result.sum_ms == pytest.approx(sum(layer.median_ms for layer in result.layers))
        assert 0 < result.layers_ms < result.profiled_ms
        assert result.end_to_end_ms > 0
        assert set(result.roofline.gops) == {"fp32", "int8"}
        assert result.roofline.bandwidth_gb_s > 0
        gates = [layer for layer in result.layers if layer.kind == "attention"]
        assert any("attention" in name for layer in gates for name in layer.nodes)
        main = [layer for layer in result.layers if layer.kind == "convolution"]
        assert all(layer.macs and layer.utilisation_percent and layer.precision == "fp32" for layer in main)
        # 602,112 in the stem, 294,912 in the first stage and 229,376 in each other one: the runtime's layers contain all work.
        assert sum(layer.macs for layer in result.layers) == pytest.approx(1.5855e6, rel=0.01)


def test_an_engine_finds_its_model_and_says_when_it_does_not(engine, model, capsys):
    assert run(["layers", str(engine), *QUICK, "--no-roofline", "--top", "3"]) == 0
    out = capsys.readouterr().out
    assert "attention" in out.split("by kind:")[1].splitlines()[0]
    assert "roof (" not in out
    place = manifest_path(engine)
    manifest = json.loads(place.read_text())
    manifest["details"]["source"] = "moved.onnx"
    place.write_text(json.dumps(manifest))
    assert run(["layers", str(engine), *QUICK, "--no-roofline"]) == 0
    out = capsys.readouterr().out
    assert "pass --model" in out
    assert run(["layers", str(engine), *QUICK, "--no-roofline", "--model", str(model)]) == 0
    assert "pass --model" not in capsys.readouterr().out


@pytest.fixture
def of_trtexec(tmp_path):
    path = tmp_path / "profile.json"
    row = {"name": "stem.conv + stem.relu", "timeMs": 10.0, "averageMs": 0.1, "medianMs": 0.1, "percentage": 100.0}
    path.write_text(json.dumps([{"count": 50}, row]))
    return path


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_on_a_full_disk_what_was_measured_is_still_told(of_trtexec, full_disk, option, capsys):
    assert run(["layers", str(of_trtexec), option, str(full_disk / "out.svg")]) == 2
    out, err = capsys.readouterr()
    assert "stem.conv + stem.relu" in out
    assert f"error: {full_disk / 'out.svg'}: " in err
    assert os.listdir(full_disk) == ["filling"]  # noqa: PTH208


def test_a_profile_of_trtexec(of_trtexec, model, capsys):
    path = of_trtexec
    assert run(["layers", str(path), "--model", str(model), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["backend"], result["calls"], result["end_to_end_ms"]) == ("tensorrt", 50, None)
    assert result["layers"][0]["kind"] == "convolution"


def test_bad_input_is_refused_in_two_lines(tmp_path, model, refused, files):
    damaged = tmp_path / "damaged.json"
    damaged.write_text('[{"count": 5}, ')
    assert "damaged.json" in refused("layers", damaged)
    assert "no such file" in refused("layers", tmp_path / "absent.onnx")
    assert "--exportProfile" in refused("layers", _engine_of_tensorrt(tmp_path))
    assert str(tmp_path / "absent") in refused("layers", model, *QUICK, "--plot", tmp_path / "absent" / "a.svg")
    assert files(tmp_path) == {"damaged.json", "t.engine", "t.engine.manifest.json"}


def _engine_of_tensorrt(folder):
    from emca_deploy.artifacts import Manifest, write_manifest

    path = folder / "t.engine"
    path.write_bytes(b"engine")
    write_manifest(path, Manifest("engine", "", "int8", backend="tensorrt"))
    return path


@pytest.mark.parametrize(
    ("pair_s", "wanted", "pace"),
    [(0.001, None, (10, 100, 5)), (3.0, None, (2, 10, 1)), (60.0, None, (2, 3, 1)), (3.0, 200, (2, 200, 1)), (1.0, 5, (5, 5, 1))],
)
def test_slow_calls_are_fewer_unless_their_number_is_given(pair_s, wanted, pace):
    assert layers._pace(pair_s, wanted) == pace
