"""Classification: the accuracy of a candidate, and what it lost against a reference on the same images.

A task consists of what a network takes and gives (`outputs`), what its outputs say and how far two networks' outputs are apart
(`logits`), the metric (`compare`, with `confidence`, `flips` and `per_class`) and the gate on its drop (`results.gate.Gate`).
The rest of the package gets the logits of images and hands them to this folder.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.data.labels import check_classes
from emca_deploy.errors import DataError, ModelError
from emca_deploy.results.accuracy import AccuracyReport, ReferenceComparison
from emca_deploy.stats.estimates import paired_difference_ci
from emca_deploy.stats.paired import mcnemar_p
from emca_deploy.tasks.confidence import confidence_of
from emca_deploy.tasks.flips import ImageNames, find_flips
from emca_deploy.tasks.logits import ROWS_AT_ONCE, LogitsNoise, predicted, top1_percent
from emca_deploy.tasks.per_class import confused_pairs, confusion_matrix, per_class

__all__ = ["compare"]


def compare(
    name: str,
    logits: Float32Array,
    labels: npt.NDArray[np.int64] | None,
    reference_name: str | None = None,
    reference_logits: Float32Array | None = None,
    names: ImageNames | None = None,
) -> AccuracyReport:
    """Return a candidate's accuracy, and how it compares to a reference's logits of the same images.

    The interval of the drop is Tango's score interval for paired proportions (see `stats.paired_difference_ci`): it counts the
    images that one gets right and the other wrong, so that it is far narrower than that of two separate accuracies.

    Args:
        name: the candidate's.
        logits: (N, classes) float32, N >= 1.
        labels: (N,) int64, or None: then a reference is needed.
        reference_name: the reference's.
        reference_logits: (N, classes) float32.
        names: names of images and classes; given, the report goes class by class and lists the images whose class differs.

    Raises:
        ModelError: logits that are not finite, or not of the reference's shape.
        DataError: a label is no class of the model, or there are neither labels nor a reference.
    """
    if labels is not None:
        check_classes(name, labels, logits.shape[1])
    elif reference_logits is None:
        raise DataError("the data set has no labels", "give one subfolder per class, or a --reference to agree with")
    own, theirs, reference = _Answers.of(name, logits, labels), None, None
    if reference_logits is not None:
        called = reference_name or "reference"
        theirs = _reference_answers(name, logits, called, reference_logits, labels)
        reference = _comparison(called, own, theirs, LogitsNoise.of(reference_logits, logits), labels, names)
    report = AccuracyReport(
        name, len(logits), own.top1, own.top5, reference, mean_confidence=own.mean_confidence, ece=own.ece, nll=own.nll
    )
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
    """What one model says, (N,) each; percent."""

    predicted: Int64Array
    top1: float | None
    top5: float | None
    mean_confidence: float
    ece: float | None
    nll: float | None

    @classmethod
    def of(cls, name: str, logits: Float32Array, labels: Int64Array | None) -> "_Answers":
        _check_finite(name, logits)
        classes = predicted(logits)
        sure = confidence_of(logits, labels)
        top1 = None if labels is None else top1_percent(classes, labels)
        top5 = None if labels is None else 100 * float(_within(logits, labels, 5).mean())
        return cls(classes, top1, top5, sure.mean_percent, sure.ece_percent, sure.nll)


def _reference_answers(
    name: str, logits: Float32Array, called: str, reference: Float32Array, labels: Int64Array | None
) -> _Answers:  # fmt: skip
    if reference.shape != logits.shape:
        raise ModelError(
            f"{name}: logits {logits.shape}, but {called} has {reference.shape}", "name a --reference with the same classes"
        )
    answers = _Answers.of(called, reference, labels)
    if not reference.any():
        raise ModelError(f"{called}: all its logits are zero", "name another --reference")
    return answers


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
        mean_confidence=theirs.mean_confidence,
        ece=theirs.ece,
        nll=theirs.nll,
        flips=flips,
    )


def _check_finite(name: str, logits: Float32Array) -> None:
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        which = f"{int(bad.sum())} of {len(logits)} images, the first is number {int(bad.argmax())}"
        raise ModelError(
            f"{name}: its logits are NaN or infinite for {which}",
            "calibrate or export it again; in fp16 or bf16 an overflow is likely: use fp32 for those layers",
        )


def _within(logits: Float32Array, labels: Int64Array, k: int) -> npt.NDArray[np.bool_]:
    """Return for each image whether its label is among the k highest logits, (N,) bool; the lower class wins a tie."""
    found = np.empty(len(logits), np.bool_)
    classes = np.arange(logits.shape[1])
    for start in range(0, len(logits), ROWS_AT_ONCE):
        rows, own_labels = logits[start : start + ROWS_AT_ONCE], labels[start : start + ROWS_AT_ONCE, None]
        own = np.take_along_axis(rows, own_labels, axis=1)
        found[start : start + ROWS_AT_ONCE] = ((rows > own) | ((rows == own) & (classes < own_labels))).sum(axis=1) < k
    return found
