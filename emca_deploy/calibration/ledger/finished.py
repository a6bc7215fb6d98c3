"""A finished model, opened for the ledger, and the forms of it in which stages are left out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from emca_deploy.calibration.graphs.graph_session import prune
from emca_deploy.calibration.ledger.layers import Layer, match_layers, restore
from emca_deploy.calibration.ledger.pairs import Mode, Pair, find_pairs, give_back_relus, set_pairs
from emca_deploy.canonical.canonicalize import HALF, widen
from emca_deploy.canonical.clean import clean, name_nodes
from emca_deploy.canonical.marks import mark
from emca_deploy.canonical.shapes import infer_shapes
from emca_deploy.errors import InputError
from emca_deploy.onnx_file.file import OnnxFile

__all__ = ["Finished", "check_form"]

_INTEGER = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


@dataclass
class Finished:
    """A finished classifier: its graph, its layers beside the reference's, and the pairs that round its activations.

    Attributes:
        model: The graph as it runs.
        layers: Layers that the reference has too, by name.
        pairs: Q/DQ pairs of activations by the name of their integers.
        foreign_biases: Layers whose other bias makes the logits worse, so that it is no compensation for rounding.
    """

    model: ir.Model
    layers: Mapping[str, Layer]
    pairs: Mapping[str, Pair]
    foreign_biases: frozenset[str] = frozenset()

    @classmethod
    def open(cls, path: Path, reference: ir.Graph, output_name: str | None) -> "Finished":
        """Open an .onnx file beside the canonical graph of its reference.

        Raises:
            InputError: it is no Q/DQ or float classifier in ONNX.
            ModelError: it is damaged.
        """
        check_form(path)
        file = OnnxFile.open(path)
        model = file.load()
        clean(model)
        name_nodes(model)
        mark(model.graph, path, "classification", file.find_logits(output_name).tensor, file.image.layout)
        infer_shapes(model)
        give_back_relus(model.graph, reference)
        return cls(model, match_layers(reference, model.graph), find_pairs(model.graph))

    @property
    def has_half(self) -> bool:
        """Whether a part of it computes in float16."""
        graph = self.model.graph
        casts = any(node.op_type == "Cast" and node.attributes.get_int("to", 0) == HALF.value for node in graph)
        return casts or any(value.dtype == HALF for value in graph.initializers.values())

    def form(
        self,
        mode: Mode,
        *,
        rounded: Collection[str] | None = None,
        alone: Mapping[str, Mode] | None = None,
        half: bool = True,
    ) -> ir.Model:
        """Return the graph with the reference's biases, and pairs in a mode.

        `rounded` are the layers that keep their rounded weights, None for all; `alone` has the modes of single pairs by name;
        without `half`, float16 parts compute in float32. Foreign biases stay.
        """
        model = self.model.clone()
        if not half:
            widen(model)
        weights = frozenset() if rounded is None else self.layers.keys() - frozenset(rounded)
        restore(model.graph, self.layers, weights, self.layers.keys() - self.foreign_biases)
        set_pairs(model.graph, mode, alone)
        prune(model)
        return model

    def with_bias_of_reference(self, name: str) -> ir.Model:
        """Return the graph as it runs with the reference's bias in one layer."""
        model = self.model.clone()
        restore(model.graph, self.layers, frozenset(), {name})
        return model


def check_form(path: Path) -> None:
    """Refuse a file whose stages cannot be left out one by one.

    Raises:
        InputError: it is no .onnx file, or has operators that compute in integers.
        ModelError: it is damaged.
    """
    if path.suffix.lower() != ".onnx":
        remedy = "name the .onnx file that it was built from, as BACKEND=FILE.onnx"
        raise InputError(f"{path}: --explain takes the graph of an ONNX file apart", remedy)
    whole = next((node.op_type for node in OnnxFile.open(path).graph.node if node.op_type.startswith(_INTEGER)), None)
    if whole is not None:
        problem = f"{path}: has the operator {whole}, in which rounding cannot be left out"
        raise InputError(problem, "quantize in Q/DQ form (quant_format=QuantFormat.QDQ)")
