"""The attention of every family is found by structure, in our exports and in plain exports of the same modules."""

import numpy as np
import onnx_ir as ir
import pytest

from emca_deploy.calibration.graphs.attention_path import find_attention, pooling_steps
from zoo.networks import NETWORKS, to_onnx
from zoo.rewrites import REWRITES

BLOCKS = 8  # of an 18-layer network
FAMILIES = {
    "narrow_resnet18": 0,
    "narrow_se_resnet18": BLOCKS,
    "narrow_eca_resnet18": BLOCKS,
    "narrow_srm_resnet18": BLOCKS,
    "narrow_emca_se_resnet18": 4,
    "narrow_emca_eca_resnet18": 4,
    "narrow_emca_srm_resnet18": 4,
    "narrow_pkcam_eca_resnet18": BLOCKS,
}


@pytest.mark.parametrize(("name", "gates"), FAMILIES.items())
def test_every_gate_is_found(exported, name, gates):
    graph = ir.load(exported(name)).graph
    attention = find_attention(graph)
    assert len(attention.gates) == gates
    sigmoids = {node for node in graph if node.op_type == "Sigmoid"}
    assert sigmoids <= attention.nodes
    assert not {node.op_type for node in attention.nodes} & {"MaxPool", "Gemm", "GlobalAveragePool"}
    assert all(node.op_type == "GlobalAveragePool" for node in attention.pools)


@pytest.mark.parametrize(("name", "gates"), FAMILIES.items())
def test_no_trunk_convolution_is_taken_for_attention(exported, name, gates):
    attention = find_attention(ir.load(exported(name)).graph)
    for node in attention.nodes:
        assert "attention" in node.name or "excitation" in node.name or "fusion" in node.name or node.op_type != "Conv", node.name


def plain_modules():
    """Attention in the forms of other repositories."""
    import torch
    from torch import nn

    class PlainSqueezeExcitation(nn.Module):
        """SE in the form of senet.pytorch: views and linear layers."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, padding=1)
            self.fc = nn.Sequential(nn.Linear(16, 4, bias=False), nn.ReLU(), nn.Linear(4, 16, bias=False), nn.Sigmoid())

        def forward(self, x):
            x = self.conv(x)
            y = nn.functional.adaptive_avg_pool2d(x, 1).view(x.size(0), 16)
            return x * self.fc(y).view(x.size(0), 16, 1, 1).expand_as(x)

    class PlainEfficient(nn.Module):
        """ECA in its authors' form: squeeze, transpose, one-dimensional convolution."""

        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 16, 3, padding=1)
            self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

        def forward(self, x):
            x = self.first(x)
            y = nn.functional.adaptive_avg_pool2d(x, 1)
            y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
            return x * torch.sigmoid(y).expand_as(x)

    return {"se": PlainSqueezeExcitation, "eca": PlainEfficient}


@pytest.mark.parametrize("module", ["se", "eca"])
@pytest.mark.parametrize("size", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_other_peoples_exports(once, module, size):
    def write(made):
        import torch

        import emca_deploy  # noqa: F401  no part of it takes part

        plain = plain_modules()[module]().eval()
        torch.onnx.export(plain, (torch.zeros(1, 3, size, size),), made / "plain.onnx", dynamo=True, verbose=False)

    graph = ir.load(once(f"plain-{module}-{size}", write, keep=True) / "plain.onnx").graph
    attention = find_attention(graph)
    if size == 1:  # the exporter drops a pooling of one pixel: gate and map cannot be distinguished, so no attention is found
        assert len(attention.gates) <= 1
        return
    assert len(attention.gates) == 1
    assert {node for node in graph if node.op_type == "Sigmoid"} <= attention.nodes


def test_swish_is_not_attention():
    """A sigmoid that multiplies its own input reaches the network's input without a pooling."""
    x = ir.Value(name="x", shape=ir.Shape([1, 3, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    sigmoid = ir.node("Sigmoid", [x])
    gate = ir.node("Mul", [x, sigmoid.outputs[0]])
    graph = ir.Graph([x], gate.outputs, nodes=[sigmoid, gate], opset_imports={"": 20})
    assert not find_attention(graph).gates


@pytest.mark.parametrize("network", ["multiscale", "squeeze_excitation", "style_recalibration"])
def test_a_gate_expanded_to_a_computed_size_is_a_gate(network):
    """The size comes from the scaled map, but no pixel values do: the gate depends on means alone."""
    plain = to_onnx(NETWORKS[network])
    expanded = REWRITES["gates_expanded"].apply(plain, np.random.default_rng(0))
    found = [find_attention(ir.from_proto(model).graph) for model in (plain, expanded)]
    assert len(found[0].gates) == len(found[1].gates) == 2
    assert {node.name for node in found[0].pools} == {node.name for node in found[1].pools}
    more = {node.op_type for node in found[1].nodes if node.name not in {other.name for other in found[0].nodes}}
    assert more == {"Expand"}


@pytest.mark.parametrize(("rows", "readers", "steps"), [(True, 1, ["rows"]), (True, 2, []), (False, 1, [])])
def test_a_mean_in_two_steps_is_one_pooling(rows, readers, steps):
    import onnx.parser

    first = "AveragePool<kernel_shape=[1,8]>(x)" if rows else "Relu(x)"
    second = f"AveragePool<kernel_shape=[8,{1 if rows else 8}]>(r)"
    other = "z = Neg(r)" if readers == 2 else "z = Neg(m)"
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    net (float[1,3,8,8] x) => (float[1,3,1,1] y, float[n,3,h,w] z) {{ r = {first} m = {second} y = Relu(m) {other} }}"""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))).graph
    for node, name in zip(graph, ("rows", "columns", "end", "other"), strict=True):
        node.name = name
    assert [node.name for node in pooling_steps(graph.node("columns"))] == steps
