"""Measuring a network that is changed layer by layer, from the input on, without running again what will not change any more.

Before the first layer that is still to change all is settled: the few tensors that cross from there into the rest are held for
each batch of images, and the next measurement begins with them. Each layer is run about twice so, instead of once for every
layer after it. What is held lies between QuantizeLinear and DequantizeLinear where it can, a byte a value.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.calibration.graphs.graph_session import (
    feed_of,
    find_values,
    leave,
    leave_mean,
    open_graph,
    prune,
    run_session,
)
from emca_deploy.canonical.marks import label_of

__all__ = ["HELD_BYTES", "SettlingMeans", "crossing_values"]

HELD_BYTES = 2 * 2**20
"""Of an image, at most: 200 MiB for a hundred. Where more crosses, as early in a network of large maps, the last place at which
less did is begun with again."""


class SettlingMeans:
    """Channel means of successive states of one network, in each of which more of it is settled.

    Images are batches of (N, 3, H, W) float32, of the network's own size where it has one; the last may be smaller.
    """

    def __init__(self, images: Sequence[Float32Array], threads: int) -> None:
        self._images, self._threads = images, threads
        self._held: list[dict[str, npt.NDArray[Any]]] = []

    def measure(self, model: ir.Model, names: Sequence[str], to_change: Set[str]) -> dict[str, Float64Array]:
        """Return the mean of each channel of tensors over the pixels of each image, (N, C), by tensor.

        The model, the network as it is now, is changed. It differs from those of earlier calls only in layers that their
        `to_change` named; this call's names the nodes that later calls may find changed.

        Raises:
            ModelError: ONNX Runtime refuses the graph, or these images.
        """
        graph = model.graph
        if not self._held:
            self._held = [feed_of(graph, batch) for batch in self._images]
        _enter(graph, self._held[0])
        crossing = crossing_values(graph, to_change)
        found = find_values(graph, names)
        graph.outputs.clear()
        graph.outputs.extend(chain((leave_mean(graph, value) for value in found), (leave(graph, value) for value in crossing)))
        prune(model)
        label = label_of(graph)
        session = open_graph(model, label, self._threads)
        entries = [entry.name for entry in session.get_inputs()]
        means: list[list[Float32Array]] = []
        hold = True
        for number, held in enumerate(self._held):
            count = len(self._images[number])
            outputs = run_session(session, {name: held[name] for name in entries}, label)
            means.append([output[:count] for output in outputs[: len(names)]])
            crossed = dict(zip(map(_name, crossing), outputs[len(names) :], strict=True))
            if number == 0:
                hold = bool(crossed) and sum(array.nbytes for array in crossed.values()) <= HELD_BYTES * count
            if hold:
                self._held[number] = crossed
        return {name: np.concatenate(rows).astype(np.float64) for name, rows in zip(names, zip(*means, strict=True), strict=True)}


def _name(value: ir.Value) -> str:
    return str(value.name)


def _enter(graph: ir.Graph, held: Mapping[str, npt.NDArray[Any]]) -> None:
    """Make tensors inputs of a graph, in place of what computes them."""
    for value in find_values(graph, list(held)):
        if value.is_graph_input():
            continue
        array = held[_name(value)]
        kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        entry = ir.Input(value.name, ir.Shape([None, *array.shape[1:]] if array.ndim else []), kind)
        value.name = f"{value.name}/computed"
        ir.convenience.replace_all_uses_with(value, entry)
        graph.inputs.append(entry)


def crossing_values(graph: ir.Graph, to_change: Set[str]) -> list[ir.Value]:
    """Return the tensors that are settled, and that something reads which is not: all of it that the rest depends on.

    The graph's nodes are in the order they run; `to_change` names those that may yet change, and what depends on them is not
    settled either.
    """
    constants = set(graph.initializers.values())
    varying = {value for value in graph.inputs if value not in constants}
    settled = set(varying)
    crossing: dict[ir.Value, None] = {}
    for node in graph:
        reads = [value for value in _reads(node) if value in varying]
        if not reads:
            continue  # made of constants: it is with whoever reads it
        varying.update(node.outputs)
        if str(node.name) not in to_change and settled.issuperset(reads):
            settled.update(node.outputs)
        else:
            crossing.update(dict.fromkeys(_as_integers(value) for value in reads if value in settled))
    return list(crossing)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what the branches of an If read from around it."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            branch = attribute.as_graph()
            yield from branch.outputs
            for inner in branch:
                yield from _reads(inner)


def _as_integers(value: ir.Value) -> ir.Value:
    """Return the integers that a tensor is dequantized from; itself where it is not."""
    producer = value.producer()
    integers = producer.inputs[0] if producer is not None and producer.op_type == "DequantizeLinear" else None
    return value if integers is None else integers
