"""A graph that takes pixels returns what it returned for normalized images, and every fold is exact up to rounding."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.artifacts import read_manifest
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.data.preprocess import normalize
from emca_deploy.errors import InputError
from emca_deploy.exporting.pixel_convert import convert_to_pixels
from emca_deploy.exporting.pixel_input import take_pixels
from emca_deploy.preprocessing import INPUT_FORMS, Preprocessing, PreprocessingOptions
from emca_deploy.tasks.inputs import native_images, random_images

SIZE = 12
IMAGENET = Preprocessing(SIZE, SIZE)
HALVES = Preprocessing(SIZE, SIZE, (0.5,) * 3, (0.25,) * 3)


def first_layers(*, kernel=3, stride=1, pads=0, group=1, outputs=6, channels=3, before=(), dtype=np.float32, readers=1):
    """Return a model of one or more convolutions of one image, behind other nodes: each a function of the input's name."""
    random = np.random.default_rng(3)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes, constants, read = [], [], "images"
    for make in before:
        node, more = make(read)
        nodes.append(node)
        constants += more
        read = node.output[0]
    for index in range(readers):
        weight = random.standard_normal((outputs, channels // group, kernel, kernel)).astype(dtype)
        names = [read, f"weight{index}", f"bias{index}"]
        constants += [numpy_helper.from_array(weight, names[1]), numpy_helper.from_array(weight[:, 0, 0, 0].copy(), names[2])]
        attributes = {"strides": [stride] * 2, "pads": [pads] * 4, "group": group}
        nodes.append(helper.make_node("Conv", names, [f"map{index}"], name=f"conv{index}", **attributes))
    nodes.append(helper.make_node("Sum", [f"map{index}" for index in range(readers)], ["logits"], name="sum"))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("images", kind, ["batch", channels, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", kind, ["batch", outputs, None, None])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def padded(value=0.0, mode="constant", sides=(0, 0, 1, 2, 0, 0, 2, 1)):
    """Return a function that makes a Pad."""

    def make(read):
        sizes = numpy_helper.from_array(np.array(sides, np.int64), "sizes")
        filling = numpy_helper.from_array(np.array(value, np.float32), "filling")
        return helper.make_node("Pad", [read, "sizes", "filling"], ["padded"], name="pad", mode=mode), [sizes, filling]

    return make


def scaled(read):
    """Make a Mul, which no fold goes through."""
    return helper.make_node("Mul", [read, "two"], ["scaled"], name="mul"), [numpy_helper.from_array(np.float32(2), "two")]


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def check(model, form, used, tolerance=2e-6, **options):
    """Compare a graph on pixels with the graph before on normalized pixels; return how it was rewritten, and the graph."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, *used.shape)).astype(np.float32)
    dtype = numpy_helper.to_array(model.graph.initializer[-1]).dtype
    ordered = pixels[:, ::-1] if used.channels == "bgr" else pixels
    wanted = run(model, np.stack([normalize(image.copy(), used) for image in ordered]).astype(dtype))
    loaded = ir.from_proto(model)
    rewritten = take_pixels(loaded, form, used, **options)
    made = ir.to_proto(loaded)
    onnx.checker.check_model(made)
    kind, layout = form.split("-")
    found = run(made, native_images(pixels, kind, channels_last=layout == "nhwc"))
    # The border of one pixel is where a mean in the bias would go wrong.
    assert np.abs(wanted - found).max() <= tolerance * np.abs(wanted).max()
    assert {tensor.name for tensor in made.graph.initializer} <= {name for node in made.graph.node for name in node.input}
    return rewritten, made


@pytest.mark.parametrize("form", INPUT_FORMS)
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_a_padded_convolution_takes_the_scale_and_the_order_but_not_the_mean(form, channels):
    used = Preprocessing(SIZE, SIZE, channels=channels)
    found, _ = check(first_layers(kernel=7, stride=2, pads=3), form, used)
    cast, transpose = ("Cast",) * form.startswith("uint8"), ("Transpose",) * form.endswith("nhwc")
    assert found.folded == (("channels",) if channels == "bgr" else ()) + ("scale",)
    assert found.nodes == (*cast, "Sub", *transpose)


@pytest.mark.parametrize("form", INPUT_FORMS)
def test_a_convolution_without_padding_takes_everything(form):
    used = Preprocessing(SIZE, SIZE, channels="bgr")
    found, made = check(first_layers(kernel=4, stride=4), form, used)
    assert found.folded == ("channels", "mean", "scale")
    assert {node.op_type for node in made.graph.node} <= {"Transpose", "Cast", "Conv", "Sum"}
    assert len(found.nodes) == {"uint8-nhwc": 2, "uint8-nchw": 1, "float32-nchw": 0}[form]


def test_one_pixel_of_border_shows_a_mean_that_is_in_the_bias():
    model = first_layers(kernel=3, pads=1)
    loaded = ir.from_proto(model)
    conv = next(node for node in loaded.graph if node.op_type == "Conv")
    conv.attributes.pop("pads")
    take_pixels(loaded, "float32-nchw", IMAGENET)
    conv.attributes.add(ir.AttrInt64s("pads", [1] * 4))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE)).astype(np.float32)
    difference = np.abs(run(model, normalize(pixels[0].copy(), IMAGENET)[None]) - run(ir.to_proto(loaded), pixels))
    assert difference[:, :, 1:-1, 1:-1].max() < 1e-4
    assert difference[:, :, 0].max() > 0.1


@pytest.mark.parametrize(
    ("used", "pad", "folds_mean"),
    [
        pytest.param(HALVES, padded(), True, id="equal means"),
        pytest.param(HALVES, padded(-2.0), True, id="black border"),
        pytest.param(IMAGENET, padded(), False, id="different means"),
        pytest.param(IMAGENET, padded(mode="reflect"), True, id="reflected"),
        pytest.param(IMAGENET, padded(mode="edge"), True, id="repeated"),
    ],
)
def test_a_pad_carries_the_mean_where_one_number_can(used, pad, folds_mean):
    found, _ = check(first_layers(before=[pad]), "uint8-nhwc", used)
    assert ("mean" in found.folded) == folds_mean
    assert "scale" in found.folded


@pytest.mark.parametrize("pad", [padded(1.5), padded(0.0, sides=(0, 1, 0, 0, 0, 0, 0, 0))], ids=["number", "channels"])
def test_other_pads_leave_all_arithmetic_before_the_network(pad):
    channels = 4 if pad is not None and pad("x")[0].op_type == "Pad" and numpy_helper.to_array(pad("x")[1][0])[1] else 3
    model = first_layers(before=[pad], channels=channels)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE]))
    found, _ = check(model, "uint8-nchw", Preprocessing(SIZE, SIZE, std=(0.2, 0.3, 0.4), channels="bgr"))
    assert found.folded == ()
    assert found.nodes == ("Cast", "Gather", "Sub", "Mul")


def test_a_convolution_in_groups_takes_the_scale_and_the_mean_of_its_own_channels():
    found, _ = check(first_layers(group=3, kernel=2), "uint8-nhwc", IMAGENET)
    assert found.folded == ("mean", "scale")
    found, _ = check(first_layers(group=3, kernel=2), "uint8-nhwc", Preprocessing(SIZE, SIZE, channels="bgr"))
    assert (found.folded, found.nodes) == (("mean", "scale"), ("Cast", "Gather", "Transpose"))


def test_all_readers_take_a_step_or_none():
    found, _ = check(first_layers(readers=2, kernel=2), "uint8-nchw", IMAGENET)
    assert found.folded == ("mean", "scale")
    found, _ = check(first_layers(before=[scaled], readers=2), "uint8-nchw", IMAGENET)
    assert (found.folded, found.nodes) == ((), ("Cast", "Sub", "Mul"))


def test_gray_images_and_plain_pixels():
    gray = Preprocessing(SIZE, SIZE, (0.4,), (0.2,), channels="gray")
    assert check(first_layers(channels=1), "uint8-nhwc", gray)[0].folded == ("mean", "scale")
    plain = gray.plain(1)
    assert check(first_layers(channels=1, pads=1), "uint8-nhwc", plain)[0].nodes == ("Transpose", "Cast")


def test_a_mean_may_stay_in_a_node():
    found, _ = check(first_layers(), "uint8-nchw", IMAGENET, fold_mean=False)
    assert (found.folded, found.nodes) == (("scale",), ("Cast", "Sub"))


def test_a_half_input_is_normalized_in_float32():
    found, made = check(first_layers(dtype=np.float16), "uint8-nchw", IMAGENET, tolerance=2e-3)
    assert found.nodes == ("Cast", "Sub", "Mul", "Cast")
    assert made.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_the_manifest_has_the_preprocessing_of_the_file_and_of_the_network(tmp_path):
    model = tmp_path / "model.onnx"
    graph = first_layers(kernel=SIZE)
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 6, 1, 1]))
    onnx.save(graph, model)
    said = PreprocessingOptions(resize="letterbox", pad_value=9, channels="bgr", mean=(0.4,), std=(0.5,))
    made = convert_to_pixels(model, tmp_path / "pixels.onnx", "uint8-nhwc", said)
    assert made.parity.max_rel < 1e-5
    manifest = read_manifest(made.onnx)
    assert manifest.preprocessing == Preprocessing(
        SIZE, SIZE, (0,) * 3, (1,) * 3, resize="letterbox", pad_value=9, channels="rgb", scale=1
    )
    assert manifest.network == preprocessing_of_file(model, said)
    assert preprocessing_of_file(made.onnx, PreprocessingOptions()) == manifest.preprocessing
    with pytest.raises(InputError):
        convert_to_pixels(made.onnx, tmp_path / "again.onnx", "uint8-nhwc")
    assert not (tmp_path / "again.onnx").exists()


@pytest.mark.parametrize(
    ("options", "form", "fits"),
    [
        ({"resize": "letterbox", "pad_value": "mean"}, "uint8-nhwc", False),
        ({"resize": "letterbox", "pad_value": 113.5}, "uint8-nhwc", False),
        ({"resize": "letterbox", "pad_value": 113.5}, "float32-nchw", True),
        ({"resize": "letterbox", "pad_value": 114}, "uint8-nhwc", True),
        ({"resize": "none", "pad_value": "mean"}, "float32-nchw", False),
        ({"resize_size": SIZE - 2, "pad_value": "mean"}, "uint8-nchw", False),
        ({"resize_size": SIZE, "pad_value": "mean"}, "uint8-nchw", True),
    ],
)
def test_filled_pixels_are_pixels(options, form, fits):
    used = Preprocessing(**{"image_size": SIZE, "resize_size": SIZE, **options})
    if fits:
        assert used.of_pixels(form).filling == (used.filling if used.resize == "letterbox" else (0.0,) * 3)
    else:
        with pytest.raises(ValueError, match="do not fit"):
            used.of_pixels(form)


def test_a_reference_that_takes_pixels_inherits_no_statistics(tmp_path):
    model = tmp_path / "uint8.onnx"
    loaded = ir.from_proto(first_layers())
    take_pixels(loaded, "uint8-nhwc", IMAGENET)
    ir.save(loaded, model)
    used = preprocessing_of_file(model, PreprocessingOptions(), IMAGENET)
    assert (used.mean, used.std, used.scale) == ((0.0,) * 3, (1.0,) * 3, 1)


def test_random_pixels_are_spread_over_their_range():
    def to_native(images):
        return native_images(images, "uint8", channels_last=True)

    found = random_images(np.random.default_rng(0), (2, 3, 8, 9), to_native)
    assert (found.dtype, found.shape) == (np.uint8, (2, 8, 9, 3))
    assert found.min() < 10 < 245 < found.max()
