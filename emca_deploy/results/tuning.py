"""Results of `tune`: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass, field
from typing import Any

from emca_deploy.results.codec import version
from emca_deploy.results.latency import Scenario, SpeedVerdict

__all__ = ["SCHEMA_VERSION", "Numerics", "Trial", "Tunable", "TuneReport", "TuneRound", "Value", "Values"]

SCHEMA_VERSION = 1

Value = str | int | bool
Values = dict[str, Value]
"""Settings by name; settings that are not named keep their default."""


@dataclass(frozen=True)
class Tunable:
    """A setting to try.

    Attributes:
        name: Unique name in a search.
        default: Value without tuning; never left to the runtime.
        others: Values to compare with the default.
        threaded: Whether it matters only where the setting "threads" is more than 1.
    """

    name: str
    default: Value
    others: tuple[Value, ...]
    threaded: bool = False


@dataclass(frozen=True)
class Trial:
    """Some settings in one round.

    Attributes:
        changed: Settings that differ from the default.
        ratio: How many times faster they are than the default, measured in turn with them.
        ratio_ci95: Bootstrap interval of the ratio.
    """

    changed: Values
    p50_ms: float
    throughput_images_per_s: float
    ratio: float
    ratio_ci95: tuple[float, float]


@dataclass(frozen=True)
class TuneRound:
    """One round of the search.

    Attributes:
        duration_s: Measured time of each trial.
        trials: Trials, the fastest first, without the default.
        refused: Settings that the runtime refuses, with its reason.
    """

    duration_s: float
    trials: tuple[Trial, ...]
    refused: tuple[tuple[Values, str], ...] = ()


@dataclass(frozen=True)
class Numerics:
    """The difference of the logits with the chosen settings from those with the default ones, on random images.

    Attributes:
        agreement: Percent of images with the same class.
        sqnr_db: Signal-to-noise ratio of the logits; None where they are identical.
    """

    images: int
    agreement: float
    sqnr_db: float | None


@dataclass(frozen=True)
class TuneReport:
    """The output of `tune --json`. Values of default and best settings are those of the last round.

    Attributes:
        default: All settings without tuning.
        best: Settings that differ from the default in the fastest settings found; empty where the default is fastest.
        settings: All settings chosen: the best ones where they are shown to be faster, else the default.
        verdict: Verdict on best against default; unless it is "faster", the default is kept.
        ratio: How many times faster best is than default in the last round, which chooses nothing, so the ratio is not biased
            upwards; None where it was not run.
        ratio_ci95: Bootstrap interval of the ratio.
        complete: False where the search was interrupted; `best` is then the fastest so far, and unconfirmed.
        numerics: Difference of the logits; None where the default is kept.
        saved_to: Manifest that was written; None where none was.
    """

    artifact: str
    backend: str
    scenario: Scenario
    batch: int
    default: Values
    best: Values
    settings: Values
    verdict: SpeedVerdict
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    default_p50_ms: float | None
    best_p50_ms: float | None
    default_images_per_s: float | None
    best_images_per_s: float | None
    rounds: tuple[TuneRound, ...]
    seconds: float
    complete: bool = True
    numerics: Numerics | None = None
    saved_to: str | None = None
    notes: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    schema_version: int = version(SCHEMA_VERSION)
