"""Placements, inserted pairs, rewrites and explanations of many small networks, pinned value by value.

The golden file holds counts and digests. Where a change of a placement is meant, regenerate it with --regenerate-golden.
"""

import hashlib
from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from random_networks import ACTIVATIONS, BLOCKS, HEADS, network

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.explaining.explainer import explain_int8
from emca_deploy.calibration.graphs.graph import all_values
from emca_deploy.calibration.graphs.trunk import find_trunk
from emca_deploy.calibration.placement.calibration_cache import implicit_ranges
from emca_deploy.calibration.placement.coverage import measure_coverage
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.collect import _hard_swish_inputs, _relu_partners
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.recovery.bias_correction import find_anchors
from emca_deploy.calibration.sensitivity import find_units
from zoo.networks import NETWORKS, to_onnx
from zoo.recipes import RECIPES
from zoo.rewrites import REWRITES

FORMS = (
    "nothing", "means_reduced", "last_mean_as_average_pool", "several_outputs", "softmax_at_end", "gates_expanded",
    "rectified_by_clip", "across_in_one_dimension", "channels_tiled", "batch_of_one",
)  # fmt: skip
ZOO = [(name, FORMS[(2 * index + step) % len(FORMS)]) for index, name in enumerate(NETWORKS) for step in range(2)]
RANDOM = [(BLOCKS[n % len(BLOCKS)], act, HEADS[n % len(HEADS)]) for n, act in enumerate(ACTIVATIONS)]


def digest(lines) -> str:
    return hashlib.sha256("\n".join(map(str, lines)).encode()).hexdigest()[:10]


def made(name: tuple[str, ...]) -> ir.Model:
    if len(name) == 2:
        return ir.from_proto(REWRITES[name[1]].apply(to_onnx(NETWORKS[name[0]]), np.random.default_rng(0)))
    return ir.from_proto(network([name[0]], name[1], name[2])[0])


def any_ranges(graph: ir.Graph) -> dict[str, TensorRange]:
    """Return a range for each tensor: with and without negative numbers, and all different."""
    names = [str(value.name) for value in all_values(graph)]
    return {name: TensorRange(-(n % 3) * (1 + n / 64), 2 + n % 5 + n / 128) for n, name in enumerate(names)}


def described(graph: ir.Graph) -> list[str]:
    """Return a line for each node and each constant, with what is stored in it."""
    nodes = [
        f"{node.op_type} {node.name} {[v.name if v else None for v in node.inputs]} {[v.name for v in node.outputs]} "
        f"{[(v.shape, v.dtype) for v in node.outputs]} {sorted((name, str(one.value)) for name, one in node.attributes.items())}"
        for node in graph
    ]
    stored = [(name, value.const_value.numpy()) for name, value in sorted(graph.initializers.items())]
    return nodes + [f"{name} {array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}" for name, array in stored]


def findings(report) -> list[str]:
    return [f"{one.kind} {len(one.nodes)} {digest(one.nodes)}" for one in report.findings]


def summary(model: ir.Model, backend: str) -> dict[str, object]:
    graph, recipe = model.graph, find_recipe(backend, 8)
    placement, ranges = place(graph, recipe), any_ranges(graph)
    edges = [f"{v.name} {sorted((n.name, i) for n, i in readers)}" for v, readers in placement.edges.items()]
    coverage = measure_coverage(graph, placement)
    units = find_units(graph, placement)
    found: dict[str, object] = {
        "edges": f"{len(edges)} {sum(map(len, placement.edges.values()))} {digest(edges)}",
        "weighted": f"{len(placement.weighted)} {digest(node.name for node in placement.weighted)}",
        "symmetric": sorted(str(value.name) for value in placement.symmetric),
        "same": sorted(f"{value.name} {other.name}" for value, other in placement.same.items()),
        "stored": [node.name for node in placement.weight_only],
        "coverage": f"{coverage.int8_layers} {coverage.int8_macs_percent:.4f} {digest(coverage.float_layers)}",
        "warnings": digest(coverage.warnings) if coverage.warnings else "",
        "units": f"{len(units)} {digest(units)}",
        "cache": digest(implicit_ranges(graph, ranges, recipe).items()) if backend == "tensorrt" else "",
        "float": findings(explain_int8(graph, recipe)),
    }
    counts = insert_qdq(model, placement, ranges)
    found["counts"] = [counts.activations, counts.weighted, counts.weighted_float, counts.weight_only]
    found["inserted"] = f"{len(graph)} {digest(described(graph))}"
    found["findings"] = findings(explain_int8(graph, recipe, saturates=backend == "openvino"))
    found["int8"] = explain_int8(graph, recipe).int8_layers
    for rewrite in recipe.rewrites:
        rewrite(graph)
    found["rewritten"] = f"{len(graph)} {digest(described(graph))}"
    found["operators"] = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(node.op_type for node in graph).items()))
    return found


def structure(model: ir.Model) -> dict[str, object]:
    graph = model.graph
    trunk = find_trunk(graph)
    return {
        "trunk": [digest(sorted(str(value.name) for value in values)) for values in (trunk.values, trunk.maps, trunk.head)],
        "origins": digest(sorted(f"{value.name} {origin.name}" for value, origin in trunk.origins.items())),
        "gates": sorted(f"{node.name} {index}" for node, index in trunk.attention.gates.items()),
        "attention": digest(sorted(str(node.name) for node in trunk.attention.nodes)),
        "pools": sorted(str(node.name) for node in trunk.attention.pools),
        "anchors": digest(find_anchors(graph).items()),
        "partners": sorted(f"{value.name} {other.name}" for value, other in _relu_partners(graph).items()),
        "swish": sorted(f"{value.name} {least:.4f}" for value, least in _hard_swish_inputs(graph).items()),
    }


@pytest.mark.parametrize("kind", ["zoo", "random"])
def test_placements_are_what_they_were(golden, kind):
    names = ZOO if kind == "zoo" else RANDOM
    found = {" ".join(name): structure(made(name)) for name in names}
    for number, name in enumerate(names):  # a network of the zoo for every backend, another one for two
        for backend in sorted(RECIPES)[number % 2 if kind == "random" else 0 :: 2 if kind == "random" else 1]:
            found[f"{' '.join(name)}, {backend}"] = summary(made(name), backend)
    golden(f"placement/{kind}", found)
