"""`emca-deploy calibrate --recover finetune` as a user runs it, on an untrained network and ten images."""

import json
import sys

import pytest

from emca_deploy.cli import run

CLASSES, SMALL = 3, "emca_eca_resnet10"


@pytest.fixture
def arguments(own, flat_images, tmp_path):
    fixed = ["--backend", "openvino", "--threads", 1, "--method", "minmax", "--recover", "finetune"]
    return [str(word) for word in ("calibrate", own, "--data", flat_images, "-o", tmp_path / "int8.onnx", *fixed)]


@pytest.mark.slow
def test_the_document_and_the_manifest_record_it(arguments, small_checkpoint, small_networks, tmp_path, capsys, monkeypatch):
    training = pytest.importorskip("emca_deploy.calibration.finetuning.training", exc_type=ImportError)
    monkeypatch.setattr(training, "STEPS", 10)
    words = [*arguments, "--checkpoint", str(small_checkpoint)]
    with small_networks():
        assert run([*words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["finetune"]
        assert (found["images"], found["kept_out"], found["steps"], found["budget_s"]) == (8, 2, 10, 240.0)
        manifest = json.loads((tmp_path / "int8.onnx.manifest.json").read_text())
        assert manifest["details"]["finetune"] == found
        assert run([*words, "--finetune-budget", "100"]) == 0
    shown = capsys.readouterr().out
    assert "10 steps" in shown
    assert ("not used" in shown) != found["kept"]


def test_an_onnx_file_alone_is_not_enough(arguments, small_checkpoint, refused, tmp_path, files):
    before = files(tmp_path)
    assert "--checkpoint" in refused(*arguments)
    assert "--checkpoint" in refused(*arguments, "--recover", "weights", "--checkpoint", small_checkpoint)
    cache = ["--backend", "tensorrt", "--cache", tmp_path / "cache", "--tensorrt-version", "10.3.0"]
    assert "--cache" in refused(*arguments, *cache, "--checkpoint", small_checkpoint)
    assert files(tmp_path) == before


def test_the_checkpoint_must_be_the_model_s(arguments, shared, lively_network, small_networks, refused, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(lively_network(SMALL, CLASSES, seed=2).state_dict(), tmp_path / "other.pth")
    with small_networks():
        assert "other.pth" in refused(*arguments, "--checkpoint", tmp_path / "other.pth")
    assert not (tmp_path / "int8.onnx").exists()


def test_without_torch_the_exit_code_is_3(arguments, small_checkpoint, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch" in refused(*arguments, "--checkpoint", small_checkpoint, code=3)
