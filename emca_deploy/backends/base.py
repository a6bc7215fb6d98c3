"""The two protocols a backend fulfils: run a model, and build an engine from one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy._machine import CpuInfo
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Manifest, Precision, TensorSpec
from emca_deploy.errors import InputError, ModelError

__all__ = [
    "PRECISION_OF_HINT",
    "RUN_OPTIONS",
    "Builder",
    "ModelIo",
    "RunOptions",
    "Runner",
    "Situation",
    "check_batch",
    "check_logits",
    "refuse_precision",
    "shape_text",
]

PRECISION_OF_HINT: dict[str, Precision] = {"bf16": "bf16", "f16": "fp16"}
"""`RunOptions.precision`, as the command line and tuned settings have it -> the precision in results; "f32" is the model's."""

RUN_OPTIONS = ("threads", "spin", "precision")
"""Settings that every runner takes as options of its own; all others are in `RunOptions.settings`."""


@dataclass(frozen=True)
class ModelIo:
    """What is known of a model's input and output beyond what its runtime lists.

    Attributes:
        image_size: (height, width) in pixels that a dynamic input is fixed to; None leaves it dynamic.
        output_name: the output with the logits, where the user names one.
        layout: "NCHW" or "NHWC"; None where the shape decides.
        logits: the output to take where several fit.
        softmax: whether that output holds probabilities.
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
        threads: intra-operator threads; never left to the runtime, whose choice differs from machine to machine.
        precision: compute precision of the float parts: "f32", or "bf16"/"f16" where the runtime has it and one asks.
        batch: a batch size to specialise to where the model's is dynamic; None leaves it dynamic.
        spin: whether idle threads of the runtime may spin; off for interleaved measurements.
        settings: others that this backend has, by name; what is not named keeps this package's default.
        io: what is known of the model's input and output.
    """

    threads: int = 1
    precision: str = "f32"
    batch: int | None = None
    spin: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    io: ModelIo = field(default_factory=ModelIo)


@dataclass(frozen=True)
class Situation:
    """What decides which settings are worth trying.

    Attributes:
        offline: for throughput rather than for the latency of a call.
        threads_default: threads without tuning.
        threads_max: the most to try.
        engine: whether the graph is optimised already.
        precisions: compute precisions besides "f32" that may be tried, although they change the answers.
    """

    cpu: CpuInfo
    offline: bool
    threads_default: int
    threads_max: int
    engine: bool = False
    precisions: tuple[str, ...] = ()


class Runner(ABC):
    """A loaded model. A context manager: nothing is loaded and no device touched before `__enter__`.

    `infer` may reuse its output buffer: copy the result if it must outlive the next call.

    Attributes:
        input: the image batch as (N, C, H, W) float32, whatever the model's own layout and type are.
        output: the logits as (N, classes) float32.
        softmax: whether `infer` returns probabilities instead of logits.
    """

    input: TensorSpec
    output: TensorSpec
    softmax: bool = False

    @abstractmethod
    def open(self) -> None:
        """Load the model. Sets `input` and `output`."""

    @abstractmethod
    def infer(self, batch: npt.NDArray[Any]) -> Float32Array:
        """Return logits (N, classes) float32 of a batch (N, C, H, W) float32, or of what `to_native` returns.

        Raises:
            InputError: the batch's shape or dtype does not fit the model.
        """

    def to_native(self, batch: Float32Array) -> npt.NDArray[Any]:
        """Return a batch (N, C, H, W) float32 in the model's own layout and type, so that `infer` need not convert it."""
        return batch

    @abstractmethod
    def close(self) -> None:
        """Free everything; calling it twice is fine."""

    def describe(self) -> dict[str, Any]:
        """Return what the runtime says of itself once open (version, precision, threads), for the result."""
        return {}

    def __enter__(self) -> "Runner":
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Builder(ABC):
    """Turns an ONNX file into an engine file of one backend."""

    @abstractmethod
    def build(self, model: Path, output: Path, options: RunOptions) -> Manifest:
        """Write the engine to `output` and its manifest beside it, whole or not at all.

        Raises:
            ModelError: the model is not one this backend takes.
            OutputError: `output` cannot be written.
        """


def check_batch(batch: npt.NDArray[Any], spec: TensorSpec) -> None:
    """Refuse a batch that does not fit the input `spec`, before a runtime sees it.

    Raises:
        InputError: it is no float32 array, or of another shape, or empty.
    """
    if not isinstance(batch, np.ndarray) or batch.dtype != np.float32:
        kind = batch.dtype if isinstance(batch, np.ndarray) else type(batch).__name__
        raise InputError(
            f"the batch is {kind}, the model's input '{spec.name}' float32", "convert it: batch.astype(numpy.float32)"
        )
    fits = len(batch.shape) == len(spec.shape) and all(
        isinstance(want, str) or want == have for want, have in zip(spec.shape, batch.shape, strict=True)
    )
    if not fits or batch.size == 0:
        raise InputError(
            f"the batch is {shape_text(batch.shape)}, the model's input '{spec.name}' {shape_text(spec.shape)}",
            "give images of the model's size, as many as its batch (dynamic ones take any)",
        )


def check_logits(path: str, logits: Float32Array, batch: Float32Array) -> None:
    """Refuse an answer that is not one row an image: what a model with a batch size baked into its graph gives.

    Raises:
        ModelError: there are more or fewer rows than images.
    """
    if logits.shape[0] != batch.shape[0]:
        raise ModelError(
            f"{path}: gives {logits.shape[0]} rows of logits for {batch.shape[0]} images: a batch size is baked into its graph",
            f"use --batch {logits.shape[0]}, or export it with a dynamic batch",
        )


def shape_text(shape: tuple[int | str, ...]) -> str:
    """Return a shape as text: "(N, 3, 224, 224)"."""
    return "(" + ", ".join(str(size) for size in shape) + ")"


def refuse_precision(backend: str, precision: str, known: tuple[str, ...] = ("f32",)) -> None:
    """Refuse a compute precision this backend does not have.

    Raises:
        InputError: `precision` is not one of `known`.
    """
    if precision not in known:
        raise InputError(f"backend '{backend}' does not compute in '{precision}'", f"use one of: {', '.join(known)}")
