"""The range table: it is read as written, refused for another model or other images, and reused if it suffices."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import Preprocessing
from emca_deploy.calibration.calibrate import ensure_ranges
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.registry import parse_method
from emca_deploy.calibration.ranges.observers import Observation, TensorRange
from emca_deploy.calibration.ranges.table import (
    MethodRanges,
    RangeTable,
    TableKey,
    by_another_method,
    read_table,
    table_path,
    write_table,
)
from emca_deploy.errors import InputError
from zoo.recipes import calibration_options

KEY = TableKey("a" * 64, "b" * 64, Preprocessing.for_size(64), "mse", 10, 0)


@pytest.fixture
def table():
    observations = {}
    for index, name in enumerate(["images", "stage1/relu: 0"]):
        histogram = Histogram.of(np.random.default_rng(index).standard_normal(1000).astype(np.float32))
        part = Histogram.of(np.random.default_rng(index).standard_normal(700).astype(np.float32))
        trial = Observation(part.minimum, part.maximum, part) if index else None
        observations[name] = Observation(histogram.minimum, histogram.maximum, histogram, trial=trial)
    ranges = {name: parse_method("mse").range_of(seen) for name, seen in observations.items()}
    return RangeTable(KEY, ranges, observations)


def test_a_table_of_before_there_was_a_choice_of_preprocessing_is_read_as_what_was_done_then(table, tmp_path):
    write_table(tmp_path / "t.json", table)
    document = json.loads((tmp_path / "t.json").read_text())
    old = ("image_size", "resize_size", "mean", "std")
    document["key"]["preprocessing"] = {name: document["key"]["preprocessing"][name] for name in old}
    (tmp_path / "t.json").write_text(json.dumps(document))
    assert read_table(tmp_path / "t.json").key == replace(KEY, preprocessing=replace(KEY.preprocessing, exif="apply"))


def test_what_is_written_is_read(table, tmp_path):
    write_table(tmp_path / "t.json", table)
    found = read_table(tmp_path / "t.json")
    assert (found.key, found.ranges) == (table.key, table.ranges)
    for name, seen in table.observations.items():
        assert_same(found.observations[name], seen)
    assert found.observations["images"].trial is None
    assert_same(found.observations["stage1/relu: 0"].trial, table.observations["stage1/relu: 0"].trial)


def assert_same(found, seen):
    assert (found.minimum, found.maximum) == (seen.minimum, seen.maximum)
    assert np.array_equal(found.histogram.counts, seen.histogram.counts)
    assert found.histogram.exponent == seen.histogram.exponent


def test_averages_are_written_too(tmp_path):
    seen = Observation(-2.0, 3.0, own={"average": (-1.5, 2.5)})
    table = RangeTable(replace(KEY, method="moving-average:0.9"), {"x": TensorRange(-1.5, 2.5)}, {"x": seen})
    write_table(tmp_path / "t.json", table)
    assert read_table(tmp_path / "t.json") == table


def test_a_person_can_read_it(table, tmp_path):
    write_table(tmp_path / "t.json", table)
    document = json.loads((tmp_path / "t.json").read_text())
    assert (document["table_version"], document["key"]["measured"]) == (2, 4)
    tensor = document["tensors"]["images"]
    assert tensor["minimum"] < -2
    assert tensor["range"][0] >= tensor["minimum"]
    assert tensor["summary"]["count"] == 1000
    assert tensor["summary"]["mean"] == pytest.approx(0, abs=0.15)
    assert tensor["summary"]["quantiles"]["0.5"] == pytest.approx(0, abs=0.15)
    assert list(tensor["summary"]["quantiles"]) == ["0.001", "0.01", "0.5", "0.99", "0.999", "0.9999"]
    assert len(tensor["histogram"]["counts"]) < 3000


def test_tables_of_version_1_are_read(tmp_path):
    key = asdict(replace(KEY, method="minmax"))
    del key["measured"]
    (tmp_path / "t.json").write_text(json.dumps({"table_version": 1, "key": key, "ranges": {"x": [-1, 2]}}))
    table = read_table(tmp_path / "t.json")
    assert table.ranges == {"x": TensorRange(-1.0, 2.0)}
    assert (table.key.method, table.key.measured) == ("minmax", 1)
    assert by_another_method(table, KEY) is None


@pytest.mark.parametrize(
    "change",
    [
        {"table_version": 3}, {"table_version": "2"}, {"tensors": []}, {"tensors": {"x": {}}}, {"tensors": {"x": {"range": [0]}}},
        {"tensors": {"x": {"range": [2, 1]}}}, {"tensors": {"x": {"range": [0, 1e999]}}},
        {"tensors": {"x": {"range": [0, 1], "threshold": -1}}}, {"tensors": {"x": {"range": [0, 1], "minimum": 0}}},
        {"tensors": {"x": {"range": [0, 1], "minimum": 0, "maximum": 1, "histogram": {"counts": ""}}}},
        {"key": {"method": "mse"}},
    ],
)  # fmt: skip
def test_damaged_tables_are_refused(table, tmp_path, change):
    path = tmp_path / "t.json"
    write_table(path, table)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with refusing(InputError, path):
        read_table(path)


@pytest.mark.parametrize("method", ["minmax", "percentile:99.9", "entropy", "mse"])
def test_a_histogram_serves_every_method_that_reads_one(table, method):
    found = by_another_method(table, replace(KEY, method=method))
    assert found.key.method == method
    assert found.ranges == {name: parse_method(method).range_of(seen) for name, seen in table.observations.items()}


def test_ranges_of_a_method_are_computed_where_they_are_read(table):
    method, seen = parse_method("mse"), {**table.observations, "never read": Observation(0.0, 1.0)}
    ranges = MethodRanges(method, seen)
    assert set(ranges) == set(seen)
    assert {name: ranges[name] for name in table.ranges} == table.ranges
    assert ranges["images"] is ranges["images"]
    with pytest.raises(ValueError, match="no histogram"):
        ranges["never read"]


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "c"}, {"data_sha256": "c"}, {"preprocessing": Preprocessing()}, {"samples": 11}, {"seed": 1},
        {"measured": 1},
    ],
)  # fmt: skip
def test_nothing_else_may_differ(table, change):
    assert by_another_method(table, replace(KEY, method="entropy", **change)) is None


def test_averages_of_one_momentum_do_not_serve_another():
    seen = Observation(-2.0, 3.0, own={"average": (-1.5, 2.5)})
    table = RangeTable(replace(KEY, method="moving-average:0.9"), {"x": TensorRange(-1.5, 2.5)}, {"x": seen})
    assert by_another_method(table, replace(KEY, method="moving-average:0.5")) is None
    assert by_another_method(table, KEY) is None
    assert by_another_method(table, replace(KEY, method="minmax")).ranges == {"x": TensorRange(-2.0, 3.0)}


def test_one_pass_serves_many_methods(exported, images, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(exported("resnet10").read_bytes())
    first, path, reused = ensure_ranges(model, images, calibration_options("openvino", "entropy"))
    assert (path, reused) == (table_path(model), False)

    class Untouchable(type(images)):
        def batches(self, batch_size, indices=None):
            raise AssertionError("a second pass")

    again = Untouchable(images.images)
    for method in ("minmax", "percentile", "percentile:99.9", "mse", "entropy"):
        table, _, reused = ensure_ranges(model, again, calibration_options("openvino", method))
        assert reused
        assert table.key.method == str(parse_method(method))
    assert table.ranges == first.ranges


def test_a_named_table_of_another_method_is_refused(exported, images, tmp_path):
    path = tmp_path / "t.json"
    ensure_ranges(exported("resnet10"), images, calibration_options("openvino", "percentile", table=path))
    before = path.read_bytes()
    for options in (
        calibration_options("openvino", "percentile:99", table=path),
        calibration_options("openvino", "percentile", samples=3, table=path),
        calibration_options("openvino", "percentile", samples=3, seed=1, table=path),
    ):
        with refusing(InputError, path):
            ensure_ranges(exported("resnet10"), images, options)
    assert path.read_bytes() == before


def test_a_table_of_an_older_revision_is_measured_anew_and_by_name_refused(exported, images, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(exported("resnet10").read_bytes())
    _, path, _ = ensure_ranges(model, images, calibration_options("openvino", "minmax"))
    document = json.loads(path.read_text())
    del document["key"]["measured"]
    path.write_text(json.dumps(document))
    with refusing(InputError, path):
        ensure_ranges(model, images, calibration_options("openvino", "minmax", table=path))
    table, _, reused = ensure_ranges(model, images, calibration_options("openvino", "minmax"))
    assert not reused
    assert read_table(path) == table
