"""Which layers a calibration cache leaves in float, for builders that are told so by name."""

from pathlib import Path

from emca_deploy.calibration.graphs.graph import activations, has_weights, load_graph
from emca_deploy.calibration.placement.calibration_cache import implicit_ranges
from emca_deploy.calibration.ranges.observers import TensorRange

__all__ = ["float_layers"]


def float_layers(model: Path) -> tuple[str, ...]:
    """Return the names of the convolutions and products that stay in float in a model built with a cache of ours.

    They are those that read or return a tensor without a range; which these are, the graph alone says.

    Args:
        model: fp32 ONNX.

    Raises:
        ModelError: it cannot be read.
    """
    graph = load_graph(model).graph
    any_range = TensorRange(-1.0, 1.0)
    ranged = implicit_ranges(graph, {value.name: any_range for value in activations(graph) if value.name})
    return tuple(
        node.name
        for node in graph
        if node.name and has_weights(node) and not all(one and one.name in ranged for one in (node.inputs[0], *node.outputs))
    )
