"""The evaluation of classifiers: images with one label each."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from emca_deploy._progress import Stage
from emca_deploy.data.sources import open_source
from emca_deploy.errors import DataError, InputError
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.evaluation import Evaluation, Measured, Report
from emca_deploy.harness.accuracy.labelled import LabelledImages
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.gate import Gate, Verdict
from emca_deploy.tasks.classification import compare
from emca_deploy.tasks.flips import FlipsFile, find_flips, flip_rows
from emca_deploy.tasks.logits import predicted
from emca_deploy.tasks.temperature import judge_temperature

__all__ = ["ClassifiedImages"]


class ClassifiedImages(Evaluation):
    """Images whose labels come from folders or a file, or that have none; see `Evaluation`."""

    def open(self, used: Preprocessing, outputs: int | None) -> None:
        """Open the data set; refuse one whose labels are missing or do not fit the candidate."""
        wishes = self.wishes
        images = LabelledImages(open_source(wishes.data, used, wishes.labelling))
        if images.found is None and wishes.needs_truth:
            remedy = "put its images into one subfolder per class, named as in training, or give --labels FILE"
            raise DataError(f"{wishes.data}: has no labels to validate against", remedy)
        if images.found is None:
            remedy = "give one subfolder per class, or --labels FILE"
            if wishes.max_drop is not None:
                raise InputError(f"{wishes.data}: has no labels to check --max-drop with", remedy)
            if wishes.reference is None:
                raise InputError(f"{wishes.data}: has no labels", f"{remedy}, or a --reference to agree with")
        images.check(wishes.artifact, outputs)
        self._images, self.source, self.warnings = images, images.source, images.warnings

    def check(self, name: str, outputs: int) -> None:
        """Check the labels against the number of logits."""
        self._images.check(name, outputs)

    def truth_sha256(self) -> str:
        """Return a digest of the labels, and of whether the order of their classes is open; there must be labels."""
        found = self._images.found
        assert found is not None
        order = "open" if found.as_strings is not None else "said"
        return sha256(order.encode() + found.labels.tobytes()).hexdigest()

    def report(self, measured: Measured, stage: Stage) -> AccuracyReport:
        """Return the accuracy, and the comparison with the reference; see `Evaluation.report`."""
        del stage
        own, logits = self.settled(measured), None if measured.reference is None else measured.reference.logits
        report = compare(self.wishes.artifact, own.logits, own.labels, self.wishes.reference, logits, own.names)
        fitted = None
        if self.wishes.fit_temperature:
            assert logits is not None
            fitted = judge_temperature(own.logits, logits, own.labels)
        return replace(report, class_order=self._images.class_order, temperature=fitted)

    def compare_all(self, results: Mapping[str, LogitsResult], stage: Stage) -> list[Report]:
        """Return the accuracies, and the comparisons with the first candidate, without figures of each class."""
        del stage
        (base, first), *_ = results.items()
        settled = {name: self._images.settle(result, first.logits) for name, result in results.items()}
        self.classes = self._images.found.classes if self._images.found is not None else ()
        return [_against(base, first, name, result) for name, result in settled.items()]

    def judge(self, report: Report, max_drop: float) -> Verdict:
        """Decide by the interval of the drop of top-1."""
        assert isinstance(report, AccuracyReport)
        return Gate(max_drop).judge_report(report)

    def write_flips(self, measured: Measured, file: FlipsFile) -> None:
        """Write all images whose predicted class differs."""
        assert measured.reference is not None
        own = self.settled(measured)
        flips = find_flips(predicted(own.logits), predicted(measured.reference.logits), own.labels, own.names, most=None)
        file.write(*flip_rows(flips, own.names.classes))

    def settled(self, measured: Measured) -> LogitsResult:
        """Return the candidate's result with the labels that were decided on."""
        return self._images.settle(measured.own, None if measured.reference is None else measured.reference.logits)


def _against(base: str, first: LogitsResult, name: str, result: LogitsResult) -> Report:
    """Return the accuracy of a candidate with the images whose class differs from that of the first one."""
    report = compare(name, result.logits, result.labels, base, first.logits)
    assert report.reference is not None
    flips = find_flips(predicted(result.logits), predicted(first.logits), result.labels, result.names)
    return replace(report, reference=replace(report.reference, flips=flips))
