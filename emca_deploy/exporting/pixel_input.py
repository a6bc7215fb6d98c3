"""Puts preprocessing into a graph: its input becomes plain pixels, and the first layers do the rest where that is exact.

A network reads (pixel - offset) * factor in each channel, with offset = scale * mean and factor = 1 / (scale * std). A
convolution takes the factor and the order of channels into its weights. It takes the offset into its bias only where it adds no
zeros at the border: these stand for the mean of the images, and would then be black.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float64Array
from emca_deploy.canonical.batch import image_value_of
from emca_deploy.canonical.edit import constant_of, ints_of, new_constant, set_constant
from emca_deploy.preprocessing import Preprocessing

__all__ = ["PixelInput", "take_pixels"]

NHWC_TO_NCHW = [0, 3, 1, 2]
COPYING = ("reflect", "edge", "wrap")
"""Modes of Pad that fill the border with pixels of the image."""

ROUNDING = 1e-5
"""Largest difference of filled pixels between channels, in units of a pixel, that counts as rounding."""

FLOAT, UINT8 = ir.DataType.FLOAT, ir.DataType.UINT8


@dataclass(frozen=True)
class PixelInput:
    """How a graph computes its preprocessing.

    Attributes:
        form: one of `INPUT_FORMS`.
        folded: parts in the weights and biases of the first layers: "channels", "scale" (with the standard deviation), "mean".
        nodes: operators that compute the rest, in order.
    """

    form: str
    folded: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


def take_pixels(model: ir.Model, form: str, used: Preprocessing, *, fold_mean: bool = True) -> PixelInput:
    """Let a graph with the input (N, C, H, W), preprocessed as `used`, take pixels of 0 to 255 in RGB or gray; in place.

    The input keeps its name. With `fold_mean` False, the mean is subtracted from the pixels in any case.
    """
    graph = model.graph
    work = _Work(image_value_of(graph), form, used)
    if used.channels == "bgr":
        work.order()
    if work.offset.any():
        work.centre(fold=fold_mean)
    if (work.factor != 1).any():
        work.scale()
    if work.folded:
        for layer in work.layers:
            layer.fold(graph, work.factor, work.in_bias)
    work.chain.insert(graph)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return PixelInput(form, tuple(work.folded), work.chain.operators)


class _Work:
    """The steps from pixels to what a network reads, each in the weights of its first layers or in a node before them.

    Attributes:
        offset: what is subtracted from each channel, in the order of the weights.
        factor: what the difference is multiplied by.
        in_bias: what the biases subtract.
        layers: first layers that can take a step; none where one of them cannot.
    """

    def __init__(self, network: ir.Value, form: str, used: Preprocessing) -> None:
        self.chain, self.folded = _Chain(network, form), list[str]()
        self.offset: Float64Array = used.scale * np.array(used.mean, np.float64)
        self.factor: Float64Array = 1 / (used.scale * np.array(used.std, np.float64))
        self.in_bias = np.zeros_like(self.offset)
        layers = _first_layers(network)
        self.layers = layers if all(layer.filling(self.factor) is not None for layer in layers) else []

    def order(self) -> None:
        """Reverse the order of channels."""
        if self.layers and all(layer.groups == 1 for layer in self.layers):
            self.folded.append("channels")
            self.offset, self.factor = self.offset[::-1], self.factor[::-1]
            for layer in self.layers:
                layer.weight = layer.weight[:, ::-1]
        else:
            self.chain.pick((2, 1, 0))

    def centre(self, *, fold: bool) -> None:
        """Subtract the offset."""
        if fold and self.layers and all(layer.takes_mean(self.factor, self.offset) for layer in self.layers):
            self.folded.append("mean")
            self.in_bias = self.offset
        else:
            self.chain.add("Sub", self.chain.by_channel(self.offset))

    def scale(self) -> None:
        """Multiply by the factor."""
        if self.layers:
            self.folded.append("scale")
        else:
            self.chain.add("Mul", self.chain.by_channel(self.factor))


class _Chain:
    """The nodes from the new input to what the network reads; they compute in float32."""

    def __init__(self, network: ir.Value, form: str) -> None:
        dtype, layout = form.split("-")
        self._network, self._type = network, ir.TensorType(UINT8 if dtype == "uint8" else FLOAT)
        sizes = list(network.shape or ())
        self._shape = ir.Shape([sizes[0], *sizes[2:], sizes[1]] if layout == "nhwc" else sizes)
        self._steps: list[tuple[str, Any, Mapping[str, Any]]] = []
        self._channels_last = layout == "nhwc"
        if dtype == "uint8":
            self.add("Cast", None, {"to": FLOAT.value})

    @property
    def operators(self) -> tuple[str, ...]:
        return tuple(operator for operator, *_ in self._steps)

    def add(self, operator: str, constant: Any, attributes: Mapping[str, Any] | None = None) -> None:
        """Append a node that reads the tensor before and a constant, if any."""
        self._steps.append((operator, constant, attributes or {}))

    def by_channel(self, values: Float64Array) -> Any:
        """Return values for each channel, (C,), as a constant that broadcasts: (C, 1, 1), or (width, C) if channels are last.

        ONNX Runtime broadcasts three numbers to every pixel slowly, and whole rows quickly.
        """
        if not self._channels_last:
            return values.reshape(-1, 1, 1).astype(np.float32)
        width = self._shape[2]
        return np.tile(values, (width if isinstance(width, int) else 1, 1)).astype(np.float32)

    def pick(self, channels: Sequence[int]) -> None:
        """Append a choice of channels."""
        self.add("Gather", np.array(channels, np.int64), {"axis": 3 if self._channels_last else 1})

    def insert(self, graph: ir.Graph) -> None:
        """Put the nodes in front of the network.

        OpenVINO keeps (N, H, W, C) from the input to the convolution if the Transpose comes after arithmetic.
        """
        network, name = self._network, str(self._network.name)
        if self._channels_last:
            place = 0 if self.operators == ("Cast",) else len(self._steps)  # integers are quicker to move
            self._steps.insert(place, ("Transpose", None, {"perm": NHWC_TO_NCHW}))
        if network.dtype is not None and network.dtype != FLOAT:
            self.add("Cast", None, {"to": network.dtype.value})
        if not self._steps:
            return
        network.name = f"{name}/unread"
        value = given = ir.Value(name=name, type=self._type, shape=self._shape)
        nodes: list[ir.Node] = []
        for operator, constant, attributes in self._steps:
            label = f"{name}/{operator.lower()}"
            label += "_back" * any(node.name == label for node in nodes)
            others = [] if constant is None else [new_constant(graph, f"{label}.by", constant)]
            node = ir.node(operator, [value, *others], dict(attributes), name=label)
            result = node.outputs[0]
            result.name, result.shape = label, network.shape if operator == "Transpose" else value.shape
            result.type = ir.TensorType(ir.DataType(attributes["to"])) if operator == "Cast" else value.type
            nodes.append(node)
            value = result
        graph.insert_before(graph[0], nodes)
        ir.convenience.replace_all_uses_with(network, value)
        graph.inputs[graph.inputs.index(network)] = given


class _Layer:
    """A convolution that reads the network's input, and the Pad in between, if any."""

    def __init__(self, conv: ir.Node, pad: ir.Node | None, weight: Float64Array) -> None:
        self.conv, self.pad, self.weight = conv, pad, weight
        self.groups = conv.attributes.get_int("group", 1)

    def filling(self, factor: Float64Array, offset: Float64Array | float = 0.0) -> float | None:
        """Return the filled pixels of a Pad where the network's input is (x - offset) * factor; None where channels differ."""
        constant = constant_of(self.pad.inputs[2]) if self.pad is not None and len(self.pad.inputs) > 2 else None
        values = (0.0 if constant is None else float(constant.ravel()[0])) / factor + offset
        return None if self._fills and np.ptp(values) > ROUNDING else float(values.mean())

    @property
    def _fills(self) -> bool:
        return self.pad is not None and self.pad.attributes.get_string("mode", "constant") not in COPYING

    def takes_mean(self, factor: Float64Array, offset: Float64Array) -> bool:
        """Return whether the offset can be in the bias: the layer itself pads nothing, and a Pad can carry the mean."""
        automatic = self.conv.attributes.get_string("auto_pad", "NOTSET")
        pads = automatic not in ("NOTSET", "VALID") or (automatic == "NOTSET" and any(ints_of(self.conv, "pads", [])))
        return not pads and self.filling(factor, offset) is not None

    def fold(self, graph: ir.Graph, factor: Float64Array, offset: Float64Array) -> None:
        """Let the layer read pixels, from which nothing has been subtracted but what is not in `offset`."""
        conv, pad = self.conv, self.pad
        weight = self.weight * self._by_weight(factor)
        if offset.any():
            bias = constant_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
            shift = (weight * self._by_weight(offset)).reshape(len(weight), -1).sum(1)
            new = (0.0 if bias is None else bias.astype(np.float64)) - shift
            set_constant(graph, conv, 2, f"{conv.name}.bias", new.astype(np.float32))
        set_constant(graph, conv, 1, f"{conv.name}.weight", weight.astype(np.float32))
        if pad is not None and self._fills:
            set_constant(graph, pad, 2, f"{pad.name}.filling", np.array(self.filling(factor, offset), np.float32))

    def _by_weight(self, values: Float64Array) -> Float64Array:
        """Return values for each input channel, (C,), as (outputs, inputs of a group, 1, 1), to multiply the weights with."""
        outputs, inputs = self.weight.shape[:2]
        rows = np.repeat(values.reshape(self.groups, inputs), outputs // self.groups, axis=0)
        return rows.reshape(outputs, inputs, 1, 1)


def _first_layers(network: ir.Value) -> list[_Layer]:
    """Return the convolutions that read the network's input; none where anything else reads it."""
    found: list[_Layer] = []
    for node, pad in _readers(network, None):
        weight = constant_of(node.inputs[1]) if node.op_type == "Conv" else None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if weight is None or weight.dtype != np.float32 or weight.ndim != 4 or (bias is not None and constant_of(bias) is None):
            return []
        found.append(_Layer(node, pad, weight.astype(np.float64)))
    return [] if network.is_graph_output() else found


def _readers(value: ir.Value, pad: ir.Node | None) -> Sequence[tuple[ir.Node, ir.Node | None]]:
    """Return the nodes that read a tensor, directly or through one Pad of its height and width."""
    found: list[tuple[ir.Node, ir.Node | None]] = []
    for use in value.uses():
        node = use.node
        result = node.outputs[0]
        if node.op_type == "Pad" and pad is None and use.idx == 0 and _pads_sides_only(node) and not result.is_graph_output():
            found += _readers(result, node)
        else:
            found.append((node, pad))
    return found


def _pads_sides_only(node: ir.Node) -> bool:
    """Return whether a Pad has constant sizes, and none for images or channels."""
    pads = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    computed = any(value is not None and constant_of(value) is None for value in node.inputs[1:])
    if pads is None or computed:
        return False
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    places = [0, 1, 2, 3] if axes is None else [int(axis) % 4 for axis in axes]
    return all(not size or place > 1 for size, place in zip(pads, [*places, *places], strict=True))
