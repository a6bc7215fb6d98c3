"""Accuracy of a candidate, and what it lost against a reference on the same images."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log10
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emca_deploy._progress import Progress
from emca_deploy.artifacts import Preprocessing, TensorSpec
from emca_deploy.errors import DataError, ModelError
from emca_deploy.harness.accuracy_results import AccuracyReport, ReferenceComparison
from emca_deploy.harness.clock import Int64Array
from emca_deploy.harness.process import Worker
from emca_deploy.harness.spec import Float32Array, RunnerSpec
from emca_deploy.harness.stats import paired_difference_ci

__all__ = ["LogitsResult", "collect_logits", "compare"]


@dataclass(frozen=True)
class LogitsResult:
    """What a model says about a data set.

    Attributes:
        logits: (N, classes) float32, in the order of the data set.
        labels: (N,) int64, or None for a data set without.
        images_per_s: of the whole run, decoding included: not the model's throughput, which `measure` gives.
        preprocessing: that was used.
    """

    logits: Float32Array
    labels: Int64Array | None
    images_per_s: float
    preprocessing: Preprocessing


def collect_logits(
    spec: RunnerSpec,
    source: Path,
    preprocessing: Preprocessing | Callable[[int], Preprocessing] = Preprocessing.for_size,
    *,
    limit: int | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> LogitsResult:
    """Run a data set through a candidate in its own process.

    Args:
        spec: the candidate.
        source: where the data set lies; see `data.sources.open_source`.
        preprocessing: how images become its input, or a function that says so given the model's image size in pixels.
        limit: how many images, the same number of each class; None for all.
        batch_size: images a call; a model with a fixed batch size keeps its own.
        progress: called with (images done, images in all).

    Raises:
        DataError: the data set cannot be read.
        InputError: its images do not fit the model.
        WorkerError: the candidate crashed or hung.
        EmcaError: whatever the candidate's runner raises.
    """
    parts: list[Float32Array] = []
    labels: Int64Array | None = None
    seconds = 0.0
    with Worker(spec) as worker:
        opened = worker.open()
        used = preprocessing if isinstance(preprocessing, Preprocessing) else preprocessing(_image_size(opened.input, spec.name))
        for part in worker.logits(source, used, limit, batch_size):
            if part.logits is not None:
                parts.append(part.logits)
            if part.summary:
                labels, seconds = part.labels, part.summary["seconds"]
            if progress is not None:
                progress(part.done, part.total)
        worker.finish()
    logits = np.concatenate(parts)
    return LogitsResult(logits, labels, len(logits) / seconds, used)


def _image_size(spec: TensorSpec, name: str) -> int:
    size = spec.shape[-1]
    if not isinstance(size, int):
        raise ModelError(f"{name}: its input's size is dynamic: {spec.shape}", "say which one to use with --image-size")
    return size


def compare(
    name: str,
    logits: Float32Array,
    labels: npt.NDArray[np.int64] | None,
    reference_name: str | None = None,
    reference_logits: Float32Array | None = None,
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

    Raises:
        ModelError: logits that are not finite, or not of the reference's shape.
        DataError: a label is no class of the model, or there are neither labels nor a reference.
    """
    _check_finite(name, logits)
    if labels is not None:
        _check_labels(name, labels, logits.shape[1])
    if reference_logits is None:
        if labels is None:
            raise DataError("the data set has no labels", "give one subfolder per class, or a --reference to agree with")
        return AccuracyReport(name, len(logits), _percent(_hits(logits, labels, 1)), _percent(_hits(logits, labels, 5)), None)
    reference = _against(name, logits, labels, reference_name or "reference", reference_logits)
    if labels is None:
        return AccuracyReport(name, len(logits), None, None, reference)
    return AccuracyReport(name, len(logits), _percent(_hits(logits, labels, 1)), _percent(_hits(logits, labels, 5)), reference)


def _against(
    name: str, logits: Float32Array, labels: Int64Array | None, reference_name: str, reference: Float32Array
) -> ReferenceComparison:
    if reference.shape != logits.shape:
        raise ModelError(
            f"{name}: logits {logits.shape}, but {reference_name} has {reference.shape}",
            "name a --reference with the same classes",
        )
    _check_finite(reference_name, reference)
    agreement = _percent(logits.argmax(axis=1) == reference.argmax(axis=1))
    sqnr_db = _sqnr_db(reference_name, reference, logits)
    if labels is None:
        return ReferenceComparison(reference_name, None, None, agreement, sqnr_db, None, None)
    ours, theirs = _hits(logits, labels, 1), _hits(reference, labels, 1)
    only_theirs, only_ours = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    low, high = paired_difference_ci(only_theirs, only_ours, len(labels))
    return ReferenceComparison(
        reference_name,
        _percent(theirs),
        _percent(_hits(reference, labels, 5)),
        agreement,
        sqnr_db,
        100 * (only_theirs - only_ours) / len(labels),
        (100 * low, 100 * high),
    )


def _check_finite(name: str, logits: Float32Array) -> None:
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        which = f"{int(bad.sum())} of {len(logits)} images, the first is number {int(bad.argmax())}"
        raise ModelError(
            f"{name}: its logits are NaN or infinite for {which}",
            "calibrate or export it again; in fp16 or bf16 an overflow is likely: use fp32 for those layers",
        )


def _check_labels(name: str, labels: Int64Array, classes: int) -> None:
    highest = int(labels.max())
    if highest >= classes or int(labels.min()) < 0:
        wrong = highest if highest >= classes else int(labels.min())
        raise DataError(
            f"the data set has label {wrong}, but {name} has {classes} classes",
            "name a data set of the model's own classes, one subfolder per class",
        )


def _hits(logits: Float32Array, labels: Int64Array, k: int) -> npt.NDArray[np.bool_]:
    """Return for each image whether its label is among the k highest logits, (N,) bool; the lower class wins a tie."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    hits: npt.NDArray[np.bool_] = rank < k
    return hits


def _percent(hits: npt.NDArray[np.bool_]) -> float:
    return 100 * float(hits.mean())


def _sqnr_db(reference_name: str, reference: Float32Array, logits: Float32Array) -> float | None:
    wide = reference.astype(np.float64)
    signal, noise = float((wide**2).sum()), float(((wide - logits) ** 2).sum())
    if noise == 0:
        return None
    if signal == 0:
        raise ModelError(f"{reference_name}: all its logits are zero", "name another --reference")
    return 10 * log10(signal / noise)
