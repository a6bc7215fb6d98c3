"""The base of the calibration methods, which choose a tensor's range from its observation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.observers import HistogramObserver, MinMaxObserver, Observation, Observer, TensorRange

__all__ = ["HistogramMethod", "Method"]


@dataclass(frozen=True)
class Method(ABC):
    """A calibration method.

    Attributes:
        parameter: parameter of the method; None where it has none.
        name: name on the command line.
        default: default of the parameter; None for a method without one, or whose parameter may be left out.
        bounds: smallest and largest parameter.
        below_bound: whether the largest parameter is excluded.
        reads_histogram: whether the method needs a histogram, not only smallest and largest values.
        reuses: whether another method's observations suffice; False for a method with an observer of its own.
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
        """Return an observer of one tensor."""
        return HistogramObserver() if self.reads_histogram else MinMaxObserver()

    @abstractmethod
    def range_of(self, seen: Observation) -> TensorRange:
        """Return a tensor's range.

        Raises:
            ValueError: the observation lacks what the method needs.
        """


class HistogramMethod(Method):
    """A method that chooses the range from a histogram."""

    reads_histogram = True

    def range_of(self, seen: Observation) -> TensorRange:
        """Return the range for an observation with a histogram."""
        if seen.histogram is None:
            raise ValueError("no histogram was kept")
        return self.from_histogram(seen.histogram)

    @abstractmethod
    def from_histogram(self, histogram: Histogram) -> TensorRange:
        """Return the range for a histogram."""
