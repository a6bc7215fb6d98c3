"""The two interfaces of a backend: a runner runs a model, a builder builds an engine from one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from emca_deploy._machine import CpuInfo
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Manifest, Precision, TensorSpec
from emca_deploy.errors import InputError, ModelError
from emca_deploy.requests import TaskName

__all__ = [
    "PRECISION_OF_HINT",
    "RUN_OPTIONS",
    "Builder",
    "Loadable",
    "ModelIo",
    "RunOptions",
    "Runner",
    "Situation",
    "check_batch",
    "check_logits",
    "named_shape",
    "refuse_precision",
    "shape_fits",
    "shape_text",
]

PRECISION_OF_HINT: dict[str, Precision] = {"bf16": "bf16", "f16": "fp16"}
"""Precision in results, by the value of `RunOptions.precision`; "f32" keeps the precision of the model."""

RUN_OPTIONS = ("threads", "spin", "precision")
"""Settings that are fields of `RunOptions`; all others are in `RunOptions.settings`."""

_Self = TypeVar("_Self", bound="Loadable")


@dataclass(frozen=True)
class ModelIo:
    """Facts about a model's input and output that its runtime does not list.

    Attributes:
        image_size: (height, width) in pixels that a dynamic input is fixed to; None leaves it dynamic.
        output_name: Output with the logits that the user names, if any.
        layout: "NCHW" or "NHWC"; None where the shape decides.
        logits: Output to take where several fit.
        softmax: Whether that output holds probabilities.
    """

    image_size: tuple[int, int] | None = None
    output_name: str | None = None
    layout: str | None = None
    logits: str | None = None
    softmax: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelIo":
        """Rebuild from JSON."""
        size = values.get("image_size")
        return cls(**{**values, "image_size": (int(size[0]), int(size[1])) if size else None})


@dataclass(frozen=True)
class RunOptions:
    """How a runner runs.

    Attributes:
        threads: Number of intra-operator threads; the runtimes' own defaults differ from machine to machine.
        precision: Compute precision of the float part: "f32", or "bf16" or "f16" where the runtime has it.
        batch: Size that a dynamic batch is fixed to; None leaves it dynamic.
        spin: Whether idle threads of the runtime may spin; off for interleaved measurements.
        settings: Other settings of the backend by name; this package's defaults hold for the rest.
        io: Facts about the model's input and output.
    """

    threads: int = 1
    precision: str = "f32"
    batch: int | None = None
    spin: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    io: ModelIo = field(default_factory=ModelIo)


@dataclass(frozen=True)
class Situation:
    """The facts that decide which settings are worth trying.

    Attributes:
        offline: Whether throughput counts, rather than the latency of a call.
        threads_default: Number of threads without tuning.
        threads_max: Largest number of threads to try.
        engine: Whether the graph is optimised already.
        precisions: Compute precisions other than "f32" that may be tried, although they change the logits.
    """

    cpu: CpuInfo
    offline: bool
    threads_default: int
    threads_max: int
    engine: bool = False
    precisions: tuple[str, ...] = ()


class Loadable(ABC):
    """A model that is loaded while its `with` block runs; the constructor loads nothing and touches no device."""

    @abstractmethod
    def open(self) -> None:
        """Load the model and set its attributes.

        Raises:
            InputError, ModelError, EngineError: the file is missing, damaged, or cannot run here.
            MissingError: the library, its driver or the device is missing or too old.
        """

    @abstractmethod
    def close(self) -> None:
        """Free everything; calling it twice is fine."""

    def __enter__(self: _Self) -> _Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Runner(Loadable):
    """A loaded model that runs batches.

    `infer` may reuse its output buffer: copy the result if it must outlive the next call.

    Attributes:
        input: Image batch as (N, C, H, W) float32, whatever the model's own layout and type are.
        output: Main output: a classifier's logits as (N, classes) float32, a detector's scores as (N, D) float32.
        softmax: Whether `infer` returns probabilities instead of logits.
        task: Task of the model.
    """

    input: TensorSpec
    output: TensorSpec
    softmax: bool = False
    task: TaskName = "classification"

    @abstractmethod
    def infer(self, batch: npt.NDArray[Any]) -> Float32Array:
        """Return the main output, (N, ...) float32, of a batch (N, C, H, W) float32, or of what `to_native` returns.

        Raises:
            InputError: the batch's shape or dtype does not fit the model, or it needs too much memory.
            ModelError: the runtime fails, or does not return one row of logits for each image.
        """

    def answers(self) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of the last `infer` that the task reads, by name, if it reads several."""
        return {}

    def to_native(self, batch: Float32Array) -> npt.NDArray[Any]:
        """Return a batch (N, C, H, W) float32 in the model's own layout and type, which spares `infer` the conversion."""
        return batch

    def describe(self) -> dict[str, Any]:
        """Return what the result records about the open runtime: version, precision, threads."""
        return {}


class Builder(ABC):
    """Builds an engine of one backend from an ONNX model."""

    @abstractmethod
    def build(self, model: Path, output: Path, options: RunOptions) -> Manifest:
        """Write the engine to `output` and its manifest next to it, whole or not at all.

        Raises:
            ModelError: this backend does not accept the model.
            OutputError: `output` cannot be written.
        """


def check_batch(batch: npt.NDArray[Any], spec: TensorSpec) -> None:
    """Raise InputError for a batch that is not float32, does not fit the input `spec`, or is empty."""
    if not isinstance(batch, np.ndarray) or batch.dtype != np.float32:
        kind = batch.dtype if isinstance(batch, np.ndarray) else type(batch).__name__
        raise InputError(
            f"the batch is {kind}, the model's input '{spec.name}' is float32", "convert it: batch.astype(numpy.float32)"
        )
    if not shape_fits(batch.shape, spec.shape) or batch.size == 0:
        raise InputError(
            f"the batch is {shape_text(batch.shape)}, the model's input '{spec.name}' is {shape_text(spec.shape)}",
            "give images of the model's size, as many as its batch holds; a dynamic batch holds any number",
        )


def check_logits(path: str, logits: Float32Array, batch: Float32Array) -> None:
    """Raise ModelError for logits without one row for each image, as a graph with a fixed batch size inside returns."""
    if logits.shape[0] != batch.shape[0]:
        raise ModelError(
            f"{path}: returns {logits.shape[0]} rows of logits for {batch.shape[0]} images: its graph has a fixed batch size",
            f"use --batch {logits.shape[0]}, or export it with a dynamic batch",
        )


def shape_fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    """Return whether a shape has the wanted sizes; a name in `wanted` allows any size."""
    return len(shape) == len(wanted) and all(isinstance(b, str) or a == b for a, b in zip(shape, wanted, strict=True))


def named_shape(sizes: Iterable[int]) -> tuple[int | str, ...]:
    """Return a shape with names for its dynamic sizes, which are negative: "batch" for the first, "dim2" for the third."""
    return tuple(size if size >= 0 else "batch" if index == 0 else f"dim{index}" for index, size in enumerate(sizes))


def shape_text(shape: tuple[int | str, ...]) -> str:
    """Return a shape as text: "(N, 3, 224, 224)"."""
    return "(" + ", ".join(str(size) for size in shape) + ")"


def refuse_precision(backend: str, precision: str, known: tuple[str, ...] = ("f32",)) -> None:
    """Raise InputError for a compute precision that is not among those `known` to this backend."""
    if precision not in known:
        raise InputError(f"backend '{backend}' does not compute in '{precision}'", f"use one of: {', '.join(known)}")
