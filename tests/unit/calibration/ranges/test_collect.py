"""One pass over the images gives the same figures as numpy on the tensors, for every batch size."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from refusals import refusing

from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.ranges import collect
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.registry import METHODS, parse_method
from emca_deploy.errors import DataError, ModelError
from zoo.recipes import RECIPES, collect_ranges, observe

MODEL = "emca_eca_resnet10"


def tensors(path, names, images, folder):
    model = ir.load(path)
    model.graph.outputs.extend(output for node in model.graph for output in node.outputs if output.name in names)
    ir.save(model, folder / "open.onnx")
    session = onnxruntime.InferenceSession(str(folder / "open.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": images})
    return {output.name: array for output, array in zip(session.get_outputs(), found, strict=True) if output.name in names}


def fixed_batch(path, batch, folder):
    model = ir.load(path)
    given = model.graph.inputs[0]
    given.shape = ir.Shape([batch, *given.shape[1:]])
    for node in model.graph:
        for output in node.outputs:
            output.shape = None
    ir.save(model, folder / f"fixed{batch}.onnx")
    return folder / f"fixed{batch}.onnx"


@pytest.mark.parametrize("name", METHODS)
def test_every_tensor_that_a_placement_quantizes_gets_a_range(exported, images, name):
    ranges = collect_ranges(exported(MODEL), images, range(4), threads=2, method=name)
    for recipe in RECIPES.values():
        assert {str(value.name) for value in place(ir.load(exported(MODEL)).graph, recipe).edges} <= ranges.keys()
    for values in ranges.values():
        assert np.isfinite([values.minimum, values.maximum, values.magnitude]).all()


def test_histograms_are_those_of_the_tensors(exported, images, tmp_path):
    seen = observe(load_graph(exported(MODEL)), images, range(12), 1, None, parse_method("mse"))
    expected = tensors(exported(MODEL), {"stage2.block0.relu_1", "stage1.block0.conv2"} & seen.keys(), images.images, tmp_path)
    assert expected
    for name, tensor in expected.items():
        histogram, exact = seen[name].histogram, Histogram.of(tensor)
        assert histogram.count == tensor.size
        assert histogram.maximum == pytest.approx(tensor.max(), rel=1e-5)
        assert histogram.exponent == exact.exponent
        # Fusions depend on which tensors are outputs: values may differ in the last digit and fall into another bin.
        assert np.abs(np.cumsum(histogram.counts - exact.counts)).max() <= 0.001 * tensor.size
    assert seen["images"].histogram.counts.tolist() == Histogram.of(images.images).counts.tolist()


@pytest.mark.parametrize("name", ["minmax", "moving-average", "percentile"])
def test_batches_do_not_matter(exported, images, monkeypatch, name):
    """The runtime's rounding may depend on the batch size: values agree to its precision, inputs exactly."""
    found = []
    for batch in (1, 5, 12):
        monkeypatch.setattr(collect, "COUNTED_BATCH", batch)
        monkeypatch.setattr(collect, "REDUCED_BATCH", batch)
        found.append(observe(load_graph(exported("resnet10")), images, range(12), 1, None, parse_method(name)))
    for other in found[1:]:
        for tensor, seen in found[0].items():
            assert other[tensor].maximum == pytest.approx(seen.maximum, rel=1e-5)
            if name == "moving-average":
                assert other[tensor].own["average"] == pytest.approx(seen.own["average"], rel=1e-5)
            if name == "percentile":
                assert same_but_for_rounding(other[tensor].histogram, seen.histogram), tensor
    if name == "percentile":
        assert np.array_equal(found[0]["images"].histogram.counts, found[2]["images"].histogram.counts)


def same_but_for_rounding(a, b):
    return a.exponent == b.exponent and np.abs(np.cumsum(a.counts - b.counts)).max() <= 0.001 * a.count


@pytest.mark.parametrize("name", ["moving-average", "entropy"])
def test_the_same_again_to_the_last_bit(exported, images, name):
    first, second = (collect_ranges(exported(MODEL), images, range(12), threads=2, method=name) for _ in range(2))
    assert first == second


