"""The part of a detector after its dense outputs on the host, against the whole graph."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refusing

from emca_deploy.artifacts import Manifest, TensorSpec, write_manifest
from emca_deploy.errors import ModelError
from emca_deploy.results.codec import to_json
from emca_deploy.tasks.detection import Detection
from emca_deploy.tasks.host_part import HEADS, heads_path
from emca_deploy.tasks.outputs import choose_outputs
from zoo.detectors import small_detector

SIZE = (64, 96)


def written(folder: Path, module, **detector) -> Path:
    """Write a file with the manifest of a dense part, and with the heads that its host part needs."""
    path = folder / "dense.onnx"
    path.write_bytes(b"a dense part")
    details = {"detector": {"config": to_json(module.config), **detector}}
    write_manifest(path, Manifest(kind="onnx", sha256="", precision="fp32", details=details))
    heads = {name: tensor.numpy() for name, tensor in module.state_dict().items() if name.startswith(HEADS)}
    if heads:
        np.savez(heads_path(path), **heads)
    return path


@pytest.mark.parametrize("kind", ["retinanet", "mask_rcnn"])
def test_the_host_finds_what_the_whole_graph_finds(tmp_path, kind):
    module = small_detector(kind).eval()
    images = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(5)) * 4 - 2
    with torch.inference_mode():
        dense = {name: values.numpy() for name, values in module.dense(images).items()}
        expected = {name: values.numpy() for name, values in module(images).items()}
    read = choose_outputs(tmp_path, [TensorSpec(name, "float32", values.shape) for name, values in dense.items()], None)
    assert (read.task, set(read.names)) == ("detection", set(dense))
    given = TensorSpec("images", "float32", (1, 3, *SIZE))
    made = Detection().host_part("dense", written(tmp_path, module), given, read.main)
    assert made is not None
    found = made(dense)
    assert found["num_detections"].tolist() == expected["num_detections"].tolist() != [0]
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    assert found.keys() == expected.keys()


def test_facts_that_are_missing(tmp_path):
    module = small_detector("mask_rcnn")
    given, main = TensorSpec("images", "float32", (1, 3, *SIZE)), TensorSpec("objectness_p2", "float32", (1, 24))
    task = Detection()
    assert task.host_part("whole", tmp_path / "none.onnx", given, replace(main, name="scores")) is None
    path = written(tmp_path, module)
    heads_path(path).rename(tmp_path / "moved.npz")
    with refusing(ModelError, "dense", heads_path(path).name):
        task.host_part("dense", path, given, main)
    moved = written(tmp_path, module, heads="moved.npz")
    heads_path(moved).unlink()
    assert task.host_part("dense", moved, given, main) is not None
    document = json.loads((tmp_path / "dense.onnx.manifest.json").read_text())
    for change in ({}, {"detector": {"config": {"num_classes": "many"}}}):
        (tmp_path / "dense.onnx.manifest.json").write_text(json.dumps({**document, "details": change}))
        with refusing(ModelError, "dense"):
            task.host_part("dense", path, given, main)
