"""Sensitivity of a small network, on few images."""

import json
from dataclasses import replace
from math import log10

import numpy as np
import onnxruntime
import pytest
from refusals import refusing

from emca_deploy.calibration.calibrate import calibrate_model, ensure_ranges
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.resume import SideFile, side_path
from emca_deploy.calibration.sensitivity import measure_sensitivity, options_on_file
from emca_deploy.data.sources import choose_indices
from emca_deploy.errors import InputError, ModelError
from zoo.recipes import RECIPES, calibration_options, sensitivity_options

SAMPLES = 4


@pytest.fixture(scope="module")
def images(some_images):
    return some_images(16)


@pytest.fixture(scope="module")
def model(tmp_path_factory, exported):
    path = tmp_path_factory.mktemp("sensitivity") / "model.onnx"
    path.hardlink_to(exported("emca_eca_resnet10"))
    return path


@pytest.fixture(scope="module")
def table(model, images):
    return ensure_ranges(model, images, calibration_options("openvino", "minmax", samples=16))[0]


@pytest.fixture(scope="module")
def options(model):
    return sensitivity_options("openvino", SAMPLES, side_file=model.with_name("side.json"))


@pytest.fixture(scope="module")
def report(model, images, table, options):
    return measure_sensitivity(model, images, table, options)


def sqnr_db(reference, logits):
    return 10 * log10((reference.astype(float) ** 2).sum() / ((reference.astype(float) - logits) ** 2).sum())


def logits_of(path, images):
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    chosen = choose_indices(len(images), SAMPLES, images.labels, 0)
    return session.run(None, {"images": np.stack([images.load(index) for index in chosen])})[0]


def test_every_layer_and_block_is_measured_most_harmful_first(report):
    assert len(report.units) == 13 + 4
    assert report.samples == SAMPLES
    removed = [unit.noise_removed_percent for unit in report.units]
    assert removed == sorted(removed, reverse=True)
    assert report.units[0].noise_removed_percent > report.units[-1].noise_removed_percent + 10
    assert sum(unit.alone.sqnr_db > report.int8.sqnr_db for unit in report.units) > 13  # errors may cancel out on four images
    for unit in report.units:
        assert unit.noise_made_percent == pytest.approx(100 * unit.alone.noise / report.int8.noise)
        assert unit.noise_removed_percent == pytest.approx(100 * (1 - unit.kept_float.noise / report.int8.noise))
        assert unit.layers == (
            1 if unit.kind == "layer" else len([one for one in report.units if one.name.startswith(unit.name + ".")])
        )
    layers = [unit for unit in report.units if unit.kind == "layer"]
    assert sum(unit.macs_percent for unit in layers) == pytest.approx(100)


def test_kept_float_is_what_calibrate_makes_of_the_pattern(report, model, images, tmp_path):
    """The costs are those of the models that `calibrate --keep-float` writes."""
    reference = logits_of(model, images)
    for unit in (None, report.units[0], next(unit for unit in report.units if unit.kind == "block")):
        wanted = calibration_options(
            "openvino", samples=16, keep_float=[unit.pattern] if unit else [], method="minmax", recover="none"
        )
        made = calibrate_model(model, images, tmp_path / "int8.onnx", wanted)
        cost = unit.kept_float if unit else report.int8
        assert cost.sqnr_db == pytest.approx(sqnr_db(reference, logits_of(made.onnx, images)), abs=0.02)


def test_alone_is_the_rest_kept_float(report, model, images, tmp_path):
    others = [node.name for node in load_graph(model).graph if node.name != "stem.conv"]
    wanted = calibration_options("openvino", samples=16, keep_float=others, method="minmax", recover="none")
    made = calibrate_model(model, images, tmp_path / "int8.onnx", wanted)
    assert made.counts.weighted == 1
    stem = next(unit for unit in report.units if unit.name == "stem.conv")
    found = sqnr_db(logits_of(model, images), logits_of(made.onnx, images))
    assert stem.alone.sqnr_db == pytest.approx(found, abs=0.02)


def test_a_second_run_reads_what_the_first_kept(report, model, images, table, options):
    calls = []
    again = measure_sensitivity(model, images, table, options, None, lambda *done: calls.append(done))
    assert again == report
    assert calls == []


def test_an_interrupted_run_goes_on_where_it_was(report, model, images, table, options, tmp_path):
    whole = json.loads(options.side_file.read_text())
    missing = list(whole["found"])[-3:]
    for name in missing:
        del whole["found"][name]
    side = tmp_path / "side.json"
    side.write_text(json.dumps(whole))

    def interrupt(done, total):
        assert total == SAMPLES * (len(missing) + 1)
        if done > 2 * SAMPLES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(model, images, table, replace(options, side_file=side), None, interrupt)
    assert len(json.loads(side.read_text())["found"]) == len(whole["found"]) + 1
    assert list(tmp_path.iterdir()) == [side]
    calls = []
    again = measure_sensitivity(model, images, table, replace(options, side_file=side), None, lambda *done: calls.append(done))
    assert again == report  # two measurements agree to the last bit
    assert calls[-1] == (SAMPLES * 3, SAMPLES * 3)


@pytest.mark.parametrize("change", ["samples", "keep_float", "recipe", "ranges", "weights"])
def test_results_of_something_else_are_not_reused(model, images, table, options, change, tmp_path):
    side = tmp_path / "side.json"
    side.write_bytes(options.side_file.read_bytes())
    changed, weights = replace(options, side_file=side), None
    if change == "ranges":
        wider = {name: replace(values, maximum=values.maximum * 2 + 1) for name, values in table.ranges.items()}
        table = replace(table, ranges=wider)
    elif change == "weights":
        weights = {"head": (np.zeros((10, 128), np.int8), np.ones(10, np.float32))}
    else:
        changed = replace(changed, **{change: {"samples": 3, "keep_float": ["head"], "recipe": RECIPES["tensorrt"]}[change]})

    class Enough(Exception):
        pass

    def stop(done, total):
        raise Enough  # a measurement without an error is enough

    with pytest.raises(Enough):
        measure_sensitivity(model, images, table, changed, weights, stop)


@pytest.mark.parametrize("content", ["", "[]", '{"side_version": 1}', '{"side_version": 1, "key": {}, "found": 3}', "\x00"])
def test_a_damaged_side_file_counts_as_none(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    side = SideFile(path, {})
    assert side.get("a") is None
    side.put("a", [1])
    assert json.loads(path.read_text()) == {"side_version": 1, "key": {}, "found": {"a": [1]}}
    assert SideFile(path, {}).get("a") == [1]
    assert SideFile(path, {"other": 1}).get("a") is None


def test_side_files_lie_beside_the_range_table(tmp_path):
    assert side_path(tmp_path / "m.ranges.json", "openvino", "search") == tmp_path / "m.openvino.search.json"
    assert side_path(tmp_path / "named.json", "tensorrt", "search") == tmp_path / "named.tensorrt.search.json"


def test_the_table_on_file_says_how_to_calibrate(model, images, table, tmp_path):
    asked = calibration_options("openvino", "mse", samples=300)
    assert options_on_file(model, images, asked) == replace(asked, method="minmax", samples=16)
    other = replace(asked, table=tmp_path / "none.json")
    assert options_on_file(model, images, other) == other


def test_what_cannot_be_measured_is_refused(model, images, table, options):
    with refusing(ModelError):
        measure_sensitivity(model, images, table, replace(options, keep_float=["*"]))
    with refusing(InputError, "nothing"):
        measure_sensitivity(model, images, table, replace(options, keep_float=["nothing"]))
