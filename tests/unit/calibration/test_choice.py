"""The best measured method is chosen, and none where there is no alternative."""

import json
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.choice import CLOSE_DB, ChoiceInput, choose, nearest
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.ranges.table import read_table
from emca_deploy.tasks.logits import LogitsNoise
from zoo.recipes import calibration_options

SAMPLES = 12


def calibrate(model, images, folder, **more):
    options = calibration_options("openvino", samples=SAMPLES, table=folder / "t.json", **more)
    return calibrate_model(model, images, folder / "int8.onnx", options)


def with_an_outlier(images):
    """One image has a spot a hundred times brighter than all else: its range leaves the other images few of 255 levels."""
    loud = images.images.copy()
    loud[3, :, 10:12, 10:12] *= 100
    return type(images)(loud)


def test_the_method_that_brings_the_logits_nearest_is_chosen_and_kept(exported, images, tmp_path):
    made = calibrate(exported("resnet10"), with_an_outlier(images), tmp_path, recover="none")
    tried = made.choice.sqnr_db
    assert set(tried) == {"minmax", "mse"}
    assert tried[made.method] >= max(tried.values()) - CLOSE_DB
    assert read_table(tmp_path / "t.json").key.method == made.method
    details = json.loads((tmp_path / "int8.onnx.manifest.json").read_text())["details"]
    assert details["method"] == made.method
    assert details["sqnr_db"] == {name: round(value, 2) for name, value in tried.items()}
    again = calibrate(exported("resnet10"), with_an_outlier(images), tmp_path, recover="none")
    assert again.reused
    assert again.choice.sqnr_db == tried


def test_corrected_biases_are_kept_only_where_they_gain(exported, images, tmp_path):
    made = calibrate(exported("emca_eca_resnet10"), images, tmp_path, method="minmax", recover="bias")
    tried = made.choice.sqnr_db
    assert set(tried) == {"minmax", "minmax, biases corrected"}
    gained = tried["minmax, biases corrected"] - tried["minmax"]
    assert abs(gained) <= CLOSE_DB or bool(made.choice.shifts) == (gained > 0)


def test_comparing_says_how_far_it_is(exported, images, tmp_path):
    told = {}

    @contextmanager
    def stage(name):
        yield lambda done, whole: told.setdefault(name, []).append((done, whole))

    options = calibration_options("openvino", samples=SAMPLES, table=tmp_path / "t.json", recover="none")
    calibrate_model(exported("resnet10"), images, tmp_path / "int8.onnx", options, stage)
    whole = 3 * SAMPLES  # fp32 and two methods' ranges
    assert told["comparing with fp32"][-1] == (whole, whole)
    assert len(told["comparing with fp32"]) >= 3


def test_a_given_method_without_recovery_costs_no_trial(exported, images, tmp_path):
    assert calibrate(exported("resnet10"), images, tmp_path, method="mse", recover="none").choice.sqnr_db == {}


@pytest.mark.parametrize("order", [("narrow", "wide"), ("wide", "narrow")])
def test_ranges_that_clip_everything_lose(exported, images, order):
    path = exported("resnet10")
    model, recipe = load_graph(path), find_recipe("openvino")
    names = {str(value.name) for value in place(model.graph, recipe).edges}
    ranges = {
        "narrow": {name: TensorRange(-1e-3, 1e-3) for name in names},
        "wide": {name: TensorRange(-20.0, 20.0) for name in names},
    }

    def quantize(floating, own):
        return insert_qdq(floating, place(floating.graph, recipe), own)

    trial = ChoiceInput(model, quantize, images, range(4), 1)
    choice = choose(trial, {name: ranges[name] for name in order}, lambda _: nullcontext(), correct_biases=False)
    assert choice.method == "wide"
    assert choice.sqnr_db["wide"] > choice.sqnr_db["narrow"] + 3
    assert np.isfinite(list(choice.sqnr_db.values())).all()


def noise(*decibels):
    """One image at each SQNR; the logits of all images have the same power."""
    return LogitsNoise(np.ones(len(decibels)), 10 ** (-np.array(decibels, float) / 10))


def test_a_better_typical_image_wins_over_a_few_that_are_clipped():
    assert nearest({"minmax": noise(*[40] * 20), "mse": noise(*[43] * 19, 10)}) == "mse"


def test_all_images_together_decide_between_variants_that_are_alike_on_a_typical_one():
    alike = {"mse": noise(*[42] * 19, 10), "minmax": noise(*[40] * 20)}
    assert alike["mse"].typical_db - alike["minmax"].typical_db < CLOSE_DB
    assert nearest(alike) == "minmax"
    assert nearest({"exact": noise(*[150] * 3), "other": noise(*[150] * 3)}) == "exact"


def test_identical_logits_are_nearest():
    same = LogitsNoise(np.ones(3), np.zeros(3))
    assert nearest({"other": noise(149.9, 150, 150), "same": same}) == "same"
