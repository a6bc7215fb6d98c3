"""The ledger: the stage and the place that it names for faults injected into a small INT8 network, and its arithmetic."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from emca_deploy._progress import Counter
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.graphs.graph import canonical_graph
from emca_deploy.calibration.ledger.finished import Finished, check_form
from emca_deploy.calibration.ledger.ledger import Ledger
from emca_deploy.calibration.ledger.parts import add_up
from emca_deploy.calibration.ledger.watching import first_jump
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.canonical.edit import constant_of, insert_node, new_constant
from emca_deploy.data.sources import open_source
from emca_deploy.errors import InputError
from emca_deploy.preprocessing import Preprocessing

FLOAT = """<ir_version: 8, opset_import: ["": 17]>
small (float[N,3,12,12] images) => (float[N,4] logits)
<float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[4,8] w3, float[4] b3>
{
  first = Conv<pads=[1,1,1,1]>(images, w1, b1)
  active = Relu(first)
  second = Conv<pads=[1,1,1,1]>(active, w2, b2)
  sum = Add(second, active)
  out = Relu(sum)
  pooled = GlobalAveragePool(out)
  flat = Flatten(pooled)
  logits = Gemm<transB=1>(flat, w3, b3)
}"""

USED = Preprocessing(12, 12, mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25), resize="none")
IMAGES = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with the float network, its INT8 form and images."""
    folder, random = tmp_path_factory.mktemp("ledger"), np.random.default_rng(0)
    model = onnx.parser.parse_model(FLOAT)
    for value in model.graph.value_info:
        shape = [side.dim_value for side in value.type.tensor_type.shape.dim]
        spread = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.2
        array = random.normal(0, spread, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, folder / "model.onnx")
    smooth = random.integers(0, 256, (IMAGES, 4, 4, 3), dtype=np.uint8).repeat(3, 1).repeat(3, 2)
    np.savez(folder / "images.npz", images=smooth)
    source = open_source(folder / "images.npz", USED)
    options = CalibrationOptions(find_recipe("onnxruntime"), all_recipes(), samples=IMAGES, threads=1, method="minmax")
    calibrate_model(folder / "model.onnx", source, folder / "model.int8.onnx", options)
    return folder


def pair_of(graph: ir.Graph, name: str) -> list[ir.Node]:
    """Return the nodes that quantize and dequantize a tensor."""
    node = next(each for each in graph if each.op_type == "QuantizeLinear" and each.inputs[0].name == name)
    return [node, *(use.node for use in node.outputs[0].uses())]


def weights_of(graph: ir.Graph, name: str) -> ir.Node:
    return next(each for each in graph if each.name == name).inputs[1].producer()


