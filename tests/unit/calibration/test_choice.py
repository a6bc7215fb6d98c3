"""The best measured method is chosen, and none where there is no alternative."""

import json
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.choice import (
    CANDIDATES,
    STANDARD_ERRORS,
    ChoiceInput,
    choose,
    is_worse,
    kept_out,
    nearest,
    preferred,
)
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.methods.registry import parse_method
from emca_deploy.calibration.ranges.observers import KEPT_OUT_TURN, TensorRange
from emca_deploy.calibration.ranges.table import read_table
from emca_deploy.tasks.logits import LogitsNoise
from zoo.recipes import calibration_options, observe

SAMPLES = 12


def calibrate(model, images, folder, **more):
    options = calibration_options("openvino", samples=SAMPLES, table=folder / "t.json", **more)
    return calibrate_model(model, images, folder / "int8.onnx", options)


def with_an_outlier(images):
    """One image has a spot a hundred times brighter than all else: its range leaves the other images few of 255 levels."""
    loud = images.images.copy()
    loud[2, :, 10:12, 10:12] *= 100
    return type(images)(loud)


def test_the_method_that_brings_the_logits_nearest_is_chosen_and_kept(exported, images, tmp_path):
    made = calibrate(exported("resnet10"), with_an_outlier(images), tmp_path, recover="none")
    tried = made.choice.sqnr_db
    assert set(tried) == {"minmax", "mse:10.0", "mse"}
    assert tried[made.method] > tried["minmax"] + 1
    assert read_table(tmp_path / "t.json").key.method == made.method
    details = json.loads((tmp_path / "int8.onnx.manifest.json").read_text())["details"]
    assert details["method"] == made.method
    assert details["sqnr_db"] == {name: round(value, 2) for name, value in tried.items()}
    again = calibrate(exported("resnet10"), with_an_outlier(images), tmp_path, recover="none")
    assert again.reused
    assert again.choice.sqnr_db == tried


def test_corrected_biases_are_kept_where_they_gain(exported, images, tmp_path):
    made = calibrate(exported("emca_eca_resnet10"), images, tmp_path, method="minmax", recover="bias")
    tried = made.choice.sqnr_db
    assert set(tried) == {"minmax", "minmax, biases corrected"}
    assert tried["minmax, biases corrected"] > tried["minmax"]
    assert made.choice.shifts


def test_comparing_says_how_far_it_is(exported, images, tmp_path):
    told = {}

    @contextmanager
    def stage(name):
        yield lambda done, whole: told.setdefault(name, []).append((done, whole))

    options = calibration_options("openvino", samples=SAMPLES, table=tmp_path / "t.json", recover="none")
    calibrate_model(exported("resnet10"), images, tmp_path / "int8.onnx", options, stage)
    whole = (1 + len(CANDIDATES)) * SAMPLES // KEPT_OUT_TURN
    assert told["comparing with fp32"][-1] == (whole, whole)
    assert len(told["comparing with fp32"]) >= 3


def test_a_given_method_without_recovery_costs_no_trial(exported, images, tmp_path):
    assert calibrate(exported("resnet10"), images, tmp_path, method="mse", recover="none").choice.sqnr_db == {}


@pytest.fixture
def tried(exported):
    """A function that chooses among ranges of a network's tensors, each (minimum, maximum) for all."""
    path = exported("resnet10")
    model, recipe = load_graph(path), find_recipe("openvino")

    def quantize(floating, own):
        return insert_qdq(floating, place(floating.graph, recipe), own)

    def choice(source, candidates, correct_biases=False, **more):
        trial = ChoiceInput(model, quantize, source, range(len(source)), 1, **more)
        return choose(trial, candidates, lambda _: nullcontext(), correct_biases=correct_biases)

    choice.names = [str(value.name) for value in place(model.graph, recipe).edges]
    choice.observe = lambda source: observe(model, source, range(len(source)), 1, None, parse_method("mse"))
    return choice


@pytest.mark.parametrize("order", [("narrow", "wide"), ("wide", "narrow")])
def test_ranges_that_clip_everything_lose(tried, some_images, order):
    ranges = {
        "narrow": dict.fromkeys(tried.names, TensorRange(-1e-3, 1e-3)),
        "wide": dict.fromkeys(tried.names, TensorRange(-20.0, 20.0)),
    }
    choice = tried(some_images(4), {name: ranges[name] for name in order})
    assert choice.method == "wide"
    assert choice.sqnr_db["wide"] > choice.sqnr_db["narrow"] + 3
    assert np.isfinite(list(choice.sqnr_db.values())).all()


