"""Detection: the average precision of a candidate, and its drop against a reference on the same images.

The parts are those of `classification`: what is kept of a network's outputs (`Detection`, with `detector_outputs` and
`detections`), the metric (`compare`, with `object_matches`, `average_precision` and `detection_flips`) and the gate (`judge`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.data.coco import CocoAnnotations
from emca_deploy.data.preprocess import Placement
from emca_deploy.errors import DataError, ModelError
from emca_deploy.results.detection import AveragePrecision, ClassPrecision, DetectionComparison, DetectionReport
from emca_deploy.results.figures import figures_of
from emca_deploy.results.gate import Gate, Verdict
from emca_deploy.tasks.average_precision import bootstrap, drop_interval, mean_precision
from emca_deploy.tasks.detection_flips import LEAST_SCORE, Compared, compare_detections
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.detector_layers import last_results
from emca_deploy.tasks.detector_outputs import detections_of
from emca_deploy.tasks.host_part import host_part
from emca_deploy.tasks.object_matches import ClassMatches, Matched, match_objects
from emca_deploy.tasks.outputs import SCORES
from emca_deploy.tasks.task import Answers, Arrays, Batch, Collector, Task

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Detection", "Named", "Truth", "compare", "judge"]

HIGHEST_THRESHOLD = 0.05
"""Highest score threshold of a network whose AP is comparable: AP also counts detections with low scores."""

COMPARED_NUMBERS = 1 << 14
"""Numbers of an image's tensor that are compared at least, where the tensor has three times as many: an even sample."""

Progress = Callable[[int, int], object]


