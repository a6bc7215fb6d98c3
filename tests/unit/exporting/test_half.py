"""fp32 to fp16: the types of all tensors, float32 where it is needed, and numbers beyond fp16."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from refusals import refusing

from emca_deploy.errors import GateError, ModelError
from emca_deploy.exporting.half import convert_to_half, to_half
from emca_deploy.exporting.half_layers import attention_nodes
from emca_deploy.exporting.half_parity import check_half, peaks_and_outputs
from emca_deploy.exporting.parity import parity_images
from emca_deploy.onnx_file.file import OnnxFile

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
IMAGES = parity_images(64, None)


@pytest.fixture(scope="module")
def halves():
    """Return a function that converts each exported family once."""
    done = {}

    def convert(exported, tmp_path):
        name, _, path = exported
        if name not in done:
            model = ir.load(path)
            done[name] = (convert_to_half(model, IMAGES), ir.to_proto(model))
        converted, proto = done[name]
        onnx.save(proto, tmp_path / "half.onnx")
        return converted, tmp_path / "half.onnx"

    return convert


def node_types(path):
    """Return each node with the float types of its inputs and outputs by ONNX's type inference."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return [
        (node, {types[name] for name in (*node.input, *node.output) if name and types[name] in FLOATS}) for node in graph.node
    ]


def test_every_family_is_strongly_typed(rewritten_family, halves, tmp_path):
    _, path = halves(rewritten_family, tmp_path)
    onnx.checker.check_model(str(path), full_check=True)
    nodes = node_types(path)
    assert all(len(types) == 1 for node, types in nodes if node.op_type != "Cast" and types)
    assert all(types == FLOATS for node, types in nodes if node.op_type == "Cast")
    model = onnx.load(path)
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [
        onnx.TensorProto.FLOAT
    ] * 2
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("images", "logits")
    assert OnnxFile.open(path).precision == "fp16"


def test_every_family_keeps_statistics_and_gates_in_float32_and_nothing_else(rewritten_family, halves, tmp_path):
    converted, path = halves(rewritten_family, tmp_path)
    types = {node.name: (node.op_type, kinds) for node, kinds in node_types(path)}
    for op_type in ("GlobalAveragePool", "Sigmoid", "Sqrt"):
        assert all(kinds == {onnx.TensorProto.FLOAT} for kind, kinds in types.values() if kind == op_type)
    network = [kinds for name, (kind, kinds) in types.items() if kind in {"Conv", "Gemm"} and "attention" not in name.lower()]
    if "pkcam" not in rewritten_family[0]:
        assert len(network) == (21 if "18" in rewritten_family[0] else 13)
        assert all(kinds == {onnx.TensorProto.FLOAT16} for kinds in network)
    assert all(kinds == {onnx.TensorProto.FLOAT16} for kind, kinds in types.values() if kind in {"MaxPool", "Gemm"})
    reasons = converted.graph.float32_nodes
    assert ("variance" in reasons) == ("srm" in rewritten_family[0])
    assert converted.graph.casts == sum(kind == "Cast" for kind, _ in types.values())


def test_every_family_is_as_near_as_theory_says_and_not_nearer(rewritten_family, halves, tmp_path):
    converted, _ = halves(rewritten_family, tmp_path)
    assert 1e-5 < converted.parity.max_rel < converted.tolerance / 4
    assert converted.tolerance < 0.03


def test_a_file_of_half_the_size(rewritten_family, halves, tmp_path):
    if "18" not in rewritten_family[0]:
        pytest.skip("as much graph as weights")
    _, path = halves(rewritten_family, tmp_path)
    assert path.stat().st_size < 0.52 * rewritten_family[2].stat().st_size


@pytest.fixture
def net():
    """Return a function that makes images -> Conv 1x1 -> Relu -> GlobalAveragePool -> Flatten -> Gemm with given weights."""

    def make(first, second=0.5, image=4):
        text = f"""<ir_version: 10, opset_import: ["" : 20]>
        net (float[N,3,{image},{image}] images) => (float[N,2] logits)
        <float[4,3,1,1] c = {{0}}, float[2,4] w = {{0}}> {{
            conv = Conv(images, c) relu = Relu(conv) pool = GlobalAveragePool(relu) flat = Flatten(pool)
            logits = Gemm<transB = 1>(flat, w)
        }}"""
        proto = onnx.parser.parse_model(text)
        for tensor, values in zip(proto.graph.initializer, (first, second), strict=True):
            array = np.broadcast_to(np.asarray(values, np.float32), tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
        for node in proto.graph.node:
            node.name = node.output[0]
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto))

    return make


