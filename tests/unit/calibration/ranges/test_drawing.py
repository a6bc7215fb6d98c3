"""Images are drawn farthest first by their tensors' extremes, until left-out images would hardly gain from more."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.left_out import JUDGES, LeftOut, clipped_model
from emca_deploy.calibration.placement.place import quantizable
from emca_deploy.calibration.ranges.collect import TensorPass
from emca_deploy.calibration.ranges.collect_drawn import collect_drawn
from emca_deploy.calibration.ranges.drawing import LEAST, MOST, SMALLEST, STEP, Drawer, Images, possible_images
from emca_deploy.calibration.ranges.methods.registry import parse_method
from emca_deploy.calibration.ranges.table import read_table, write_table
from emca_deploy.data.sources import images_in_order
from emca_deploy.errors import InputError
from emca_deploy.results.drawing import Drawing
from zoo.recipes import RECIPES, calibration_options

seeds = st.integers(0, 10**6)


def random_extremes(seed, images=12, tensors=5):
    ends = np.random.default_rng(seed).standard_normal((images, tensors, 2))
    return np.sort(ends, axis=2)


def literal_draws(before, extremes, width):
    """Farthest first, one image and one distance at a time."""
    drawn, chosen = list(before), []
    while len(chosen) < (len(extremes) + 1) // 2:
        others = [position for position in range(len(extremes)) if position not in chosen]
        distance = {at: min((np.max(np.abs(extremes[at] - one) / width) for one in drawn), default=np.inf) for at in others}
        chosen.append(max(others, key=lambda at: distance[at]))
        drawn.append(extremes[chosen[-1]])
    return sorted(chosen)


@given(seeds)
def test_draws_are_those_of_a_literal_farthest_first(seed):
    drawer, first, second = Drawer(), random_extremes(seed, 7), random_extremes(seed + 1, 8)
    width = np.ptp(first, axis=(0, 2))[:, None]
    drawn = drawer.draw(first)
    assert drawn == literal_draws([], first, width)
    width = np.ptp(np.concatenate([first, second]), axis=(0, 2))[:, None]
    assert drawer.draw(second) == literal_draws(first[drawn], second, width)
    assert len(drawer) == 8


@given(seeds, st.integers(-20, 20))
def test_the_scale_of_a_tensor_does_not_matter(seed, exponent):
    extremes = random_extremes(seed)
    scaled = extremes.copy()
    scaled[:, 2] *= 2.0**exponent
    assert Drawer().draw(extremes) == Drawer().draw(scaled)


def test_images_that_reach_farther_are_drawn_wherever_they_stand():
    """The first half would miss both; each reaches farther at one end of one tensor only."""
    extremes = np.tile([-1.0, 1.0], (10, 4, 1)) * np.linspace(1, 1.01, 10)[:, None, None]
    extremes[6, 1, 0], extremes[9, 3, 1] = -5, 3
    drawer = Drawer()
    assert {6, 9} <= set(drawer.draw(extremes))
    assert drawer.ends[1, 0] == -5
    assert drawer.ends[3, 1] == 3


def test_alike_images_and_constant_tensors_can_be_drawn():
    drawer = Drawer()
    assert len(drawer.draw(np.zeros((5, 3, 2)))) == 3
    assert np.array_equal(drawer.ends, np.zeros((3, 2)))


class Labelled:
    """As many labels as a data set has."""

    def __init__(self, labels):
        self.labels = np.asarray(labels)

    def __len__(self):
        return len(self.labels)


def test_a_quarter_of_the_images_is_left_out_with_as_many_of_each_class():
    source = Labelled(np.arange(1000) % 10)
    images = Images.of(source, "auto", 0)
    assert (len(images.looked_at), len(images.left_out), images.drawn) == (225, 75, True)
    assert not set(images.looked_at) & set(images.left_out)
    assert sorted([*images.looked_at, *images.left_out]) == possible_images(source, "auto") == possible_images(source, MOST)
    for group in (images.looked_at[:LEAST], images.looked_at, images.left_out):
        assert np.ptp(np.bincount(source.labels[list(group)])) <= 1
    assert images == Images.of(source, "auto", 0)
    assert images != Images.of(source, "auto", 1)


@pytest.mark.parametrize(("count", "drawn"), [(SMALLEST - 1, False), (SMALLEST, True)])
def test_of_a_small_data_set_every_image_is_used(count, drawn):
    images = Images.of(Labelled(np.zeros(count, int)), "auto", 0)
    assert images.drawn is drawn
    assert len(images.looked_at) + len(images.left_out) == count
    assert bool(images.left_out) is drawn


def test_a_number_takes_the_images_that_it_took():
    images = Images.of(Labelled(np.arange(50) % 5), 20, 3)
    assert (list(images.looked_at), images.left_out, images.drawn) == (
        possible_images(Labelled(np.arange(50) % 5), 20, 3),
        (),
        False,
    )


@pytest.mark.parametrize("samples", ["all", 0])
def test_other_numbers_are_refused(samples):
    with refusing(InputError, samples):
        Images.of(Labelled(np.zeros(300, int)), samples, 0)


class Took:
    """A passenger that keeps the numbers of the images."""

    reads = ("images",)

    def __init__(self):
        self.numbers = []

    def take(self, number, tensors):
        return number

    def add(self, taken):
        self.numbers.append(taken)


@pytest.fixture
def drawn(small, pictures):
    """Return a function that draws 300 images with given answers of the left-out ones, and what the passenger saw."""

    def get(answers, method="mse", count=300, threads=1):
        model, source, took, ends = load_graph(small), pictures(count), Took(), []

        def clipped_db(found):
            ends.append(found)
            return answers[len(ends) - 1]

        names = quantizable(model.graph, RECIPES.values())
        work = TensorPass(model, names, threads, took, counts=parse_method(method).reads_histogram, single=True)
        found, drawing = collect_drawn(work, parse_method(method), source, Images.of(source, "auto", 0), clipped_db)
        return found, drawing, took.numbers, ends

    return get


@pytest.mark.parametrize(
    ("answers", "looked_at", "used", "reason", "clipped"),
    [
        ([0.2], LEAST, LEAST // 2, "enough", 0.2),
        ([0.21, 0.1], LEAST + STEP, (LEAST + STEP) // 2, "enough", 0.1),
        ([np.inf, np.nan], 225, 113, "no more images", None),
    ],
)
def test_drawing_stops_when_little_is_clipped(drawn, answers, looked_at, used, reason, clipped):
    found, drawing, numbers, ends = drawn(answers)
    assert drawing == Drawing(looked_at, used, 75, reason, clipped)
    assert numbers == images_in_order(300)[:looked_at]
    assert len(ends) == len(answers)
    assert all(seen.trial is None for seen in found.values())
    if reason == "enough":
        assert np.array_equal(ends[-1], [[seen.minimum, seen.maximum] for seen in found.values()])


@pytest.mark.parametrize("method", ["minmax", "moving-average"])
def test_the_same_images_are_drawn_for_every_method_and_number_of_threads(drawn, method):
    expected = drawn([0.0])
    found, drawing, numbers, ends = drawn([0.0], method, threads=2)
    assert (drawing, numbers) == (expected[1], expected[2])
    assert np.array_equal(ends, expected[3])
    assert {name: (seen.minimum, seen.maximum) for name, seen in found.items()} == {
        name: (seen.minimum, seen.maximum) for name, seen in expected[0].items()
    }


@pytest.fixture
def left_out(small, pictures):
    """Return the left-out images of a small network, its tensors' names, and their extremes over these images."""
    model, source = load_graph(small), pictures(60)
    names = quantizable(model.graph, RECIPES.values())
    seen = TensorPass(model.clone(), names, 1, None, counts=False).digests(source, range(JUDGES))
    extremes = np.array([[(low.min(), high.max()) for low, high in digests] for digests, _ in seen])
    ends = np.stack([extremes[:, :, 0].min(axis=0), extremes[:, :, 1].max(axis=0)], axis=1).astype(np.float64)
    return LeftOut(model, names, source, range(60), 1), names, ends


