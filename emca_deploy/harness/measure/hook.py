"""Telemetry of a whole comparison: idle first, then the run, then each candidate's share."""

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from emca_deploy.harness.measure.stability import clock_warnings
from emca_deploy.telemetry.attribution import Window, attribute
from emca_deploy.telemetry.nvml import NvmlSource
from emca_deploy.telemetry.process_memory import (
    ContextSwitches,
    ProcessMemorySource,
    read_context_switches,
    read_pss_mib,
)
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
    """Return the sources that this machine has; opening one may still fail, for want of a right, which the recorder notes.

    Args:
        root: of the file system; a test points at a recorded tree.
        gpu_bus_id: of the NVIDIA GPU that the candidates run on, if on one.
        total_power_mw: for tegrastats: how this board's rails add up.
    """
    sources: list[TelemetrySource] = []
    if CpuFrequencySource.is_here(root):
        sources.append(CpuFrequencySource(root))
    if ThermalSource.is_here(root):
        sources.append(ThermalSource(root))
    if RaplSource.is_here(root):
        sources.append(RaplSource(root))
    if gpu_bus_id is not None:
        sources.append(NvmlSource(gpu_bus_id))
    if TegrastatsSource.is_here():
        sources.append(TegrastatsSource(total_power_mw=total_power_mw))
    return sources


class Telemetry:
    """What the latency harness calls around a run. Leave it, as a context manager or by `close`, however the run ended.

    The calls come in this order: `begin_idle`, `end_idle`, `watch` (optional), `begin`, `end`. Nothing here fails a run.

    Args:
        sources: what to sample.
        interval_s: between two samples of a source.
        idle_s: how long the machine is watched at rest; `end_idle` waits for it. 0 is not at all.

    Attributes:
        notes: what could not be had and what to do, each said once.
    """

    def __init__(self, sources: Sequence[TelemetrySource], interval_s: float = 0.1, idle_s: float = 1.0) -> None:
        self._recorder = Recorder(sources, interval_s)
        self._idle_s = idle_s
        self._entered = False
        self._idle: Window | None = None
        self._began_ns = 0
        self._pids: dict[str, int] = {}
        self._switches: dict[str, ContextSwitches] = {}
        self._ended: dict[str, dict[str, Any]] = {}

    @property
    def notes(self) -> list[str]:
        """See the class."""
        return self._recorder.notes

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Everything recorded so far."""
        return self._recorder.samples

    def __enter__(self) -> "Telemetry":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop sampling and every source's process; harmless when nothing runs."""
        if self._entered:
            self._entered = False
            self._recorder.__exit__(None, None, None)

    def begin_idle(self) -> None:
        """Open the sources and watch the machine, on which nothing of ours runs yet."""
        self._open()
        self._began_ns = time.monotonic_ns()

    def end_idle(self) -> None:
        """Wait until the idle time is long enough, and end it."""
        if self._idle_s <= 0:
            return
        passed_s = (time.monotonic_ns() - self._began_ns) / 1e9
        time.sleep(max(0.0, self._idle_s - passed_s))
        self._recorder.sample_now()
        self._idle = (self._began_ns, time.monotonic_ns())

    def watch(self, name_to_pid: Mapping[str, int]) -> None:
        """Sample the memory and context switches of the candidates' processes from now on."""
        self._open()
        for name, pid in name_to_pid.items():
            self._pids[name] = pid
            if name in self._ended and (switches := read_context_switches(pid)) is not None:
                self._switches[name] = switches
            self._recorder.add(ProcessMemorySource(pid, name))

    def unwatch(self) -> None:
        """Keep what is known of processes that are about to end."""
        for name in self._pids:
            found = self._of_process(name)
            self._ended[name] = _added(self._ended.get(name, {}), found)
        self._pids.clear()
        self._switches.clear()

    def begin(self) -> None:
        """Begin the run: the first window comes now."""
        self._open()
        for name, pid in self._pids.items():
            switches = read_context_switches(pid)
            if switches is not None:
                self._switches[name] = switches
        self._began_ns = time.monotonic_ns()
        self._recorder.sample_now()

    def end(
        self, name_to_windows: Mapping[str, Sequence[Window]], name_to_inferences: Mapping[str, int]
    ) -> dict[str, dict[str, Any]]:
        """End the run and return each candidate's telemetry, see `attribution.attribute`; the processes may still live.

        Args:
            name_to_windows: when each candidate ran, in nanoseconds of time.monotonic_ns.
            name_to_inferences: images of each in all its windows: energy is per image.

        Returns:
            For each candidate: "sources" -> what `attribute` found, "interval_ms", "sampling_core_share" (what the sampling
            itself took of one core), "idle_s", and where known "pss_mib" and "context_switches" of its process, "warnings"
            that cast doubt on its numbers, "notes", and "energy" where it was not measured.
        """
        self._recorder.sample_now()
        processes = {name: _added(self._ended.get(name, {}), self._of_process(name)) for name in name_to_windows}
        self.close()
        idle = [self._idle] if self._idle else []
        shares = attribute(self.samples, name_to_windows, idle, name_to_inferences)
        common: dict[str, Any] = {
            "interval_ms": self._recorder.interval_s * 1000,
            "sampling_core_share": self._recorder.core_share,
        }
        if self._idle:
            common["idle_s"] = (self._idle[1] - self._idle[0]) / 1e9
        if not any("power" in source for share in shares.values() for source in share.values()):
            common["energy"] = NO_POWER
        if self.notes:
            common["notes"] = list(self.notes)
        result = {}
        for name, share in shares.items():
            warnings = self._clock_warnings(name_to_windows[name])
            result[name] = {"sources": share, **common, **processes[name], **({"warnings": warnings} if warnings else {})}
        return result

    def _clock_warnings(self, windows: Sequence[Window]) -> list[str]:
        """Judge by the fastest core: a mean falls, too, where fewer cores are busy."""
        times, clocks = [], []
        starts, ends = [begin for begin, _ in windows], [end for _, end in windows]  # in the order of time, not overlapping
        for sample in self.samples:
            window = bisect_right(starts, sample.time_ns) - 1
            if window < 0 or sample.time_ns > ends[window]:
                continue
            cores = [value for name, value in sample.values.items() if name.startswith("core_") and name.endswith("_mhz")]
            if cores:
                times.append(sample.time_ns)
                clocks.append(max(cores))
        return clock_warnings(times, clocks)

    def _open(self) -> None:
        if not self._entered:
            self._recorder.__enter__()
            self._entered = True

    def _of_process(self, name: str) -> dict[str, Any]:
        pid = self._pids.get(name)
        if pid is None:
            return {}
        found: dict[str, Any] = {}
        if (pss_mib := read_pss_mib(pid)) is not None:
            found["pss_mib"] = pss_mib
        now, before = read_context_switches(pid), self._switches.get(name)
        if now is not None and before is not None:
            passed = now.since(before)
            found["context_switches"] = {"voluntary": passed.voluntary, "involuntary": passed.involuntary}
        return found


def _added(ended: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a candidate's processes, one after the other: the most memory, all context switches."""
    found = {**ended, **last}
    if "pss_mib" in ended and "pss_mib" in last:
        found["pss_mib"] = max(ended["pss_mib"], last["pss_mib"])
    if "context_switches" in ended and "context_switches" in last:
        both = (ended["context_switches"], last["context_switches"])
        found["context_switches"] = {kind: sum(each[kind] for each in both) for kind in both[0]}
    return found
