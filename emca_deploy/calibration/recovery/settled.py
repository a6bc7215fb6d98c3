"""Measuring a network that changes layer by layer, from the input on, without running its settled part again.

Everything before the first layer that is still to change is settled. The few tensors that cross from it into the rest are kept
for each batch of images, and the next measurement begins with them. Each layer then runs about twice, instead of once for every
layer after it. Where possible the tensors are kept as integers, one byte for each value.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.calibration.graphs.graph_session import (
    GraphSession,
    branches_of,
    find_values,
    image_means,
    in_order,
    leave,
    leave_mean,
    pool_size,
)
from emca_deploy.calibration.graphs.regions import Feed
from emca_deploy.canonical.edit import producer_of

__all__ = ["HELD_BYTES", "SettlingMeans", "crossing_values"]

HELD_BYTES = 2 * 2**20
"""Most bytes that are kept of an image: 200 MiB for a hundred. Where more crosses, as between large maps, the next measurement
begins where this one did."""


class SettlingMeans:
    """Channel means of successive states of one network, each with a larger settled part.

    `feeds` are the network's inputs for batches of images, and `counts` their numbers of images: a fixed batch is filled up.
    """

    def __init__(self, feeds: Sequence[Feed], counts: Sequence[int], threads: int) -> None:
        self._held, self._counts, self._threads = list(feeds), counts, threads
        self._sizes = [len(next(iter(feed.values()))) for feed in feeds]

    def measure(self, model: ir.Model, name: str, to_change: Set[str]) -> Float64Array:
        """Return the mean of each channel of a tensor over the pixels of each image, (N, C).

        The model is the network's present state. It differs from earlier states only in nodes that earlier calls' `to_change`
        named; `to_change` names the nodes that may still change after this call.

        Raises:
            ModelError: ONNX Runtime refuses the graph or the images.
        """
        crossing = crossing_values(model.graph, to_change)
        workers, threads_each = pool_size(self._threads)
        session = GraphSession(_between(model, self._held[0], name, crossing), threads_each)

        def run(held: Feed) -> list[Any]:
            return session.run({entry: held[entry] for entry in session.inputs})

        means: list[Float32Array] = []
        hold = True
        for number, (mean, *outputs) in enumerate(in_order(run, list(self._held), workers)):
            count = self._counts[number]
            means.append(image_means(mean, self._sizes[number])[:count])
            crossed = dict(zip((str(value.name) for value in crossing), outputs, strict=True))
            if number == 0:
                hold = bool(crossed) and sum(array.nbytes for array in crossed.values()) <= HELD_BYTES * count
            if hold:
                self._held[number] = crossed
        return np.concatenate(means).astype(np.float64)


def _between(model: ir.Model, held: Feed, name: str, crossing: Sequence[ir.Value]) -> ir.Model:
    """Return the part of a network from held tensors on that computes the channels' means of a tensor, and what crosses.

    Only this part is copied: a copy of the whole network for each layer would take longer than its measurements.
    """
    graph = model.graph
    wanted = [find_values(graph, [name])[0], *crossing]
    part = ir.convenience.extract(graph, find_values(graph, list(held)), wanted)
    part.meta.update(graph.meta)
    own = {value.name for value in graph.inputs}
    for entry in part.inputs:
        if entry.name in own:
            continue
        array = held[str(entry.name)]
        entry.shape = ir.Shape([None, *array.shape[1:]] if array.ndim else [])
        entry.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    found, *rest = list(part.outputs)
    part.outputs.clear()
    part.outputs.extend([leave_mean(part, found), *(leave(part, value) for value in rest)])
    return ir.Model(part, ir_version=model.ir_version)


def crossing_values(graph: ir.Graph, to_change: Set[str]) -> list[ir.Value]:
    """Return the settled tensors that unsettled nodes read.

    The graph's nodes are in the order they run. The nodes that `to_change` names and all that depend on them are unsettled.
    """
    constants = set(graph.initializers.values())
    varying = {value for value in graph.inputs if value not in constants}
    settled = set(varying)
    crossing: dict[ir.Value, None] = {}
    for node in graph:
        reads = [value for value in _reads(node) if value in varying]
        if not reads:
            continue  # computed from constants, as a part of its readers
        varying.update(node.outputs)
        if str(node.name) not in to_change and settled.issuperset(reads):
            settled.update(node.outputs)
        else:
            crossing.update(dict.fromkeys(_as_integers(value) for value in reads if value in settled))
    return list(crossing)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the tensors that a node and the branches of an If read."""
    yield from (value for value in node.inputs if value is not None)
    for branch in branches_of(node):
        yield from branch.outputs
        for inner in branch:
            yield from _reads(inner)


def _as_integers(value: ir.Value) -> ir.Value:
    """Return the integers of a dequantized tensor; another tensor itself."""
    dequantize = producer_of(value, "DequantizeLinear")
    integers = dequantize.inputs[0] if dequantize is not None else None
    return value if integers is None else integers
