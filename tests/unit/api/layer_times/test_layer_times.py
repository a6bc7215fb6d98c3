"""Runtime layers joined with the model: which are attention, their work, and their utilisation of the peak rate."""

import json

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.api.layer_times.graph import LayerGraph, Node, graph_of
from emca_deploy.api.layer_times.join import joined, kind_of, shares
from emca_deploy.api.layer_times.trtexec import read_trtexec
from emca_deploy.backends.layer_profiler import RuntimeLayer
from emca_deploy.errors import InputError, ModelError
from emca_deploy.results.layers import Roofline

CONV = Node("Conv", macs=1000, input_elements=100, weight_elements=50, output_elements=100)
GATE_CONV = Node("Conv", attention=True, macs=10, input_elements=1, weight_elements=1, output_elements=1)
MUL = Node("Mul", attention=True)
ADD = Node("Add")
QUANTIZE = Node("QuantizeLinear", attention=True)


@pytest.mark.parametrize(
    ("type_", "nodes", "kind"),
    [
        ("Convolution", [CONV, ADD], "convolution"),
        ("Convolution", [CONV, MUL], "convolution"),  # the gate was fused into the next convolution
        ("Convolution", [GATE_CONV], "attention"),
        ("Subgraph", [MUL, ADD], "attention"),
        ("Subgraph", [QUANTIZE], "conversion"),
        ("Reorder", [], "conversion"),
        ("ReorderInput", [MUL], "conversion"),
        ("Transpose", [], "conversion"),
        ("QLinearConv", [], "convolution"),
        ("CaskConvolution", [], "convolution"),
        ("MaxPool", [], "pooling"),
        ("QLinearGlobalAveragePool", [], "pooling"),
        ("GlobalAveragePool", [Node("GlobalAveragePool", attention=True)], "attention"),
        ("QLinearAdd", [], "elementwise"),
        ("Subgraph", [ADD], "elementwise"),
        ("Gemm", [Node("Gemm", macs=5)], "other"),
        ("FullyConnected", [Node("Gemm", macs=5)], "other"),
        ("Concat", [], "other"),
    ],
)
def test_kinds(type_, nodes, kind):
    assert kind_of(type_, nodes) == kind


@pytest.fixture
def attention_model(tmp_path):
    """Convolution, squeeze and excitation, convolution; nodes and outputs have different names."""
    import onnx.parser
    from onnx import numpy_helper

    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[batch,3,8,8] images) => (float[batch,4] logits) {
        a = Conv<pads=[1,1,1,1]>(images, w1)
        b = Relu(a)
        pooled = GlobalAveragePool(b)
        squeezed = Conv(pooled, w2)
        gate = Sigmoid(squeezed)
        gated = Mul(b, gate)
        c = Conv<strides=[2,2], pads=[1,1,1,1], group=4>(gated, w3)
        d = GlobalAveragePool(c)
        e = Flatten(d)
        logits = Gemm<transB=1>(e, w4)
    }"""
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    for name, shape in (("w1", (4, 3, 3, 3)), ("w2", (4, 4, 1, 1)), ("w3", (4, 1, 3, 3)), ("w4", (4, 4))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_models_graph_tells_attention_and_work(attention_model):
    graph = graph_of(attention_model, batch=2)
    attention = {name for name, node in graph.nodes.items() if node.attention and name.startswith("node_")}
    assert attention == {"node_pooled", "node_squeezed", "node_gate", "node_gated"}
    assert graph.nodes["node_a"].macs == 2 * 4 * 8 * 8 * 3 * 9
    assert graph.nodes["a"] == graph.nodes["node_a"]
    assert graph.nodes["node_c"].macs == 2 * 4 * 4 * 4 * 9  # grouped: one channel per group
    assert graph.nodes["node_logits"].macs == 2 * 4 * 4
    assert graph.nodes["node_b"].macs == 0
    conv = graph.nodes["node_a"]
    assert (conv.input_elements, conv.weight_elements, conv.output_elements) == (2 * 3 * 64, 108, 2 * 4 * 64)


def test_a_pooling_split_in_rows_and_columns_is_still_attentions(tmp_path):
    import onnx.parser

    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[1,3,8,8] images) => (float[1,3,8,8] out) {
        rows = AveragePool<kernel_shape=[1,8]>(images)
        columns = AveragePool<kernel_shape=[8,1]>(rows)
        gate = Sigmoid(columns)
        out = Mul(images, gate)
    }"""
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    graph = graph_of(path, 1)
    assert {name for name, node in graph.nodes.items() if node.attention} == {"rows", "columns", "gate", "out"}