class Detection(Task):
    """Networks whose outputs are a number of boxes with scores and labels, and with masks where they have them."""

    name = "detection"
    noun = "detector"
    has_logits = False
    remedy = "leave out --annotations, or name a detector"

    def host_part(self, name: str, artifact: Path, given: TensorSpec, main: TensorSpec) -> Callable[[Arrays], Arrays] | None:
        """Return the selection of boxes for the dense part of a detector; see `Task.host_part`."""
        if main.name == SCORES:
            return None
        height, width = (int(side) for side in given.shape[2:])
        return host_part(name, artifact, main.name, (height, width))

    def compared(self, graph: "ir.Graph", logits: str | None) -> "list[ir.Value]":
        """Return the results of the last layers: class logits, deltas and mask logits, before anything is selected by them."""
        del logits
        return last_results(graph)

    def rows(self, name: str, tensor: Float32Array, images: int) -> Float32Array:
        """Return an even sample of a last layer's results, of all regions; see `Task.rows`."""
        values = tensor.reshape(images, -1)
        step = max(1, values.shape[1] // COMPARED_NUMBERS)
        rows = values[:, :: step - 1 + step % 2]  # odd: an even step could fall on the same columns of every map
        if not np.isfinite(rows).all():
            raise ModelError(f"{name}: a result of its last layers is NaN or infinite", "check the model's weights")
        return rows

    def flips_percent(self, reference: Float32Array, rows: Float32Array) -> float | None:
        """Return None: an image has many detections, and none is selected here."""
        del reference, rows
        return None

    def record(self, batch: Batch) -> Arrays:
        """Return the detections of a batch in the pixels of its images; see `detections_of`."""
        used = batch.source.preprocessing
        placements = [Placement.of(batch.source.image_size(index), used) for index in batch.indices]
        return detections_of(batch.name, batch.outputs, placements).arrays()

    def collector(self, before: Answers | None) -> Collector:
        """Return a collector that continues after the detections of an earlier run, if any."""
        assert before is None or isinstance(before, Detections)
        return _DetectionParts(before)

    def arrays(self, answers: Answers) -> Arrays:
        """Return detections as arrays."""
        assert isinstance(answers, Detections)
        return answers.arrays()

    def answers(self, arrays: Arrays) -> Answers:
        """Return the detections in arrays; see `Task.answers`."""
        return Detections.from_arrays(arrays)


class _DetectionParts(Collector):
    """The detections of a run, batch by batch."""

    def __init__(self, before: Detections | None) -> None:
        self._parts = [] if before is None else [before]
        self.done = 0 if before is None else len(before)

    def add(self, arrays: Arrays, total: int) -> None:
        """Append the detections of a batch."""
        del total
        self._parts.append(Detections.from_arrays(arrays))
        self.done += len(self._parts[-1])

    def finish(self) -> Detections:
        """Return all detections so far."""
        if len(self._parts) != 1:
            self._parts = [Detections.joined(self._parts)]
        return self._parts[0]


@dataclass(frozen=True)
class Truth:
    """The annotated objects of the images, and the output of the network for each category, (categories,) int64."""

    annotations: CocoAnnotations
    labels: Int64Array

    @property
    def names(self) -> dict[int, str]:
        """Name of the category of each output that has one."""
        return {int(label): one.name for label, one in zip(self.labels, self.annotations.categories, strict=True)}


@dataclass(frozen=True)
class Named:
    """The detections of a model with this name. What is matched for one comparison is kept for the next on the same objects."""

    name: str
    detections: Detections
    _sides: list[tuple[Truth, tuple[Matched, ...], "_Side"]] = field(default_factory=list, repr=False, compare=False)

    def side(self, truth: Truth | None, kinds: tuple[Matched, ...], progress: Progress | None) -> "_Side":
        """Return the matches with the objects, and the figures; see `compare`."""
        if truth is None:
            return _Side({}, {}, {})
        for known, of_kinds, side in self._sides:
            if known is truth and of_kinds == kinds:
                return side
        side = _Side.of(self, truth, kinds, progress)
        self._sides[:] = [(truth, kinds, side)]
        return side


@dataclass(frozen=True)
class _Side:
    """The matches of a model's boxes and masks by category, and its figures; None where they are not measured."""

    matches: dict[Matched, tuple[ClassMatches, ...]]
    figures: dict[Matched, AveragePrecision]
    by_class: dict[Matched, tuple[float | None, ...]]
    _resampled: dict[Matched, Float64Array] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Named, truth: Truth, kinds: tuple[Matched, ...], progress: Progress | None) -> "_Side":
        matches = {kind: match_objects(truth.annotations, truth.labels, model.detections, kind, progress) for kind in kinds}
        both = {kind: mean_precision(one) for kind, one in matches.items()}
        figures = {kind: one for kind, (one, _) in both.items()}
        return cls(matches, figures, {kind: one for kind, (_, one) in both.items()})

    def resampled(self, kind: Matched) -> Float64Array:
        """Return the `ap` in each resample of the images."""
        if kind not in self._resampled:
            self._resampled[kind] = bootstrap(self.matches[kind])
        return self._resampled[kind]


def compare(
    candidate: Named,
    files: tuple[str, ...],
    truth: Truth | None,
    reference: Named | None = None,
    progress: Progress | None = None,
    indices: Sequence[int] | None = None,
) -> DetectionReport:
    """Return a candidate's average precision, and its comparison with a reference on the same images.

    Args:
        candidate: Detections of the candidate.
        files: Names of the images.
        truth: Annotated objects of these images; None needs a reference.
        reference: Detections of the reference.
        progress: Called with (images done, images in total) while detections are matched with objects.
        indices: Index of each image in its data set; None where all images were measured.

    Raises:
        ModelError: only one of the two models has masks.
        DataError: some objects have masks and others do not, or there are neither annotations nor a reference.
        MissingError: pycocotools is not installed.
    """
    if truth is None and reference is None:
        raise DataError("the data set has no annotations", "give --annotations FILE, or a --reference to agree with")
    kinds = _kinds(candidate, truth, reference)
    own = candidate.side(truth, kinds, progress)
    theirs = None if reference is None else reference.side(truth, kinds, progress)
    comparison = None
    if reference is not None and theirs is not None:
        annotations, labels = (None, None) if truth is None else (truth.annotations, truth.labels)
        found = compare_detections(candidate.detections, reference.detections, files, annotations, labels, indices)
        comparison = _comparison(reference.name, own, theirs, found)
    return DetectionReport(
        artifact=candidate.name,
        samples=len(candidate.detections),
        objects=None if truth is None else int(sum(one.objects[0].sum() for one in own.matches["box"])),
        detections=len(candidate.detections.scores),
        box=own.figures.get("box"),
        mask=own.figures.get("mask"),
        reference=comparison,
        per_class=None if truth is None else _per_class(truth, own, theirs),
        warnings=(*_threshold_warnings(candidate), *(() if truth is None else _label_warnings(candidate, truth))),
    )