def test_images_inside_the_ranges_lose_nothing_by_clipping(left_out):
    images, _, ends = left_out
    assert images.clipped_db(ends) == 0
    assert images.clipped_db(ends + np.array([-1, 1])) == 0


def test_narrower_ranges_lose_more(left_out):
    images, _, ends = left_out
    lost = [images.clipped_db(ends * share) for share in (1, 0.99, 0.6, 0.3)]
    assert lost == sorted(lost)
    assert 0 < lost[1] < lost[-1] - 10


def test_clipping_is_what_numpy_clips(left_out, small, pictures):
    """Of the input alone: the network of the clipped images is the clipped network of the images."""
    from emca_deploy.calibration.graphs.simulation import Simulation

    model, source, clipped = load_graph(small), pictures(4), pictures(4)
    clipped.images = clipped.images.clip(0.25, 0.75)
    variant = clipped_model(model, {"images": np.array([0.25, 0.75])})
    found = Simulation(model.graph, source, range(4), 1).logits(variant)
    assert np.allclose(found, Simulation(model.graph, clipped, range(4), 1).logits(model), atol=1e-6)


@pytest.fixture
def calibrated(small, pictures, tmp_path):
    """Return a function that calibrates the small network and gives the result, its manifest's details and its table."""

    def get(name="a", samples="auto", count=300, **more):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        options = calibration_options("openvino", samples=samples, table=folder / "t.json", **more)
        made = calibrate_model(small, pictures(count), folder / "int8.onnx", options)
        manifest = json.loads((folder / "int8.onnx.manifest.json").read_text())
        return made, manifest["details"], read_table(folder / "t.json")

    return get


