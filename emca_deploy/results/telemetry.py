"""What the machine did while a candidate ran: power, clocks, loads and temperatures. Units are in the names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emca_deploy.results.codec import left_out

__all__ = ["ContextSwitches", "Power", "SourceTelemetry", "TelemetryResult", "ValueSummary"]


@dataclass(frozen=True)
class Power:
    """Mean power of one channel of a power meter, and the energy that follows from it.

    Attributes:
        power_w: while the candidate ran.
        energy_per_inference_mj: energy of one image; None where the images are not known.
        idle_power_w: before any candidate was started; None where the machine was not watched then.
        net_power_w: power less idle power.
        net_energy_per_inference_mj: energy of one image from the net power.
        samples: readings that were used.
        blurred: whether a counter had to be interpolated to the edges of blocks, so that neighbours mix.
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
    """Readings of anything but power, in the unit that its name ends with."""

    mean: float
    min: float
    max: float
    samples: int


@dataclass(frozen=True)
class SourceTelemetry:
    """What one source reported of a candidate.

    Attributes:
        power: by channel; "total" is all that the source sees.
        values: by the name of the reading.
    """

    power: dict[str, Power] = left_out(dict)
    values: dict[str, ValueSummary] = left_out(dict)


@dataclass(frozen=True)
class ContextSwitches:
    """How often the threads of a process left their core: to wait, or because something else took it."""

    voluntary: int
    involuntary: int

    def since(self, before: "ContextSwitches") -> "ContextSwitches":
        """Return what came since `before`; threads that ended meanwhile took theirs with them."""
        return ContextSwitches(max(0, self.voluntary - before.voluntary), max(0, self.involuntary - before.involuntary))

    def plus(self, other: "ContextSwitches") -> "ContextSwitches":
        """Return both together."""
        return ContextSwitches(self.voluntary + other.voluntary, self.involuntary + other.involuntary)


@dataclass(frozen=True)
class TelemetryResult:
    """One candidate's telemetry. What was not measured is left out of the JSON.

    Attributes:
        sources: what each source reported, by its name.
        interval_ms: time between samples.
        sampling_core_share: what the sampling itself took of one core.
        idle_s: how long the machine was watched at rest.
        energy: why there is no energy.
        notes: what could not be read, and what to do.
        pss_mib: memory of the candidate's process, shared pages divided among those that share them.
        context_switches: context switches of the candidate's processes.
        warnings: what casts doubt on the candidate's numbers.
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
        """Return values in this form; earlier results of trtexec have milliwatts and temperatures of tegrastats at the top."""
        if not isinstance(found := values.get("tegrastats"), Mapping):
            return values
        count = found.get("samples", 0)
        rails = {**found.get("power_mw", {}), **({"total": found["total_power_mw"]} if "total_power_mw" in found else {})}
        power = {name: {"power_w": milliwatts["mean"] / 1000, "samples": count} for name, milliwatts in rails.items()}
        return {"sources": {"tegrastats": {"power": power}}}
