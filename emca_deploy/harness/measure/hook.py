"""The telemetry of a whole run: the idle machine first, then the run, then each candidate's share."""

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.harness.measure.stability import clock_warnings
from emca_deploy.results.telemetry import ContextSwitches, TelemetryResult
from emca_deploy.telemetry.attribution import Window, attribute
from emca_deploy.telemetry.nvml import NvmlSource
from emca_deploy.telemetry.process_memory import ProcessMemorySource, read_context_switches, read_pss_mib
from emca_deploy.telemetry.processor import CpuFrequencySource
from emca_deploy.telemetry.rapl import RaplSource
from emca_deploy.telemetry.recorder import Recorder, Sample
from emca_deploy.telemetry.source import TelemetrySource
from emca_deploy.telemetry.tegrastats_source import TegrastatsSource, TotalPower
from emca_deploy.telemetry.thermal import ThermalSource

__all__ = ["NO_POWER", "Telemetry", "available_sources"]

NO_POWER = "not measured: no power meter that can be read (RAPL, NVML, tegrastats, INA3221)"


def available_sources(
    root: Path = Path("/"), gpu_bus_id: str | None = None, total_power_mw: TotalPower | None = None
) -> list[TelemetrySource]:
    """Return the sources that this machine has; opening one may still fail without permission, which becomes a note.

    `gpu_bus_id` is the PCI bus id of the candidates' GPU; `total_power_mw` is the rule for the total of tegrastats.
    """
    kinds = (CpuFrequencySource, ThermalSource, RaplSource)
    sources: list[TelemetrySource] = [kind(root) for kind in kinds if kind.is_available(root)]
    if gpu_bus_id is not None:
        sources.append(NvmlSource(gpu_bus_id))
    if TegrastatsSource.is_available():
        sources.append(TegrastatsSource(total_power_mw=total_power_mw))
    return sources


class Telemetry:
    """The telemetry of a run: a context manager that samples from its start to `end`. Nothing in it fails a run.

    The calls come in this order: `sample_idle`, `watch`, `begin`, `end`; the first two are optional.

    Args:
        sources: Sources to sample.
        interval_s: Time between two samples.
        idle_s: Time to sample the idle machine; 0 skips it.
    """

    def __init__(self, sources: Sequence[TelemetrySource], interval_s: float = 0.1, idle_s: float = 1.0) -> None:
        self._recorder = Recorder(sources, interval_s)
        self._idle_s = idle_s
        self._idle: Window | None = None
        self._pids: dict[str, int] = {}
        self._switches: dict[str, ContextSwitches] = {}
        self._ended: dict[str, _OfProcess] = {}

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples so far."""
        return self._recorder.samples

    def __enter__(self) -> "Telemetry":
        self._recorder.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._recorder.__exit__()

    def sample_idle(self) -> None:
        """Sample the machine at rest, before any process of the run starts."""
        if self._idle_s <= 0:
            return
        began_ns = time.monotonic_ns()
        time.sleep(self._idle_s)
        self._recorder.sample_now()
        self._idle = (began_ns, time.monotonic_ns())

    def watch(self, name_to_pid: Mapping[str, int]) -> None:
        """Sample the memory and context switches of the candidates' processes from now on."""
        for name, pid in name_to_pid.items():
            self._pids[name] = pid
            if (switches := read_context_switches(pid)) is not None:
                self._switches[name] = switches
            self._recorder.add(ProcessMemorySource(pid, name))

    def unwatch(self) -> None:
        """Keep the values of processes that are about to end."""
        for name in self._pids:
            self._ended[name] = self._of_processes(name)
        self._pids.clear()
        self._switches.clear()

    def begin(self) -> None:
        """Begin the run, just before the first window."""
        self._recorder.sample_now()

    def end(
        self, name_to_windows: Mapping[str, Sequence[Window]], name_to_inferences: Mapping[str, int]
    ) -> dict[str, TelemetryResult]:
        """End the run while the processes still live, and return each candidate's telemetry; see `attribution.attribute`.

        Inferences are each candidate's images in all its windows, so energy is per image.
        """
        self._recorder.sample_now()
        processes = {name: self._of_processes(name) for name in name_to_windows}
        self._recorder.__exit__()
        shares = attribute(self.samples, name_to_windows, [self._idle] if self._idle else [], name_to_inferences)
        metered = any(source.power for share in shares.values() for source in share.values())
        return {
            name: TelemetryResult(
                share,
                interval_ms=self._recorder.interval_s * 1000,
                sampling_core_share=self._recorder.core_share,
                idle_s=(self._idle[1] - self._idle[0]) / 1e9 if self._idle else None,
                energy=None if metered else NO_POWER,
                notes=tuple(self._recorder.notes),
                pss_mib=processes[name].pss_mib,
                context_switches=processes[name].context_switches,
                warnings=tuple(self._clock_warnings(name_to_windows[name])),
            )
            for name, share in shares.items()
        }

    def _clock_warnings(self, windows: Sequence[Window]) -> list[str]:
        """Judge by the fastest core, since a mean also falls where fewer cores are busy."""
        times, clocks = [], []
        starts, ends = [begin for begin, _ in windows], [end for _, end in windows]  # in order of time, without overlap
        for sample in self.samples:
            window = bisect_right(starts, sample.time_ns) - 1
            if window < 0 or sample.time_ns > ends[window]:
                continue
            cores = [value for name, value in sample.values.items() if name.startswith("core_") and name.endswith("_mhz")]
            if cores:
                times.append(sample.time_ns)
                clocks.append(max(cores))
        return clock_warnings(times, clocks)

    def _of_processes(self, name: str) -> "_OfProcess":
        """Return the values of a candidate's processes so far: of those that have ended, and of the live one."""
        before, pid = self._ended.get(name, _OfProcess()), self._pids.get(name)
        if pid is None:
            return before
        now, began = read_context_switches(pid), self._switches.get(name)
        passed = None if now is None or began is None else now.since(began)
        return before.plus(_OfProcess(read_pss_mib(pid), passed))


@dataclass(frozen=True)
class _OfProcess:
    pss_mib: float | None = None
    context_switches: ContextSwitches | None = None

    def plus(self, later: "_OfProcess") -> "_OfProcess":
        """Return the larger memory of the two, and the sum of the context switches."""
        memory = max((mib for mib in (self.pss_mib, later.pss_mib) if mib is not None), default=None)
        one, other = self.context_switches, later.context_switches
        return _OfProcess(memory, one.plus(other) if one is not None and other is not None else one or other)
