"""The images that models of one task are measured on, and the report about them; `evaluations` lists the tasks."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emca_deploy._progress import Stage
from emca_deploy.data.image_checks import overlap_warnings
from emca_deploy.data.sources import ImageSource
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.preprocessing import Labelling, Preprocessing
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.gate import Verdict
from emca_deploy.tasks.flips import FlipsFile

__all__ = ["Evaluation", "Measured", "Report", "Wishes"]

Report = AccuracyReport | DetectionReport


@dataclass(frozen=True)
class Wishes:
    """What a user wants to measure.

    Attributes:
        artifact: Name of the candidate.
        data: Folder or file of images.
        reference: Name of the reference; None without one.
        max_drop: Limit of the gate in points; None for no gate.
        annotations: File of annotations in COCO's format; None for none.
        labelling: The user's facts about labels.
        fit_temperature: Whether to fit a temperature to the reference's probabilities.
        needs_truth: Whether images without labels or annotations are refused, even with a reference.
    """

    artifact: str
    data: Path
    reference: str | None = None
    max_drop: float | None = None
    annotations: Path | None = None
    labelling: Labelling = field(default_factory=Labelling)
    fit_temperature: bool = False
    needs_truth: bool = False


@dataclass(frozen=True)
class Measured:
    """The results of the candidate, and of the reference if there is one."""

    own: LogitsResult
    reference: LogitsResult | None


class Evaluation(ABC):
    """The images of a validation; the constructor reads the annotations, and `open` the images.

    Attributes:
        images: Names of the images to run, in this order; None for all of the data set.
        source: Images, once they are open.
        warnings: Possible faults of the images and their labels.
        classes: Names of the classes by label, after `compare_all`; empty for a detector.
    """

    images: tuple[str, ...] | None = None
    source: ImageSource
    classes: tuple[str, ...] = ()

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self.warnings: list[str] = []

    @abstractmethod
    def open(self, used: Preprocessing, outputs: int | None) -> None:
        """Open the images, and check them against a model with a number of outputs, None where it is unknown.

        Raises:
            InputError: labels are missing.
            DataError: the images cannot be read, or a label is no output of the model.
        """

    def check(self, name: str, outputs: int) -> None:
        """Check the open images against the number of outputs of a model.

        Raises:
            DataError: a label is no output of the model.
        """
        del name, outputs

    @abstractmethod
    def truth_sha256(self) -> str:
        """Return a digest of the labels or annotations of the open images."""

    @abstractmethod
    def report(self, measured: Measured, stage: Stage) -> Report:
        """Return the report about the candidate, whose `images_per_s` is not set.

        Raises:
            ModelError: the answers are not finite, or do not fit the reference's.
            DataError: a label is no output of the model.
            MissingError: a library is not installed.
        """

    @abstractmethod
    def compare_all(self, results: Mapping[str, LogitsResult], stage: Stage) -> list[Report]:
        """Return a short report about each of several candidates by name, compared with the first; raises as `report`."""

    @abstractmethod
    def judge(self, report: Report, max_drop: float) -> Verdict:
        """Decide whether the candidate is within the gate."""

    @abstractmethod
    def write_flips(self, measured: Measured, file: FlipsFile) -> None:
        """Write all flips to a file; there must be a reference.

        Raises:
            OutputError: the file cannot be written.
        """

    def check_overlap(self, calibrated: Collection[str], result: LogitsResult) -> None:
        """Warn where images of a result were used for calibration, by their digests from `image_digests`.

        Raises:
            DataError: an image cannot be read.
        """
        self.warnings += overlap_warnings(self.source, result.indices(len(self.source)), calibrated)
