"""Rewrites are exact and apply only where they should."""

import re

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.rewrites import deviations
from emca_deploy.calibration.rewrites.aggregation import add_scales, broadcast_repeats
from emca_deploy.calibration.rewrites.deviations import add_deviations
from emca_deploy.calibration.rewrites.functions import split_poolings
from emca_deploy.calibration.rewrites.shortcuts import free_shortcuts
from zoo.recipes import collect_ranges, rewrite_for

SIZE = 64


class Images:
    """Two fixed images in the form of a data source."""

    preprocessing = None

    def __init__(self) -> None:
        self.images = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), dtype=np.float32)

    def batches(self, size, indices):
        yield self.images[list(indices)], None


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, exported):
    """Return a function that returns an architecture's INT8 model for OpenVINO before any rewrite."""
    folder = tmp_path_factory.mktemp("models")

    def load(arch: str) -> ir.Model:
        path = folder / f"{arch}.onnx"
        if not path.exists():
            model = load_graph(exported(arch))
            ranges = collect_ranges(exported(arch), Images(), [0, 1], 1)
            insert_qdq(model, place(model.graph, find_recipe("openvino")), ranges)
            ir.save(model, path)
        return ir.load(path)

    return load


def assert_shapes_have_the_batch(graph: ir.Graph) -> None:
    """Each tensor of the trunk and of the attention has the batch of the images as its first side."""
    batch = graph.inputs[0].shape[0]
    for node in graph:
        for value in node.outputs:
            if (
                node.name
                and value.shape is not None
                and value.producer().op_type not in {"Constant", "DequantizeLinear", "Shape"}
            ):
                assert value.shape[0] == batch, value


def logits(model: ir.Model, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # its INT8 kernels round differently
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


# All blocks except the last of a stage whose maps the next stage's attention reads: one per stage 1 to 3 at depth 18.
@pytest.mark.parametrize(
    ("arch", "freed"),
    [
        ("narrow_emca_eca_resnet18", (0, 3)),  # a basic block has no narrow tensor
        ("narrow_emca_srm_resnet18", (0, 3)),
        pytest.param("emca_eca_resnet50", (10, 0), marks=pytest.mark.slow),
        pytest.param("emca_srm_resnet50", (10, 0), marks=pytest.mark.slow),
        ("pkcam_eca_resnet10", (0, 0)),
        ("resnet10", (0, 0)),
    ],
)
def test_shortcuts_that_a_later_pooling_reads_are_freed(arch, freed, quantized):
    model = quantized(arch)
    images = Images().images
    before = {count: logits(model, images[:count]) for count in (1, 2)}
    assert free_shortcuts(model.graph) == freed
    assert_shapes_have_the_batch(model.graph)
    for count, reference in before.items():
        np.testing.assert_array_equal(logits(model, images[:count]), reference)


@pytest.mark.parametrize(
    ("arch", "poolings"), [("narrow_emca_eca_resnet18", 10), ("eca_resnet10", 4), ("srm_resnet10", 4), ("resnet10", 0)]
)
def test_poolings_of_quantized_maps_are_split(arch, poolings, quantized):
    model = quantized(arch)
    images = Images().images
    before = logits(model, images)
    assert split_poolings(model.graph) == poolings
    assert_shapes_have_the_batch(model.graph)
    np.testing.assert_allclose(logits(model, images), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("arch", "maps"), [("narrow_emca_srm_resnet18", 10), ("srm_resnet10", 4), ("eca_resnet10", 0)])
def test_deviations_of_quantized_maps_are_added_in_pieces(arch, maps, quantized, monkeypatch):
    model = quantized(arch)
    images = Images().images
    before = logits(model, images)
    assert add_deviations(model.graph) == 0  # maps of images of 64 pixels are small
    monkeypatch.setattr(deviations, "FEWEST", 1)
    assert add_deviations(model.graph) == maps
    assert_shapes_have_the_batch(model.graph)
    np.testing.assert_allclose(logits(model, images), before, rtol=1e-4, atol=1e-5)
    assert add_deviations(model.graph) == 0


@pytest.mark.parametrize(
    ("channels", "height", "reader", "split"),
    [
        (1024, "56", "", 1), (16384, "7", "", 1), (8192, "10", "", 1), (32768, "2", "", 1),
        (64, "56", "", 0), (65536, "1", "", 0), (8192, "11", "", 0), (8192, "H", "", 0), (8192, "8", "other = Relu(d)", 0),
    ],
)  # fmt: skip
def test_deviations_are_split_where_the_size_allows_it_and_nothing_else_reads_them(channels, height, reader, split):
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    network (uint8[2,{channels},{height},5] q) => (float[2,{channels},1,1] y) {{
        scale = Constant<value: tensor = float {{0.1}}>()
        x = DequantizeLinear(q, scale)
        mean = GlobalAveragePool(x)
        d = Sub(x, mean)
        {reader}
        squared = Mul(d, d)
        pooled = GlobalAveragePool(squared)
        y = Sqrt(pooled)
    }}"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    rows = int(height) if height.isdigit() else 6
    integers = np.random.default_rng(0).integers(0, 256, (2, channels, rows, 5), dtype=np.uint8)
    before = logits(model, integers)
    assert add_deviations(model.graph) == split
    assert sum(node.op_type == "Split" for node in model.graph) == split
    np.testing.assert_allclose(logits(model, integers), before, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "split"), [(1, 1, 0), (1, 5, 0), (5, 1, 0), (2, 2, 1)])
