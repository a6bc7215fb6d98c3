"""Result of `validate --explain`: the error of an artifact, split over the stages that cause it. Units are in the names."""

from dataclasses import dataclass

__all__ = ["DropLedger", "LedgerStage"]


@dataclass(frozen=True)
class LedgerStage:
    """What one stage between the reference and the running artifact changes. The stages before it are those of the artifact.

    Attributes:
        name: "export", "preprocessing", "graph", "fp16", "weights", "clipping", "rounding" or "runtime".
        sqnr_db: Power of the reference's logits over that of the stage's change of them; None where nothing changes.
        share_percent: Power of the stage's change, of that of the whole change.
        changed: Number of images whose predicted class the stage changes.
        top1_drop: Points of top-1 that the stage costs; None without labels. Those of all stages add up to the whole drop.
        place: Layer, tensor or option where the change comes from; None where none stands out.
        detail: What happens there; None without a place.
    """

    name: str
    sqnr_db: float | None
    share_percent: float
    changed: int
    top1_drop: float | None
    place: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class DropLedger:
    """The change from a reference's logits to an artifact's, by stages in the order in which an artifact is made and run.

    Attributes:
        images: Number of images that it was measured on.
        sqnr_db: Power of the reference's logits over that of the whole change; None where nothing changes.
        changed: Number of images whose predicted class changes.
        top1_drop: Points of top-1 that are lost; None without labels.
        stages: Every stage that the two models can differ in.
        interaction_percent: Part of the whole change's power that no stage has alone: stages that add to or cancel each other.
        largest: Name of the stage with the largest share; None where nothing changes.
    """

    images: int
    sqnr_db: float | None
    changed: int
    top1_drop: float | None
    stages: tuple[LedgerStage, ...]
    interaction_percent: float
    largest: str | None
