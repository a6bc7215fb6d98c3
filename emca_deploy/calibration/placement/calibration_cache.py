"""TensorRT's calibration cache for implicit INT8, which TensorRT up to 10 reads; a DLA takes nothing else.

It is a text file: a header `TRT-<version>-EntropyCalibration2`, then one line `tensor: hex` for each tensor, where hex is the
big-endian single-precision pattern of the tensor's scale, amax / 127.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from emca_deploy.artifacts import write_text
from emca_deploy.calibration.graphs.attention_path import find_attention, pooling_steps
from emca_deploy.calibration.graphs.graph import all_values, has_weights, load_graph, only_feeds
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
    """Write the calibration cache of an fp32 model from its range table, and return the number of tensors in it.

    Raises:
        InputError: the version is not valid or takes no cache, or the table is damaged.
        ModelError: the model cannot be read.
        OutputError: the cache cannot be written.
    """
    ranges = implicit_ranges(load_graph(model, output_name=output_name).graph, read_table(table).ranges, recipe)
    write_cache(ranges, cache, tensorrt_version)
    return len(ranges)


def implicit_ranges(graph: ir.Graph, ranges: Mapping[str, TensorRange], recipe: Recipe) -> dict[str, TensorRange]:
    """Return the ranges with which TensorRT and a DLA compute in INT8 what the recipe for TensorRT quantizes.

    Without Q/DQ a layer computes in INT8 where everything it reads and returns has a range. Tensors that stay in float get none:
    the attention path, and inputs of convolutions in float. A ReLU's input has the range of its output. A DLA needs one range
    before and after a pooling and for both operands of an Add: the larger one.
    """
    attention = find_attention(graph)
    steps = {step for pool in attention.pools for step in pooling_steps(pool)}  # a mean in steps is not rounded in between
    aside = {value for node in attention.nodes | attention.pools | steps for value in node.outputs}
    edges = place(graph, recipe).edges
    aside |= {node.inputs[0] for node in graph if has_weights(node) and node.inputs[0] and node.inputs[0] not in edges}
    measured = {
        value: ranges[value.name].magnitude
        for value in all_values(graph)
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
    found = ((value.name, largest.get(_root(shared, value))) for value in all_values(graph) if value not in aside)
    return {name: TensorRange(-magnitude, magnitude) for name, magnitude in found if name and magnitude is not None}


def float_layers(model: Path, recipe: Recipe) -> tuple[str, ...]:
    """Return the names of convolutions and products that stay in float in a model built with a cache from `write_model_cache`.

    These read or return a tensor without a range, whatever the ranges' values.

    Raises:
        ModelError: the model cannot be read.
    """
    graph = load_graph(model).graph
    any_range = TensorRange(-1.0, 1.0)
    ranged = implicit_ranges(graph, {value.name: any_range for value in all_values(graph) if value.name}, recipe)
    return tuple(
        node.name
        for node in graph
        if node.name and has_weights(node) and not all(one and one.name in ranged for one in (node.inputs[0], *node.outputs))
    )


def _root(shared: dict[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    while value in shared:
        value = shared[value]
    return value


def _join(shared: dict[ir.Value, ir.Value], first: ir.Value, second: ir.Value) -> None:
    """Let two tensors, and all that share their ranges, share one range."""
    one, other = _root(shared, first), _root(shared, second)
    if one is not other:
        shared[one] = other


def write_cache(ranges: Mapping[str, TensorRange], path: Path, tensorrt_version: str) -> None:
    """Write a calibration cache for a version of TensorRT, "8.6.1" or "8601", which refuses a cache of another version.

    A name may contain colons and spaces: the hex follows the last colon. A tensor that is always zero gets scale 1.

    Raises:
        InputError: the version is not valid, a name is empty or not printable ASCII, or a range is not finite.
        OutputError: the cache cannot be written.
    """
    lines = [f"TRT-{cache_version(tensorrt_version)}-EntropyCalibration2"]
    for name, values in ranges.items():
        if not name or not name.isascii() or not name.isprintable():
            raise InputError(f"tensor {name!r}: a TensorRT cache cannot hold this name", "rename it in printable ASCII")
        if not np.isfinite(values.magnitude):
            raise InputError(f"tensor {name}: its range is not finite", "calibrate again")
        scale = activation_params(values, symmetric=True).scale
        lines.append(f"{name}: {np.array(scale, '>f4').tobytes().hex():0>8}")
    write_text(path, "\n".join(lines) + "\n")


def cache_version(text: str) -> str:
    """Return a version as TensorRT writes it in a cache's header: the digits of major, minor and patch.

    The text is "8.6.1", "10.3.0.30" or "8601"; also "10.3", because 10.1 to 10.12 had no patches.

    Raises:
        InputError: it is no version, lacks its patch, or takes no calibration cache.
    """
    if re.fullmatch(r"\d{3,6}", text):
        return text
    parts = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2})(?:\.\d+)*)?", text)
    if parts is None:
        raise InputError(f"TensorRT version '{text}' is not valid", "write it as 8.6.1")
    major, minor = int(parts[1]), int(parts[2])
    if major >= 11:
        raise InputError(f"TensorRT {text} takes no calibration cache", "build from the Q/DQ model instead")
    if parts[3] is None and not (major == 10 and 1 <= minor <= 12):
        raise InputError(f"TensorRT version '{text}' lacks its third number, which a cache needs", "write it as 8.6.1")
    # NV_TENSORRT_VERSION: major times 1000 until 9, times 10000 from 10 on.
    return str(major * (10000 if major >= 10 else 1000) + minor * 100 + int(parts[3] or 0))
