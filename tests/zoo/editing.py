"""Helpers for rewrites of the zoo: a registry and an editable model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Apply = Callable[[onnx.ModelProto, np.random.Generator], onnx.ModelProto]
FAR_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Rewrite:
    """A rewrite and its effect on the file's input and weights.

    Attributes:
        apply: Function that returns the rewritten model.
        pixels: Largest pixel value of its input; None if it takes normalised images like the network.
        sidecar: Whether the weights are in a file next to the model.
        half: True if weights are rounded to float16, which changes them by more than rounding errors of float32.
    """

    apply: Apply
    pixels: float | None = None
    sidecar: bool = False
    half: bool = False


MEAN = np.array([0.4, 0.5, 0.6], np.float32)
STD = np.array([0.2, 0.25, 0.3], np.float32)

REWRITES: dict[str, Rewrite] = {}


def rewrite(**facts: Any) -> Callable[[Apply], Apply]:
    def register(apply: Apply) -> Apply:
        REWRITES[apply.__name__] = Rewrite(apply, **facts)
        return apply

    return register


class Edit:
    """An editable copy of a model's nodes and constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.nodes = list(self.graph.node)
        self.inner: set[str] = set()  # tensors that branches read

    def constant(self, name: str, array: Any) -> str:
        self.arrays[name] = np.asarray(array)
        return name

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def swap(self, node: onnx.NodeProto, *others: onnx.NodeProto) -> None:
        at = next(i for i, own in enumerate(self.nodes) if own is node)
        self.nodes[at : at + 1] = others

    def done(self) -> onnx.ModelProto:
        """Return the model with newly inferred shapes and without unused constants."""
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | self.inner
        self.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in self.arrays.items() if name in used)
        return self.model


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def set_attributes(node: onnx.NodeProto, **attributes: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(
        [*kept, *(helper.make_attribute(name, value) for name, value in attributes.items() if value is not None)]
    )


def of_type(edit: Edit, *op_types: str) -> list[onnx.NodeProto]:
    return [node for node in edit.nodes if node.op_type in op_types]
