import json
import shutil
from pathlib import Path

import pytest

from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.cli import run
from emca_deploy.preprocessing import Preprocessing

DOCUMENT = Path(__file__).parents[1] / "unit/results/documents/deploy-v2.json"


@pytest.fixture
def deployment(tmp_path, bundled_model):
    """The folder of a deployment, whose engines are copies of the bundled model."""
    folder = tmp_path / "out"
    folder.mkdir()
    model = bundled_model(folder)
    values = json.loads(DOCUMENT.read_text())
    for number, candidate in enumerate(values["candidates"]):
        engine = folder / f"{number}.engine"
        shutil.copy(model, engine)
        with engine.open("ab") as stream:
            stream.write(bytes([number]))
        candidate["latency"] |= {"artifact": f"elsewhere/{engine.name}", "backend": "openvino"}
        source = json.loads((folder / "model.onnx.manifest.json").read_text())["sha256"]
        preprocessing = Preprocessing(image_size=64, resize_size=64, mean=(0.286,) * 3, std=(0.353,) * 3)
        facts = Manifest("engine", "", "int8", "openvino", num_classes=10, preprocessing=preprocessing, inputs={"model": source})
        write_manifest(engine, facts)
    (folder / "result.json").write_text(json.dumps(values))
    return folder


def test_deployment_with_the_models_its_engines_were_built_from(deployment, tmp_path, capsys):
    assert run(["bundle", str(deployment), "-o", str(tmp_path / "m"), "--licence", "Apache-2.0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    latencies = {each["name"]: each["latency"]["latency_ms"]["p50"] for each in json.loads(DOCUMENT.read_text())["candidates"]}
    engines = [each["candidate"] for each in report["variants"] if each["kind"] == "engine"]
    assert engines == sorted(latencies, key=lambda name: latencies[name])
    assert [each["file"] for each in report["variants"] if each["kind"] == "onnx"] == ["variants/fp32-onnx/model.onnx"]
    assert (tmp_path / "m/results/result.json").read_bytes() == (deployment / "result.json").read_bytes()
    card = (tmp_path / "m/MODEL_CARD.md").read_text()
    assert all(name in card for name in latencies)


def test_layout_of_a_deployment_has_the_model_that_the_server_runs(deployment, tmp_path, capsys):
    place = tmp_path / "repository"
    assert run(["bundle", str(deployment), "--layout", "triton", "-o", str(place), "--name", "Fashion", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["layout"], report["name"], report["variant"]["name"]) == ("triton", "fashion", "fp32-onnx")
    assert [each["name"] for each in report["files"]] == ["README.md", "fashion/1/model.onnx", "fashion/config.pbtxt"]
    assert (place / "fashion/1/model.onnx").read_bytes() == (deployment / "model.onnx").read_bytes()
    assert run(["bundle", str(deployment / "0.engine"), "--layout", "kserve", "-o", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_missing_engine_is_named(deployment, tmp_path, capsys):
    (deployment / "0.engine").unlink()
    assert run(["bundle", str(deployment), "-o", str(tmp_path / "m.emca")]) == 2
    assert "0.engine" in capsys.readouterr().err
    assert not (tmp_path / "m.emca").exists()


def test_verify_prints_the_digest_and_refuses_a_changed_file(deployment, tmp_path, capsys):
    place = tmp_path / "m.emca"
    assert run(["bundle", str(deployment / "model.onnx"), "-o", str(place)]) == 0
    capsys.readouterr()
    assert run(["inspect", str(place), "--json"]) == 0
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert run(["verify", str(place)]) == 0
    assert capsys.readouterr().out.split()[0] == digest
    with place.open("r+b") as stream:
        stream.seek(place.stat().st_size // 2)
        stream.write(b"\0\1\2\3")
    for command in ("verify", "inspect"):
        assert run([command, str(place)]) == 2
        assert "model.onnx" in capsys.readouterr().err


def test_bundle_among_the_files_of_the_deployment_is_refused(deployment, capsys):
    assert run(["bundle", str(deployment / "model.onnx"), "-o", str(deployment / "model.onnx")]) == 2
    assert "overwritten" in capsys.readouterr().err
