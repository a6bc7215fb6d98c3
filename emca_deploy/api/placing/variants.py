"""INT8 models of one network with different placements, and how near their logits are to fp32's on their own backend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.placement.choices import Rewrite, chosen_recipe, open_choices, region_heights
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.placement.quantize import QuantizedWeight
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.results.tuning import Tunable, Value
from emca_deploy.tasks.logits import LogitsNoise

__all__ = ["Fidelity", "Variants"]

Structure = tuple[tuple[str, ...], ...]
"""Operators of a graph, each with the names of what it reads and returns: equal for placements that a runtime runs alike."""


@dataclass(frozen=True)
class Variants:
    """The INT8 models that choices make of one float model.

    Attributes:
        rewrites: Rewrites that may be tried, those of all backends.
        weights: Integers and scales of each layer's weights by node name.
    """

    model: ir.Model
    recipe: Recipe
    rewrites: tuple[Rewrite, ...]
    keep_float: tuple[str, ...]
    ranges: Mapping[str, TensorRange]
    weights: Mapping[str, QuantizedWeight]

    def quantized(self, values: Mapping[str, Value]) -> ir.Model:
        """Return the INT8 model with choices."""
        recipe = chosen_recipe(self.recipe, self.rewrites, values)
        variant = self.model.clone()
        insert_qdq(variant, place(variant.graph, recipe, self.keep_float), self.ranges, self.weights)
        for rewrite in recipe.rewrites:
            rewrite(variant.graph)
        return variant

    def write(self, values: Mapping[str, Value], path: Path) -> None:
        """Write the INT8 model with choices to a file."""
        ir.save(self.quantized(values), path)

    def space(self) -> tuple[Tunable, ...]:
        """Return the choices that change this network's INT8 model, without those that another one repeats."""
        seen = {_structure(self.quantized({}))}
        found = []
        for tunable in open_choices(self.recipe, self.rewrites, region_heights(self.model.graph)):
            others = []
            for value in tunable.others:
                structure = _structure(self.quantized({tunable.name: value}))
                if structure not in seen:
                    seen.add(structure)
                    others.append(value)
            if others:
                found.append(Tunable(tunable.name, tunable.default, tuple(others)))
        return tuple(found)


def _structure(model: ir.Model) -> Structure:
    return tuple((node.op_type, *(_name(value) for value in (*node.inputs, *node.outputs))) for node in model.graph)


def _name(value: ir.Value | None) -> str:
    """Return a tensor's name, with the type of a zero point, which tells int8 from uint8."""
    if value is None:
        return ""
    return f"{value.name}:{value.const_value.dtype}" if value.const_value is not None else str(value.name)


@dataclass
class Fidelity:
    """The signal-to-noise ratio of INT8 models' logits, as their own backend computes them.

    Attributes:
        logits_of: Function that returns the logits (N, classes) of an .onnx file on the backend, for the same N images.
        model: The fp32 file.
        write: Function that writes the INT8 model of some choices to a file.
        file: File for an INT8 model, overwritten each time.
    """

    logits_of: Callable[[Path], Float32Array]
    model: Path
    write: Callable[[Mapping[str, Value], Path], None]
    file: Path
    _reference: Float32Array | None = None
    _known: dict[tuple[tuple[str, Value], ...], float] = field(default_factory=dict)

    def sqnr_db(self, values: Mapping[str, Value]) -> float:
        """Return the mean over images of the ratio in dB for the INT8 model with some choices."""
        key = tuple(sorted(values.items()))
        if key not in self._known:
            if self._reference is None:
                self._reference = self.logits_of(self.model)
            self.write(values, self.file)
            self._known[key] = LogitsNoise.of(self._reference, self.logits_of(self.file)).typical_db
        return self._known[key]

    def lost_db(self, values: Mapping[str, Value]) -> float:
        """Return the decibels that some choices give up against none; negative where they gain some."""
        return self.sqnr_db({}) - self.sqnr_db(values)