def test_the_order_of_images_matters_to_averages_only(exported, images):
    for name, equal in (("moving-average", False), ("mse", True)):
        forward = collect_ranges(exported("resnet10"), images, range(12), 1, method=name)
        backward = collect_ranges(exported("resnet10"), images, range(11, -1, -1), 1, method=name)
        assert (forward == backward) == equal


@pytest.mark.parametrize("name", ["moving-average", "mse"])
def test_a_fixed_batch_counts_each_image_once(exported, images, tmp_path, name):
    """The last batch is padded by repetition, which does not affect the result."""
    free = observe(load_graph(exported("resnet10")), images, range(11), 1, None, parse_method(name))
    fixed = observe(load_graph(fixed_batch(exported("resnet10"), 4, tmp_path)), images, range(11), 1, None, parse_method(name))
    for tensor, seen in free.items():
        if name == "mse":
            assert fixed[tensor].histogram.count == seen.histogram.count
            assert same_but_for_rounding(fixed[tensor].histogram, seen.histogram)
        else:
            assert fixed[tensor].own["average"] == pytest.approx(seen.own["average"], rel=1e-5)


def test_an_older_opset(exported, images, tmp_path):
    """Before opset 18, reductions have their axes as an attribute."""
    model = ir.load(exported("resnet10"))
    assert not any(node.op_type.startswith("Reduce") for node in model.graph)
    model.opset_imports[""] = 17
    ir.save(model, tmp_path / "old.onnx")
    old = collect_ranges(tmp_path / "old.onnx", images, range(3), 1)
    assert old == collect_ranges(exported("resnet10"), images, range(3), 1)


@pytest.mark.parametrize("name", ["minmax", "percentile"])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_the_very_image_is_named(exported, images, name, value):
    images.images[7, 1, 2, 3] = value
    with refusing(DataError, "images", "image 7") as caught:
        collect_ranges(exported("resnet10"), images, range(12), threads=2, method=name)
    assert "image 6" not in caught.value.problem


def test_images_of_another_size_are_refused(exported, images):
    images.images = images.images[:, :, :40, :40]
    model = ir.load(exported("resnet10"))
    assert model.graph.inputs[0].shape[2] == 64
    with refusing(ModelError, 40):
        collect_ranges(exported("resnet10"), images, range(4), threads=2, method="mse")


def test_progress_counts_images(exported, images):
    calls = []
    collect_ranges(exported("resnet10"), images, range(10), 2, lambda done, total: calls.append((done, total)), "entropy")
    assert calls[-1] == (10, 10)
    assert calls == sorted(calls)


def test_no_more_batches_are_in_flight_than_workers_need(exported, images):
    """Memory does not grow with the data set: images are read when they are used."""
    taken, done = [], []

    class Watched(type(images)):
        def batches(self, batch_size, indices=None):
            for item in super().batches(batch_size, indices):
                taken.append(len(item[0]))
                assert sum(taken) - (done[-1] if done else 0) <= 5
                yield item

    collect_ranges(exported("resnet10"), Watched(images.images), range(12), 2, lambda count, _: done.append(count), "mse")
    assert sum(taken) == 12


def test_large_tensors_are_sampled_evenly(exported, images, monkeypatch):
    monkeypatch.setattr(collect, "COUNTED_VALUES", 1000)
    found = observe(load_graph(exported("resnet10")), images, range(4), 1, None, parse_method("mse"))
    monkeypatch.setattr(collect, "COUNTED_VALUES", 1 << 30)
    whole = observe(load_graph(exported("resnet10")), images, range(4), 1, None, parse_method("mse"))
    for name, seen in whole.items():
        sample = found[name]
        assert (sample.minimum, sample.maximum) == (seen.minimum, seen.maximum)
        each = seen.histogram.count // 4
        step = max(1, each // 1000)
        assert sample.histogram.count == 4 * -(-each // (step - 1 + step % 2))
