"""Conversion between this package's images and logits and a model's own input and output.

Everywhere else images are (N, C, H, W) float32 and logits (N, classes) float32. A model may take uint8 or float16, channels last,
and any height and width, and return (N, classes, 1, 1), float16 or several outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import ModelIo, check_batch, shape_fits, shape_text
from emca_deploy.errors import InputError, ModelError
from emca_deploy.requests import TaskName
from emca_deploy.tasks.inputs import input_layout, native_images
from emca_deploy.tasks.outputs import choose_outputs

__all__ = ["Boundary", "graph_facts"]

INPUTS = ("float32", "float16", "uint8")


@dataclass(frozen=True)
class Boundary:
    """How to convert a batch and its logits.

    Attributes:
        native: The model's own input.
        input: The model's input as (N, C, H, W) float32.
        output: The model's output with the logits, as (N, classes) float32; a detector's scores, (N, D) float32.
        task: Task of the model.
        places: Positions of all outputs that are read among the model's, by name.
        channels_last: Whether the model takes (N, H, W, C).
        softmax: Whether the output holds probabilities.
    """

    native: TensorSpec
    input: TensorSpec
    output: TensorSpec
    task: TaskName
    places: Mapping[str, int]
    channels_last: bool
    softmax: bool

    @classmethod
    def of(cls, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], io: ModelIo) -> "Boundary":
        """Find the image input and the outputs to read among those that a runtime lists; `path` is for errors.

        Raises:
            ModelError: there is not exactly one image input, or neither one output with logits nor those of a detector.
            UnknownNameError: there is no output of the name asked for.
        """
        remedy = "use an image classifier: one input (N, C, H, W) or (N, H, W, C)"
        if len(inputs) != 1:
            names = ", ".join(spec.name for spec in inputs[:5])
            raise ModelError(f"{path}: has {len(inputs)} inputs ({names}), not one", remedy)
        native = inputs[0]
        if native.dtype not in INPUTS or len(native.shape) != 4:
            raise ModelError(f"{path}: input '{native.name}' is {native.dtype} {shape_text(native.shape)}", remedy)
        dims = [size if isinstance(size, int) else None for size in native.shape]
        channels_last = input_layout(dims, io.layout == "NHWC") == "NHWC" and io.layout != "NCHW"
        chosen = choose_outputs(path, outputs, io.output_name, io.logits)
        named = [output.name for output in outputs]
        places = {name: named.index(name) for name in chosen.names}
        output = TensorSpec(chosen.main.name, "float32", (chosen.main.shape + ("classes",) * 2)[:2])
        batch, *sizes = native.shape
        shape = (batch, sizes[2], *sizes[:2]) if channels_last else native.shape
        taken = TensorSpec(native.name, "float32", shape)
        return cls(native, taken, output, chosen.task, places, channels_last, io.softmax)

    def at(self, height: int, width: int) -> "Boundary":
        """Return the boundary of the model with a dynamic height and width fixed."""
        sizes = (*self.input.shape[:2], height, width)
        shape = tuple(b if isinstance(a, str) else a for a, b in zip(self.input.shape, sizes, strict=True))
        native = (shape[0], *shape[2:], shape[1]) if self.channels_last else shape
        return replace(self, input=replace(self.input, shape=shape), native=replace(self.native, shape=native))

    def overrides(self, path: Path, batch: int | None, image_size: tuple[int, int] | None) -> dict[str, int]:
        """Return sizes by the names of dynamic dimensions to fix; raise InputError where a fixed size is another one."""
        wanted = (batch, None, *(image_size or (None, None)))
        found: dict[str, int] = {}
        for index, (have, want) in enumerate(zip(self.input.shape, wanted, strict=True)):
            if want is None or have == want:
                continue
            if isinstance(have, str):
                if have != "?":
                    found[have] = want
            elif index == 0:
                raise InputError(f"{path}: its batch is fixed to {have}", f"use --batch {have}")
            else:
                sides = "x".join(str(size) for size in self.input.shape[2:])
                raise InputError(f"{path}: its image size is fixed to {sides}", f"use --image-size {sides}")
        return found

    @property
    def is_plain(self) -> bool:
        """Whether the model's own input is (N, C, H, W) float32."""
        return self.native.dtype == "float32" and not self.channels_last

    def to_native(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a batch in the model's own type and layout; one that has them already is returned unchanged.

        Values for uint8 are rounded and clipped to 0..255.

        Raises:
            InputError: the batch's shape or dtype does not fit.
        """
        if self.is_plain:
            check_batch(batch, self.input)
            return batch
        if batch.dtype == self.native.dtype and shape_fits(batch.shape, self.native.shape):
            return batch
        check_batch(batch, self.input)
        return native_images(batch, self.native.dtype, channels_last=self.channels_last)

    def to_logits(self, answer: npt.NDArray[Any]) -> Float32Array:
        """Return the model's output as (N, classes) float32; probabilities stay probabilities."""
        flat = answer.reshape(len(answer), -1) if answer.ndim != 2 else answer
        return flat if flat.dtype == np.float32 else flat.astype(np.float32)


def graph_facts(path: Path, io: ModelIo) -> ModelIo:
    """Return `io` with what only the ONNX graph shows: the layout, and a classifier's raw logits and Softmax at the end.

    An `io` with a layout, from an engine's manifest, is returned unchanged. On a machine without the onnx package the graph is
    not read, and only the shapes decide.

    Raises:
        ModelError: the file cannot be read.
        UnknownNameError: there is no output of the name asked for.
    """
    if io.layout is not None or find_spec("onnx") is None:
        return io
    from emca_deploy.onnx_file.file import OnnxFile

    file = OnnxFile.open(path)
    logits = file.classifier_logits(io.output_name)
    found = replace(io, layout=file.image.layout)
    return found if logits is None else replace(found, logits=logits.name, softmax=logits.softmax)
