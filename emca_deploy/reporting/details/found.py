"""What the folder of a report has besides its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.deploy import Picture
from emca_deploy.results.latency import ProfileReport
from emca_deploy.results.layers import ArtifactLayers
from emca_deploy.results.sensitivity import SensitivityReport

__all__ = ["Found"]


@dataclass(frozen=True)
class Found:
    """Facts, results and images for the details of a page.

    Attributes:
        files: Facts about the file of each cell or candidate, by its key: its sha256, and how it was made.
        layers: Result of `layers` for it.
        sensitivity: Result of `sensitivity` for it.
        further: Results of `validate` and `profile` about stages of a change, corrupted images or frames at a rate.
        pictures: Images whose class differs from the reference's, by their position in the data set.
        classes: Names of the classes by label.
    """

    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: Mapping[str, ArtifactLayers] = field(default_factory=dict)
    sensitivity: Mapping[str, SensitivityReport] = field(default_factory=dict)
    further: Sequence[AccuracyReport | ProfileReport] = ()
    pictures: Mapping[int, Picture] = field(default_factory=dict)
    classes: Sequence[str] = ()
