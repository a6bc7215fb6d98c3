"""What `tune` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from dataclasses import dataclass, field
from typing import Any

from emca_deploy.results.codec import version
from emca_deploy.results.latency import Scenario, SpeedVerdict

__all__ = ["SCHEMA_VERSION", "Numerics", "Trial", "Tunable", "TuneReport", "TuneRound", "Value", "Values"]

SCHEMA_VERSION = 1

Value = str | int | bool
Values = dict[str, Value]
"""Settings by name; those that are not named stay at their default."""


@dataclass(frozen=True)
class Tunable:
    """A setting to try.

    Attributes:
        name: unique among those of a search.
        default: what runs without tuning; never left to the runtime.
        others: the values to try against it.
        threaded: makes a difference only where the setting "threads" is more than 1.
    """

    name: str
    default: Value
    others: tuple[Value, ...]
    threaded: bool = False


@dataclass(frozen=True)
class Trial:
    """Some settings in one round.

    Attributes:
        changed: what differs from the default.
        p50_ms: median of a call.
        throughput_images_per_s: images per second.
        ratio: how many times faster than the default, which was measured in turn with it.
        ratio_ci95: its bootstrap interval.
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
        duration_s: measured time of each setting.
        trials: the fastest first; the default is not among them.
        refused: settings that the runtime does not take, with its reason.
    """

    duration_s: float
    trials: tuple[Trial, ...]
    refused: tuple[tuple[Values, str], ...] = ()


@dataclass(frozen=True)
class Numerics:
    """How far the answers with the chosen settings are from those with the default ones, on random images.

    Attributes:
        images: how many.
        agreement: percent with the same class.
        sqnr_db: signal-to-noise ratio of the logits; None where they are the same to the last bit.
    """

    images: int
    agreement: float
    sqnr_db: float | None


@dataclass(frozen=True)
class TuneReport:
    """What `tune --json` prints.

    Attributes:
        default: every setting as it is without tuning.
        best: what differs from it in the fastest settings found; empty where the default is.
        settings: every setting as chosen: the best ones where they are shown to be faster, else the default.
        verdict: verdict of the last round, best against default: "faster", else the default is kept.
        ratio: best against default in the last round, which chose nothing, so that it is not flattered; None where none was run.
        ratio_ci95: its interval.
        default_p50_ms: median call of the default settings in the last round.
        best_p50_ms: median call of the best settings in the last round.
        default_images_per_s: throughput of the default settings in the last round.
        best_images_per_s: throughput of the best settings in the last round.
        complete: false where it was interrupted; `best` is then the fastest so far, and unconfirmed.
        numerics: whether the answers stay the same; None where the default is kept.
        saved_to: the manifest that was written; None where none was.
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
