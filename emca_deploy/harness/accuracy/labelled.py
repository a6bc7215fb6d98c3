"""The labelled images of a measurement: checked before the network runs, and settled where only its logits can decide."""

from collections.abc import Collection
from dataclasses import dataclass, field

from emca_deploy.arrays import Float32Array
from emca_deploy.data.image_checks import overlap_warnings
from emca_deploy.data.labels import LabelsFound, check_classes, class_warnings
from emca_deploy.data.sources import ImageSource
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.tasks.logits import predicted, top1_percent

__all__ = ["LabelledImages"]

MOST_NAMED = 4


@dataclass
class LabelledImages:
    """Images, their labels, and warnings about them.

    Attributes:
        source: Images; they may have no labels.
        class_order: Order of class folders with numbers as names, where the accuracy decided it and no option did.
        found: Labels; in numeric order before `settle`.
    """

    source: ImageSource
    warnings: list[str] = field(default_factory=list)
    class_order: str | None = None
    found: LabelsFound | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.found = self.source.labelled

    def check(self, name: str, outputs: int | None) -> None:
        """Check the labels against the number of a network's outputs, None where it is unknown.

        Raises:
            DataError: a label has no output.
        """
        if self.found is None or outputs is None:
            return
        check_classes(name, self.found.labels, outputs)
        self.warnings += [warning for warning in class_warnings(self.found, outputs) if warning not in self.warnings]

    def settle(self, result: LogitsResult, logits: Float32Array | None = None) -> LogitsResult:
        """Return a result with these labels; folders with numbers as names take the order that gives the higher top-1.

        `logits` of the fp32 reference, (N, classes) float32 of the same images, decide in place of the result's where given.
        """
        if self.found is None or self.found.as_strings is None or self.class_order is not None:
            return result.labelled_by(self.found)
        classes = predicted(result.logits if logits is None else logits)
        orders = {"number": self.found, "string": self.found.as_strings}
        top1 = {order: top1_percent(classes, result.labelled_by(found).labels) for order, found in orders.items()}
        self.class_order = max(orders, key=lambda order: top1[order])  # in a tie, numeric order
        other = "number" if self.class_order == "string" else "string"
        self.found = orders[self.class_order]
        first = ", ".join(self.found.classes[-self.found.count :][:MOST_NAMED])
        self.warnings.append(
            f"class folders are numbers without leading zeros: {self.class_order} order ({first}, ...) was used, because its "
            f"top-1 is {top1[self.class_order]:.2f}% and that of {other} order {top1[other]:.2f}%: set --class-order to confirm"
        )
        return result.labelled_by(self.found)

    def check_overlap(self, calibrated: Collection[str], result: LogitsResult) -> None:
        """Warn where images of a result were used for calibration, by their digests from `image_digests`.

        Raises:
            DataError: an image cannot be read.
        """
        self.warnings += overlap_warnings(self.source, result.indices(len(self.source)), calibrated)