def test_a_map_of_one_row_or_column_is_pooled_at_once(height, width, split):
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    network (uint8[1,4,{height},{width}] q) => (float[1,4,1,1] y) {{
        scale = Constant<value: tensor = float {{0.1}}>()
        x = DequantizeLinear(q, scale)
        mean = GlobalAveragePool(x)
        y = Relu(mean)
    }}"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    assert split_poolings(model.graph) == split


@pytest.mark.parametrize(
    ("arch", "sums"),
    [
        ("narrow_emca_eca_resnet18", 3),
        pytest.param("emca_se_resnet18", 3, marks=pytest.mark.slow),
        ("narrow_emca_srm_resnet18", 3),
        ("eca_resnet10", 0),
    ],
)
def test_aggregation_becomes_additions(arch, sums, quantized):
    model = quantized(arch)
    images = Images().images
    before = logits(model, images)
    assert (add_scales(model.graph), broadcast_repeats(model.graph)) == (sums, 0 if "srm" in arch else sums)
    assert_shapes_have_the_batch(model.graph)
    kinds = {node.op_type for node in model.graph}
    assert "ReduceSum" not in kinds
    assert ("Concat" in kinds) == ("srm" in arch)
    np.testing.assert_allclose(logits(model, images), before, rtol=1e-4, atol=1e-5)


def test_a_second_time_changes_nothing(quantized):
    model = quantized("narrow_emca_eca_resnet18")
    rewrite_for(model.graph, "openvino")
    names = [node.name for node in model.graph]
    rewrite_for(model.graph, "openvino")
    assert [node.name for node in model.graph] == names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt", "tensorrt-rtx"])
def test_other_backends_want_none(backend, quantized):
    model = quantized("narrow_emca_eca_resnet18")
    nodes = list(model.graph)
    rewrite_for(model.graph, backend)
    assert list(model.graph) == nodes


@pytest.mark.parametrize("arch", ["emca_eca_resnet18", pytest.param("emca_eca_resnet50", marks=pytest.mark.slow)])
def test_openvino_then_adds_identity_shortcuts_inside_convolutions(arch, quantized, tmp_path):
    openvino = pytest.importorskip("openvino")
    model = quantized(arch)

    def additions_alone() -> list[str]:
        path = tmp_path / "int8.onnx"
        ir.save(model, path)
        compiled = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )
        executed = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
        kinds = {info["originalLayersNames"].astype(str): info["layerType"].astype(str) for info in executed}
        return [kind for names, kind in kinds.items() for name in names.split(",") if re.fullmatch(r"stage\d\.block1\.add", name)]

    assert "Eltwise" in additions_alone()
    rewrite_for(model.graph, "openvino")
    assert set(additions_alone()) == {"Convolution"}
