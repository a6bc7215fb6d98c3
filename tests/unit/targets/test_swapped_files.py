"""Every process that loads a model refuses a file that changed during the run."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.errors import ModelError
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.targets.candidates import CandidateOptions, candidate


def network(path: Path, scale: float, sidecar: str | None = None) -> Path:
    weight = numpy_helper.from_array(np.full((4, 3, 1, 1), scale, np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], "conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["logits"], "flat"),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path, save_as_external_data=sidecar is not None, location=sidecar, size_threshold=0)
    return path


@pytest.mark.parametrize("sidecar", [None, "w.bin"])
def test_a_process_refuses_a_file_that_was_swapped(tmp_path, sidecar):
    for name, scale in (("one", 1.0), ("other", 2.0)):
        (tmp_path / name).mkdir()
        network(tmp_path / name / "m.onnx", scale, sidecar)
    path = tmp_path / "one" / "m.onnx"
    spec = candidate(str(path), "onnxruntime", CandidateOptions(1))
    with Worker(spec, 60) as worker:
        worker.open()
        worker.abandon()
    for file in (tmp_path / "other").iterdir():
        if sidecar is None or file.name == sidecar:  # for a model with a sidecar, only the sidecar changes
            shutil.copyfile(file, tmp_path / "one" / file.name)
    with Worker(spec, 60) as worker:
        with pytest.raises(ModelError):
            worker.open()
        worker.abandon()
