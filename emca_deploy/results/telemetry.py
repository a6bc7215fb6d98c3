"""Telemetry of the machine while a candidate ran: power, clocks, loads and temperatures. Units are in the names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emca_deploy.results.codec import left_out

__all__ = ["ContextSwitches", "Power", "Readings", "SourceTelemetry", "TelemetryResult", "ValueSummary", "total_power"]


# A board's own meter includes everything; then the accelerator, then the processor.
_ORDER = ("ina3221", "tegrastats", "nvml", "rapl")


@dataclass(frozen=True)
class Power:
    """Mean power of one channel of a power meter, and the energy that follows from it.

    Attributes:
        power_w: Power while the candidate ran.
        energy_per_inference_mj: Energy per image; None where the number of images is unknown.
        idle_power_w: Power before any candidate was started; None where it was not sampled.
        net_power_w: Power minus idle power.
        net_energy_per_inference_mj: Energy per image by the net power.
        samples: Number of readings used.
        blurred: Whether a counter was interpolated to the edges of blocks, which mixes neighbouring blocks.
    """

    power_w: float
    energy_per_inference_mj: float | None = left_out()
    idle_power_w: float | None = left_out()
    net_power_w: float | None = left_out()
    net_energy_per_inference_mj: float | None = left_out()
    samples: int = 0
    blurred: bool = False


@dataclass(frozen=True)
class ValueSummary:
    """Readings other than power, in the unit at the end of their name."""

    mean: float
    min: float
    max: float
    samples: int


@dataclass(frozen=True)
class Readings:
    """Readings of one value over time.

    Attributes:
        times_s: Time of each since the candidate's first block, in seconds; blocks of other candidates leave gaps.
        values: Readings, in watts or degrees Celsius.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def contradiction(self) -> str:
        """Return why its values cannot be true, or ""."""
        return "" if len(self.times_s) == len(self.values) else "readings have another number of times than of values"


@dataclass(frozen=True)
class SourceTelemetry:
    """One source's telemetry of a candidate.

    Attributes:
        power: Power by channel; "total" is the source's whole.
        values: Other values by name.
        over_time: Readings of total power ("total_power_w") and of temperatures (their names in `values`), at most a few hundred.
    """

    power: dict[str, Power] = left_out(dict)
    values: dict[str, ValueSummary] = left_out(dict)
    over_time: dict[str, Readings] = left_out(dict)


@dataclass(frozen=True)
class ContextSwitches:
    """How often the threads of a process left their core: to wait (voluntary), or because another thread took it."""

    voluntary: int
    involuntary: int

    def since(self, before: "ContextSwitches") -> "ContextSwitches":
        """Return the switches since `before`; those of threads that have ended are lost."""
        return ContextSwitches(max(0, self.voluntary - before.voluntary), max(0, self.involuntary - before.involuntary))

    def plus(self, other: "ContextSwitches") -> "ContextSwitches":
        """Return the sum."""
        return ContextSwitches(self.voluntary + other.voluntary, self.involuntary + other.involuntary)


@dataclass(frozen=True)
class TelemetryResult:
    """One candidate's telemetry. Values that were not measured are left out of the JSON.

    Attributes:
        interval_ms: Time between samples.
        sampling_core_share: Share of one core that the sampling took.
        idle_s: Time that the idle machine was sampled.
        energy: Reason why there is no energy.
        notes: Values that could not be read, and what to do.
        pss_mib: Memory of the candidate's process, with shared pages divided among the processes that share them.
        context_switches: Context switches of the candidate's processes.
        warnings: Reasons to doubt the candidate's numbers.
    """

    sources: dict[str, SourceTelemetry] = field(default_factory=dict)
    interval_ms: float | None = left_out()
    sampling_core_share: float | None = left_out()
    idle_s: float | None = left_out()
    energy: str | None = left_out()
    notes: tuple[str, ...] = left_out(())
    pss_mib: float | None = left_out()
    context_switches: ContextSwitches | None = left_out()
    warnings: tuple[str, ...] = left_out(())

    @staticmethod
    def older(values: dict[str, Any]) -> dict[str, Any]:
        """Return values in this form; earlier results of trtexec have the values of tegrastats at the top, in milliwatts."""
        if not isinstance(found := values.get("tegrastats"), Mapping):
            return values
        count = found.get("samples", 0)
        rails = {**found.get("power_mw", {}), **({"total": found["total_power_mw"]} if "total_power_mw" in found else {})}
        power = {name: {"power_w": milliwatts["mean"] / 1000, "samples": count} for name, milliwatts in rails.items()}
        return {"sources": {"tegrastats": {"power": power}}}


def total_power(telemetry: TelemetryResult) -> dict[str, Power]:
    """Return the total power by source, the source that includes most first."""
    found = {name: source.power["total"] for name, source in telemetry.sources.items() if "total" in source.power}
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in _ORDER, (*_ORDER, name).index(name)))}
