"""TensorRT's calibration cache, for implicit INT8: TensorRT up to 10, and DLA, which takes nothing else.

A text file: a header `TRT-<version>-EntropyCalibration2`, then a line `tensor: hex` each, where hex is the big-endian
single-precision pattern of the tensor's scale, amax / 127.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from emca_deploy.artifacts import write_text
from emca_deploy.calibration.graphs.attention_path import find_attention, pooling_steps
from emca_deploy.calibration.graphs.graph import activations, has_weights, load_graph, only_feeds
from emca_deploy.calibration.graphs.trunk import PASS_THROUGH
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.quantize import activation_params
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.ranges.table import read_table
from emca_deploy.errors import InputError

__all__ = ["cache_version", "float_layers", "implicit_ranges", "write_cache", "write_model_cache"]


def write_model_cache(
    model: Path, table: Path, cache: Path, tensorrt_version: str, recipe: Recipe, output_name: str | None = None
) -> int:
    """Write the calibration cache of an fp32 model from its range table, and return how many tensors have a scale.

    Returns:
        How many tensors have a scale.

    Raises:
        InputError: the version is none or takes no cache, or the table is damaged.
        ModelError: the model cannot be read.
        OutputError: it cannot be written.
    """
    ranges = implicit_ranges(load_graph(model, output_name=output_name).graph, read_table(table).ranges, recipe)
    write_cache(ranges, cache, tensorrt_version)
    return len(ranges)


def implicit_ranges(graph: ir.Graph, ranges: Mapping[str, TensorRange], recipe: Recipe) -> dict[str, TensorRange]:
    """Return the ranges that let TensorRT, and a DLA, compute in INT8 what the recipe for TensorRT quantizes.

    Without Q/DQ a layer computes in INT8 where all it reads and returns has a range. So what stays in float gets none: the
    attention path, and what only convolutions kept in float read. What a ReLU reads has the ReLU's range, for it is cut off there
    anyway. A DLA wants the same range before and after a pooling, and on both operands of an Add: the larger one.
    """
    attention = find_attention(graph)
    steps = {step for pool in attention.pools for step in pooling_steps(pool)}  # a mean in steps is not rounded on the way
    aside = {value for node in attention.nodes | attention.pools | steps for value in node.outputs}
    edges = place(graph, recipe).edges
    aside |= {node.inputs[0] for node in graph if has_weights(node) and node.inputs[0] and node.inputs[0] not in edges}
    measured = {
        value: ranges[value.name].magnitude
        for value in _values(graph)
        if value not in aside and value.name and value.name in ranges
    }
    shared: dict[ir.Value, ir.Value] = {}
    for node in graph:
        first, result = node.inputs[0] if node.inputs else None, node.outputs[0]
        if first is None or first in aside or node in attention.nodes:
            continue
        if node.op_type == "Relu" and only_feeds(first, "Relu"):
            measured.pop(first, None)
            _join(shared, first, result)
        elif node.op_type == "MaxPool" or node.op_type in PASS_THROUGH:
            _join(shared, first, result)
        elif node.op_type == "Add" and all(value in measured for value in node.inputs):
            for value in node.inputs[1:]:
                assert value is not None  # it is measured
                _join(shared, first, value)
    largest: dict[ir.Value, float] = {}
    for value, magnitude in measured.items():
        root = _root(shared, value)
        largest[root] = max(largest.get(root, 0.0), magnitude)
    found = ((value.name, largest.get(_root(shared, value))) for value in _values(graph) if value not in aside)
    return {name: TensorRange(-magnitude, magnitude) for name, magnitude in found if name and magnitude is not None}


def float_layers(model: Path, recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the convolutions and products that stay in float in a model built with a cache of ours.

    They are those that read or return a tensor without a range; which these are, the graph alone says.

    Raises:
        ModelError: it cannot be read.
    """
    graph = load_graph(model).graph
    any_range = TensorRange(-1.0, 1.0)
    ranged = implicit_ranges(graph, {value.name: any_range for value in activations(graph) if value.name}, recipe)
    return tuple(
        node.name
        for node in graph
        if node.name and has_weights(node) and not all(one and one.name in ranged for one in (node.inputs[0], *node.outputs))
    )


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _root(shared: dict[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    while value in shared:
        value = shared[value]
    return value


def _join(shared: dict[ir.Value, ir.Value], first: ir.Value, second: ir.Value) -> None:
    """Let two tensors, and whatever shares their ranges, share one."""
    one, other = _root(shared, first), _root(shared, second)
    if one is not other:
        shared[one] = other


def write_cache(ranges: Mapping[str, TensorRange], path: Path, tensorrt_version: str) -> None:
    """Write a calibration cache; TensorRT reads it back with any calibrator whose cache this is.

    A name may hold colons and spaces: the hex is what follows the last colon. A tensor that is always zero gets scale 1. TensorRT
    ("8.6.1" or "8601") refuses a cache of another version.

    Raises:
        InputError: the version is none, a name is empty, has a line break or is not ASCII, or a range is not finite.
        OutputError: it cannot be written.
    """
    lines = [f"TRT-{cache_version(tensorrt_version)}-EntropyCalibration2"]
    for name, values in ranges.items():
        if not name or not name.isascii() or not name.isprintable():
            raise InputError(f"tensor {name!r}: not a name a TensorRT cache can hold", "rename it in the model: printable ASCII")
        if not np.isfinite(values.magnitude):
            raise InputError(f"tensor {name}: its range is not finite", "calibrate again")
        scale = activation_params(values, symmetric=True).scale
        lines.append(f"{name}: {np.array(scale, '>f4').tobytes().hex():0>8}")
    write_text(path, "\n".join(lines) + "\n")


def cache_version(text: str) -> str:
    """Return a version as TensorRT writes it into a cache's header: major, minor and patch by digits.

    The text is "8.6.1", "10.3.0.30" or "8601"; also "10.3", because 10.1 to 10.12 had no patches.

    Raises:
        InputError: it is no version, misses its patch, or is one that takes no calibration cache.
    """
    if re.fullmatch(r"\d{3,6}", text):
        return text
    parts = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2})(?:\.\d+)*)?", text)
    if parts is None:
        raise InputError(f"TensorRT version '{text}' is none", "write it as 8.6.1")
    major, minor = int(parts[1]), int(parts[2])
    if major >= 11:
        raise InputError(f"TensorRT {text} takes no calibration cache", "build from the Q/DQ model instead")
    if parts[3] is None and not (major == 10 and 1 <= minor <= 12):
        raise InputError(f"TensorRT version '{text}' lacks its third number, which a cache must name", "write it as 8.6.1")
    # NV_TENSORRT_VERSION: thousands and hundreds until 9, ten-thousands and hundreds from 10 on.
    return str(major * (10000 if major >= 10 else 1000) + minor * 100 + int(parts[3] or 0))