def _kinds(candidate: Named, truth: Truth | None, reference: Named | None) -> tuple[Matched, ...]:
    """Return what is compared with the annotated objects: boxes, and masks where both sides have them."""
    has_masks = candidate.detections.mask_text is not None
    if reference is not None and (reference.detections.mask_text is not None) != has_masks:
        with_masks, without = (candidate, reference) if has_masks else (reference, candidate)
        raise ModelError(f"{with_masks.name} has masks, but {without.name} has none", "name a --reference with the same outputs")
    if truth is None or not has_masks or not truth.annotations.has_masks:
        return ("box",)
    truth.annotations.check_masks()
    return ("box", "mask")


def _comparison(reference: str, own: _Side, theirs: _Side, found: Compared) -> DetectionComparison:
    box, mask = _drop(own, theirs, "box"), _drop(own, theirs, "mask")
    return DetectionComparison(
        artifact=reference,
        box=theirs.figures.get("box"),
        mask=theirs.figures.get("mask"),
        compared=found.compared,
        agreement=found.agreement,
        least_score=LEAST_SCORE,
        box_ap_drop=box[0],
        box_ap_drop_ci95=box[1],
        mask_ap_drop=mask[0],
        mask_ap_drop_ci95=mask[1],
        flips=found.flips,
    )


def _drop(own: _Side, theirs: _Side, kind: Matched) -> tuple[float | None, tuple[float, float] | None]:
    if kind not in own.figures:
        return None, None
    before, after = theirs.figures[kind].ap, own.figures[kind].ap
    if before is None or after is None:  # no object counts
        return None, None
    return before - after, drop_interval(theirs.resampled(kind), own.resampled(kind))


def _per_class(truth: Truth, own: _Side, theirs: _Side | None) -> tuple[ClassPrecision, ...]:
    def figure(side: _Side | None, kind: Matched, index: int) -> float | None:
        return None if side is None or kind not in side.by_class else side.by_class[kind][index]

    return tuple(
        ClassPrecision(
            label=int(truth.labels[index]),
            name=category.name,
            objects=int(own.matches["box"][index].objects[0].sum()),
            box_ap=figure(own, "box", index),
            mask_ap=figure(own, "mask", index),
            reference_box_ap=figure(theirs, "box", index),
            reference_mask_ap=figure(theirs, "mask", index),
        )
        for index, category in enumerate(truth.annotations.categories)
    )


def _threshold_warnings(model: Named) -> tuple[str, ...]:
    scores = model.detections.scores
    lowest = float(scores.min()) if len(scores) else 0.0
    if lowest <= HIGHEST_THRESHOLD + 0.01:
        return ()
    return (
        f"{model.name}: no detection has a score below {lowest:.2f}, so its AP is lower than that of others: "
        f"export it with a score threshold of at most {HIGHEST_THRESHOLD}",
    )


def _label_warnings(model: Named, truth: Truth) -> tuple[str, ...]:
    unknown = ~np.isin(model.detections.labels, truth.labels)
    if not unknown.any():
        return ()
    shown = Path(truth.annotations.path).name
    return (
        f"{model.name}: {int(unknown.sum()):,} of {len(unknown):,} detections have a label, such as "
        f"{int(model.detections.labels[unknown][0])}, that no category of {shown} has; they were left out: check --class-map",
    )


def judge(report: DetectionReport, max_drop: float) -> Verdict:
    """Decide whether a candidate is within the gate: the interval of each drop of AP must end at `max_drop` points or below.

    `report` compares it with a reference on annotated objects.
    """
    return Gate(max_drop).judge_figures(figures_of(report), report.samples)
