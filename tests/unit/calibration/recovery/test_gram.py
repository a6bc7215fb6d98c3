"""Gram matrices against the convolution itself: W x for the rows must equal the layer's output."""

import numpy as np
import onnx_ir as ir
import pytest

from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.graph_session import GraphRunner
from emca_deploy.calibration.graphs.weighted_layers import ConvGeometry, conv_geometry, weight_rows, weighted_layers
from emca_deploy.calibration.recovery.gram import MEMORY_BYTES, POSITIONS, can_be_rounded, input_rows, layer_grams


def matrices(grams):
    return {name: gram() for name, gram in grams}


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [((3, 3), (1, 1), (1, 1)), ((7, 7), (2, 2), (3, 3)), ((1, 1), (2, 2), (0, 0)), ((3, 1), (2, 1), (1, 0))],
)
def test_rows_times_weights_are_the_convolutions_outputs(kernel, stride, pad):
    import torch

    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 4, 6, 8)).astype(np.float32)
    weight = rng.standard_normal((5, 4, *kernel)).astype(np.float32)
    rows = input_rows(image, ConvGeometry(kernel, stride, (*pad, *pad)), [0])
    expected = torch.nn.functional.conv2d(torch.from_numpy(image), torch.from_numpy(weight), stride=stride, padding=pad)
    flat = expected.numpy().reshape(5, -1)
    found = weight.reshape(5, -1) @ rows.T
    if flat.shape[1] <= POSITIONS:
        np.testing.assert_allclose(found, flat, rtol=1e-4, atol=1e-4)
    else:  # a sample of pixels, each one of the outputs
        assert len(rows) == POSITIONS
        distances = np.abs(found.T[:, None] - flat.T[None]).max(axis=2).min(axis=1)
        assert distances.max() < 1e-4


def test_choice_of_pixels_depends_on_the_image_alone(exported, images):
    model = load_graph(exported("narrow_emca_eca_resnet18"))
    once = matrices(layer_grams(model, ["stem.conv", "head"], images, [3, 5], 1))
    again = matrices(layer_grams(model, ["stem.conv", "head"], images, [5, 3], 1))
    for name, gram in once.items():
        np.testing.assert_allclose(gram, again[name], rtol=1e-4, atol=1e-3)


def test_every_layer_gets_its_own_matrix_whatever_the_passes(exported, images, monkeypatch):
    model = load_graph(exported("narrow_emca_se_resnet18"))
    names = ["stem.conv", "stage1.block0.conv1", "stage2.block0.shortcut.conv", "head"]
    whole = matrices(layer_grams(model, names, images, range(4), 1))
    monkeypatch.setattr("emca_deploy.calibration.recovery.gram.MEMORY_BYTES", 1)
    calls = []
    pieces = matrices(layer_grams(model, names, images, range(4), 1, lambda *done: calls.append(done)))
    assert list(whole) == list(pieces) == names
    for name in names:
        np.testing.assert_allclose(whole[name], pieces[name], rtol=1e-5)
        inputs = weight_rows(weighted_layers(model.graph)[name]).shape[1]
        assert whole[name].shape == (inputs, inputs)
    assert calls[-1] == (16, 16), "four passes over four images"
    assert MEMORY_BYTES > 4 * 4608**2, "the largest layer of these networks fits"


def test_a_small_machine_gets_more_passes(exported, images, monkeypatch):
    model = load_graph(exported("emca_se_resnet18"))
    names = ["stem.conv", "stage1.block0.conv1", "head"]
    half_a_mib = 0.5  # 64 KiB of rows: those of both convolutions
    monkeypatch.setattr("emca_deploy.calibration.recovery.gram.read_memory_mib", lambda: half_a_mib)
    calls = []
    assert list(matrices(layer_grams(model, names, images, range(2), 1, lambda *done: calls.append(done)))) == names
    assert calls[-1] == (4, 4)


def test_linear_layers_rows_are_their_inputs(exported, images):
    model = load_graph(exported("narrow_emca_eca_resnet18"))
    head = weighted_layers(model.graph)["head"]
    reads = str(head.inputs[0].name)
    features = np.concatenate([GraphRunner(model.clone(), [reads], 1)(image)[reads] for image, _ in images.batches(1, range(3))])
    gram = matrices(layer_grams(model, ["head"], images, range(3), 1))["head"]
    np.testing.assert_allclose(gram, features.T @ features, rtol=1e-4, atol=1e-4)


def test_grouped_and_dilated_convolutions_are_left_alone(exported):
    model = load_graph(exported("narrow_resnet18"))
    node = weighted_layers(model.graph)["stage1.block0.conv1"]
    assert can_be_rounded(node)
    for name, value in (("group", ir.AttrInt64("group", 2)), ("dilations", ir.AttrInt64s("dilations", [2, 2]))):
        other = load_graph(exported("narrow_resnet18"))
        changed = weighted_layers(other.graph)["stage1.block0.conv1"]
        changed.attributes[name] = value
        assert not can_be_rounded(changed)


@pytest.mark.parametrize("rows_of_one_product", [40, 1024])
def test_a_matrix_is_all_products_whatever_the_blocks(exported, images, monkeypatch, rows_of_one_product):
    model = load_graph(exported("narrow_emca_eca_resnet18"))
    names = ["stem.conv", "stage1.block0.conv1"]  # fewer and more inputs than rows
    expected = {}
    for name in names:
        layer = weighted_layers(model.graph)[name]
        reads, geometry = str(layer.inputs[0].name), conv_geometry(layer)
        probe = GraphRunner(model.clone(), [reads], 1)
        batches = list(images.batches(1, range(12)))
        rows = np.concatenate([input_rows(probe(image)[reads], geometry, [number]) for number, (image, _) in enumerate(batches)])
        expected[name] = rows.T @ rows
    monkeypatch.setattr("emca_deploy.calibration.recovery.gram.ROWS", rows_of_one_product)
    for name, gram in layer_grams(model, names, images, range(12), 1):
        np.testing.assert_allclose(gram(), expected[name], rtol=1e-4, atol=1e-3 * float(np.abs(expected[name]).max()))
