"""The comparison of the exported file with PyTorch, and the refusal of operators."""

import numpy as np
import onnx_ir as ir
import pytest
from refusals import refusing

from emca_deploy.errors import GateError, ModelError
from emca_deploy.exporting.exporter import FORBIDDEN_OPERATORS, check_operators, simplify
from emca_deploy.exporting.parity import check_parity, measure_parity, parity_images


def test_parity_of_equal_logits():
    logits = np.array([[1.0, -4.0], [2.0, 0.5]], np.float32)
    parity = measure_parity(logits, logits)
    assert (parity.max_abs, parity.max_rel, parity.samples) == (0, 0, 2)
    assert parity.cosine == pytest.approx(1)


def test_parity_is_the_worst_case():
    reference = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    candidate = np.array([[3.0, 4.0], [0.5, 1.0]], np.float32)
    parity = measure_parity(reference, candidate)
    assert parity.max_abs == pytest.approx(0.5)
    assert parity.max_rel == pytest.approx(0.125)
    assert parity.cosine == pytest.approx(1 / np.sqrt(1.25))


def test_parity_of_zero_logits_is_finite():
    zeros = np.zeros((1, 3), np.float32)
    assert measure_parity(zeros, zeros).max_rel == 0


def test_images_are_seeded_noise_then_real_ones():
    real = np.full((2, 3, 8, 8), 7, np.float32)
    images = parity_images(8, real, random=3, seed=1)
    assert (images.shape, images.dtype) == ((5, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(images[3:], real)
    np.testing.assert_array_equal(images[:3], parity_images(8, None, random=3, seed=1))


@pytest.fixture
def scale():
    """Return a function that makes a network that multiplies by a factor; its logits are the means of the channels."""
    import torch

    class Scale(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return x.mean((2, 3)) * self.factor

    return Scale


@pytest.fixture
def means(tmp_path):
    """An ONNX file that computes the same as `scale(1)` for a fixed batch of three."""
    images = ir.Value(name="images", shape=ir.Shape([3, 3, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    pool = ir.node("GlobalAveragePool", [images])
    flat = ir.node("Flatten", [pool.outputs[0]])
    flat.outputs[0].name = "logits"
    flat.outputs[0].shape, flat.outputs[0].type = ir.Shape([3, 3]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([images], flat.outputs, nodes=[pool, flat], opset_imports={"": 18}, name="means")
    ir.save(ir.Model(graph, ir_version=9), tmp_path / "means.onnx")
    return tmp_path / "means.onnx"


def test_a_fixed_batch_is_padded_and_cut(scale, means):
    assert check_parity(scale(1.0), means, parity_images(8, None, random=4)).samples == 4


@pytest.mark.parametrize(("factor", "cause"), [(1.001, "more than 1e-05"), (float("nan"), "NaN"), (float("inf"), "infinite")])
@pytest.mark.filterwarnings("error")
def test_another_network_is_outside_the_gate(scale, means, factor, cause):
    with pytest.raises(GateError, match=cause):
        check_parity(scale(factor), means, parity_images(8, None))


def test_a_file_that_onnxruntime_refuses(scale, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with refusing(ModelError, tmp_path / "x.onnx"):
        check_parity(scale(1.0), tmp_path / "x.onnx", parity_images(8, None))


def _model(*nodes: ir.Node, inputs: list[ir.Value]) -> ir.Model:
    return ir.Model(ir.Graph(inputs, nodes[-1].outputs, nodes=nodes, opset_imports={"": 18}, name="g"), ir_version=9)


@pytest.mark.parametrize("operator", sorted(FORBIDDEN_OPERATORS))
def test_forbidden_operators_are_named(operator):
    value = ir.Value(name="x")
    with refusing(ModelError, operator):
        check_operators(_model(ir.node(operator, [value]), inputs=[value]))


@pytest.mark.parametrize(("axes", "pooled"), [([2, 3], True), ([-1, -2], True), ([3], False), ([1, 2, 3], False)])
def test_means_over_height_and_width_become_poolings(axes, pooled):
    value = ir.Value(name="x", shape=ir.Shape([2, 3, 4, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    constant = ir.Value(name="axes", const_value=ir.tensor(np.array(axes, np.int64), name="axes"))
    node = ir.node("ReduceMean", [value, constant], {"keepdims": 1})
    node.outputs[0].name = "y"
    model = _model(node, inputs=[value])
    model.graph.register_initializer(constant)
    simplify(model)
    assert [n.op_type for n in model.graph] == ["GlobalAveragePool" if pooled else "ReduceMean"]
    assert model.graph.outputs[0].name == "y"
