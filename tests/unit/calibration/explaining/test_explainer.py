"""Explanations of other tools' and our quantized files name exactly the layers that the runtimes run in INT8."""

import itertools
import logging

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from random_networks import network, pictures

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.explaining.explainer import explain_file, explain_int8, refuse_quantized
from emca_deploy.calibration.explaining.words import FINDINGS
from emca_deploy.errors import ModelError

INTEGER = {
    "QLinearConv",
    "QGemm",
    "QLinearMatMul",
    "MatMulIntegerToFloat",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeMatMul",
}
BLOCKS = {"float": (["residual", "inverted"], "relu"), "gated": (["mobile_v3"], "silu"), "joined": (["inception"], "leaky")}
TYPES = {"u8s8": ("QUInt8", "QInt8"), "s8s8": ("QInt8", "QInt8"), "u8u8": ("QUInt8", "QUInt8")}


class Images(CalibrationDataReader):
    def __init__(self):
        self.images = iter(pictures(4))

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"images": image[None]}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Return a function that returns a file quantized by ONNX Runtime's own tool, made once."""
    folder = tmp_path_factory.mktemp("foreign")
    for name, (blocks, act) in BLOCKS.items():
        onnx.save(network(blocks, act, "gemm")[0], folder / f"{name}.onnx")

    def make(name, form="QDQ", types="u8s8", **options):
        path = folder / f"{name}-{form}-{types}-{'-'.join(map(str, options.values()))}.onnx"
        if not path.exists():
            activations, weights = (QuantType[kind] for kind in TYPES.get(types, (types, "QInt8")))
            logging.disable(logging.WARNING)
            quantize_static(
                folder / f"{name}.onnx", path, Images(), quant_format=QuantFormat[form], activation_type=activations,
                weight_type=weights, **options,
            )  # fmt: skip
            logging.disable(logging.NOTSET)
        return path

    make.folder = folder
    return make


def kinds_run(path, tmp_path):
    """Return the operators of ONNX Runtime's optimized graph of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def kinds_found(report):
    return {finding.kind for finding in report.findings}


@pytest.mark.parametrize(("name", "types", "per_channel"), itertools.product(BLOCKS, TYPES, [False, True]))
def test_onnxruntime_runs_what_is_said(quantized, tmp_path, name, types, per_channel):
    path = quantized(name, types=types, per_channel=per_channel)
    report = explain_file(path, find_recipe("onnxruntime"))
    ran = kinds_run(path, tmp_path)
    assert report.int8_layers == sum(kind in INTEGER for kind in ran)
    assert report.layers == report.int8_layers + sum(kind in {"Conv", "FusedConv", "Gemm"} for kind in ran)
    assert ("per_tensor_weights" in kinds_found(report)) == (not per_channel)
    assert ("signed_activations" in kinds_found(report)) == (report.int8_layers < report.layers)
    assert report.form == "qdq"


@pytest.mark.parametrize("types", TYPES)
def test_operators_of_integers_are_onnxruntimes(quantized, tmp_path, types):
    path = quantized("float", "QOperator", types)
    report = explain_file(path, find_recipe("onnxruntime"))
    assert report.form == "operators"
    assert report.int8_layers == report.layers == sum(kind in INTEGER for kind in kinds_run(path, tmp_path))
    elsewhere = explain_file(path, find_recipe("openvino"))
    assert elsewhere.int8_layers == 0
    assert "integer_operator" in kinds_found(elsewhere)


@pytest.mark.parametrize(("types", "per_channel"), itertools.product(TYPES, [False, True]))
def test_openvino_runs_what_is_said(quantized, types, per_channel):
    openvino = pytest.importorskip("openvino")
    path = quantized("float", types=types, per_channel=per_channel)
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, 3, 32, 32])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    info = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ops()]
    layers = [one for one in info if one["layerType"].astype(str) in {"Convolution", "FullyConnected"}]
    report = explain_file(path, find_recipe("openvino"))
    assert report.layers == len(layers)
    assert report.int8_layers == sum(one["runtimePrecision"].astype(str) in {"i8", "u8"} for one in layers)
    assert ("asymmetric_weights" in kinds_found(report)) == (types == "u8u8")


def test_other_widths_and_ranges_of_run_time(quantized, tmp_path):
    wide = quantized("float", types="QInt16")
    report = explain_file(wide, find_recipe("onnxruntime"))
    assert report.int8_layers == 0 == sum(kind in INTEGER for kind in kinds_run(wide, tmp_path))
    assert kinds_found(report) >= {"wide_types"}
    dynamic = tmp_path / "dynamic.onnx"
    quantize_dynamic(quantized.folder / "float.onnx", dynamic)
    report = explain_file(dynamic, find_recipe("onnxruntime"))
    assert (report.form, kinds_found(report)) == ("dynamic", {"run_time_ranges"})
    assert report.int8_layers == sum(kind in INTEGER for kind in kinds_run(dynamic, tmp_path))


def test_tensorrt_wants_all_symmetric_and_float_biases(quantized):
    report = explain_file(quantized("float", types="u8s8", per_channel=True), find_recipe("tensorrt"))
    assert report.int8_layers == 0
    assert kinds_found(report) >= {"asymmetric_activations", "integer_bias"}
    symmetric = {"ActivationSymmetric": True, "QuantizeBias": False}
    report = explain_file(quantized("float", types="s8s8", per_channel=True, extra_options=symmetric), find_recipe("tensorrt"))
    assert report.int8_layers == report.layers
    assert kinds_found(report) == {"quantized_before_activation"}  # the tool then leaves pairs between layers and ReLUs


def chain(body: str) -> ir.Graph:
    """Return a graph of one convolution, with nodes for Q, DQ and 8-bit weights available."""
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    net (float[1,3,8,8] x) => (float[1,4,8,8] out)
    <float s={{0.02}}, float t={{0.03}}, uint8 z={{0}}, uint8 m={{128}}, int8 n={{0}}> {{
        w = DequantizeLinear(wi, ws, n) q = QuantizeLinear(x, s, m) d = DequantizeLinear(q, s, m) {body} }}"""
    model = onnx.parser.parse_model(text)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    rng = np.random.default_rng(0)
    model.graph.initializer.append(onnx.numpy_helper.from_array(rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), "wi"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.01, np.float32), "ws"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "wf"))
    return ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph


CONV = "Conv<pads=[1,1,1,1]>"
CASES = {
    "float_weights": f"c = {CONV}(d, wf) p = QuantizeLinear(c, t, m) out = DequantizeLinear(p, t, m)",
    "float_layer": f"c = {CONV}(x, w) r = Relu(d) out = Elu(c)",
    "quantized_behind": f"c = {CONV}(x, w) p = QuantizeLinear(c, t, m) out = DequantizeLinear(p, t, m)",
    "float_result": f"c = {CONV}(d, w) out = Elu(c)",
    "zero_point_beside_relu": f"c = {CONV}(d, w) r = Relu(c) p = QuantizeLinear(r, t, m) out = DequantizeLinear(p, t, m)",
    "quantized_before_activation": (
        f"c = {CONV}(d, w) p = QuantizeLinear(c, t, m) e = DequantizeLinear(p, t, m) r = Relu(e) "
        "f = QuantizeLinear(r, t, z) out = DequantizeLinear(f, t, z)"
    ),
    "float_island": (
        f"c = {CONV}(d, w) p = QuantizeLinear(c, t, m) e = DequantizeLinear(p, t, m) r = Elu(e) "
        "f = QuantizeLinear(r, t, m) out = DequantizeLinear(f, t, m)"
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_is_told_with_its_node_and_what_to_do(kind):
    report = explain_int8(chain(CASES[kind]), find_recipe("onnxruntime"))
    (finding,) = [one for one in report.findings if one.kind == kind]
    assert len(finding.nodes) == 1
    expected = {"quantized_before_activation": "Relu", "float_island": "Elu"}.get(kind, "Conv")
    assert finding.nodes[0].startswith(expected)
    assert finding.remedy
    assert report.int8_layers == (1 if kind in {"quantized_before_activation", "float_island"} else 0)


@pytest.mark.parametrize("zero", ["", ", z"])
def test_a_quantization_from_0_on_replaces_the_relu_before_it(zero):
    """Without a zero point it is uint8 with 0."""
    body = f"c = {CONV}(d, w) r = Relu(c) p = QuantizeLinear(r, t{zero}) out = DequantizeLinear(p, t{zero})"
    report = explain_int8(chain(body), find_recipe("onnxruntime"))
    assert (report.int8_layers, "zero_point_beside_relu" in kinds_found(report)) == (1, False)


def test_saturation_is_told_where_the_processor_saturates():
    graph = chain(CASES["float_island"])
    assert "saturation" not in kinds_found(explain_int8(graph, find_recipe("onnxruntime")))
    assert "saturation" in kinds_found(explain_int8(graph, find_recipe("onnxruntime"), saturates=True))


def test_every_kind_has_words_that_can_be_filled_in():
    for problem, remedy in FINDINGS.values():
        assert "{" not in problem.format(backend="x") + remedy.format(backend="x")


def test_a_quantized_file_is_refused_with_a_cause_and_a_float_one_is_not(quantized):
    path = quantized("float", types="s8s8", per_channel=True)
    with pytest.raises(ModelError) as caught:
        refuse_quantized(path, find_recipe("onnxruntime"))
    assert str(path) in caught.value.problem
    assert explain_file(path, find_recipe("onnxruntime")).findings[0].nodes[0] in caught.value.problem
    refuse_quantized(quantized.folder / "float.onnx", find_recipe("onnxruntime"))