def test_ranges_are_judged_on_images_they_do_not_come_from(tried, some_images):
    """Kept-out images ten times as loud: min-max of all images fits them, and that of the others clips them."""
    source = some_images(8)
    judging = kept_out(range(8), 1)
    source.images[judging] *= 10
    seen = tried.observe(source)
    widened = {name: TensorRange(values.minimum * 1.5, values.maximum * 1.5) for name, values in seen.items()}
    whole = {name: TensorRange(values.minimum, values.maximum) for name, values in seen.items()}
    others = {name: TensorRange(values.trial.minimum, values.trial.maximum) for name, values in seen.items()}
    assert tried(source, {"fits": whole, "wide": widened}).method == "fits"
    fair = tried(source, {"fits": others, "wide": widened}, kept_out=judging)
    assert fair.method == "wide"
    assert fair.sqnr_db["wide"] > fair.sqnr_db["fits"] + 3


def test_corrected_biases_that_lose_are_not_kept(tried, some_images):
    """Biases are corrected on images a hundred times as loud as those that judge: clipping them shifts every mean."""
    source = some_images(8)
    judging = kept_out(range(8), 1)
    source.images[[index for index in range(8) if index not in judging]] *= 100
    ranges = {"even": dict.fromkeys(tried.names, TensorRange(-3.0, 3.0))}
    choice = tried(source, ranges, correct_biases=True, kept_out=judging, final=ranges.get)
    assert (choice.method, choice.shifts) == ("even", {})
    assert choice.sqnr_db["even"] > choice.sqnr_db["even, biases corrected"] + 3


def test_biases_are_kept_or_not_by_what_will_be_written(tried, some_images):
    """Corrected and uncorrected biases are compared with the final ranges, whatever the trial's were."""
    source, judging = some_images(24), kept_out(range(24), 1)
    ranges = {"even": dict.fromkeys(tried.names, TensorRange(-3.0, 3.0))}
    final = {"even": dict.fromkeys(tried.names, TensorRange(-4.0, 4.0))}
    made = tried(source, ranges, correct_biases=True, kept_out=judging, final=final.get)
    written = tried(source, final, correct_biases=True, kept_out=judging, final=final.get)
    assert made.sqnr_db == written.sqnr_db
    assert made.shifts.keys() == written.shifts.keys()
    assert all(np.array_equal(shift, written.shifts[layer]) for layer, shift in made.shifts.items())


def test_few_images_judge(tried, some_images, monkeypatch):
    ranges = {
        "wide": dict.fromkeys(tried.names, TensorRange(-20.0, 20.0)),
        "wider": dict.fromkeys(tried.names, TensorRange(-30.0, 30.0)),
    }
    source = some_images(9)
    on_all = tried(source, ranges, kept_out=range(8)).sqnr_db
    monkeypatch.setattr("emca_deploy.calibration.choice.IMAGES", 4)
    assert tried(source, ranges, kept_out=range(8)).sqnr_db == tried(source, ranges, kept_out=range(0, 8, 2)).sqnr_db != on_all


@pytest.mark.parametrize(("count", "batch", "expected"), [(3, 1, []), (9, 1, [3, 7]), (12, 2, [6, 7]), (17, 2, [6, 7, 14, 15])])
def test_every_fourth_batch_is_kept_out(count, batch, expected):
    images = [100 + position for position in range(count)]
    assert kept_out(images, batch) == [100 + position for position in expected]


def test_kept_out_images_are_those_that_the_observer_keeps_out(tried, some_images):
    source = some_images(9)
    source.images *= np.arange(1, 10, dtype=np.float32)[:, None, None, None]
    others = np.delete(source.images, kept_out(range(9), 1), axis=0)
    trial = tried.observe(source)["images"].trial
    assert (trial.minimum, trial.maximum) == (others.min(), others.max())
    assert trial.histogram.count == others.size


