"""Recovery on a trained network: its purpose is closer logits on unseen images."""

import json
from contextlib import nullcontext

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from refusals import refusing

from emca_deploy._machine import CpuInfo
from emca_deploy.artifacts import manifest_path
from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.calibrate import calibrate_model, ensure_ranges
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.graph_session import GraphRunner
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.recovery.bias_correction import Anchor, BiasCorrection, find_anchors
from emca_deploy.calibration.recovery.weights import rounded_path
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_calibration_images, bundled_test_images
from emca_deploy.data.sources import open_source
from emca_deploy.errors import InputError, UnknownNameError
from zoo.networks import NETWORKS, to_onnx
from zoo.quantizing import Images
from zoo.recipes import calibration_options, collect_ranges


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bundled_model):
    return bundled_model(tmp_path_factory.mktemp("trained"))


def logits(path, source, count=200):
    model = load_graph(path) if "int8" not in path.name else ir.load(path)
    name = str(model.graph.outputs[0].name)
    probe = GraphRunner(model, [name], 1)
    return np.concatenate(
        [probe(batch)[name] for batch, _ in source.batches(50, range(0, len(source), max(1, len(source) // count)))]
    )


def sqnr_db(reference, found):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum())


def check_levels(model, images, unseen, folder):
    """Each level must bring the logits of unseen images closer."""
    reference = logits(model, unseen)
    found = {}
    for level in ("none", "bias", "weights"):
        output, table = folder / f"{level}.int8.onnx", folder / "m.ranges.json"
        options = calibration_options("openvino", "minmax", samples=48, threads=1, recover=level, table=table, weight_bits=8)
        calibrate_model(model, images, output, options)
        found[level] = sqnr_db(reference, logits(output, unseen))
        assert json.loads(manifest_path(output).read_text())["details"]["recover"] == level
    assert found["bias"] > found["none"] + 0.5
    assert found["weights"] > found["bias"] + 0.5
    assert rounded_path(table, 127).is_file(), "kept for the next backend"


def test_each_level_brings_unseen_images_nearer_to_fp32(tmp_path):
    onnx.save(to_onnx(NETWORKS["residual"], seed=1), tmp_path / "model.onnx")
    check_levels(tmp_path / "model.onnx", Images(48, seed=1), Images(96, seed=11), tmp_path)


@pytest.mark.slow
def test_each_level_brings_a_trained_network_nearer_to_fp32(trained, tmp_path):
    sources = [open_source(path, BUNDLED_PREPROCESSING) for path in (bundled_calibration_images(), bundled_test_images())]
    check_levels(trained, *sources, tmp_path)


class RoundedAnew(Exception):
    """Rounding takes seconds: the test only checks that it starts."""


def until_rounding(name):
    if name == "rounding weights":
        raise RoundedAnew
    return nullcontext()


def test_rounded_weights_are_reused_for_another_backend_and_not_for_other_images(exported, images, tmp_path):
    model, table = exported("emca_eca_resnet10"), tmp_path / "t.json"
    stages = []

    def options(backend, **more):
        return calibration_options(backend, "minmax", table=table, samples=4, **more)

    def stage(name):
        stages.append(name)
        return nullcontext()

    calibrate_model(model, images, tmp_path / "a.onnx", options("openvino"), stage)
    assert list(dict.fromkeys(stages)) == [
        "measuring ranges",
        "rounding weights",
        "correcting biases (minmax)",
        "comparing with fp32",
    ]
    stages.clear()
    calibrate_model(model, images, tmp_path / "b.onnx", options("onnxruntime"), stage)
    assert "rounding weights" not in stages
    rounded_path(table, find_recipe("onnxruntime").largest_weight).write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(RoundedAnew):  # a damaged file is made again
        calibrate_model(model, images, tmp_path / "c.onnx", options("onnxruntime"), until_rounding)


def test_shifts_restore_the_means_of_the_channels(trained, tmp_path):
    images = open_source(bundled_calibration_images(), BUNDLED_PREPROCESSING)
    chosen = range(0, 512, 8)
    table, _, _ = ensure_ranges(trained, images, calibration_options("openvino", "minmax", samples=64, table=tmp_path / "t.json"))
    recipe = find_recipe("openvino")
    quantize = placing(recipe, table.ranges)
    model = load_graph(trained)
    shifts = BiasCorrection(model, quantize, images, chosen, 1).shifts(quantize)
    watched = ["stage2.block1.conv1", "head"]
    anchors = [find_anchors(model.graph)[name].value for name in watched]

    def means(graph_model):
        probe = GraphRunner(graph_model, anchors, 1, means=True)
        return [
            np.concatenate(rows).mean(axis=0)
            for rows in zip(*(probe(b).values() for b, _ in images.batches(8, chosen)), strict=True)
        ]

    plain, corrected = model.clone(), model.clone()
    quantize(plain)
    add_to_biases(corrected.graph, shifts)
    quantize(corrected)
    for wanted, before, after in zip(means(model.clone()), means(plain), means(corrected), strict=True):
        assert np.abs(after - wanted).max() < np.abs(before - wanted).max() / 3


def test_anchors_of_a_residual_branch_are_where_it_joins_the_shortcut(exported):
    graph = load_graph(exported("narrow_emca_eca_resnet18")).graph
    anchors = find_anchors(graph)
    by_output = {str(value.name): node for node in graph for value in node.outputs}
    attended, plain = anchors["stage2.block0.conv2"], anchors["stage2.block1.conv2"]
    for anchor in (attended, plain):
        after = by_output[anchor.value]
        assert (anchor.cut, after.op_type, after.inputs[0].producer().op_type) == (True, "Relu", "Add")
    assert attended.shortcut == "stage2.block0.shortcut.conv"
    assert attended.gate is not None
    assert (plain.gate, plain.shortcut) == (None, None)
    assert anchors["stage2.block0.shortcut.conv"] == Anchor("stage2.block0.shortcut.conv")
    assert anchors["stage2.block0.conv1"] == Anchor("stage2.block0.relu", cut=True)


def test_unknown_level_is_named(exported, images, tmp_path):
    with refusing(UnknownNameError, "full"):
        calibrate_model(exported("resnet10"), images, tmp_path / "o.onnx", calibration_options("openvino", recover="full"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_weights_keep_to_seven_bits_where_eight_saturate(exported, images, tmp_path, monkeypatch, backend):
    old = CpuInfo("an older processor", "x86_64", 2, 2, ("avx2",))
    monkeypatch.setattr("emca_deploy.calibration.placement.recipe.cpu_info", lambda: old)
    model = exported("emca_eca_resnet10")
    found = {}
    for bits in (None, 8):
        output = tmp_path / f"{bits}.int8.onnx"
        options = calibration_options(backend, "minmax", samples=4, recover="none", table=tmp_path / "t.json", weight_bits=bits)
        assert calibrate_model(model, images, output, options).recipe.weight_bits == (bits or 7)
        values = ir.load(output).graph.initializers.values()
        integers = [v.const_value.numpy() for v in values if v.dtype == ir.DataType.INT8 and "weight/int8" in v.name]
        assert len(integers) > 12
        found[bits] = max(int(np.abs(each.astype(int)).max()) for each in integers)
        assert json.loads(manifest_path(output).read_text())["details"]["weight_bits"] == (bits or 7)
    assert found == {None: 64, 8: 127}
    assert find_recipe("tensorrt").largest_weight == 127
    with refusing(InputError, 7):
        find_recipe("tensorrt", 7)


def test_a_few_images_beyond_the_ranges_do_not_move_the_biases(images, tmp_path):
    """Three of a hundred images are clipped, which changes their means; the shifts stay those of the others."""
    rng = np.random.default_rng(0)
    quiet = rng.uniform(0, 1, (100, 3, 8, 8)).astype(np.float32)
    loud = quiet.copy()
    loud[[10, 50, 90]] *= 50
    path = tmp_path / "small.onnx"
    onnx.save(small_classifier(rng), path)
    model = load_graph(path)
    recipe = find_recipe("onnxruntime")
    placed = [str(value.name) for value in place(model.graph, recipe).edges]
    ranges = {name: TensorRange(0.0, 4.0) for name in placed}
    quantize = placing(recipe, ranges)
    without, with_them = (
        BiasCorrection(model, quantize, type(images)(array), range(100), 1).shifts(quantize) for array in (quiet, loud)
    )
    assert without.keys() == with_them.keys() == {"conv", "head"}
    for name, shifts in without.items():
        assert np.abs(with_them[name] - shifts).max() < 0.01


def test_a_shift_is_made_good_once_not_by_every_layer_it_passes(images, tmp_path):
    """Clipping at the input lowers the mean in all layers; the first layer corrects it, and the others need no correction."""
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        chain (float[n,3,8,8] images) => (float[n,3] logits) {
            first = Conv (images, w)
            second = Conv (first, w)
            third = Conv (second, w)
            fourth = Conv (third, w)
            pooled = GlobalAveragePool (fourth)
            logits = Flatten (pooled)
        }"""
    made = onnx.parser.parse_model(text)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "w"))
    for node, name in zip(made.graph.node, ("first", "second", "third", "fourth"), strict=False):
        node.name = name
    path = tmp_path / "chain.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(made), path)
    model, recipe = load_graph(path), find_recipe("onnxruntime")
    ranges = {str(value.name): TensorRange(0.0, 2.0) for value in place(model.graph, recipe).edges}
    ranges["images"] = TensorRange(0.0, 0.5)
    shown = np.random.default_rng(0).uniform(0, 1, (20, 3, 8, 8)).astype(np.float32)
    quantize = placing(recipe, ranges)
    shifts = BiasCorrection(model, quantize, type(images)(shown), range(20), 1).shifts(quantize)
    lost = float((shown - shown.clip(0, 0.5)).mean())
    assert shifts["first"].mean() == pytest.approx(lost, rel=0.05)
    for later in ("second", "third", "fourth"):
        assert np.abs(shifts[later]).max() < lost / 30


def test_a_shortcut_is_corrected_before_the_sum_that_it_ends_in(exported, images):
    model, recipe = load_graph(exported("narrow_emca_eca_resnet18")), find_recipe("openvino")
    ranges = collect_ranges(exported("narrow_emca_eca_resnet18"), images, range(4), 1)
    quantize = placing(recipe, ranges)
    order = list(BiasCorrection(model, quantize, images, range(4), 1).shifts(quantize))
    assert len(order) == 21
    for stage in (2, 3, 4):
        block = [name for name in order if name.startswith(f"stage{stage}.block0.")]
        assert [name.split("block0.")[1] for name in block] == ["conv1", "shortcut.conv", "conv2"]


def test_shifts_are_the_same_for_a_network_of_fixed_batch(images, tmp_path):
    shown = np.random.default_rng(1).uniform(0, 1, (10, 3, 8, 8)).astype(np.float32)
    recipe = find_recipe("onnxruntime")
    found = []
    for batch in ("n", "1", "4"):  # a batch of 4 leaves two images for the last one
        path = tmp_path / f"{batch}.onnx"
        onnx.save(small_classifier(np.random.default_rng(0), batch), path)
        model = load_graph(path)
        ranges = {str(value.name): TensorRange(0.0, 2.0) for value in place(model.graph, recipe).edges}
        quantize = placing(recipe, ranges)
        found.append(BiasCorrection(model, quantize, type(images)(shown), range(10), 1).shifts(quantize))
    for other in found[1:]:
        for name, shift in found[0].items():
            np.testing.assert_allclose(other[name], shift, rtol=1e-5, atol=1e-7)


def placing(recipe, ranges):
    """Return a function that inserts a recipe's Q/DQ pairs into a float model."""
    return lambda floating: insert_qdq(floating, place(floating.graph, recipe), ranges)


def small_classifier(rng, batch="n"):
    """Convolution, ReLU, pooling, linear layer."""
    weights = {
        "w": rng.uniform(0, 0.1, (4, 3, 3, 3)), "b": rng.uniform(0, 0.1, 4),
        "h": rng.standard_normal((5, 4)), "c": rng.standard_normal(5),
    }  # fmt: skip
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        small (float[n,3,8,8] images) => (float[n,5] logits) {
            convolved = Conv <pads = [1,1,1,1]> (images, w, b)
            passed = Relu (convolved)
            pooled = GlobalAveragePool (passed)
            flat = Flatten (pooled)
            logits = Gemm <transB = 1> (flat, h, c)
        }"""
    made = onnx.parser.parse_model(text.replace("float[n,", f"float[{batch},"))
    made.graph.initializer.extend(onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items())
    made.graph.node[0].name, made.graph.node[4].name = "conv", "head"
    return onnx.shape_inference.infer_shapes(made)
