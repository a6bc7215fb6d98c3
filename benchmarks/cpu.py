"""Measure what INT8 gains on this CPU: torch eager, fp32 and our INT8 on ONNX Runtime and OpenVINO, at 224x224, batch 1.

    python benchmarks/cpu.py                      # emca_eca_resnet18 and 50, about three minutes
    python benchmarks/cpu.py --arch emca_srm_resnet50 --duration 20 --output result.json

Every candidate runs in its own process; their blocks are interleaved in random order, and ratios come from paired blocks. Weights
are random: latency does not depend on them. Calibration uses the bundled images.
"""

import argparse
import json
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from emca_deploy._machine import default_threads
from emca_deploy.artifacts import Preprocessing
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.data.bundled import bundled_calibration_images
from emca_deploy.data.sources import open_source
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.networks.registry import create_model
from emca_deploy.results.codec import to_json
from emca_deploy.results.latency import ProfileReport

ARCHITECTURES = ("emca_eca_resnet18", "emca_eca_resnet50")
BASELINE = "onnxruntime fp32"


def candidates(arch: str, folder: Path, threads: int) -> list[RunnerSpec]:
    """Make an architecture's checkpoint, export and INT8 models, and return the candidates, the baseline first."""
    torch.manual_seed(0)
    checkpoint = folder / f"{arch}.safetensors"
    save_file(create_model(arch).state_dict(), checkpoint)
    preprocessing = Preprocessing()
    fp32 = export_checkpoint(checkpoint, folder / f"{arch}.onnx", ExportOptions(preprocessing=preprocessing, batch=1)).onnx
    images = open_source(bundled_calibration_images(), preprocessing)
    files = [("onnxruntime", "fp32", fp32), ("torch", "fp32", checkpoint), ("openvino", "fp32", fp32)]
    for backend in ("onnxruntime", "openvino"):
        int8 = folder / f"{arch}.{backend}.onnx"
        calibrate_model(fp32, images, int8, CalibrationOptions(find_recipe(backend), all_recipes(), samples=64, threads=threads))
        files.append((backend, "int8", int8))
    return [
        RunnerSpec(
            f"{backend} {precision}" if backend != "torch" else "torch eager",
            kwargs={"backend": backend, "artifact": str(path), "threads": threads, "spin": False},
            artifact=path.name,
            backend=backend,
            precision=precision,
        )
        for backend, precision, path in files
    ]


def show(arch: str, specs: list[RunnerSpec], report: ProfileReport, console: Console) -> None:
    """Print an architecture's table; its first figure is the ratio to the baseline."""
    table = Table(title=f"{arch}, 224x224, batch 1")
    for heading in ("candidate", "times faster (95% CI)", "than torch eager", "p50 ms", "p90 ms", "p99 ms", "samples"):
        table.add_column(heading, justify="left" if heading == "candidate" else "right")
    ratios = {spec.name: ("1", "") for spec in specs[:1]}
    for spec, comparison in zip(specs[1:], report.comparisons, strict=True):
        low, high = comparison.ratio_ci95
        ratios[spec.name] = (f"{comparison.ratio_p50:.2f}", f" ({low:.2f}-{high:.2f})")
    eager = next(r.latency_ms.p50 for s, r in zip(specs, report.results, strict=True) if s.name == "torch eager")
    for spec, result in zip(specs, report.results, strict=True):
        ms = result.latency_ms
        row = "".join(ratios[spec.name]), f"{eager / ms.p50:.2f}", f"{ms.p50:.2f}", f"{ms.p90:.2f}", f"{ms.p99:.2f}"
        table.add_row(spec.name, *row, str(result.samples))
    console.print(table)


def main() -> None:
    """Measure, print the tables, and write the raw results to --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", help=f"may be repeated; default {' and '.join(ARCHITECTURES)}")
    parser.add_argument("--duration", type=float, default=10.0, help="measuring time of each candidate in seconds")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--output", type=Path, help="write the raw results as JSON")
    args = parser.parse_args()
    console = Console(width=120)
    documents = {}
    with tempfile.TemporaryDirectory() as folder:
        for arch in args.arch or ARCHITECTURES:
            specs = candidates(arch, Path(folder), args.threads)
            report = measure(specs, Protocol(duration_s=args.duration, processes=4))
            show(arch, specs, report, console)
            for warning in sorted({w for result in report.results for w in result.warnings}):
                console.print(f"warning: {warning}", style="yellow")
            documents[arch] = to_json(report)
    if args.output:
        stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
        args.output.write_text(json.dumps({"created": stamp, "threads": args.threads, "architectures": documents}) + "\n")


if __name__ == "__main__":
    main()
