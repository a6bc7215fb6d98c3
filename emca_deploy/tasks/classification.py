"""Classification: the accuracy of a candidate, and its drop against a reference on the same images.

A task consists of a network's inputs and outputs (`outputs`), the meaning of its outputs and the distance between two networks'
outputs (`logits`), what is kept of them (`task.Task`), the metric (`compare`, with `confidence`, `flips` and `per_class`) and the
gate on the drop (`results.gate.Gate`).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.data.labels import check_classes
from emca_deploy.errors import DataError, ModelError
from emca_deploy.results.accuracy import AccuracyReport, ReferenceComparison
from emca_deploy.stats.estimates import paired_difference_ci
from emca_deploy.stats.paired import mcnemar_p
from emca_deploy.tasks.confidence import Confidence, confidence_of
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.flips import ImageNames, find_flips
from emca_deploy.tasks.logits import LogitsNoise, agreement_percent, logits_of, predicted, row_slices, top1_percent
from emca_deploy.tasks.logits_rows import LogitsRows
from emca_deploy.tasks.per_class import confused_pairs, confusion_matrix, per_class
from emca_deploy.tasks.task import Answers, Arrays, Batch, Collector, Task

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Classification", "compare"]


class Classification(Task):
    """Networks whose main output has logits or probabilities, one for each class."""

    name = "classification"
    noun = "classifier"
    has_logits = True
    remedy = "name an image classifier, or give --annotations to validate a detector"

    def compared(self, graph: "ir.Graph", logits: str | None) -> "list[ir.Value]":
        """Return the logits, before a final Softmax; the first output where no tensor has their name."""
        for value in graph.outputs:
            if logits is None or value.name == logits:
                return [value]
        for node in reversed(graph):
            for value in node.outputs:
                if value.name == logits:
                    return [value]
        return [graph.outputs[0]]

    def rows(self, name: str, tensor: Float32Array, images: int) -> Float32Array:
        """Return logits (images, classes); see `Task.rows`."""
        del images
        logits = tensor.reshape(len(tensor), -1) if tensor.ndim == 4 else tensor  # (N, classes, 1, 1)
        if logits.ndim != 2 or not np.isfinite(logits).all():
            raise ModelError(f"{name}: its output is no finite logits (N, classes)", "name an image classifier")
        return logits

    def flips_percent(self, reference: Float32Array, rows: Float32Array) -> float | None:
        """Return the percentage of images with another class."""
        return 100 - agreement_percent(reference, rows)

    def record(self, batch: Batch) -> Arrays:
        """Return the logits of a batch; they are computed from probabilities where the network gives these."""
        logits = logits_of(batch.main) if batch.softmax else batch.main
        return {"logits": np.asarray(logits, np.float32)}

    def collector(self, before: Answers | None) -> Collector:
        """Return a collector that continues after the logits of an earlier run, if any."""
        assert not isinstance(before, Detections)
        return LogitsRows(before)

    def arrays(self, answers: Answers) -> Arrays:
        """Return logits as an array."""
        assert not isinstance(answers, Detections)
        return {"logits": answers}

    def answers(self, arrays: Arrays) -> Answers:
        """Return the logits in arrays; see `Task.answers`."""
        logits = np.asarray(arrays["logits"], np.float32)
        if logits.ndim != 2:
            raise ValueError("its arrays do not fit together")
        return logits


def compare(
    name: str,
    logits: Float32Array,
    labels: npt.NDArray[np.int64] | None,
    reference_name: str | None = None,
    reference_logits: Float32Array | None = None,
    names: ImageNames | None = None,
) -> AccuracyReport:
    """Return a candidate's accuracy, and its comparison with a reference on the same images.

    The interval of the drop is Tango's score interval for paired proportions (`stats.paired_difference_ci`). It counts images
    that only one of the two gets right, and is far narrower than that of two separate accuracies.

    Args:
        name: Name of the candidate.
        logits: Logits of the candidate, (N, classes) float32, N >= 1.
        labels: Classes, (N,) int64; None needs a reference.
        reference_name: Name of the reference.
        reference_logits: Logits of the reference, (N, classes) float32.
        names: Names of images and classes; with them the report has figures by class and the images whose class differs.

    Raises:
        ModelError: the logits are not finite, or not of the reference's shape.
        DataError: a label is no class of the model, or there are neither labels nor a reference.
    """
    if labels is not None:
        check_classes(name, labels, logits.shape[1])
    elif reference_logits is None:
        raise DataError("the data set has no labels", "give one subfolder per class, or a --reference to agree with")
    own, theirs, reference = _Answers.of(name, logits, labels), None, None
    if reference_logits is not None:
        called = reference_name or "reference"
        if reference_logits.shape != logits.shape:
            raise ModelError(
                f"{name}: logits {logits.shape}, but {called} has {reference_logits.shape}",
                "name a --reference with the same classes",
            )
        theirs = _Answers.of(called, reference_logits, labels)
        if not reference_logits.any():
            raise ModelError(f"{called}: all its logits are zero", "name another --reference")
        reference = _comparison(called, own, theirs, LogitsNoise.of(reference_logits, logits), labels, names)
    report = AccuracyReport(name, len(logits), own.top1, own.top5, reference, **vars(own.confidence))
    if names is None or labels is None:
        return report
    return replace(
        report,
        per_class=per_class(own.predicted, labels, names.classes, None if theirs is None else theirs.predicted),
        confusion=confusion_matrix(own.predicted, labels, logits.shape[1]),
        confused=confused_pairs(own.predicted, labels),
    )


@dataclass(frozen=True)
class _Answers:
    """Predictions of one model, (N,), and its metrics in percent."""

    predicted: Int64Array
    top1: float | None
    top5: float | None
    confidence: Confidence

    @classmethod
    def of(cls, name: str, logits: Float32Array, labels: Int64Array | None) -> "_Answers":
        bad = ~np.isfinite(logits).all(axis=1)
        if bad.any():
            raise ModelError(
                f"{name}: its logits are NaN or infinite for {bad.sum()} of {len(logits)} images, first for {bad.argmax()}",
                "calibrate or export it again; in fp16 or bf16 an overflow is likely: use fp32 for those layers",
            )
        classes = predicted(logits)
        top1 = None if labels is None else top1_percent(classes, labels)
        top5 = None if labels is None else 100 * float(_within(logits, labels, 5).mean())
        return cls(classes, top1, top5, confidence_of(logits, labels))


def _comparison(
    called: str, own: _Answers, theirs: _Answers, noise: LogitsNoise, labels: Int64Array | None, names: ImageNames | None
) -> ReferenceComparison:
    flips = find_flips(own.predicted, theirs.predicted, labels, names)
    agreement = 100 * (1 - flips.total / len(own.predicted))
    drop = ci95 = p = None
    if flips.lost is not None and flips.won is not None:
        low, high = paired_difference_ci(flips.lost, flips.won, len(own.predicted))
        drop, ci95 = 100 * (flips.lost - flips.won) / len(own.predicted), (100 * low, 100 * high)
        p = mcnemar_p(flips.lost, flips.won)
    return ReferenceComparison(
        artifact=called,
        top1=theirs.top1,
        top5=theirs.top5,
        agreement=agreement,
        sqnr_db=noise.all_db,
        typical_sqnr_db=noise.typical_db,
        top1_drop=drop,
        top1_drop_ci95=ci95,
        mcnemar_p=p,
        flips=flips,
        **vars(theirs.confidence),
    )


def _within(logits: Float32Array, labels: Int64Array, k: int) -> npt.NDArray[np.bool_]:
    """Return whether the label of each image is among the k highest logits, (N,) bool; the lower class wins a tie."""
    found = np.empty(len(logits), np.bool_)
    classes = np.arange(logits.shape[1])
    for rows in row_slices(len(logits)):
        some, own_labels = logits[rows], labels[rows, None]
        own = np.take_along_axis(some, own_labels, axis=1)
        found[rows] = ((some > own) | ((some == own) & (classes < own_labels))).sum(axis=1) < k
    return found
