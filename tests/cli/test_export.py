"""`emca-deploy export` as a user runs it."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from emca_deploy.cli import run

FRESH = ["export", "--random-init", "--arch", "resnet18", "--num-classes", "3", "--image-size", "32"]


@pytest.fixture
def with_small_networks(small_networks):
    with small_networks():
        yield


@pytest.fixture(scope="module")
def plain_weights(lively_network):
    """State dict of a small network without attention."""
    return lively_network("resnet10", 3).state_dict()


@pytest.fixture(scope="module")
def plain_checkpoint(tmp_path_factory, plain_weights):
    """A .safetensors file of that state dict."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    save_file(plain_weights, path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class CreatesAFile:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_training_checkpoint_becomes_a_checked_model_and_its_manifest(trained_model, training_checkpoint):
    model = trained_model
    onnx.checker.check_model(str(model), full_check=True)
    manifest = json.loads(Path(f"{model}.manifest.json").read_text())
    assert manifest["sha256"] == sha256(model)
    assert manifest["inputs"] == {"checkpoint": sha256(training_checkpoint)}
    assert (manifest["kind"], manifest["precision"], manifest["backend"]) == ("onnx", "fp32", None)
    assert (manifest["arch"], manifest["num_classes"]) == ("emca_eca_resnet18", 3)
    assert manifest["preprocessing"] == {
        "image_size": 32, "resize_size": 40, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "resize": "shortest", "interpolation": "bilinear", "pad": "center", "pad_value": 0.0, "channels": "rgb", "scale": 255,
        "exif": "ignore", "assumed": ["mean", "std", "resize", "interpolation", "channels", "scale", "exif"],
    }  # fmt: skip
    assert {"torch", "onnx", "onnxruntime"} <= set(manifest["versions"])
    assert manifest["command"].split()[0] == "emca-deploy"
    assert manifest["details"]["batch"] == "dynamic"
    assert manifest["details"]["parity"]["max_rel"] < 1e-5
    assert manifest["details"]["checkpoint"] == {
        "container": "state_dict", "prefix": "module.", "head": "module.head", "weights": "plain", "both_weights": False,
        "left_out": {"best_acc1": 1}, "not_loaded": [],
    }  # fmt: skip


@pytest.mark.parametrize("batch", [1, 5])
def test_a_dynamic_batch_computes_what_pytorch_does(trained_model, training_checkpoint, batch):
    import torch

    from emca_deploy.networks.checkpoints import load_checkpoint

    images = np.random.default_rng(batch).standard_normal((batch, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(trained_model), providers=["CPUExecutionProvider"])
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:], returned.name, returned.shape[1:]) == ("images", [3, 32, 32], "logits", [3])
    logits = session.run(None, {"images": images})[0]
    module, _ = load_checkpoint(training_checkpoint)
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_fresh_weights_with_a_fixed_batch_as_json(tmp_path, capsys, files):
    output = tmp_path / "fresh.onnx"
    assert run([*FRESH, "--batch", "2", "--opset", "18", "--json", "-o", str(output)]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert len(err.splitlines()) == 1
    assert "preprocessing" in err
    assert set(document) == {"schema_version", "onnx", "arch", "num_classes", "params", "precision", "parity"}
    assert set(document["parity"]) == {"max_abs", "max_rel", "cosine", "samples"}
    assert (document["onnx"], document["arch"], document["num_classes"]) == (str(output), "resnet18", 3)
    assert document["params"] == 11_178_051
    assert document["parity"]["cosine"] == pytest.approx(1)
    proto = onnx.load(output)
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 32, 32]
    assert [o.version for o in proto.opset_import if not o.domain] == [18]
    manifest = json.loads(Path(f"{output}.manifest.json").read_text())
    assert manifest["inputs"] == {}
    assert (manifest["details"]["batch"], manifest["details"]["opset"]) == (2, 18)
    assert files(tmp_path) == {"fresh.onnx", "fresh.onnx.manifest.json"}
    assert output.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.usefixtures("with_small_networks")
