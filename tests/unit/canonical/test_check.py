"""A canonical graph is compared with its file once; if they differ, the original graph is quantized."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from refusals import refusing

from emca_deploy.canonical import canonicalize, check
from emca_deploy.canonical.canonicalize import canonical_model
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.file import OnnxFile


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save(path, *, batch="N", reshape=None, opset=17, dtype=np.float32, nodes_between=(), weights=None):
    """Write Conv, BatchNormalization, pooling, Reshape or Flatten, Gemm."""
    rng = np.random.default_rng(3)
    arrays = {
        "w": rng.standard_normal((6, 3, 3, 3)),
        "g": rng.uniform(0.5, 2, 6),
        "b": rng.standard_normal(6),
        "m": rng.standard_normal(6),
        "v": rng.uniform(0.5, 2, 6),
        "fc": rng.standard_normal((5, 6)),
        "fb": rng.standard_normal(5),
    } | (weights or {})
    inits = [numpy_helper.from_array(np.asarray(array, dtype), name) for name, array in arrays.items()]
    flat = helper.make_node("Flatten", ["p"], ["f"], name="flat")
    if reshape is not None:
        inits.append(numpy_helper.from_array(np.array(reshape, np.int64), "shape"))
        flat = helper.make_node("Reshape", ["p", "shape"], ["f"], name="flat")
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("GlobalAveragePool", ["n"], ["p"], name="pool"),
        flat,
        *nodes_between,
        helper.make_node("Gemm", ["f", "fc", "fb"], ["logits"], name="head", transB=1),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = (
        [helper.make_tensor_value_info("images", kind, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", kind, [batch, 5])],
    )
    graph = helper.make_graph(nodes, "g", *ends, inits)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return OnnxFile.open(path)


def operators(found):
    return [node.op_type for node in found.model.graph]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-3)])
@pytest.mark.parametrize("opset", [9, 12, 17])
def test_a_batch_norm_is_folded_exactly(tmp_path, opset, dtype, tolerance):
    found = canonical_model(save(tmp_path / "m.onnx", opset=opset, dtype=dtype))
    assert "BatchNormalization" not in operators(found)
    assert found.error is not None
    assert found.error <= tolerance
    assert not found.warnings
    conv = next(node for node in found.model.graph if node.op_type == "Conv")
    assert conv.name == "conv"
    assert len(conv.inputs) == 3


def test_a_batch_baked_into_a_reshape_is_freed(tmp_path):
    found = canonical_model(save(tmp_path / "m.onnx", reshape=[1, -1]))
    assert "batch" in found.rules
    assert found.error <= 1e-5
    assert not isinstance(found.model.graph.inputs[0].shape[0], int)


def test_the_check_runs_once_for_a_file(tmp_path, monkeypatch):
    file = save(tmp_path / "m.onnx")
    calls = []
    monkeypatch.setattr(canonicalize, "largest_error", lambda *given: calls.append(given) or check.largest_error(*given))
    first, second = canonical_model(file), canonical_model(file)
    assert len(calls) == 1
    assert first.error == second.error
    save(tmp_path / "m.onnx", weights={"b": np.arange(6)})
    canonical_model(OnnxFile.open(tmp_path / "m.onnx"))
    assert len(calls) == 2


def test_a_rule_that_changes_the_logits_is_not_used(tmp_path, monkeypatch):
    def wrong(model):
        head = next(node for node in model.graph if node.op_type == "Gemm")
        head.inputs[1].const_value = check.ir.Tensor(head.inputs[1].const_value.numpy() * np.float32(1.001))
        return True

    monkeypatch.setitem(canonicalize.RULES, "wrong", wrong)
    file = save(tmp_path / "m.onnx")
    found = canonical_model(file)
    assert found.to_dict()["original_used"] == 1
    assert found.error == pytest.approx(1e-3, rel=0.2)
    assert len(found.warnings) == 1
    assert "BatchNormalization" in operators(found)


def test_files_that_are_not_float_are_refused(tmp_path):
    model = save(tmp_path / "m.onnx").load_proto()
    model.graph.node.append(helper.make_node("QuantizeLinear", ["logits", "s"], ["q"]))
    onnx.save(model, tmp_path / "q.onnx")
    with pytest.raises(ModelError, match=r"q\.onnx"):
        canonical_model(OnnxFile.open(tmp_path / "q.onnx"))
    half = save(tmp_path / "h.onnx").load_proto()
    for tensor in half.graph.initializer:
        tensor.data_type = TensorProto.BFLOAT16
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    onnx.save(half, tmp_path / "h.onnx")
    with pytest.raises(ModelError, match=r"h\.onnx"):
        canonical_model(OnnxFile.open(tmp_path / "h.onnx"))


def test_an_opset_older_than_the_converter_takes(tmp_path):
    with refusing(ModelError, tmp_path / "m.onnx", 6):
        canonical_model(save(tmp_path / "m.onnx", opset=6))
