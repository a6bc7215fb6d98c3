"""Calibration takes work linear in the number of nodes, counted in calls, which do not depend on the machine's load."""

import cProfile
import pstats

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.calibration.calibrate import calibrate_model
from zoo.recipes import calibration_options

FEW, MANY = 100, 300


def chain(path, count: int, operator: str):
    """Write a network of two convolutions with a chain of nodes between them."""
    random = np.random.default_rng(0)
    weights = {"w1": random.standard_normal((4, 3, 3, 3)), "w2": random.standard_normal((4, 4, 3, 3)), "head": np.ones((5, 4))}
    nodes = [helper.make_node("Conv", ["input", "w1"], ["k"], "conv1", pads=[1] * 4)]
    last = "k"
    for index in range(count):
        inputs = [last, "k"] if operator == "Add" else [last]
        nodes.append(helper.make_node(operator, inputs, [f"k{index}"], f"n{index}"))
        last = f"k{index}"
    nodes += [
        helper.make_node("Relu", [last], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["c2"], "conv2", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c2"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "head"], ["logits"], "head", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def calls(model, images, output, backend: str) -> int:
    profile = cProfile.Profile()
    profile.enable()
    calibrate_model(model, images, output, calibration_options(backend, method="minmax", samples=2, recover="none"))
    profile.disable()
    return pstats.Stats(profile).total_calls


@pytest.mark.parametrize("operator", ["Relu", "Add"])
def test_work_grows_no_faster_than_the_nodes(operator, images, tmp_path):
    made = {count: chain(tmp_path / f"{count}.onnx", count, operator) for count in (30, FEW, MANY)}
    calls(made[30], images, tmp_path / "warm.onnx", "openvino")  # imports
    few, many = (calls(made[count], images, tmp_path / f"{count}.int8.onnx", "openvino") for count in (FEW, MANY))
    assert many < 1.1 * few * MANY / FEW
