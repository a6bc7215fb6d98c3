"""Measure what sampling costs: processor time of the sampling thread for each source of this machine, at several intervals.

    python benchmarks/telemetry_cost.py [--seconds 5]

The sources are read as `profile` reads them; a source that this machine lacks has no row. The row "nothing" is the thread alone.
"""

import argparse
import os
import time

from emca_deploy.harness.measure.hook import available_sources
from emca_deploy.telemetry.process_memory import ProcessMemorySource
from emca_deploy.telemetry.recorder import Recorder
from emca_deploy.telemetry.source import TelemetrySource

__all__ = ["main"]

INTERVALS_MS = (10, 100, 1000)


def core_percent(sources: list[TelemetrySource], interval_ms: int, seconds: float) -> tuple[float, int]:
    with Recorder(sources, interval_ms / 1000) as recorder:
        time.sleep(seconds)
    return recorder.core_share * 100, recorder.reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each measurement")
    seconds = parser.parse_args().seconds
    every: list[TelemetrySource] = [*available_sources(), ProcessMemorySource(os.getpid(), "this process")]
    rows = {"nothing": [], **{source.name: [source] for source in every}, "all": every}
    print(f"{'source':<16}" + "".join(f"{f'every {ms} ms':>28}" for ms in INTERVALS_MS))
    for name, sources in rows.items():
        cells = [core_percent(sources, ms, seconds) for ms in INTERVALS_MS]
        print(f"{name:<16}" + "".join(f"{f'{percent:.3f} % of a core, {reads} reads':>28}" for percent, reads in cells))


if __name__ == "__main__":
    main()
