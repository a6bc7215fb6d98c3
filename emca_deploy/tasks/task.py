"""What a task makes of the answers of its networks; the tasks are listed in `registry`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.data.sources import ImageSource
from emca_deploy.requests import TaskName
from emca_deploy.tasks.detections import Detections

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Answers", "Arrays", "Batch", "Collector", "Task"]

Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays that a message or a file can carry."""

Answers = Float32Array | Detections
"""The answers of a model for N images: logits (N, classes) float32, or detections."""


@dataclass(frozen=True)
class Batch:
    """The answers of a model for one batch.

    Attributes:
        name: Name of the model, for errors.
        main: Main output (n, ...) float32.
        softmax: Whether the main output holds probabilities.
        outputs: All outputs that the task reads, by name, if it reads several; they may have more rows than there are images.
        source: Data set.
        indices: Index in the data set of each image, n in all.
    """

    name: str
    main: Float32Array
    softmax: bool
    outputs: Arrays
    source: ImageSource
    indices: Sequence[int]


class Collector(ABC):
    """The answers of a run, batch by batch.

    Attributes:
        done: Number of images so far.
    """

    done: int = 0

    @abstractmethod
    def add(self, arrays: Arrays, total: int) -> None:
        """Append the record of a batch; `total` is the number of images of the whole run."""

    @abstractmethod
    def finish(self) -> Answers:
        """Return all answers so far."""


class Task(ABC):
    """A kind of network, by the meaning of its outputs.

    Attributes:
        noun: Word for a network of this kind.
        has_logits: Whether a network has logits, (N, classes), which fine-tuning and some comparisons need.
        remedy: What to do where a network of another kind was named.
    """

    name: ClassVar[TaskName]
    noun: ClassVar[str]
    has_logits: ClassVar[bool]
    remedy: ClassVar[str]

    def host_part(self, name: str, artifact: Path, given: TensorSpec, main: TensorSpec) -> Callable[[Arrays], Arrays] | None:
        """Return a function that makes the task's outputs from those of a model that leaves a part to the host, else None.

        Args:
            name: Name of the model, for errors.
            artifact: File of the model.
            given: Input of the model.
            main: Main output of the model.

        Raises:
            ModelError: facts about the model are missing.
        """
        del name, artifact, given, main
        return None

    @abstractmethod
    def compared(self, graph: "ir.Graph", logits: str | None) -> "list[ir.Value]":
        """Return the tensors by which calibration compares two forms of a float graph, whose logits may have a name."""

    @abstractmethod
    def rows(self, name: str, tensor: Float32Array, images: int) -> Float32Array:
        """Return the numbers of such a tensor that are compared, (images, numbers); `name` is that of the model, for errors.

        Raises:
            ModelError: the tensor cannot be what it should.
        """

    @abstractmethod
    def flips_percent(self, reference: Float32Array, rows: Float32Array) -> float | None:
        """Return the percentage of images with another answer, by what is compared; None where that does not show it."""

    @abstractmethod
    def record(self, batch: Batch) -> Arrays:
        """Return what is kept of a batch.

        Raises:
            ModelError: an output cannot be what it should.
        """

    @abstractmethod
    def collector(self, before: Answers | None) -> Collector:
        """Return a collector that continues after the answers of an earlier run, if any."""

    @abstractmethod
    def arrays(self, answers: Answers) -> Arrays:
        """Return answers as arrays; `answers` is the inverse."""

    @abstractmethod
    def answers(self, arrays: Arrays) -> Answers:
        """Return the answers in arrays; other arrays are ignored.

        Raises:
            ValueError: the arrays do not fit together.
            KeyError: an array is missing.
        """
