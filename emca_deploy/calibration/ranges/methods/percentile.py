"""Percentiles of the values."""

from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import Observation, TensorRange

__all__ = ["Percentile", "percentile_range"]


class Percentile(Method):
    """What is left when the outermost values are cut off; the parameter is the percentile in percent."""

    name = "percentile"
    default = 99.99
    bounds = (50.0, 100.0)
    reads_histogram = True

    def range_of(self, seen: Observation) -> TensorRange:
        """Return the range between the percentiles.

        Raises:
            ValueError: no histogram was kept.
        """
        return percentile_range(seen.counted, self.parameter or 100.0)


def percentile_range(histogram: Histogram, percentile: float) -> TensorRange:
    """Return the range beyond whose ends at most (100 - percentile) percent of all values lie, at each; 100 is min-max.

    The symmetric threshold is the percentile of the magnitudes. Each is exact to one bin.
    """
    share = percentile / 100
    # From below, rank ceil((1 - p) n) counts from the other end: what is cut off there is at most (1 - p) n as well.
    low = -Histogram(histogram.exponent, histogram.counts[::-1], -histogram.maximum, -histogram.minimum).quantile(share)
    return TensorRange(low + 0.0, histogram.quantile(share), histogram.magnitude_quantile(share))