def test_a_convolution_named_by_what_was_fused_behind_it_is_found(attention_model):
    graph = graph_of(attention_model, 1)
    assert [name for name, _ in graph.of(["b", "b_nchwc"], convolution=True)] == ["node_a", "b"]
    assert [name for name, _ in graph.of(["b"], convolution=False)] == ["b"]
    assert graph.of(["nothing of ours"], convolution=True) == ()


def test_layers_are_held_against_the_roof():
    graph = LayerGraph({"c": Node("Conv", macs=10**8, input_elements=10**5, weight_elements=10**5, output_elements=10**5)})
    found = [
        RuntimeLayer("c", "Convolution", "int8", ("c",), (1.0, 2.0, 3.0)),
        RuntimeLayer("r", "Reorder", "fp32", (), (2.0, 2.0, 2.0)),
        RuntimeLayer("never", "Relu", "fp32", (), ()),
    ]
    conv, reorder = joined(found, graph, Roofline({"int8": 400.0, "fp32": 100.0}, 20.0))
    assert (conv.median_ms, conv.share_percent, reorder.share_percent) == (2.0, 50.0, 50.0)
    assert conv.gops == pytest.approx(2 * 10**8 / 2e-3 / 1e9)  # 100
    assert conv.intensity == pytest.approx(2 * 10**8 / (3 * 10**5))
    assert (conv.roof_gops, conv.bound, conv.slow) == (400.0, "compute", True)
    assert conv.utilisation_percent == pytest.approx(25.0)
    assert reorder.gops is None
    assert shares((conv, reorder))["conversion"] == 50.0
    (starved, _) = joined(found, graph, Roofline({"int8": 400.0}, 0.1))
    assert starved.bound == "memory"
    assert starved.roof_gops == pytest.approx(0.1 * conv.intensity)
    assert starved.slow is False
    (unheld, _) = joined(found, graph, Roofline({"fp32": 100.0}))
    assert unheld.utilisation_percent is None
    assert unheld.gops == conv.gops


def test_models_that_cannot_be_read_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\0\1")
    with pytest.raises(ModelError, match=r"net\.onnx"):
        graph_of(path, 1)


def test_trtexecs_profile_with_and_without_its_layer_info(tmp_path):
    profile, info = tmp_path / "profile.json", tmp_path / "layers.json"
    rows = [
        {"count": 100},
        {"name": "node_a + node_b", "timeMs": 10.0, "averageMs": 0.1, "medianMs": 0.09, "percentage": 50.0},
        {"name": "Reformatting CopyNode for Input Tensor 0", "timeMs": 10.0, "averageMs": 0.1, "percentage": 50.0},
    ]
    profile.write_text(json.dumps(rows))
    (conv, copy), queries = read_trtexec(profile)
    assert queries == 100
    assert conv.nodes == ("node_a", "node_b")
    assert (conv.samples_ms, copy.samples_ms) == ((0.09,), (0.1,))
    assert (conv.precision, copy.type) == ("unknown", "Reformat")
    layers = [
        {
            "Name": "node_a + node_b", "LayerType": "CaskConvolution", "Metadata": "[ONNX Layer: node_a]\x1e[ONNX Layer: node_b]",
            "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
        },
    ]  # fmt: skip
    info.write_text(json.dumps({"Layers": layers}))
    (conv, _), _ = read_trtexec(profile, info)
    assert (conv.type, conv.precision, conv.nodes) == ("CaskConvolution", "int8", ("node_a", "node_b"))
    with refusing(InputError, tmp_path / "absent.json"):
        read_trtexec(tmp_path / "absent.json")