def test_outside_the_parity_gate_is_exit_4_and_leaves_the_old_file(tmp_path, plain_checkpoint, refused, monkeypatch, files):
    from emca_deploy.exporting import parity

    monkeypatch.setattr(parity, "MAX_RELATIVE_ERROR", 1e-12)
    output = tmp_path / "model.onnx"
    output.write_bytes(b"old")
    assert "more than 1e-12" in refused("export", plain_checkpoint, "-o", output, "--image-size", 32, code=4)
    assert output.read_bytes() == b"old"
    assert files(tmp_path) == {"model.onnx"}


def test_a_batch_larger_than_any_memory_is_refused(tmp_path, refused, files):
    said = refused(*FRESH, "--batch", 2**40, "-o", tmp_path / "x.onnx")
    assert "--batch" in said
    assert files(tmp_path) == set()


@pytest.mark.usefixtures("with_small_networks")
def test_fp16_says_what_became_of_it(tmp_path, small_checkpoint, capsys, files):
    output = tmp_path / "half.onnx"
    command = ["export", str(small_checkpoint), "-o", str(output), "--image-size", "32", "--precision", "fp16"]
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["precision"] == "fp16"
    details = document["fp16"]
    assert details["fp32_parity"]["max_rel"] < 1e-5 < document["parity"]["max_rel"] < details["tolerance"]
    assert details["float32_nodes"]["pooled means"] == 8
    assert details["float32_layers"] == {}
    manifest = json.loads(Path(f"{output}.manifest.json").read_text())
    assert (manifest["precision"], manifest["inputs"]) == ("fp16", {"checkpoint": sha256(small_checkpoint)})
    assert manifest["details"]["fp16"] == details
    assert manifest["details"]["parity"] == document["parity"]
    onnx.checker.check_model(str(output), full_check=True)
    assert files(tmp_path) == {"half.onnx", "half.onnx.manifest.json"}


@pytest.mark.usefixtures("with_small_networks")
def test_fp16_of_weights_it_cannot_hold_is_told_and_of_none_refused(tmp_path, plain_weights, capsys, refused, files):
    from safetensors.torch import save_file

    given = tmp_path / "given"
    given.mkdir()
    name = next(name for name in plain_weights if name.endswith("conv1.weight") or name == "stem.conv.weight")
    tiny = {**plain_weights, name: plain_weights[name] * 1e-6}
    save_file(tiny, given / "tiny.safetensors")
    half = ["--image-size", "32", "--precision", "fp16"]
    assert run(["export", str(given / "tiny.safetensors"), "-o", str(tmp_path / "a.onnx"), *half]) == 0
    out, err = capsys.readouterr()
    assert "fp16 parity with fp32" in out
    assert "too small for fp16 and became 0" in err
    huge = {**plain_weights, name: plain_weights[name] * 1e8}
    save_file(huge, given / "huge.safetensors")
    said = refused("export", given / "huge.safetensors", "-o", tmp_path / "b.onnx", *half)
    assert "--precision fp32" in said
    assert files(tmp_path) == {"a.onnx", "a.onnx.manifest.json", "given/tiny.safetensors", "given/huge.safetensors"}


@pytest.mark.usefixtures("with_small_networks")
def test_outside_the_fp16_gate_is_exit_4_and_leaves_the_old_file(tmp_path, plain_checkpoint, refused, monkeypatch, files):
    from emca_deploy.exporting import half

    monkeypatch.setattr(half, "check_half", partial(half.check_half, gate=1e-9))
    output = tmp_path / "model.onnx"
    output.write_bytes(b"old")
    said = refused("export", plain_checkpoint, "-o", output, "--image-size", 32, "--precision", "fp16", code=4)
    assert "more than 1e-09" in said
    assert output.read_bytes() == b"old"
    assert files(tmp_path) == {"model.onnx"}


