"""Results of `validate` on the terminal, for each task."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.accuracy import print_accuracy
from emca_deploy.reporting.detection import print_detection
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.detection import DetectionReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_measured"]


def print_measured(report: AccuracyReport | DetectionReport, console: "Console") -> None:
    """Print the report of a classifier or of a detector."""
    if isinstance(report, AccuracyReport):
        print_accuracy(report, console)
    else:
        print_detection(report, console)
