"""Tables of benchmarks/gpu.py."""

from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["accuracy_table", "latency_table", "print_plan"]


def latency_table(arch: str, batch: int, row: dict[str, Any]) -> Table:
    """Return an architecture's table at one batch size, the fastest first."""
    table = Table(title=f"{arch}, batch {batch}")
    first = row["comparisons"][0]["b"] if row["comparisons"] else row["names"][0]
    for heading in ("candidate", f"times faster than {first} (95% CI)", "host p50 ms", "p99 ms", "device p50 ms", "images/s"):
        table.add_column(heading, justify="left" if heading == "candidate" else "right")
    ratios = {first: "1"}
    for comparison in row["comparisons"]:
        low, high = comparison["ratio_ci95"]
        ratios[comparison["a"]] = f"{comparison['ratio_p50']:.2f} ({low:.2f} to {high:.2f})"
    measured = zip(row["names"], row["results"], strict=True)
    for name, result in sorted(measured, key=lambda pair: pair[1]["latency_ms"]["p50"]):
        host, device = result["latency_ms"], result.get("device_ms")
        own = f"{device['p50']:.3f}" if device else "-"
        images = f"{result['throughput_images_per_s']:.0f}"
        table.add_row(name, ratios[name], f"{host['p50']:.3f}", f"{host['p99']:.3f}", own, images)
    return table


def accuracy_table(found: dict[str, Any]) -> Table:
    """Return the table of accuracies."""
    table = Table(title="bundled network, top-1 against fp32 on the CPU")
    for heading in ("candidate", "top-1", "drop, points (95% CI)", "same prediction %", "SQNR dB", "images"):
        table.add_column(heading, justify="left" if heading == "candidate" else "right")
    for name, report in found.items():
        against = report["reference"]
        low, high = against["top1_drop_ci95"]
        drop = f"{against['top1_drop']:.2f} ({low:.2f} to {high:.2f})"
        decibels = "exact" if against["sqnr_db"] is None else f"{against['sqnr_db']:.1f}"
        table.add_row(name, f"{report['top1']:.2f}", drop, f"{against['agreement']:.2f}", decibels, str(report["samples"]))
    return table


def print_plan(console: Console, found: dict[str, Any]) -> None:
    """Print the engines built and the candidates."""
    table = Table(title="dry run: built, not run")
    for heading in ("architecture", "engines, MiB", "INT8 convolutions", "for", "would be measured"):
        table.add_column(heading)
    for what, row in found.items():
        engines = row["engines"]
        sizes = ", ".join(f"{precision} {engine['engine_mib']:.1f}" for precision, engine in engines.items())
        int8 = engines.get("int8")
        counts = f"{int8['int8_convolutions']} of {int8['quantized_convolutions']}" if int8 else "-"
        names = ", ".join(dict.fromkeys(name for engine in engines.values() for name in engine["for"]))
        table.add_row(what, sizes, counts, names, ", ".join(row["names"]))
    console.print(table)
