"""Averages of each image's smallest and largest value."""

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import MinMaxObserver, Observation, TensorRange

__all__ = ["MovingAverage", "MovingAverageObserver"]


class MovingAverageObserver(MinMaxObserver):
    """An observer of exponential moving averages of each image's smallest and largest value, in the images' order.

    `momentum` is the share of the past in each step, in [0, 1).
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self._momentum = momentum
        self._average: tuple[float, float] | None = None

    def observe(self, minima: Float32Array, maxima: Float32Array) -> None:
        """Add the smallest and largest value of each of some images, in order."""
        super().observe(minima, maxima)
        for low, high in zip(minima.ravel().tolist(), maxima.ravel().tolist(), strict=True):
            if self._average is None:
                self._average = (low, high)
            past, share = self._average, self._momentum
            self._average = (share * past[0] + (1 - share) * low, share * past[1] + (1 - share) * high)

    def observation(self) -> Observation:
        """Return the smallest value, the largest value and the averages."""
        seen = super().observation()
        return Observation(seen.minimum, seen.maximum, own={"average": self._average})


class MovingAverage(Method):
    """The moving averages of each image's smallest and largest value; the parameter is their momentum."""

    name = "moving-average"
    default = 0.9
    below_bound = True
    reuses = False

    def observer(self) -> MovingAverageObserver:
        """Return an observer of one tensor."""
        return MovingAverageObserver(self.parameter or 0.0)

    def range_of(self, seen: Observation) -> TensorRange:
        """Return the averages."""
        if "average" not in seen.own:
            raise ValueError("no moving average was kept")
        return TensorRange(*seen.own["average"])
