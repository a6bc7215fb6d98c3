"""`validate --corruptions`: the accuracies of an artifact and its reference on corrupted images."""

from dataclasses import dataclass

import numpy as np

from emca_deploy._progress import Stage
from emca_deploy.data.corruptions.corruption import Corruption
from emca_deploy.data.corruptions.registry import chosen_corruptions
from emca_deploy.errors import InputError
from emca_deploy.harness.accuracy.classified import ClassifiedImages
from emca_deploy.harness.accuracy.corrupted import Answering, CorruptedRun
from emca_deploy.harness.accuracy.evaluation import Evaluation, Measured
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.requests import LogitsRequest
from emca_deploy.results.corruptions import CorruptionReport
from emca_deploy.targets.local import LocalTarget

__all__ = ["Corruptions", "Side"]

_STEPS = ("image_size", "resize", "resize_size", "interpolation", "pad", "exif")
"""Fields of a preprocessing before an image is corrupted."""


@dataclass(frozen=True)
class Side:
    """A model of the comparison: its request, and the target that runs it."""

    target: LocalTarget
    request: LogitsRequest

    @classmethod
    def of(cls, target: object, request: LogitsRequest) -> "Side":
        """Return a side that runs on this machine.

        Raises:
            InputError: the target is remote, or shared by several workers.
        """
        if isinstance(target, LocalTarget):
            return cls(target, request)
        problem = f"--corruptions: target '{request.target}' is not this machine, which makes the corrupted images"
        raise InputError(problem, "run the command on the target's machine, or leave --corruptions out")

    def answering(self, used: Preprocessing) -> Answering:
        """Return the candidate."""
        return Answering(self.target.answering(self.request), used)


@dataclass(frozen=True)
class Corruptions:
    """The corruptions that a user wants, and the gate's limit in points, if any."""

    kinds: tuple[Corruption, ...]
    max_drop: float | None

    @classmethod
    def of(cls, names: str, max_drop: float | None) -> "Corruptions":
        """Return those of an option.

        Raises:
            UnknownNameError: there is no such corruption.
        """
        return cls(chosen_corruptions(names), max_drop)

    def check_images(self, images: Evaluation) -> None:
        """Refuse images that cannot be corrupted.

        Raises:
            InputError: they are the network's input.
        """
        if images.source.finished:
            problem = f"{images.source.name}: holds the network's input, which cannot be corrupted like an image"
            raise InputError(problem, "save the images as uint8, or leave --corruptions out")

    @staticmethod
    def warnings(report: CorruptionReport) -> list[str]:
        """Return a warning where the gate's limit does not hold on corrupted images."""
        above = report.verdicts.get("above", 0)
        if not above:
            return []
        worst = f"the worst is {report.worst_kind} at strength {report.worst_strength}"
        total = sum(report.verdicts.values())
        return [f"{above} of {total} cells of corrupted images are above --max-drop {report.max_drop:g}: {worst}"]

    def measure(
        self, sides: tuple[Side, Side], measured: Measured, images: Evaluation, stage: Stage
    ) -> CorruptionReport:  # fmt: skip
        """Run the images of a measurement, corrupted, through candidate and reference.

        Raises:
            InputError: the two have different preprocessing before normalization.
            EmcaError: see `CorruptedRun.compare`.
        """
        assert isinstance(images, ClassifiedImages)
        assert measured.reference is not None
        _check_alike(measured.own.preprocessing, measured.reference.preprocessing)
        found = images.settled(measured)
        assert found.labels is not None
        shuffled = np.random.RandomState(0).permutation(len(found.labels))
        run = CorruptedRun(
            images.source,
            np.array(found.indices(len(images.source)), np.int64)[shuffled],
            found.labels[shuffled],
            found.names.classes,
            found.logits.shape[1],
            self.kinds,
            self.max_drop,
            sides[0].request.batch,
        )
        own, reference = sides
        with own.target.hold(own.request.power_mode), stage("corruptions") as progress:
            return run.compare(
                own.answering(measured.own.preprocessing), reference.answering(measured.reference.preprocessing), progress
            )


def _check_alike(own: Preprocessing, reference: Preprocessing) -> None:
    differing = [name for name in _STEPS if getattr(own, name) != getattr(reference, name)]
    if differing:
        name = differing[0]
        values = f"{getattr(own, name)} and {getattr(reference, name)}"
        problem = f"--corruptions: the artifact and the reference have different images: {name.replace('_', ' ')} {values}"
        raise InputError(problem, "name a --reference with the same preprocessing")
