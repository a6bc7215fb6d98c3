"""Percentiles of the values."""

from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import HistogramMethod
from emca_deploy.calibration.ranges.observers import TensorRange

__all__ = ["Percentile"]


class Percentile(HistogramMethod):
    """The range without the outermost values; the parameter is the percentile in percent, and 100 is min-max.

    At most (100 - percentile) percent of all values lie beyond each end. The threshold is the percentile of the magnitudes. Each
    is exact to one bin.
    """

    name = "percentile"
    default = 99.99
    bounds = (50.0, 100.0)

    def from_histogram(self, histogram: Histogram) -> TensorRange:
        """Return the range between the percentiles."""
        share = (self.parameter or 100.0) / 100
        # The lower end is a quantile of the mirrored values: at most (1 - p) n of them are cut off there, too.
        low = -Histogram(histogram.exponent, histogram.counts[::-1], -histogram.maximum, -histogram.minimum).quantile(share)
        return TensorRange(low + 0.0, histogram.quantile(share), histogram.magnitude_quantile(share))
