"""The forms for a DLA: the same logits, and no operator that a DLA lacks."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from detector_graphs import write_dense_retinanet, write_detector
from onnx import TensorProto, checker, helper, numpy_helper, save
from refusals import refusing

from emca_deploy.artifacts import read_manifest
from emca_deploy.errors import InputError, ModelError
from emca_deploy.exporting.dla_convert import convert_for_dla, load_float_model
from emca_deploy.exporting.dla_forms import to_dla, windows
from emca_deploy.exporting.dla_rules import nodes_off_dla
from emca_deploy.exporting.parity import measure_parity, run_onnx

ROUNDING = 3e-6


def test_every_family_keeps_its_logits_and_leaves_a_dla_nothing_but_its_result(rewritten_family) -> None:
    name, _, path = rewritten_family
    model = ir.load(path)
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    forms = to_dla(model)
    proto = ir.to_proto(model)
    checker.check_model(proto)
    parity = measure_parity(run_onnx(path, images)[0], run_onnx(proto.SerializeToString(), images)[0])
    assert parity.max_rel < ROUNDING
    remaining = {node.operator for node in forms.remaining if node.node != "head.reshape"}
    assert remaining == ({"Sqrt"} if "srm" in name else set())
    assert [node.operator for node in forms.remaining][-1] == "Reshape"
    assert list(model.graph)[-1].op_type == "Reshape"  # at the very end, where it splits nothing
    assert model.graph.outputs[0].name == "logits"
    assert len({node.name for node in model.graph}) == len(list(model.graph))
    assert {node.name: node.op_type for node in model.graph}["head"] == "Conv"


def test_attention_is_known_as_such_afterwards(rewritten_family) -> None:
    """Otherwise a cache would give its tensors ranges."""
    from emca_deploy.calibration.graphs.attention_path import find_attention

    _, _, path = rewritten_family
    model = ir.load(path)
    gates = len(find_attention(model.graph).gates)
    to_dla(model)
    assert len(find_attention(model.graph).gates) == gates


def test_windows_multiply_to_the_side_and_fit() -> None:
    for side in range(1, 129):
        found = windows(side)
        if found is None:
            largest_prime = max((p for p in range(2, side + 1) if side % p == 0 and all(p % q for q in range(2, p))), default=1)
            large = [p for p in (11, 13, 17, 19, 23, 29, 31) if side % p == 0]
            assert largest_prime > 32 or len(large) > 1 or side % 121 == 0, side
            continue
        assert np.prod(found, dtype=int) == side
        assert all(window <= 8 for window in found[:-1]), side
        assert not found or found[-1] <= 32, side


def test_the_usual_maps_need_two_windows_at_most() -> None:
    assert [windows(side) for side in (56, 28, 14, 7)] == [[8, 7], [7, 4], [7, 2], [7]]


@pytest.mark.parametrize("sides", [(11, 22), (22, 11), (26, 8), (56, 13), (1, 1), (1, 9), (31, 31), (30, 7)])
def test_means_of_odd_maps(tmp_path, sides) -> None:
    path = pooled(tmp_path, sides)
    model = load_float_model(path)
    forms = to_dla(model)
    assert forms.poolings == 1
    assert not forms.remaining
    images = np.random.default_rng(0).standard_normal((2, 3, *sides)).astype(np.float32)
    found = run_onnx(ir.to_proto(model).SerializeToString(), images)[0]
    assert found == pytest.approx(images.mean((2, 3), keepdims=True), abs=1e-6)


@pytest.mark.parametrize("sides", [(37, 7), (8, 121)])
def test_a_side_that_does_not_factor_stays_and_is_told(tmp_path, sides) -> None:
    model = load_float_model(pooled(tmp_path, sides))
    forms = to_dla(model)
    assert forms.poolings == 0
    assert "pools whole maps" in forms.remaining[0].reason


def pooled(folder: Path, sides: tuple[int, int]) -> Path:
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool")
    return written(folder / "pool.onnx", [node], [], (3, *sides), ["n", 3, 1, 1])


def written(path: Path, nodes, constants, image, result) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *image])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, result)
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_se_and_eca_of_other_exporters(tmp_path) -> None:
    """SE with two Gemms on rows, ECA with a one-dimensional convolution between transpositions."""
    draw = np.random.default_rng(0)

    def const(name, *shape):
        return numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name)

    def number(name, values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    make = helper.make_node
    nodes = [
        make("GlobalAveragePool", ["x"], ["p"], name="se.pool"),
        make("Flatten", ["p"], ["row"], name="se.flat"),
        make("Gemm", ["row", "w1", "b1"], ["h"], name="se.fc1", transB=1),
        make("Relu", ["h"], ["hr"], name="se.relu"),
        make("MatMul", ["hr", "w2"], ["m"], name="se.fc2"),
        make("Add", ["m", "b2"], ["mb"], name="se.bias"),
        make("Sigmoid", ["mb"], ["s"], name="se.sigmoid"),
        make("Unsqueeze", ["s", "axes"], ["gate"], name="se.unsqueeze"),
        make("Mul", ["x", "gate"], ["a"], name="se.mul"),
        make("GlobalAveragePool", ["a"], ["q"], name="eca.pool"),
        make("Squeeze", ["q", "last"], ["qs"], name="eca.squeeze"),
        make("Transpose", ["qs"], ["qt"], name="eca.transpose", perm=[0, 2, 1]),
        make("Conv", ["qt", "k"], ["c"], name="eca.conv", pads=[2, 2]),
        make("Transpose", ["c"], ["ct"], name="eca.back", perm=[0, 2, 1]),
        make("Unsqueeze", ["ct", "last"], ["cu"], name="eca.unsqueeze"),
        make("Sigmoid", ["cu"], ["g"], name="eca.sigmoid"),
        make("Mul", ["a", "g"], ["y"], name="eca.mul"),
    ]
    constants = [const("w1", 4, 16), const("b1", 4), const("w2", 4, 16), const("b2", 16), const("k", 1, 1, 5)]
    constants += [number("axes", [2, 3]), number("last", [3])]
    path = written(tmp_path / "foreign.onnx", nodes, constants, (16, 6, 6), ["n", 16, 6, 6])
    model = load_float_model(path)
    forms = to_dla(model)
    assert (forms.products, forms.bands, forms.poolings) == (2, 1, 2)
    assert forms.remaining == ()
    images = draw.standard_normal((2, 16, 6, 6)).astype(np.float32)
    parity = measure_parity(
        run_onnx(path, images)[0].reshape(2, -1), run_onnx(ir.to_proto(model).SerializeToString(), images)[0].reshape(2, -1)
    )
    assert parity.max_rel < ROUNDING


@pytest.mark.parametrize(
    ("attributes", "weight", "reason"),
    [
        ({"pads": [16] * 4}, (4, 3, 33, 33), "a kernel of 33"),
        ({"strides": [9, 9]}, (4, 3, 3, 3), "a stride above 8"),
        ({"pads": [3, 3, 3, 3]}, (4, 3, 3, 3), "as large as the kernel"),
        ({"dilations": [33, 33]}, (4, 3, 2, 2), "a dilation above 32"),
        ({}, (8193, 3, 1, 1), "8193"),
        ({"pads": [1] * 4}, (4, 3, 3, 3), None),
    ],
)
def test_limits_of_convolutions(tmp_path, attributes, weight, reason) -> None:
    constant = numpy_helper.from_array(np.zeros(weight, np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)
    model = load_float_model(written(tmp_path / "conv.onnx", [node], [constant], (3, 48, 48), ["n", weight[0], "h", "w"]))
    found = nodes_off_dla(model.graph)
    assert (reason is None and not found) or reason in found[0].reason


@pytest.mark.parametrize(
    ("operator", "attributes", "reason"),
    [
        ("MaxPool", {"kernel_shape": [9, 9]}, "a window of 9"),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [17, 17]}, "a stride above 16"),
        ("MaxPool", {"kernel_shape": [8, 8], "strides": [16, 16]}, None),
        ("Softmax", {}, "no such layer"),
        ("Transpose", {}, "only changes the shape"),
    ],
)
def test_limits_of_the_rest(tmp_path, operator, attributes, reason) -> None:
    node = helper.make_node(operator, ["x"], ["y"], name="it", **attributes)
    found = nodes_off_dla(load_float_model(written(tmp_path / "one.onnx", [node], [], (3, 48, 48), None)).graph)
    assert (reason is None and not found) or reason in found[0].reason


def test_a_file_is_converted_with_its_manifest(rewritten_family, tmp_path) -> None:
    name, _, path = rewritten_family
    result = convert_for_dla(path, tmp_path / "dla.onnx")
    manifest = read_manifest(tmp_path / "dla.onnx")
    assert manifest is not None
    assert manifest.details["dla"]["poolings"] == result.forms.poolings
    assert result.parity.max_rel < ROUNDING
    assert (result.grown_mib > 0) == any(kind in name for kind in ("eca", "emca", "srm"))


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "is empty"), (b"\x08\x0f garbage", "not an ONNX file"), (None, "no such file")]
)
def test_a_bad_file_is_refused(tmp_path, content, what) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=what):
        convert_for_dla(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_the_model_is_not_overwritten(tmp_path) -> None:
    path = pooled(tmp_path, (7, 7))
    with refusing(InputError, path):
        convert_for_dla(path, path)


def test_quantized_and_half_models_are_refused(tmp_path) -> None:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["q"], name="q")
    back = helper.make_node("DequantizeLinear", ["q", "s"], ["y"], name="d")
    quantized = written(tmp_path / "q.onnx", [node, back], [scale], (3, 8, 8), ["n", 3, 8, 8])
    with refusing(ModelError, quantized):
        load_float_model(quantized)


def test_a_dense_part_is_converted_with_all_its_outputs_and_a_whole_detector_is_refused(tmp_path: Path) -> None:
    dense = write_dense_retinanet(tmp_path / "dense.onnx")
    made = convert_for_dla(dense, tmp_path / "dla.onnx")
    assert made.parity.max_rel < ROUNDING
    manifest = read_manifest(made.onnx)
    assert manifest is not None
    assert manifest.details["detector"]["config"]["num_classes"] > 0
    with refusing(ModelError, "whole.onnx"):
        convert_for_dla(write_detector(tmp_path / "whole.onnx"), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
