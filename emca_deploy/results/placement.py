"""The result of measuring placements: an immutable record that converts to JSON and back. Units are in the names."""

from dataclasses import dataclass, field
from typing import Any

from emca_deploy.results.codec import to_json
from emca_deploy.results.latency import SpeedVerdict
from emca_deploy.results.tuning import TuneRound, Values

__all__ = ["MeasuredPlacement"]


@dataclass(frozen=True)
class MeasuredPlacement:
    """The placement that was measured to be fastest for one model, backend and machine.

    Attributes:
        choices: Choices that differ from the recipe in the placement that is used; empty where the recipe is used.
        best: Choices that differ from the recipe in the fastest placement found.
        verdict: Verdict of the last round, in fresh processes; unless it is "faster", the recipe is used.
        ratio: How many times faster the best placement is than the recipe in the last round; None where nothing else was faster.
        ratio_ci95: Bootstrap interval of the ratio.
        recipe_p50_ms: Median latency of the recipe's placement in the last round.
        best_p50_ms: Median latency of the best placement in the last round.
        recipe_sqnr_db: Mean over calibration images of the signal-to-noise ratio of the recipe's logits, run by the backend.
        best_sqnr_db: The same of the best placement; None where there is none.
        trials: Number of placements that were measured, each against the recipe.
        rounds: Rounds of the search; a trial's `changed` holds its choices.
        machine: Facts about the machine that the result is valid for.
        runtime: Version of the backend's library.
        reused: Whether the result was measured by an earlier run.
    """

    backend: str
    target: str
    choices: Values
    best: Values
    verdict: SpeedVerdict
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    recipe_p50_ms: float | None
    best_p50_ms: float | None
    recipe_sqnr_db: float
    best_sqnr_db: float | None
    trials: int
    seconds: float
    rounds: tuple[TuneRound, ...]
    machine: dict[str, Any] = field(default_factory=dict)
    runtime: str | None = None
    created: str | None = None
    reused: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether the search ended by itself: False where its time was over before the last round."""
        return not self.best or self.ratio is not None

    @property
    def gained_percent(self) -> float | None:
        """Percent by which the best placement is faster than the recipe; None where nothing was faster."""
        return None if self.ratio is None else 100 * (self.ratio - 1)

    @property
    def lost_db(self) -> float | None:
        """Decibels that the best placement gives up against the recipe; negative where it gains some."""
        return None if self.best_sqnr_db is None else self.recipe_sqnr_db - self.best_sqnr_db

    @property
    def lost_db_per_percent(self) -> float | None:
        """Decibels given up for each percent gained; None where nothing was gained."""
        gained, lost = self.gained_percent, self.lost_db
        return None if not gained or gained < 0 or lost is None else lost / gained

    def document(self) -> dict[str, Any]:
        """Return the form in `calibrate --json`."""
        derived = {name: getattr(self, name) for name in ("gained_percent", "lost_db", "lost_db_per_percent")}
        return {**to_json(self), **{name: None if value is None else round(value, 3) for name, value in derived.items()}}

    def record(self) -> dict[str, Any]:
        """Return the form in manifests, which leaves the single rounds out."""
        return {name: value for name, value in self.document().items() if name not in ("rounds", "reused")}
