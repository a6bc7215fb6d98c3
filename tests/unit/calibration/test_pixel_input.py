"""An INT8 model that takes pixels: its logits are those of a normalized input up to rounding, and it reads pixels as integers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.api.calibrate import CalibrateRequest, calibrate
from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.registry import open_runner
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.data.sources import open_source
from emca_deploy.errors import InputError
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions

SIZE, IMAGES = 16, 12
SAID = PreprocessingOptions(
    resize="squash", interpolation="bilinear", channels="bgr", mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3)
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8))
    return path


def network(path, *, kernel, stride, pads):
    """Write a small classifier."""
    random = np.random.default_rng(1)
    shapes = {"w1": (16, 3, kernel, kernel), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,), "w3": (5, 16), "b3": (5,)}
    weights = [
        numpy_helper.from_array((random.standard_normal(shape) * 0.3).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"], ["a"], name="stem", strides=[stride] * 2, pads=[pads] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
        helper.make_node("Flatten", ["e"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def quantized(model, data, backend, form):
    """Calibrate and return the file."""
    output = model.with_name(f"{backend}.{form}.onnx")
    report = calibrate(
        CalibrateRequest(
            model,
            data,
            output,
            backend,
            samples=IMAGES,
            method="minmax",
            recover="none",
            threads=1,
            preprocessing=SAID,
            input_form=form,
            weight_bits=8,
        )
    )
    assert not [text for text in (*report.notes, *report.warnings) if "emca-pixels" in text]
    return output


def logits(file, data, backend):
    said = PreprocessingOptions() if read_manifest(file) else SAID
    images = next(open_source(data, preprocessing_of_file(file, said)).batches(IMAGES))[0]
    with open_runner(backend, str(file), threads=1, spin=False) as runner:
        return runner.infer(images).copy()


def noise(wanted, found):
    return float(np.linalg.norm(wanted - found) / np.linalg.norm(wanted))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("kernel", "stride", "pads"), [(4, 4, 0), (3, 1, 1)], ids=["patches", "padded"])
def test_int8_logits_are_those_of_a_normalized_input_up_to_rounding(kernel, stride, pads, backend, data, tmp_path):
    model = network(tmp_path / "model.onnx", kernel=kernel, stride=stride, pads=pads)
    wanted = logits(model, data, "onnxruntime")
    normalized = noise(wanted, logits(quantized(model, data, backend, None), data, backend))
    made = quantized(model, data, backend, "uint8-nhwc")
    assert noise(wanted, logits(made, data, backend)) < max(1.5 * normalized, 0.01)
    manifest = read_manifest(made)
    assert manifest.preprocessing.mean == (0, 0, 0)
    assert (manifest.network.channels, manifest.network.mean) == ("bgr", SAID.mean)
    graph = onnx.load(made).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim][1:] == [SIZE, SIZE, 3]


def test_a_convolution_without_padding_reads_the_pixels_themselves(data, tmp_path):
    model = network(tmp_path / "model.onnx", kernel=4, stride=4, pads=0)
    graph = onnx.load(quantized(model, data, "onnxruntime", "uint8-nhwc")).graph
    makers = {name: node for node in graph.node for name in node.output}
    first = next(node for node in graph.node if node.name == "stem")
    chain = []
    node = first
    while node is not None:
        node = makers.get(node.input[0])
        chain += [node.op_type] if node is not None else []
    assert chain == ["DequantizeLinear", "Transpose"]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    _, scale, zero = makers[first.input[0]].input
    assert (constants[scale], constants[zero], constants[zero].dtype) == (1, 0, np.uint8)


def test_signed_integers_hold_centred_pixels(data, tmp_path):
    model = network(tmp_path / "model.onnx", kernel=4, stride=4, pads=0)
    graph = onnx.load(quantized(model, data, "tensorrt", "float32-nchw")).graph
    assert graph.node[0].op_type == "Sub"


@pytest.mark.parametrize(
    "options", [{"cache": "c", "tensorrt_version": "10.3.0", "backend": "tensorrt"}, {"recover": "finetune"}]
)
def test_what_needs_the_original_model_is_refused(options, data, tmp_path):
    model = network(tmp_path / "model.onnx", kernel=4, stride=4, pads=0)
    values = {"backend": "openvino", **options}
    if "cache" in values:
        values["cache"] = tmp_path / "c"
    with pytest.raises(InputError):
        calibrate(CalibrateRequest(model, data, tmp_path / "o.onnx", input_form="uint8-nhwc", **values))
    assert not (tmp_path / "o.onnx").exists()


def test_calibration_of_a_converted_file_takes_its_preprocessing(data, tmp_path):
    from emca_deploy.exporting.pixel_convert import convert_to_pixels

    model = network(tmp_path / "model.onnx", kernel=4, stride=4, pads=0)
    pixels = convert_to_pixels(model, tmp_path / "pixels.onnx", "uint8-nchw", SAID).onnx
    made = tmp_path / "int8.onnx"
    calibrate(CalibrateRequest(pixels, data, made, "openvino", samples=IMAGES, method="minmax", recover="none", threads=1))
    assert (
        read_manifest(made).preprocessing
        == read_manifest(pixels).preprocessing
        == Preprocessing(SIZE, SIZE, (0,) * 3, (1,) * 3, resize="squash", scale=1)
    )
    assert noise(logits(model, data, "onnxruntime"), logits(made, data, "openvino")) < 0.05
