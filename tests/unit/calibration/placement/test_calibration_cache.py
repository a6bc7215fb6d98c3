"""TensorRT calibration caches: known bit patterns, names that are difficult for the format, and damaged files."""

import struct

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.calibration_cache import float_layers, implicit_ranges, write_cache, write_model_cache
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.ranges.table import RangeTable, TableKey, write_table
from emca_deploy.errors import InputError, ModelError, OutputError
from emca_deploy.preprocessing import Preprocessing
from zoo.calibration_caches import read_cache


@pytest.mark.parametrize(
    ("amax", "pattern"), [(127.0, "3f800000"), (254.0, "40000000"), (63.5, "3f000000"), (1.0, "3c010204"), (1e-8, "2ead26c5")]
)
def test_known_patterns(tmp_path, amax, pattern):
    path = tmp_path / "model.cache"
    write_cache({"x": TensorRange(-amax, amax / 2)}, path, "8.6.1")
    assert path.read_text() == f"TRT-8601-EntropyCalibration2\nx: {pattern}\n"
    assert struct.unpack(">f", bytes.fromhex(pattern))[0] == pytest.approx(amax / 127)


def test_the_methods_own_threshold_is_used(tmp_path):
    write_cache({"x": TensorRange(0.0, 9.0, 127.0)}, tmp_path / "c", "8.6.1")
    assert read_cache(tmp_path / "c")[1] == {"x": 1.0}


def test_a_dead_tensor_has_scale_one(tmp_path):
    write_cache({"x": TensorRange(0.0, 0.0)}, tmp_path / "c", "8.6.1")
    assert read_cache(tmp_path / "c")[1] == {"x": 1.0}


@pytest.mark.parametrize(
    ("given_version", "digits"),
    [("8.6.1", "8601"), ("8.5.2.2", "8502"), ("10.3.0", "100300"), ("10.7.0.23", "100700"), ("8003", "8003")],
)
def test_versions(tmp_path, given_version, digits):
    write_cache({}, tmp_path / "c", given_version)
    assert read_cache(tmp_path / "c") == (digits, {})


@given(st.dictionaries(st.text("ab :/.()0f-", min_size=1), st.floats(2.0**-20, 2.0**20, width=32), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_with_colons_and_spaces_come_back(tmp_path, amaxes):
    path = tmp_path / "c"
    write_cache({name: TensorRange(-amax, amax) for name, amax in amaxes.items()}, path, "8.6.1")
    version, scales = read_cache(path)
    assert version == "8601"
    assert scales == {name: pytest.approx(amax / 127, rel=1e-6) for name, amax in amaxes.items()}


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\tb", "größe"])
def test_names_the_format_cannot_hold_are_refused(tmp_path, name):
    with refusing(InputError):
        write_cache({name: TensorRange(0, 1)}, tmp_path / "c", "8.6.1")
    assert not list(tmp_path.iterdir())


def test_bad_ranges_versions_and_places(tmp_path):
    with refusing(InputError, "x"):
        write_cache({"x": TensorRange(0.0, float("inf"))}, tmp_path / "c", "8.6.1")
    for version in ("", "8", "8.6", "eight", "8.6.1\n"):
        with refusing(InputError, version.strip()):
            write_cache({}, tmp_path / "c", version)
    with pytest.raises(OutputError):
        write_cache({}, tmp_path / "nowhere" / "c", "8.6.1")


def test_ranges_of_a_network_for_implicit_int8(tmp_path):
    """Float tensors have no scale; tensors connected by a ReLU, a pooling or an Add share one."""
    import onnx.parser

    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[1,3,16,16] images) => (float[1,4] logits)
    <float[16,3,3,3] w0, float[16,16,3,3] w1, float[16,16,3,3] w2, float[16,4] head> {
        stem = Conv<pads=[1,1,1,1]>(images, w0)
        r0 = Relu(stem)
        pooled = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r0)
        one = Conv<pads=[1,1,1,1]>(pooled, w1)
        r1 = Relu(one)
        two = Conv<pads=[1,1,1,1]>(r1, w2)
        mean = GlobalAveragePool(two)
        gate = Sigmoid(mean)
        gated = Mul(two, gate)
        sum = Add(gated, pooled)
        r2 = Relu(sum)
        last = GlobalAveragePool(r2)
        flat = Flatten(last)
        logits = MatMul(flat, head)
    }"""
    proto = onnx.parser.parse_model(text)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3), "head": (16, 4)}
    del proto.graph.initializer[:]
    for name, shape in shapes.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    onnx.save(proto, tmp_path / "net.onnx")
    amax = {
        "images": 9,
        "stem": 8,
        "r0": 5,
        "pooled": 5,
        "r1": 3,
        "two": 7,
        "mean": 2,
        "gate": 1,
        "gated": 6,
        "r2": 4,
        "last": 2.5,
    }
    ranges = {name: TensorRange(-float(value), 1.0) for name, value in amax.items()}
    found = implicit_ranges(load_graph(tmp_path / "net.onnx").graph, ranges, find_recipe("tensorrt"))
    assert {name: values.magnitude for name, values in found.items()} == {
        "stem": 6, "r0": 6, "pooled": 6, "gated": 6, "one": 3, "r1": 3, "two": 7, "sum": 4, "r2": 4, "last": 2.5, "flat": 2.5,
    }  # fmt: skip


def test_the_stem_and_attention_stay_in_float(exported) -> None:
    names = float_layers(exported("narrow_emca_eca_resnet18"), find_recipe("tensorrt"))
    assert "stem.conv" in names
    assert all(name == "stem.conv" or ".attention." in name for name in names)
    assert len(names) > 1


def test_the_cache_of_a_model_with_several_logits_is_that_of_the_one_named(exported, tmp_path):
    model = onnx.load(exported("resnet10"))
    first = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Neg", [first.name], ["other"]))
    other = model.graph.output.add()
    other.CopyFrom(first)
    other.name = "other"
    onnx.save(model, tmp_path / "two.onnx")
    inside = model.graph.node[0].output[0]
    key = TableKey("", "", Preprocessing(), "minmax", 1, 0)
    write_table(tmp_path / "table.json", RangeTable(key, {inside: TensorRange(-1.0, 1.0), "images": TensorRange(-1.0, 1.0)}))
    places = (tmp_path / "two.onnx", tmp_path / "table.json", tmp_path / "c", "8.6.1", find_recipe("tensorrt"))
    with refusing(ModelError, "other"):
        write_model_cache(*places)
    assert write_model_cache(*places, first.name) == len(read_cache(tmp_path / "c")[1])