def test_biases_of_the_choice_are_corrected_for_the_ranges_of_all_images(exported, images, tmp_path):
    loud = with_an_outlier(images)
    made = [calibrate(exported("resnet10"), loud, tmp_path / turn, recover="bias") for turn in folders(tmp_path, "one", "two")]
    first, second = (one.choice for one in made)
    assert (first.method, first.sqnr_db) == (second.method, second.sqnr_db)
    assert all(np.array_equal(shift, second.shifts[layer]) for layer, shift in first.shifts.items())
    labels = {label for label in first.sqnr_db if label.endswith("biases corrected")}
    assert labels == {f"{name}, biases corrected" for name in ("minmax", "mse:10.0", "mse")}
    assert len(first.sqnr_db) == len(labels) + 1  # the nearest of them is also tried without


def folders(parent, *names):
    for name in names:
        (parent / name).mkdir()
    return names


def noise(*decibels):
    """One image at each SQNR; the logits of all images have the same power."""
    return LogitsNoise(np.ones(len(decibels)), 10 ** (-np.array(decibels, float) / 10))


def test_a_better_typical_image_wins_over_a_few_that_are_clipped():
    clips = noise(*[43] * 62, 10, 10)
    assert clips.all_db < 30
    assert nearest({"minmax": noise(*[40] * 64), "mse": clips}) == "mse"


@pytest.mark.parametrize(("standard_errors", "chosen"), [(STANDARD_ERRORS - 0.1, "even"), (STANDARD_ERRORS + 0.1, "uneven")])
def test_all_images_together_decide_where_the_mean_may_be_better_by_chance(standard_errors, chosen):
    gain = standard_errors * 8 / np.sqrt(20)
    uneven = noise(*[40 + gain + 8] * 10, *[40 + gain - 8] * 10)
    assert uneven.all_db < 40 < uneven.typical_db
    assert nearest({"even": noise(*[40] * 20), "uneven": uneven}) == chosen
    assert nearest({"exact": noise(*[150] * 3), "other": noise(*[150] * 3)}) == "exact"


@pytest.mark.parametrize(
    ("usual", "other", "replaced"),
    [
        ([40] * 40, [42, 41] * 20, True),
        ([40] * 40, [42, 39.8] * 20, False),  # less than `LEAST_DB`
        ([40] * 40, [51, 32] * 20, False),  # by chance
        ([44] * 40, [38, *[46] * 39], True),  # the mean image, where all together differ by chance only
        ([43] * 30 + [30] * 10, [40] * 40, True),  # all together
        ([43] * 40, [45] * 30 + [30] * 10, False),
    ],
)
def test_another_method_must_be_clearly_better_than_the_usual_one(usual, other, replaced):
    noises = {"usual": noise(*usual), "bad": noise(*[20] * 40), "other": noise(*other)}
    assert preferred(noises) == ("other" if replaced else "usual")


def test_the_nearest_of_better_methods_is_preferred():
    noises = {name: noise(*[decibels] * 40) for name, decibels in (("usual", 40), ("better", 43), ("best", 45))}
    assert preferred(noises) == "best"


def test_identical_logits_are_nearest():
    same = LogitsNoise(np.ones(3), np.zeros(3))
    assert nearest({"other": noise(149.9, 150, 150), "same": same}) == "same"
    assert preferred({"other": noise(140, 140, 140), "same": same}) == preferred({"same": same, "other": same}) == "same"


@pytest.mark.parametrize(
    ("decibels", "others", "expected"),
    [
        ([40, 42] * 10, [40.1, 42.1] * 10, True),  # each image
        ([40, 42] * 10, [42, 40.2] * 10, False),  # by chance
        ([40] * 19 + [30], [40] * 20, False),  # one image decides nothing
        ([44] * 15 + [28] * 5, [40] * 20, True),  # the mean image does not differ; all together do
        ([150] * 3, [150] * 3, False),
    ],
)
def test_biases_are_worse_where_images_differ_by_more_than_chance(decibels, others, expected):
    assert is_worse(noise(*decibels), noise(*others)) is expected


def test_identical_logits_are_worse_than_none():
    same = LogitsNoise(np.ones(3), np.zeros(3))
    assert is_worse(noise(140, 150, 150), same)
    assert not is_worse(same, noise(140, 150, 150))
    assert not is_worse(same, same)
