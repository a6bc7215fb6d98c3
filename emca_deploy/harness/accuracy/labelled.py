"""The labelled images of a measurement: held against the network before it runs, their open questions settled by its logits."""

from collections.abc import Collection
from dataclasses import dataclass, field

from emca_deploy.arrays import Float32Array
from emca_deploy.data.image_checks import shared_images
from emca_deploy.data.labels import LabelsFound, check_classes, class_warnings
from emca_deploy.data.sources import ImageSource
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.tasks.logits import predicted, top1_percent

__all__ = ["LabelledImages"]

MOST_NAMED = 4


@dataclass
class LabelledImages:
    """Images, their labels, and what is to be said of them.

    Attributes:
        source: the images; they may have no labels.
        class_order: how number-named class folders were sorted, where no option set it and the accuracy decided.
    """

    source: ImageSource
    warnings: list[str] = field(default_factory=list)
    class_order: str | None = None
    _found: LabelsFound | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._found = self.source.labelled

    @property
    def found(self) -> LabelsFound | None:
        """The labels; before `settle` those in the order of numbers."""
        return self._found

    def check(self, name: str, outputs: int | None) -> None:
        """Hold the labels against a network and the width of its logits, None where that is not known yet.

        Raises:
            DataError: a label is none of its outputs.
        """
        if self._found is None or outputs is None:
            return
        check_classes(name, self._found.labels, outputs)
        self.warnings += [warning for warning in class_warnings(self._found, outputs) if warning not in self.warnings]

    def settle(self, result: LogitsResult, logits: Float32Array | None = None) -> LogitsResult:
        """Return a result with these labels; number-named folders come into the order in which the network is more often right.

        `logits`, (N, classes) float32 of the same images, decide in place of the result's: those of the fp32 reference.
        """
        if self._found is None or self._found.as_strings is None or self.class_order is not None:
            return result.labelled_by(self._found)
        classes = predicted(result.logits if logits is None else logits)
        orders = {"number": self._found, "string": self._found.as_strings}
        top1 = {order: top1_percent(classes, result.labelled_by(found).labels) for order, found in orders.items()}
        self.class_order = max(orders, key=lambda order: top1[order])  # a tie is the order of numbers
        other = "number" if self.class_order == "string" else "string"
        self._found = orders[self.class_order]
        first = ", ".join(self._found.classes[-self._found.count :][:MOST_NAMED])
        self.warnings.append(
            f"class folders are numbers without leading zeros: taken in {self.class_order} order ({first}, ...), with top-1 "
            f"{top1[self.class_order]:.2f}% against {top1[other]:.2f}% in {other} order; --class-order {self.class_order} says so"
        )
        return result.labelled_by(self._found)

    def check_overlap(self, calibrated: Collection[str], result: LogitsResult) -> None:
        """Warn where images of a result were calibrated with, by their digests as `image_digests` gives them.

        Raises:
            DataError: an image cannot be read.
        """
        indices = result.indices(len(self.source))
        shared = shared_images(self.source, indices, calibrated) if calibrated else 0
        if shared:
            self.warnings.append(
                f"{shared:,} of {len(indices):,} images were calibrated with, so that they say too little of the drop on new "
                "ones; give others"
            )
