"""The evaluation of detectors: images with annotated objects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from emca_deploy._progress import Stage
from emca_deploy._text import printable
from emca_deploy.artifacts import sha256_file
from emca_deploy.data.coco import CocoAnnotations, read_coco
from emca_deploy.data.coco_labels import label_categories
from emca_deploy.data.sources import open_source
from emca_deploy.errors import DataError, InputError
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.evaluation import Evaluation, Measured, Report, Wishes
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.detection import DetectionFlips, DetectionReport
from emca_deploy.results.gate import Verdict
from emca_deploy.tasks.detection import Named, Truth, compare, judge
from emca_deploy.tasks.detection_flips import flip_rows
from emca_deploy.tasks.flips import FlipsFile

__all__ = ["AnnotatedImages"]

MOST_SHOWN = 200
"""Largest number of lost and gained detections in a result; a file lists all of them."""


class AnnotatedImages(Evaluation):
    """Images with annotations in COCO's format, or without any; see `Evaluation`.

    Raises:
        InputError: an option about labels does not go with annotations, or the gate lacks annotations.
        DataError: the annotations or the class map cannot be used.
    """

    def __init__(self, wishes: Wishes) -> None:
        super().__init__(wishes)
        self._truth: Truth | None = None
        self._flips: DetectionFlips | None = None
        if wishes.annotations is None:
            remedy = "give --annotations FILE"
            if wishes.labelling.says_something:
                raise InputError(f"{wishes.artifact}: is a detector, and labels of whole images say nothing about it", remedy)
            if wishes.max_drop is not None:
                raise InputError(f"{wishes.data}: has no annotations to check --max-drop with", remedy)
            if wishes.reference is None:
                raise InputError(f"{wishes.data}: has no annotations", f"{remedy}, or a --reference to agree with")
            return
        annotations = read_coco(wishes.annotations)
        self._truth = Truth(annotations, label_categories(annotations.categories, wishes.labelling))
        self.images = annotations.files
        self.warnings += annotations.warnings

    def open(self, used: Preprocessing, outputs: int | None) -> None:
        """Open the images, and check that each has the size in its annotations."""
        del outputs  # a detector's scores are one per detection
        self.source = open_source(self.wishes.data, used, images=self.images)
        if self._truth is not None:
            _check_sizes(self._truth.annotations, [self.source.image_size(index) for index in range(len(self.source))])

    def truth_sha256(self) -> str:
        """Return a digest of the annotations' file, and of the output of each category; there must be annotations."""
        assert self._truth is not None
        return sha256(sha256_file(self._truth.annotations.path).encode() + self._truth.labels.tobytes()).hexdigest()

    def report(self, measured: Measured, stage: Stage) -> DetectionReport:
        """Return the average precision, and the comparison with the reference; see `Evaluation.report`."""
        own, reference = measured.own, None
        if measured.reference is not None and self.wishes.reference is not None:
            reference = Named(self.wishes.reference, measured.reference.detections)
        with stage("comparing") as progress:
            candidate = Named(self.wishes.artifact, own.detections)
            report = compare(candidate, _files(own), self._of(measured), reference, progress, own.names.indices)
        self._flips = None if report.reference is None else report.reference.flips
        return _shown(report)

    def compare_all(self, results: Mapping[str, LogitsResult], stage: Stage) -> list[Report]:
        """Return the average precisions, and the comparisons with the first candidate."""
        (base, first), *_ = results.items()
        reference, truth = Named(base, first.detections), self._of(Measured(first, None))
        found: list[Report] = []
        for name, result in results.items():
            with stage(f"comparing {name}") as progress:
                candidate = reference if result is first else Named(name, result.detections)
                found.append(_shown(compare(candidate, _files(result), truth, reference, progress, result.names.indices)))
        return found

    def judge(self, report: Report, max_drop: float) -> Verdict:
        """Decide by the intervals of the drops of AP."""
        assert isinstance(report, DetectionReport)
        return judge(report, max_drop)

    def write_flips(self, measured: Measured, file: FlipsFile) -> None:
        """Write all lost and gained detections, which `report` found."""
        assert self._flips is not None
        file.write(*flip_rows(self._flips, {} if self._truth is None else self._truth.names))

    def _of(self, measured: Measured) -> Truth | None:
        """Return the annotated objects of the measured images."""
        if self._truth is None:
            return None
        indices = measured.own.indices(len(self._truth.annotations))
        return replace(self._truth, annotations=self._truth.annotations.of_images(indices))


def _shown(report: DetectionReport) -> DetectionReport:
    """Return a report that lists the first lost and gained detections."""
    reference = report.reference
    if reference is None:
        return report
    flips = replace(reference.flips, detections=reference.flips.detections[:MOST_SHOWN])
    return replace(report, reference=replace(reference, flips=flips))


def _files(result: LogitsResult) -> tuple[str, ...]:
    """Return the names of the images, empty where there are too many to be sent."""
    return result.names.files or ("",) * len(result.answers)


def _check_sizes(annotations: CocoAnnotations, sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse images of another size than their annotations are for."""
    wrong = [index for index, size in enumerate(sizes) if tuple(annotations.sizes[index]) != size]
    if not wrong:
        return
    (height, width), (tall, wide) = annotations.sizes[wrong[0]], sizes[wrong[0]]
    shown = printable(annotations.files[wrong[0]])
    problem = f"{printable(str(annotations.path))}: has {width}x{height} for '{shown}', which is {wide}x{tall}"
    if len(wrong) > 1:
        problem += f", and other sizes for {len(wrong) - 1:,} more images"
    raise DataError(problem, "name the images that were annotated; --exif decides whether they are turned")