@pytest.fixture(
    params=["empty", "text", "truncated", "truncated safetensors", "hostile", "hostile legacy", "alien", "no tensors", "folder"]
)
def bad_checkpoint(request, tmp_path, training_checkpoint, checkpoint):
    """Return a checkpoint that must be refused, and the words of the message."""
    import torch

    path = tmp_path / "given" / ("x.safetensors" if "safetensors" in request.param else "x.pth")
    path.parent.mkdir()
    hostile = {"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": CreatesAFile(tmp_path / "hacked")}
    match request.param:
        case "empty":
            path.touch()
        case "text":
            path.write_text("hello, this is no checkpoint")
        case "truncated":
            path.write_bytes(training_checkpoint.read_bytes()[: 1 << 20])
        case "truncated safetensors":
            path.write_bytes(checkpoint.read_bytes()[: 1 << 20])
        case "hostile":
            torch.save(hostile, path)
        case "hostile legacy":
            path.write_bytes(pickle.dumps(hostile["extra"], protocol=2))
        case "alien":
            torch.save({"encoder.weight": torch.zeros(4, 4), "encoder.bias": torch.zeros(4)}, path)
        case "no tensors":
            torch.save({"epoch": 3}, path)
        case "folder":
            path.mkdir()
    words = {"text": "neither", "hostile": "pickled", "hostile legacy": "pickled", "alien": "holds no ResNet"}
    return path, words.get(request.param, request.param.replace("truncated safetensors", "damaged"))


def test_a_bad_checkpoint_is_refused_and_runs_nothing(bad_checkpoint, tmp_path, refused):
    path, words = bad_checkpoint
    (tmp_path / "out").mkdir()
    said = refused("export", path, "-o", tmp_path / "out" / "model.onnx", "--image-size", 32)
    assert str(path) in said
    assert words in said
    assert {p.name for p in tmp_path.iterdir()} == {"given", "out"}  # none of its code was run
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such.pth"], "no-such.pth: no such file"),
        ([], "either a CHECKPOINT or --random-init"),
        (["no-such.pth", "--random-init"], "either a CHECKPOINT or --random-init"),
        (["--random-init"], "--arch"),
        (["--random-init", "--arch", "emca_eca_resnet19"], "nearest: emca_eca_resnet1"),
        (["--random-init", "--arch", "resnet18", "--batch", "all"], "--batch all"),
        (["--random-init", "--arch", "resnet18", "--batch", "²"], "--batch ²"),
        (["--random-init", "--arch", "resnet18", "--mean", "0.5,0.5"], "--mean 0.5,0.5"),
        (["--random-init", "--arch", "resnet18", "--std", "nan"], "--std nan"),
        (["--random-init", "--arch", "resnet18", "--std", "0"], "--std 0"),
        (["--random-init", "--arch", "resnet18", "--image-size", "32", "--opset", "99"], "--opset 99"),
        (["--random-init", "--arch", "resnet18", "--precision", "fp4"], "--precision"),
    ],
)
def test_wrong_options_are_refused(arguments, words, tmp_path, refused, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused("export", *arguments, "-o", tmp_path / "model.onnx")
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--num-classes", "7"], "has 3 classes"), (["--arch", "resnet18"], "--arch emca_eca_resnet18")],
)
def test_options_that_contradict_the_checkpoint_are_refused(arguments, words, checkpoint, tmp_path, refused, files):
    assert words in refused("export", checkpoint, *arguments, "-o", tmp_path / "model.onnx")
    assert files(tmp_path) == set()


def test_outputs_that_cannot_be_written_are_said_before_the_work(tmp_path, refused, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # with it, any work would fail in another way
    (tmp_path / "file").write_text("a file")
    for output, words in (
        (tmp_path / "missing" / "x.onnx", f"mkdir -p {tmp_path / 'missing'}"),
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x.onnx", "cannot be written"),
        (Path("/dev/null"), "not a regular file"),
    ):
        said = refused(*FRESH, "-o", output)
        assert str(output) in said
        assert words in said
    assert files(tmp_path) == {"file"}


def test_a_read_only_place_is_refused(small_disk, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "Read-only" in refused(*FRESH, "-o", small_disk / "x.onnx")


@pytest.mark.usefixtures("with_small_networks")
def test_a_full_disk_leaves_nothing(small_disk, plain_checkpoint, refused, files):
    said = refused("export", plain_checkpoint, "-o", small_disk / "model.onnx", "--image-size", 32)
    assert str(small_disk / "model.onnx") in said
    assert "free space" in said
    assert files(small_disk) == set()


def test_without_pytorch_the_extra_is_named(tmp_path, refused, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "emca-deploy[export]" in refused(*FRESH, "-o", tmp_path / "x.onnx", code=3)
    assert files(tmp_path) == set()
