"""Random networks of common blocks: every layer is INT8 or listed with a reason, and the result is close to float."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import ACTIVATIONS, BLOCKS, HEADS, network, pictures

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds
from emca_deploy.calibration.placement.coverage import measure_coverage
from emca_deploy.calibration.placement.place import matching_nodes, place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.preprocessing import Preprocessing
from zoo.recipes import RECIPES, collect_ranges, rewrite_for

LEAST_DB = 15.0
"""Limit for min-max ranges, nearest rounding and random layers: the worst of some 70 such networks had 18 dB."""


class Pictures:
    labels = None
    preprocessing = Preprocessing.for_size(32)

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def item_name(self, index):
        return f"picture {index}"

    def batches(self, size, indices=None):
        order = list(range(len(self.images)) if indices is None else indices)
        for start in range(0, len(order), size):
            yield self.images[order[start : start + size]], None


def graph_of(model: onnx.ModelProto) -> ir.Graph:
    return ir.from_proto(model).graph


@given(
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(HEADS),
    st.sampled_from(sorted(RECIPES)),
    st.integers(0, 9),
)
def test_every_layer_is_covered_or_listed_with_its_reason(blocks, act, head, backend, seed):
    model, layers = network(blocks, act, head, seed)
    graph = graph_of(model)
    recipe = find_recipe(backend)
    placement = place(graph, recipe)
    coverage = measure_coverage(graph, placement)
    quantized = {node.name for node in placement.weighted}
    floating = {layer.name: layer.reason for layer in coverage.float_layers}
    assert coverage.layers == len(quantized) + len(floating)
    assert not quantized & floating.keys()
    assert all(floating.values())
    expected = {reason for name, reason in floating.items() if name in layers}
    if backend == "openvino":
        assert not expected
    elif backend == "onnxruntime":  # its integer convolutions cannot return float logits
        assert set(floating) & set(layers) <= ({layers[-1]} if head == "conv" else set())
    else:
        assert all("few channels" in reason for reason in expected)
    macs = {node.name: image_multiply_adds(node) for node in graph}
    share = 100 * sum(macs[name] for name in quantized) / sum(macs[name] for name in quantized | floating.keys())
    assert coverage.int8_macs_percent == pytest.approx(share)
    assert bool(coverage.warnings) == (share < 90)


@given(st.sampled_from(BLOCKS), st.sampled_from(ACTIVATIONS), st.sampled_from(["openvino", "onnxruntime"]), st.data())
def test_kept_layers_are_said_to_be_kept(block, act, backend, data):
    model, layers = network([block], act, "gemm")
    graph = graph_of(model)
    kept = data.draw(st.sampled_from(layers))
    coverage = measure_coverage(graph, place(graph, find_recipe(backend), [kept]), matching_nodes(graph, [kept]))
    assert {layer.name: "--keep-float" in layer.reason for layer in coverage.float_layers}[kept]


@pytest.mark.parametrize(
    ("block", "act", "signed"), [("squeeze_excite", "relu", True), ("mobile_v3", "relu", False), ("lcnet", "silu", False)]
)
def test_what_a_gate_scales_has_a_zero_point_behind_an_activation_only(block, act, signed):
    """Without a zero point, a tensor that is rarely negative has seven bits; OpenVINO's gate kernel is faster without one."""
    graph = graph_of(network([block], act, "gemm")[0])
    assert bool(place(graph, find_recipe("openvino")).symmetric) == signed


def quantized_logits(path, images, backend):
    """Return the logits of an INT8 model, with each Q/DQ pair computed by ONNX's definition."""
    model = load_graph(path)
    insert_qdq(model, place(model.graph, find_recipe(backend, 8)), collect_ranges(path, Pictures(images), range(len(images)), 1))
    rewrite_for(model.graph, backend)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("number", range(len(ACTIVATIONS)))
def test_int8_is_near_float(tmp_path, number):
    backend = ("openvino", "onnxruntime")[number % 2]
    blocks = [BLOCKS[number % len(BLOCKS)], BLOCKS[(5 * number + 3) % len(BLOCKS)]]
    model, _ = network(blocks, ACTIVATIONS[number], HEADS[number % len(HEADS)], number)
    path = tmp_path / "network.onnx"
    onnx.save(model, path)
    images = pictures(16)
    expected = onnxruntime.InferenceSession(path).run(None, {"images": images})[0]
    found = quantized_logits(path, images, backend)
    noise = float(np.sum((expected - found) ** 2))
    assert 10 * np.log10(float(np.sum(expected**2)) / noise) > LEAST_DB
