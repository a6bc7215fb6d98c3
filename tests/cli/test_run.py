"""`run`: the best variant of a bundle that this machine can run, on images, folders, streams and a watched folder."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from emca_deploy.api.bundle import BundleRequest, bundle
from emca_deploy.artifacts import Manifest, read_manifest, write_manifest
from emca_deploy.backends import registry
from emca_deploy.cli import run
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import Preprocessing

NAMES = ("red", "green", "blue")
COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


def write_colours(path: Path, **facts) -> Path:
    """Write a classifier of 8x8 images, whose logits are the means of the channels, with its manifest."""
    nodes = [helper.make_node("GlobalAveragePool", ["input"], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])]
    graph = helper.make_graph(nodes, facts.pop("graph", "g"), inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    values = {"kind": "onnx", "sha256": "", "precision": "fp32", "num_classes": 3, "preprocessing": Preprocessing(8, 8)}
    write_manifest(path, Manifest(**{**values, **facts}))
    return path


def packed(folder: Path, *models: Path, name: str = "m.emca") -> Path:
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    bundle(BundleRequest(models, folder / name, labels=folder / "labels.txt", licence="Apache-2.0"))
    return folder / name


@pytest.fixture
def model(tmp_path):
    return packed(tmp_path, write_colours(tmp_path / "model.onnx"))


@pytest.fixture
def images(tmp_path):
    """A folder of one image of each colour, in a folder each."""
    for name, colour in COLOURS.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (12, 9), colour).save(tmp_path / "images" / name / "1.png")
    return tmp_path / "images"


def answers(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def lines(capsys):
    """Return a function that runs a bundle on images and returns its JSON lines."""

    def get(*words) -> list[dict]:
        capsys.readouterr()
        assert run(["run", *map(str, words), "--json"]) == 0
        return answers(capsys)

    return get


def test_each_image_has_a_line_with_its_classes(model, images, capsys):
    assert run(["run", str(model), str(images), str(images / "red/1.png"), "--top-k", "2"]) == 0
    out, err = capsys.readouterr()
    assert [line.split(": ")[1].split()[0] for line in out.splitlines()] == ["blue", "green", "red", "red"]
    assert out.splitlines()[0].startswith(f"{images}/blue/1.png: ")
    assert "fp32-onnx" in err


@pytest.mark.parametrize("kind", ["archive", "folder", "onnx"])
def test_archive_folder_and_model_give_the_same_json(model, images, lines, tmp_path, kind):
    place = {"archive": model, "onnx": tmp_path / "model.onnx", "folder": tmp_path / "m"}[kind]
    if kind == "folder":
        packed(tmp_path, tmp_path / "model.onnx", name="m")
    (found,) = lines(place, images / "green/1.png", "--top-k", 3)
    assert found["classes"][0]["index"] == 1
    assert found["classes"][0]["name"] == (None if kind == "onnx" else "green")
    assert sum(each["probability"] for each in found["classes"]) == pytest.approx(1)


def test_unreadable_images_are_said_and_the_others_answered(model, images, capsys):
    (images / "green/0.png").write_bytes(b"no image")
    assert run(["run", str(model), str(images), "--json"]) == 2
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["error"] is not None for each in found] == [False, True, False, False]
    assert "0.png" in err


@pytest.mark.parametrize("words", [["none.png"], ["-", "."], [".", "--variant", "none"], ["model.onnx", "--watch"], ["empty"]])
def test_wrong_input_is_refused(model, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(["run", str(model), *words]) == 2


def test_an_engine_of_another_version_is_left_out_and_the_model_runs(tmp_path, images, capsys):
    source = write_colours(tmp_path / "model.onnx")
    engine = tmp_path / "fast.ort.onnx"
    assert run(["build", str(source), "--backend", "onnxruntime", "-o", str(engine)]) == 0
    fitting = packed(tmp_path, engine, source)
    capsys.readouterr()
    assert run(["run", str(fitting), str(images / "red/1.png")]) == 0
    assert "runs variant onnxruntime-fp32 " in capsys.readouterr().err
    manifest = read_manifest(engine)
    write_manifest(engine, replace(manifest, versions={"onnxruntime": "1.2.3"}))
    other = packed(tmp_path, engine, source)
    assert run(["run", str(other), str(images / "red/1.png")]) == 0
    err = capsys.readouterr().err
    assert "1.2.3" in err
    assert "runs variant fp32-onnx on onnxruntime" in err
    assert run(["run", str(other), str(images / "red/1.png"), "--variant", "onnxruntime-fp32"]) == 3


def test_a_model_for_a_missing_backend_runs_last_on_onnx_runtime(tmp_path, images, capsys, monkeypatch):
    own = write_colours(tmp_path / "own.onnx", graph="own", precision="int8", backend="onnxruntime")
    other = write_colours(tmp_path / "other.onnx", graph="other", precision="int8", backend="openvino")
    both, alone = packed(tmp_path, other, own), packed(tmp_path, other, name="alone.emca")
    find = registry.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "openvino" else find(name))
    for place, wanted in ((both, "onnxruntime-int8-onnx"), (alone, "openvino-int8-onnx")):
        assert run(["run", str(place), str(images / "red/1.png")]) == 0
        assert f"runs variant {wanted} on onnxruntime" in capsys.readouterr().err


def test_frames_of_a_camera_on_the_standard_input(model, images, lines):
    frames = []
    for name in NAMES:
        Image.open(images / name / "1.png").save(images / "frame.jpg", quality=95)
        frames.append((images / "frame.jpg").read_bytes())
    read, write = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(read, 0)
        os.write(write, b"--boundary\r\n".join(frames))
        os.close(write)
        found = lines(model, "-")
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read)
    assert [(each["image"], each["classes"][0]["name"]) for each in found] == [
        ("frame 1", "red"),
        ("frame 2", "green"),
        ("frame 3", "blue"),
    ]


def test_watch_answers_new_images_when_they_are_complete_and_ends_cleanly(model, images, tmp_path):
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "emca_deploy", "run", str(model), str(images), "--watch", "--json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        first = [json.loads(process.stdout.readline()) for _ in NAMES]
        whole = (images / "blue/1.png").read_bytes()
        with (images / "new.png").open("wb") as stream:
            stream.write(whole[:40])
            stream.flush()
            time.sleep(0.3)
            stream.write(whole[40:])
        new = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert sorted(each["classes"][0]["name"] for each in first) == ["blue", "green", "red"]
    assert (new["image"], new["classes"][0]["name"]) == (str(images / "new.png"), "blue")
    assert process.returncode == 0, err
    assert list((tmp_path / "tmp").glob(".emca-deploy-*")) == []


def test_python(model, images, tmp_path):
    import emca_deploy as ed

    paths = [images / name / "1.png" for name in NAMES]
    with ed.load_bundle(model) as colours:
        found = colours(paths)
        again = colours([Image.open(path) for path in paths])
        arrays = colours(np.stack([np.asarray(Image.open(path)) for path in paths]))
        single = colours(str(paths[2]))
        assert (colours.variant, colours.backend, colours.names) == ("fp32-onnx", "onnxruntime", NAMES)
        with pytest.raises(DataError):
            colours([np.zeros((3, 3), np.float32)])
    assert found.labels == NAMES
    assert found.classes.tolist() == [0, 1, 2]
    assert found.logits.shape == (3, 3)
    assert single.labels == ("blue",)
    for other in (again, arrays):
        assert np.array_equal(other.logits, found.logits)


def test_a_detector_answers_with_boxes_in_the_images_pixels(tmp_path, images, lines):
    from detector_graphs import write_detector

    write_detector(tmp_path / "detector.onnx", masks=False)
    used = Preprocessing(64, 64, resize="letterbox", pad="end", pad_value="mean")
    write_manifest(tmp_path / "detector.onnx", Manifest("onnx", "", "fp32", num_classes=4, preprocessing=used))
    bundle(BundleRequest((tmp_path / "detector.onnx",), tmp_path / "d.emca"))
    found = lines(tmp_path / "d.emca", images, "--top-k", 2)
    assert [len(each["objects"]) for each in found] == [2, 2, 2]
    assert all(each["classes"] == [] and each["error"] is None for each in found)
    first, second = found[0]["objects"]
    assert first["score"] >= second["score"] > 0
    assert len(first["box"]) == 4


def test_probabilities_are_those_of_the_fitted_temperature(tmp_path, images, lines):
    plain = packed(tmp_path, write_colours(tmp_path / "model.onnx"))
    fitted = packed(tmp_path, write_colours(tmp_path / "model.onnx", temperature=2.0), name="fitted.emca")
    one, other = ({c["index"]: c["probability"] for c in lines(place, images)[0]["classes"]} for place in (plain, fitted))
    rooted = {index: value**0.5 for index, value in one.items()}
    assert other == pytest.approx({index: value / sum(rooted.values()) for index, value in rooted.items()})
