"""Averages of each image's smallest and largest value."""

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import MinMaxObserver, Observation, TensorRange

__all__ = ["MovingAverage", "MovingAverageObserver"]


class MovingAverageObserver(MinMaxObserver):
    """Exponential moving averages of each image's smallest and largest value, over images in their order, however batched.

    `momentum` is the share of the past in each step, in [0, 1).
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self._momentum = momentum
        self._average: tuple[float, float] | None = None

    def observe(self, minima: Float32Array, maxima: Float32Array) -> None:
        """Take in the smallest and largest values of some images, one an image, in order.

        Raises:
            ValueError: a value is infinite or not a number.
        """
        super().observe(minima, maxima)
        for low, high in zip(minima.ravel().tolist(), maxima.ravel().tolist(), strict=True):
            if self._average is None:
                self._average = (low, high)
            past, share = self._average, self._momentum
            self._average = (share * past[0] + (1 - share) * low, share * past[1] + (1 - share) * high)

    def observation(self) -> Observation:
        """Return the range of everything observed and the averages.

        Raises:
            ValueError: nothing was observed.
        """
        seen = super().observation()
        return Observation(seen.minimum, seen.maximum, own={"average": self._average})


class MovingAverage(Method):
    """The moving averages of each image's smallest and largest value; the parameter is their momentum."""

    name = "moving-average"
    default = 0.9
    below_bound = True
    reuses = False

    def observer(self) -> MovingAverageObserver:
        """Return what keeps the averages of one tensor."""
        return MovingAverageObserver(self.parameter or 0.0)

    def range_of(self, seen: Observation) -> TensorRange:
        """Return the averages.

        Raises:
            ValueError: none were kept.
        """
        if "average" not in seen.own:
            raise ValueError("no moving average was kept")
        return TensorRange(*seen.own["average"])
