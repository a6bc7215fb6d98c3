"""The regions that a detector's heads read while it is calibrated, and what is compared."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.graph_session import GraphSession
from emca_deploy.calibration.graphs.regions import ImageFeeds, measured_model, read_given_regions
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.canonical.edit import set_constant
from emca_deploy.canonical.marks import compared_values
from emca_deploy.tasks.logits import LogitsNoise
from zoo.detector_networks import REGIONS, SIZE, two_stage_detector

LAST = ["rpn.objectness", "rpn.deltas", "roi.box.scores", "roi.box.deltas", "roi.mask.logits"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A detector that has fewer proposals than rows for some images."""
    return load_graph(two_stage_detector(tmp_path_factory.mktemp("regions") / "model.onnx", threshold=0.97))


@pytest.fixture
def images(some_images):
    source = some_images(8)
    source.images = source.images[:, :, :SIZE, :SIZE]
    return source


def run(model, image, *names):
    """Return tensors of a model for an image by name."""
    copy = model.clone()
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    copy.graph.outputs[:] = [values[name] for name in names]
    session = onnxruntime.InferenceSession(ir.to_proto(copy).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": image[None]})


def test_heads_read_each_valid_region_in_turn(model, images):
    valid = measured_model(model)
    counts = set()
    for image in images.images:
        scores, regions = run(model, image, "post.proposals.topk", "post.crop_boxes.regions")
        (repeated,) = run(valid, image, "post.crop_boxes.regions/repeated")
        count = int((scores >= 0).sum())
        assert np.array_equal(repeated, regions[np.arange(REGIONS) % max(count, 1)])
        counts.add(count)
    assert {0, REGIONS} < counts | {0}
    assert len(counts) > 2
    assert valid.graph.node("roi.box.fc6") is not model.graph.node("roi.box.fc6")


def test_what_is_compared_are_the_results_of_the_last_layers(model, images):
    assert [value.name for value in compared_values(model.graph)] == LAST
    valid = measured_model(model)
    simulation = Simulation(valid.graph, images, range(3), 1)
    rows = simulation.logits(valid)
    assert rows.shape == (3, sum(simulation.parts))
    for image, row in zip(images.images, rows, strict=False):
        found = np.concatenate([tensor.ravel() for tensor in run(valid, image, *LAST)])
        np.testing.assert_allclose(row, found, rtol=1e-4, atol=1e-4)


def test_a_variant_reads_the_regions_of_the_float_network(model, images):
    """Other objectness selects other boxes; the heads' results are compared on the same ones."""
    valid = measured_model(model)
    simulation = Simulation(valid.graph, images, range(4), 1)
    reference = simulation.logits(valid)
    variant = valid.clone()
    node = variant.graph.node("rpn.objectness")
    set_constant(variant.graph, node, 1, "turned", -node.inputs[1].const_value.numpy())
    ends = np.cumsum(simulation.parts)
    rows = simulation.logits(variant)
    np.testing.assert_allclose(rows[:, ends[0] :], reference[:, ends[0] :], rtol=1e-5, atol=1e-5)
    assert np.abs(rows[:, : ends[0]] - reference[:, : ends[0]]).max() > 1


def test_given_regions_replace_the_selection(model, images):
    variant = measured_model(model).clone()
    given = read_given_regions(variant)
    (feed,) = ImageFeeds(measured_model(model).graph, 1).of([0], [images.images[:1]])
    assert set(feed) == {"images", *given}
    assert [feed[name].shape for name in given] == [(REGIONS, 4)] * 2


def test_the_regions_of_an_image_are_found_once(model, images, monkeypatch):
    valid = measured_model(model)
    feeds, runs = ImageFeeds(valid.graph, 1), []
    original = GraphSession.run
    monkeypatch.setattr(GraphSession, "run", lambda session, feed: runs.append(feed) or original(session, feed))
    first, second = feeds.of([0, 1], [images.images[:1], images.images[1:2]])
    other, again = feeds.of([2, 1], [images.images[2:3], images.images[1:2]])
    assert len(runs) == 3
    for name in read_given_regions(valid.clone()):
        assert again[name] is second[name]
        assert not np.array_equal(other[name], first[name])


def test_each_part_counts_alike():
    """A layer with large numbers around a large mean does not hide another one's error."""
    random = np.random.default_rng(0)
    large, small = 1000 + 100 * random.standard_normal((5, 40)), random.standard_normal((5, 10))
    reference = np.concatenate([large, small], axis=1).astype(np.float32)
    errors = np.concatenate([10 * random.standard_normal((5, 40)), 0.1 * random.standard_normal((5, 10))], axis=1)
    noise = LogitsNoise.of(reference, (reference + errors).astype(np.float32), [40, 10])
    shares = [
        (errors[:, part] ** 2).sum(axis=1) / ((whole - whole.mean()) ** 2).sum(axis=1).mean()
        for part, whole in ((slice(0, 40), large), (slice(40, 50), small))
    ]
    np.testing.assert_allclose(noise.noise, sum(shares), rtol=1e-3)
    assert noise.signal.mean() == pytest.approx(2, rel=1e-6)
