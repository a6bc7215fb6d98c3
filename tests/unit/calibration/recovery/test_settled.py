"""The settled part of a graph is not run again, which does not change the measurements."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from refusals import refusing

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.graph_session import GraphSession, feed_of
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.recovery import settled
from emca_deploy.calibration.recovery.bias_correction import BiasCorrection
from emca_deploy.calibration.recovery.settled import SettlingMeans, crossing_values
from emca_deploy.errors import ModelError
from zoo.recipes import collect_ranges

SIZE = 64


def parsed(text: str) -> ir.Model:
    header = '<ir_version: 8, opset_import: ["" : 17]>'
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(header + text)))


@pytest.fixture
def branched() -> ir.Model:
    """Two consecutive operators, and a pooling of the first one's output that only the end reads."""
    return parsed("""
        branched (float[n,2,4,4] images) => (float[n,2,4,4] result)
        <float half = {0.5}, float scale = {0.25}, uint8 zero = {0}> {
            first = Mul (images, half)
            pooled = GlobalAveragePool (first)
            integers = QuantizeLinear (first, scale, zero)
            again = DequantizeLinear (integers, scale, zero)
            second = Mul (again, half)
            third = Relu (second)
            result = Mul (third, pooled)
        }""")


def named(model: ir.Model) -> ir.Model:
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


@pytest.mark.parametrize(
    ("to_change", "crossing"),
    [
        ({"first", "second"}, ["images"]),
        ({"second"}, ["integers", "pooled"]),  # one byte per value; the rest of the graph also reads the pooling
        ({"result"}, ["third", "pooled"]),
        (set(), []),
    ],
)
def test_what_crosses_is_all_that_the_rest_depends_on(branched, to_change, crossing):
    assert [value.name for value in crossing_values(named(branched).graph, to_change)] == crossing


def test_a_measurement_begins_where_the_last_one_left(branched, monkeypatch):
    model = named(branched)
    images = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    ran = []

    def spy(given, *rest):
        ran.append([node.op_type for node in given.graph])
        return GraphSession(given, *rest)

    monkeypatch.setattr(settled, "GraphSession", spy)
    settling = SettlingMeans([{"images": images[:2]}, {"images": images[2:]}], [2, 1], 1)
    first = settling.measure(model.clone(), "first", {"second", "result"})
    np.testing.assert_allclose(first, images.mean(axis=(2, 3)) / 2, rtol=1e-5)
    changed = model.clone()
    changed.graph.node("second").replace_input_with(1, changed.graph.initializers["scale"])
    measured = settling.measure(changed, "result", {"result"})
    integers = np.clip(np.rint(images / 2 / 0.25), 0, 255)
    third = integers * 0.25 * 0.25
    pooled = images.mean(axis=(2, 3)) / 2
    np.testing.assert_allclose(measured, third.mean(axis=(2, 3)) * pooled, rtol=1e-4, atol=1e-7)
    assert "QuantizeLinear" in ran[0]
    assert not {"QuantizeLinear", "Shape"} & set(ran[1])
    assert ran[1].count("Mul") == 2


@pytest.mark.parametrize("fixed", [1, 3])
def test_a_network_of_fixed_batch_measures_every_image_once(branched, fixed):
    model = named(branched)
    model.graph.inputs[0].shape = ir.Shape([fixed, 2, 4, 4])
    images = np.random.default_rng(1).standard_normal((8, 2, 4, 4)).astype(np.float32)
    batches = [images[start : start + fixed] for start in range(0, 8, fixed)]
    feeds = [feed_of(model.graph, batch) for batch in batches]
    settling = SettlingMeans(feeds, [len(batch) for batch in batches], 1)
    with pytest.raises(ValueError, match=f"8 images for a batch of {fixed}"):
        feed_of(model.graph, images)
    for to_change in ({"second", "result"}, {"result"}):
        first = settling.measure(model.clone(), "first" if "second" in to_change else "second", to_change)
    integers = np.clip(np.rint(images / 2 / 0.25), 0, 255)
    np.testing.assert_allclose(first, integers.mean(axis=(2, 3)) / 8, rtol=1e-5)


def test_nothing_is_held_that_is_too_much(branched, monkeypatch):
    monkeypatch.setattr(settled, "HELD_BYTES", 2 * 4 * 4 + 2 * 4 - 1)  # an image's integers and its two means, minus one byte
    images = np.ones((2, 2, 4, 4), np.float32)
    settling = SettlingMeans([{"images": images}], [2], 1)
    settling.measure(named(branched).clone(), "first", {"second"})
    assert set(settling._held[0]) == {"images"}
    monkeypatch.setattr(settled, "HELD_BYTES", 2 * 4 * 4 + 2 * 4)
    settling.measure(named(branched).clone(), "first", {"second"})
    assert {name: array.dtype for name, array in settling._held[0].items()} == {"integers": np.uint8, "pooled": np.float32}


def test_images_of_another_size_are_refused(branched):
    with refusing(ModelError, 5):
        SettlingMeans([{"images": np.ones((1, 2, 5, 5), np.float32)}], [1], 1).measure(branched, "first", set())


@pytest.mark.parametrize(
    ("arch", "backend"),
    [("emca_eca_resnet10", "openvino"), ("emca_eca_resnet10", "onnxruntime"), ("emca_se_resnet10", "tensorrt")],
)
def test_shifts_are_those_of_running_everything_every_time(arch, backend, exported, images, monkeypatch):
    model = load_graph(exported(arch))
    ranges = collect_ranges(exported(arch), images, range(4), 1)
    recipe = find_recipe(backend)

    def quantize(floating):
        return insert_qdq(floating, place(floating.graph, recipe), ranges)

    correction = BiasCorrection(model, quantize, images, range(4), 1)
    found = correction.shifts(quantize)
    monkeypatch.setattr(settled, "HELD_BYTES", 0)
    for name, shift in correction.shifts(quantize).items():
        np.testing.assert_allclose(found[name], shift, rtol=1e-4, atol=1e-5 * np.abs(shift).max(), err_msg=name)