def put(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    node.replace_input_with(index, new_constant(graph, f"{node.name}/{index}/fault", array))


def scaled_pair(name: str, factor: float):
    def edit(graph: ir.Graph) -> None:
        for node in pair_of(graph, name):
            put(graph, node, 1, (constant_of(node.inputs[1]) * factor).astype(np.float32))

    return edit


def few_bits(graph: ir.Graph) -> None:
    node = weights_of(graph, "second")
    put(graph, node, 0, np.rint(constant_of(node.inputs[0]) / 48).astype(np.int8))
    put(graph, node, 1, (constant_of(node.inputs[1]) * 48).astype(np.float32))


def bad_fold(graph: ir.Graph) -> None:
    node = weights_of(graph, "second")
    scales = constant_of(node.inputs[1])
    put(graph, node, 1, (scales * np.linspace(0.4, 1.8, len(scales))).astype(np.float32))


def bad_bias(graph: ir.Graph) -> None:
    layer = next(each for each in graph if each.name == "second")
    node = layer.inputs[2].producer()
    node, index = (layer, 2) if node is None else (node, 0)
    bias = constant_of(node.inputs[index])
    put(graph, node, index, (bias + 2 * np.abs(bias).max()).astype(bias.dtype))


def overflow(graph: ir.Graph) -> None:
    value = next(each for each in graph if each.name == "second").outputs[0]
    uses, before = list(value.uses()), next(iter(value.uses())).node
    up = insert_node(graph, before, "Mul", [value, new_constant(graph, "up", np.float32([1e-8]))], "half/up", value)
    narrow = insert_node(graph, before, "Cast", [up], "half/narrow", value, attributes={"to": 10})
    narrow.type = ir.TensorType(ir.DataType.FLOAT16)
    wide = insert_node(graph, before, "Cast", [narrow], "half/wide", value, attributes={"to": 1})
    down = insert_node(graph, before, "Mul", [wide, new_constant(graph, "down", np.float32([1e8]))], "half/down", value)
    for use in uses:
        use.node.replace_input_with(use.idx, down)


def nothing(graph: ir.Graph) -> None:
    """Change nothing."""


BGR = replace(USED, channels="bgr")

FAULTS = {
    "preprocessing": (nothing, None, BGR, "preprocessing", "channels"),
    "bad fold": (bad_fold, None, USED, "graph", "second"),
    "bad bias": (bad_bias, None, USED, "graph", "second"),
    "few bits": (few_bits, None, USED, "weights", "second"),
    "clipped": (scaled_pair("active", 0.1), None, USED, "clipping", "active"),
    "wide range": (scaled_pair("active", 60), None, USED, "rounding", "active"),
    "float16": (overflow, None, USED, "fp16", "half/narrow"),
    "runtime": (nothing, scaled_pair("active", 0.1), USED, "runtime", "active/dequantized"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_injected_fault_is_named_by_stage_and_place(fault, files, tmp_path):
    edit, runtime, used, stage, place = FAULTS[fault]
    model = ir.load(files / "model.int8.onnx")
    edit(model.graph)
    path = tmp_path / "model.onnx"
    ir.save(model, path)
    of_reference, of_artifact = (open_source(files / "images.npz", each) for each in (USED, used))
    canonical = canonical_graph(files / "model.onnx", USED)
    indices = list(range(IMAGES))

    def run(given: ir.Model, source, few) -> np.ndarray:
        session = onnxruntime.InferenceSession(ir.to_proto(given).SerializeToString(), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"images": batch})[0] for batch, _ in source.batches(8, few)])

    def engine(given: ir.Model, few) -> np.ndarray:
        if runtime is not None:
            runtime(given.graph)
        return run(given, of_artifact, list(few))

    reference = run(ir.load(files / "model.onnx"), of_reference, indices)
    own = engine(ir.load(path), indices)
    finished = Finished.open(path, canonical.model.graph, None)
    taken = Ledger(canonical.model, finished, of_reference, of_artifact, of_artifact, threads=1).with_foreign_biases(indices)
    ledger = taken.measure(indices, (reference, own), None, Counter(None, IMAGES))
    ledger = taken.locate(ledger, indices, engine, Counter(None, len(ledger.stages)))
    named = next(each for each in ledger.stages if each.name == ledger.largest)
    assert (named.name, named.place) == (stage, place)
    assert abs(ledger.interaction_percent) < 20
    assert ledger.sqnr_db == pytest.approx(-10 * np.log10(((own - reference) ** 2).sum() / (reference**2).sum()), abs=0.01)


def test_changes_and_drops_of_stages_add_up():
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 200)
    first = random.normal(0, 1, (200, 5)).astype(np.float32)
    rows = [(name, first + size * random.normal(0, 1, first.shape).astype(np.float32)) for name, size in (("a", 0.1), ("b", 0.5))]
    ledger = add_up(first, rows, labels)
    assert sum(stage.top1_drop for stage in ledger.stages) == pytest.approx(ledger.top1_drop)
    assert sum(stage.share_percent for stage in ledger.stages) + ledger.interaction_percent == pytest.approx(100)
    assert ledger.largest == "b"


def test_equal_logits_have_no_largest_stage():
    logits = np.ones((4, 3), np.float32)
    ledger = add_up(logits, [("a", logits), ("b", logits)], None)
    assert (ledger.largest, ledger.interaction_percent, ledger.sqnr_db, ledger.top1_drop) == (None, 0.0, None, None)
    assert [stage.sqnr_db for stage in ledger.stages] == [None, None]


def test_first_jump_is_where_noise_grows_most():
    assert first_jump({"a": 1e-5, "b": 3e-5, "c": 2e-2, "d": 6e-2}) == ("c", 2e-2)
    assert first_jump({"a": 0.0, "b": 1e-9}) is None
    assert first_jump({"a": 1e-5, "b": float("inf"), "c": float("inf")}) == ("b", float("inf"))


def test_forms_that_cannot_be_taken_apart_are_refused(files, tmp_path):
    with pytest.raises(InputError):
        check_form(tmp_path / "model.engine")
    model = onnx.load(files / "model.int8.onnx")
    model.graph.node[0].op_type = "QLinearConv"
    onnx.save(model, tmp_path / "integer.onnx")
    with pytest.raises(InputError):
        check_form(tmp_path / "integer.onnx")
