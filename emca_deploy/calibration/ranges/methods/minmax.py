"""The range of all values."""

from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import Observation, TensorRange

__all__ = ["MinMax"]


class MinMax(Method):
    """The range from the smallest value to the largest."""

    name = "minmax"

    def range_of(self, seen: Observation) -> TensorRange:
        """Return the range of all values."""
        return TensorRange(seen.minimum, seen.maximum)