def test_a_calibration_says_how_its_images_were_drawn_and_repeats(calibrated, tmp_path):
    made, details, table = calibrated(method="minmax", recover="bias")
    assert made.drawing == table.drawing
    assert made.to_dict()["drawing"] == details["drawing"] == json.loads((tmp_path / "a/t.json").read_text())["drawing"]
    assert (made.samples, details["samples"], table.samples) == (made.drawing.used,) * 3
    assert table.key.samples == "auto"
    assert len(details["calibration_images"]) == made.drawing.looked_at + made.drawing.left_out
    calibrated("b", method="minmax", recover="bias")
    for name in ("int8.onnx", "t.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_table_on_file_gives_the_same_model(calibrated, tmp_path):
    """Weights are rounded anew, in a pass of their own over the images that were looked at."""
    calibrated(method="mse")
    first = (tmp_path / "a/int8.onnx").read_bytes()
    (tmp_path / "a/t.weights.npz").unlink()
    made, _, _ = calibrated(method="mse")
    assert made.reused
    assert (tmp_path / "a/int8.onnx").read_bytes() == first


def test_a_number_and_auto_do_not_share_a_table(calibrated, tmp_path):
    _, _, drawn = calibrated(recover="none", method="minmax")
    made, details, _ = calibrated(samples=drawn.samples, recover="none", method="minmax", name="b")
    assert made.drawing is None
    assert made.to_dict()["drawing"] is None
    assert "drawing" not in details
    with refusing(InputError, "number of images"):
        calibrated(samples=drawn.samples, recover="none", method="minmax")
    for damaged in (replace(drawn, drawing=None), replace(drawn, key=replace(drawn.key, samples=50))):
        write_table(tmp_path / "damaged.json", damaged)
        with refusing(InputError, "damaged.json"):
            read_table(tmp_path / "damaged.json")


def test_few_images_are_all_used(calibrated):
    made, _, table = calibrated(count=20, recover="none")
    assert made.drawing == Drawing(20, 20, 0, "no more images")
    assert set(made.choice.sqnr_db) == {"minmax", "mse:10.0", "mse"}
    assert all(seen.trial is not None for seen in table.observations.values())  # kept out as from a number
