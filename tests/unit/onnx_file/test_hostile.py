"""Malformed graphs raise one of our errors in every reader."""

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.api.layer_times.graph import graph_of
from emca_deploy.backends.tensorrt.model_facts import count_convolutions, read_facts
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.errors import EmcaError, ModelError
from emca_deploy.exporting.dla_convert import load_float_model
from emca_deploy.onnx_file.file import OnnxFile

SIZE, CLASSES, CHANNELS = 8, 5, 4


def network() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((CHANNELS, 3, 3, 3)),
        "b1": np.zeros(CHANNELS),
        "w2": random.standard_normal((CHANNELS, CHANNELS, 3, 3)),
        "head": random.standard_normal((CLASSES, CHANNELS)),
        "bias": np.zeros(CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["a2"], "add2"),
        helper.make_node("Relu", ["a2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "head", "bias"], ["logits"], "head", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


READERS = [
    lambda path: OnnxFile.open(path).load(),
    load_graph,
    read_facts,
    count_convolutions,
    load_float_model,
    lambda path: graph_of(path, 1),
]


def cycle(model):
    model.graph.node[1].input[0] = "r2"


def self_loop(model):
    model.graph.node[4].input[0] = "r2"


def twice(model):
    model.graph.node[3].output[0] = "r1"


def twice_a_weight(model):
    model.graph.node[3].output[0] = "w1"


def undefined(model):
    model.graph.node[2].input[0] = "nobody"


def no_such_output(model):
    model.graph.output[0].name = "nobody"


def long_name(model):
    model.graph.node[0].name = "n" * 100_000


def long_tensor(model):
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "w" * 100_000


def external(location):
    def change(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return change


def claims_more(model):
    model.graph.initializer[0].dims[0] = 2**30


def negative(model):
    model.graph.initializer[0].dims[0] = -1


def unknown_type(model):
    model.graph.initializer[0].data_type = 99


def too_few_inputs(model):
    del model.graph.node[0].input[1:]


def no_outputs(model):
    del model.graph.node[0].output[:]


def recursive(model):
    body = [helper.make_node("F", ["x"], ["y"], domain="mine")]
    function = helper.make_function(
        "mine", "F", ["x"], ["y"], body, [helper.make_opsetid("mine", 1), helper.make_opsetid("", 20)]
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "F", "mine"


def huge_input(model):
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 2**40


KINDS = {
    "cycle": cycle, "self loop": self_loop, "made twice": twice, "makes a weight": twice_a_weight, "undefined": undefined,
    "no such output": no_such_output, "long name": long_name, "long tensor": long_tensor, "outside": external("../../etc/passwd"),
    "absolute": external("/etc/passwd"), "missing": external("gone.bin"), "long location": external("x" * 5000),
    "claims more": claims_more, "negative": negative, "unknown type": unknown_type, "too few inputs": too_few_inputs,
    "no outputs": no_outputs, "recursive": recursive, "huge input": huge_input,
}  # fmt: skip


@pytest.mark.parametrize("read", READERS, ids=["load", "calibrate", "plan", "count", "dla", "layers"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_graph_is_one_error(kind, read, tmp_path):
    model = network()
    KINDS[kind](model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        read(path)
    assert len(caught.value.problem) < 1500
    assert str(path) in caught.value.problem


def test_the_network_itself_is_read(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(network().SerializeToString())
    for read in READERS:
        read(path)


NAMES = ["input", "w1", "b1", "c1", "r1", "w2", "c2", "a2", "r2", "g", "f", "head", "bias", "logits", "", "x"]
OPERATORS = ["Conv", "Relu", "Add", "Gemm", "MatMul", "Flatten", "Reshape", "Softmax", "If", "Loop", "QuantizeLinear", "Concat",
             "Split", "Identity", "BatchNormalization", "Pad", "Constant", "Nonsense"]  # fmt: skip


@st.composite
def mutated(draw) -> onnx.ModelProto:
    """A network with some names, operators, attributes and shapes changed at random."""
    model = network()
    nodes = model.graph.node
    for _ in range(draw(st.integers(1, 4))):
        node = nodes[draw(st.integers(0, len(nodes) - 1))]
        what = draw(st.sampled_from(["input", "output", "operator", "attribute", "drop", "weight", "swap"]))
        if what == "input" and node.input:
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(NAMES))
        elif what == "output" and node.output:
            node.output[0] = draw(st.sampled_from(NAMES))
        elif what == "operator":
            node.op_type = draw(st.sampled_from(OPERATORS))
        elif what == "attribute":
            node.attribute.append(helper.make_attribute(draw(st.sampled_from(["pads", "axis", "transB", "value"])), 3))
        elif what == "drop" and node.input:
            del node.input[draw(st.integers(0, len(node.input) - 1)) :]
        elif what == "weight":
            tensor = model.graph.initializer[draw(st.integers(0, len(model.graph.initializer) - 1))]
            if tensor.dims:
                tensor.dims[0] = draw(st.sampled_from([0, 1, -1, 7, 2**40]))
        else:
            other = nodes[draw(st.integers(0, len(nodes) - 1))]
            node.op_type, other.op_type = other.op_type, node.op_type
    return model


@given(mutated())
def test_a_changed_graph_is_read_or_refused(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    path.write_bytes(model.SerializeToString())
    for read in READERS:
        with suppress(EmcaError):
            read(path)