def weights(model, name):
    return model.graph.initializers[name].const_value.numpy()


def test_weights_round_to_nearest_even_and_losses_are_counted(net):
    given = np.array([2049, 2051, 1 / 3, 2.0**-26, -(2.0**-25), 3e-6, 0, 1, 2.0**-14, -1, 5, 7], np.float32).reshape(4, 3, 1, 1)
    model = net(given)
    losses = to_half(model, {})
    rounded = weights(model, "c")
    assert rounded.dtype == np.float16
    np.testing.assert_array_equal(rounded.ravel()[:5], [2048, 2052, np.float16(1 / 3), 0, 0])
    assert losses.weights_rounded_to_zero == {"c": 2}
    assert (losses.subnormal_weights, losses.half_weights) == (1, 12 + 8)


def test_weights_beyond_fp16_keep_their_layer_in_float32_and_are_named(net):
    model = net([[[[1e5]]], [[[1]]], [[[1]]], [[[1]]]])
    converted = convert_to_half(model, parity_images(4, None) * 1e-4)
    assert weights(model, "c").dtype == np.float32
    assert weights(model, "w").dtype == np.float16
    assert converted.to_dict()["float32_layers"] == {"'c' reaches 1e+05": ["conv"]}


def test_activations_near_the_end_of_fp16_stay_float32_with_all_that_touch_them(net):
    model = net(6e4, 1e-4)  # the weight fits; its products do not
    converted = convert_to_half(model, parity_images(4, None) * 0.1)
    assert {value.name: value.dtype for node in model.graph for value in node.outputs if value.name in {"conv", "relu"}} == {
        "conv": ir.DataType.FLOAT,
        "relu": ir.DataType.FLOAT,
    }
    names = [name for found in converted.to_dict()["float32_layers"].values() for name in found]
    assert names == ["conv", "relu"]
    assert weights(model, "w").dtype == np.float16
    assert converted.parity.max_rel < converted.tolerance
    assert weights(model, "c").dtype == np.float32


def test_a_model_that_fits_nowhere_is_refused(net):
    with refusing(ModelError, "fp16", "'conv'"):
        convert_to_half(net(1e9, 1e9), parity_images(4, None))


def test_a_quantized_model_is_refused(net):
    model = net(1)
    conv = model.graph.node("conv")
    scale = ir.Value(name="s", type=ir.TensorType(ir.DataType.FLOAT), const_value=ir.tensor(np.float32(1), name="s"))
    model.graph.register_initializer(scale)
    quantize = ir.node("QuantizeLinear", [conv.inputs[0], scale], name="q")
    model.graph.insert_before(conv, quantize)
    with refusing(ModelError, "QuantizeLinear"):
        to_half(model, {})


def test_a_model_without_types_is_refused_rather_than_left_as_it_is(net):
    proto = ir.to_proto(net(1))
    del proto.graph.value_info[:]
    with refusing(ModelError, "'conv'"):
        convert_to_half(ir.from_proto(proto), parity_images(4, None))


@pytest.fixture(scope="module")
def loud_style(once):
    """An exported SRM attention over maps whose squares are beyond fp16: the type of its variance matters."""

    def export(folder):
        import torch

        from emca_deploy.exporting.exporter import export_onnx
        from emca_deploy.networks.attention import ChannelAttention, StyleExcitation

        class Loud(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = torch.nn.Conv2d(3, 8, 1)
                self.attention = ChannelAttention(StyleExcitation(8), 8)
                self.head = torch.nn.Linear(8, 4)

            def forward(self, images):
                return self.head(self.attention(self.conv(images) * 1000).mean((2, 3)) / 1000)

        torch.manual_seed(0)
        ir.save(export_onnx(Loud().eval(), 16), folder / "model.onnx")

    return ir.load(once("loud-style", export, keep=True) / "model.onnx")


def test_variance_in_fp16_would_overflow_and_does_not(loud_style):
    images = parity_images(16, None)
    _, outputs = peaks_and_outputs(loud_style, images)
    (logits,) = outputs.values()
    kept, lost = (ir.from_proto(ir.to_proto(loud_style)) for _ in range(2))
    to_half(kept, attention_nodes(kept.graph))
    to_half(lost, {})
    parity, gate = check_half(kept, images, logits)
    assert parity.max_rel < gate
    with refusing(GateError, "fp16"):
        check_half(lost, images, logits)
