"""What every calibration method is: from what was seen of a tensor to the range that its integers represent."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from emca_deploy.calibration.ranges.observers import HistogramObserver, MinMaxObserver, Observation, Observer, TensorRange

__all__ = ["Method"]


@dataclass(frozen=True)
class Method(ABC):
    """How ranges come from values.

    Attributes:
        parameter: its number; None for a method without one.
        name: as on the command line.
        default: the parameter where none is given; None for a method without one.
        bounds: the smallest parameter and the largest.
        below_bound: whether the largest is excluded.
        reads_histogram: whether it needs a histogram, not only smallest and largest values.
        reuses: whether another method's observations serve it; False for one with an observer of its own.
    """

    parameter: float | None = None
    name: ClassVar[str]
    default: ClassVar[float | None] = None
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    below_bound: ClassVar[bool] = False
    reads_histogram: ClassVar[bool] = False
    reuses: ClassVar[bool] = True

    def __str__(self) -> str:
        """Return the text that `parse_method` reads; equal methods have equal texts."""
        return self.name if self.parameter is None else f"{self.name}:{self.parameter!r}"

    def observer(self) -> Observer:
        """Return what sees one tensor, image by image."""
        return HistogramObserver() if self.reads_histogram else MinMaxObserver()

    @abstractmethod
    def range_of(self, seen: Observation) -> TensorRange:
        """Return a tensor's range.

        Raises:
            ValueError: what the method needs was not kept.
        """
