"""Compare our device time with that of TensorRT's own trtexec, engine by engine. Part of benchmarks/gpu.py."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from emca_deploy._optional import installed_version
from emca_deploy.backends.tensorrt.tool.dialects import TrtexecTiming
from emca_deploy.backends.tensorrt.tool.find import Trtexec, find_trtexec
from emca_deploy.backends.tensorrt.tool.results import Timed
from emca_deploy.backends.tensorrt.tool.run import Host, time_engine
from emca_deploy.errors import EmcaError

__all__ = ["compare_with_vendor", "find_vendor_tool", "vendor_document", "vendor_row", "vendor_table"]

RUNS = 3
"""Number of trtexec processes per engine: each one's memory has another layout."""

AGREES = 0.02
"""Largest relative difference allowed between the medians of device time."""


def find_vendor_tool(backend: str, path: str | None = None) -> tuple[Trtexec | None, str]:
    """Return the tool, or None and the reason why there is none.

    Args:
        backend: Backend of the engines.
        path: Path of trtexec; None searches the usual places.
    """
    if backend != "tensorrt":
        return None, f"{backend} has no timing tool in its wheel; trtexec loads only TensorRT engines"
    try:
        tool = find_trtexec(path=path)
    except EmcaError as error:
        return None, error.problem
    return _same_version(tool, installed_version(backend))


def _same_version(tool: Trtexec, built: str | None) -> tuple[Trtexec | None, str]:
    if built is None or not built.startswith(f"{tool.version_text}."):
        return None, f"{tool.path} is version {tool.version_text} and cannot load engines of TensorRT {built}"
    return tool, ""


def vendor_row(ours: Mapping[str, Any], theirs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return our median device time over trtexec's, with an interval that includes both tools' uncertainty.

    Args:
        ours: JSON summary of our device time.
        theirs: JSON summary of each run of trtexec.
    """
    middle = median(run["p50"] for run in theirs)
    low = min(run["p50_ci95"][0] for run in theirs)
    high = max(run["p50_ci95"][1] for run in theirs)
    interval = [ours["p50_ci95"][0] / high, ours["p50_ci95"][1] / low]
    inside = interval[0] >= 1 - AGREES and interval[1] <= 1 + AGREES
    outside = interval[1] < 1 - AGREES or interval[0] > 1 + AGREES
    verdict = f"within {AGREES:.0%}" if inside else (f"beyond {AGREES:.0%}" if outside else "not shown")
    return {"ours_ms": ours["p50"], "trtexec_ms": middle, "ratio": ours["p50"] / middle, "interval": interval, "verdict": verdict}


def compare_with_vendor(
    tool: Trtexec, engines: Mapping[str, Path], measured: Mapping[str, Mapping[str, Any]], batch: int, duration_s: float
) -> dict[str, Any]:
    """Time every engine with trtexec too.

    Args:
        tool: The trtexec of the engines' version.
        engines: Engines with a fixed batch size, by precision.
        measured: Our device times by precision; failed ones are absent.
        batch: Number of images per call.
        duration_s: Duration of each run.

    Returns:
        A row for each precision, or trtexec's error.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        machine = Host(folder=folder, target="gpu")
        for precision, engine in engines.items():
            if precision not in measured:
                continue
            timing = TrtexecTiming(str(engine), "times.json", duration_s=duration_s)
            timed = Timed(engine.name, precision, "gpu", batch, "single-stream", duration_s)
            try:
                results = [time_engine(tool, timing, timed, machine) for _ in range(RUNS)]
            except EmcaError as error:
                found[precision] = {"error": str(error)}
                continue
            runs = [asdict(result.device_ms) for result in results if result.device_ms is not None]
            found[precision] = {**vendor_row(measured[precision], runs), "trtexec_version": tool.version_text, "runs": runs}
    return found


def vendor_document(backend: str, architectures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the comparisons by architecture and batch, and the reasons where there are none."""
    tool, reason = find_vendor_tool(backend)
    compared = {what: row["vendor"] for what, row in architectures.items() if "vendor" in row}
    return {"engines": compared} if compared or tool is not None else {"skipped": reason}


def vendor_table(document: Mapping[str, Any]) -> Table:
    """Return the table of all engines, or one with the reason why there is none."""
    table = Table(title="device time, ours over trtexec's")
    for heading in ("engine", "ours p50 ms", "trtexec p50 ms", "ratio (95% intervals of both)", "verdict"):
        table.add_column(heading, justify="left" if heading in ("engine", "verdict") else "right")
    if "skipped" in document:
        table.add_row("none", "", "", "", f"skipped: {document['skipped']}")
    for what, engines in document.get("engines", {}).items():
        for precision, row in engines.items():
            if "error" in row:
                table.add_row(f"{what}, {precision}", "", "", "", row["error"])
                continue
            low, high = row["interval"]
            ratio = f"{row['ratio']:.3f} ({low:.3f} to {high:.3f})"
            cells = f"{row['ours_ms']:.3f}", f"{row['trtexec_ms']:.3f}", ratio, row["verdict"]
            table.add_row(f"{what}, {precision}", *cells)
    return table
