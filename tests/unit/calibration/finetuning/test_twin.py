"""The twin computes what ONNX Runtime computes, with and without the Q/DQ pairs of a placement."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from refusals import refusing

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.finetuning import twin as twins
from emca_deploy.calibration.finetuning.operators import OPERATORS
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.recovery.weights import nearest_weights
from emca_deploy.errors import ModelError
from emca_deploy.tasks.logits import LogitsNoise
from zoo.networks import NETWORKS
from zoo.quantizing import Images
from zoo.recipes import collect_ranges

PLACEMENTS = [("openvino", 8), ("onnxruntime", 7), ("tensorrt", 8), ("tensorrt-rtx", 8)]


def run(twin, images):
    with torch.no_grad():
        return twin(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_in_float_the_twin_returns_the_network_s_logits(taught, name):
    path, how = taught(name)
    images = Images(4).images
    np.testing.assert_allclose(run(twins.Twin(load_graph(path).graph), images), how.teacher(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["emca_eca_resnet10", "emca_srm_resnet10", "pkcam_eca_resnet10", "se_resnet10"])
def test_every_operator_of_an_export_is_known(exported, lively_network, arch):
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = lively_network(arch)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run(twins.Twin(load_graph(exported(arch)).graph), images), wanted, rtol=1e-3, atol=1e-4)


@pytest.fixture
def quantized(taught):
    """Return a function that returns a float graph, its placement's rounding, and the logits of the Q/DQ model."""

    def make(name, backend, bits, changed=None):
        path, _ = taught(name)
        images = Images(24)
        recipe = find_recipe(backend, bits if backend in ("openvino", "onnxruntime") else None)
        model = load_graph(path, images.preprocessing)
        ranges, weights = collect_ranges(path, images, range(24), 1), nearest_weights(model.graph, recipe.largest_weight)
        rounding = twins.Rounding(place(model.graph, recipe), ranges, weights)
        if changed is not None:
            changed(rounding)
            ranges |= rounding.current_ranges()
        variant = model.clone()
        insert_qdq(variant, place(variant.graph, recipe), ranges, weights)
        simulation = Simulation(model.graph, images, range(24), 1)
        return model, rounding, (simulation.logits(model), simulation.logits(variant)), images.images

    return make


def grow(rounding):
    """Change the tensors' scales."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for growth in rounding.growths:
            growth.add_(-0.1 * torch.rand((), generator=generator))


@pytest.mark.parametrize("changed", [None, grow], ids=["begin", "changed"])
@pytest.mark.parametrize(("backend", "bits"), PLACEMENTS)
def test_with_rounding_the_twin_returns_the_logits_of_the_q_dq_model(quantized, backend, bits, changed):
    model, rounding, (reference, int8), images = quantized("multiscale", backend, bits, changed)
    found = run(twins.Twin(model.graph, rounding), images)
    # A value half-way between two integers may go to either; all other values agree. Often the logits are equal.
    noise = LogitsNoise.of(int8, found).typical_db
    assert noise > LogitsNoise.of(reference, int8).typical_db + 6


def test_no_tensor_without_a_reader_in_int8_is_rounded(quantized):
    """Both tell the placement's edges: the twin reads them from the same record as the Q/DQ pairs."""
    model, rounding, _, _ = quantized("residual", "tensorrt", 8)
    placement = place(model.graph, find_recipe("tensorrt"))
    read = {
        (str(node.name), index)
        for node in model.graph
        for index, value in enumerate(node.inputs)
        if value is not None and rounding.reads_rounded(value, node, index)
    }
    assert read == {(str(node.name), index) for readers in placement.edges.values() for node, index in readers}
    assert set(rounding.layers) == {str(node.name) for node in placement.weighted}


def test_rounding_passes_gradients_within_the_range_and_gives_the_scale_its_own():
    values = torch.tensor([-1.0, 0.26, 0.5, 9.0], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    rounded = twins._Round.apply(values, scale, torch.tensor([2], dtype=torch.int32), (0, 12))
    np.testing.assert_allclose(rounded.detach(), [-0.2, 0.3, 0.5, 1.0], atol=1e-6)
    rounded.sum().backward()
    np.testing.assert_array_equal(values.grad, [0, 1, 1, 0])
    # Within the range (rounded - value) / scale, beyond it the integer at the end.
    assert float(scale.grad) == pytest.approx(-2 + 0.4 + 0 + 10, abs=1e-4)


def test_an_unknown_operator_is_refused(tmp_path, taught):
    path, _ = taught("residual")
    model = ir.load(path)
    relu = next(node for node in model.graph if node.op_type == "Relu")
    relu.op_type = "Softsign"
    with refusing(ModelError, "Softsign"):
        twins.Twin(model.graph)


def numbers(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


MAP = numbers(2, 4, 7, 6)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("Conv", [MAP, numbers(6, 2, 3, 2)], {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1]}),
        ("Conv", [MAP[..., 0], numbers(4, 1, 3)], {"group": 4, "dilations": [2], "pads": [2, 2]}),
        ("MaxPool", [MAP], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", [MAP], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1}),
        ("AveragePool", [MAP], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 0}),
        ("Gemm", [MAP[0, 0], numbers(7, 3)], {"transA": 1, "alpha": 0.5}),
        ("MatMul", [MAP, numbers(6, 3)], {}),
        ("Reshape", [MAP, np.array([0, -1, 3])], {}),
        ("Flatten", [MAP], {"axis": 2}),
        ("Transpose", [MAP], {"perm": [0, 2, 3, 1]}),
        ("Transpose", [MAP], {}),
        ("ReduceMean", [MAP, np.array([2, 3])], {"keepdims": 0}),
        ("ReduceSum", [MAP, np.array([-1])], {}),
        ("Squeeze", [MAP[:, :1], np.array([1])], {}),
        ("Unsqueeze", [MAP, np.array([0, -1])], {}),
        ("Concat", [MAP, MAP], {"axis": -1}),
        ("Clip", [MAP, np.float32(-0.5), np.float32(1)], {}),
        ("HardSigmoid", [MAP], {"alpha": 0.3}),
        ("Pow", [MAP, np.float32(2)], {}),
        ("Div", [MAP, MAP[:, :1] + 9], {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_operator_computes_what_onnx_defines(op_type, inputs, attributes):
    operands = {f"input{index}": np.asarray(array) for index, array in enumerate(inputs)}
    node = onnx.helper.make_node(op_type, list(operands), ["result"], **attributes)
    kind = onnx.helper.np_dtype_to_tensor_dtype
    declared = [onnx.helper.make_tensor_value_info(name, kind(array.dtype), array.shape) for name, array in operands.items()]
    result = onnx.helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "one", declared, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, operands)
    (own,) = ir.from_proto(model).graph
    found = OPERATORS[op_type](own, [torch.from_numpy(array.copy()) for array in operands.values()]).numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
