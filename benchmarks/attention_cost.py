"""Measure what attention costs in INT8: each attention against the plain network, at 224x224, batch 1, on both CPU backends.

    python benchmarks/attention_cost.py                  # resnet50 and every attention, about six minutes
    python benchmarks/attention_cost.py --depth 18 --attention emca_eca --duration 20 --output result.json

Every candidate runs in its own process; the blocks of one backend are interleaved in random order, and ratios come from paired
blocks. Weights are random, without recovery: latency depends on neither. Calibration uses the bundled images.
"""

import argparse
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from emca_deploy._machine import default_threads
from emca_deploy.artifacts import Preprocessing, write_json
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

BACKENDS = ("openvino", "onnxruntime")
ATTENTIONS = ("se", "eca", "srm", "emca_se", "emca_eca", "emca_srm", "pkcam_eca")
CALIBRATION_IMAGES = 16
"""Number of calibration images; latency does not depend on the ranges."""


def int8_models(arch: str, backends: list[str], folder: Path, args: argparse.Namespace) -> dict[str, Path]:
    """Export an architecture once, quantize it for each backend, and return the files by backend."""
    torch.manual_seed(0)
    checkpoint = folder / f"{arch}.safetensors"
    save_file(create_model(arch).state_dict(), checkpoint)
    preprocessing = Preprocessing.for_size(args.image_size)
    fp32 = export_checkpoint(checkpoint, folder / f"{arch}.onnx", ExportOptions(preprocessing=preprocessing, batch=1)).onnx
    images = open_source(bundled_calibration_images(), preprocessing)
    models = {}
    for backend in backends:
        models[backend] = folder / f"{arch}.{backend}.onnx"
        options = CalibrationOptions(
            find_recipe(backend), all_recipes(), samples=CALIBRATION_IMAGES, threads=args.threads, recover="none"
        )
        calibrate_model(fp32, images, models[backend], options)
    return models


def compare(archs: list[str], backend: str, models: dict[str, dict[str, Path]], args: argparse.Namespace) -> ProfileReport:
    """Measure the plain network, the first of `archs`, against the others on one backend."""
    specs = [
        RunnerSpec(
            arch,
            kwargs={"backend": backend, "artifact": str(models[arch][backend]), "threads": args.threads, "spin": False},
            artifact=models[arch][backend].name,
            backend=backend,
            precision="int8",
        )
        for arch in archs
    ]
    return measure(specs, Protocol(duration_s=args.duration, processes=4))


def show(archs: list[str], reports: dict[str, ProfileReport], console: Console) -> None:
    """Print one table per backend; its first figure is what the attention costs."""
    for backend, report in reports.items():
        table = Table(title=f"INT8 on {backend}, against {archs[0]}")
        for heading in ("network", "attention costs % (95% CI)", "p50 ms", "p90 ms", "p99 ms", "samples"):
            table.add_column(heading, justify="left" if heading == "network" else "right")
        # A comparison is the plain network's latency over the other's: how many times faster the other is.
        costs = [""]
        for comparison in report.comparisons:
            low, high = comparison.ratio_ci95
            costs.append(f"{percent(comparison.ratio_p50):.1f} ({percent(high):.1f} to {percent(low):.1f})")
        for arch, cost, result in zip(archs, costs, report.results, strict=True):
            ms = result.latency_ms
            table.add_row(arch, cost, f"{ms.p50:.2f}", f"{ms.p90:.2f}", f"{ms.p99:.2f}", str(result.samples))
        console.print(table)
        for warning in sorted({w for result in report.results for w in result.warnings}):
            console.print(f"warning: {warning}", style="yellow")


def percent(times_faster: float) -> float:
    """Return how much slower a candidate is, in percent, from how many times faster it is."""
    return 100 / times_faster - 100


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=50, choices=(18, 34, 50, 101, 152))
    parser.add_argument("--attention", action="append", choices=ATTENTIONS, help="may be repeated; default all")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="may be repeated; default both")
    parser.add_argument("--duration", type=float, default=10.0, help="measuring time of each candidate in seconds")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--output", type=Path, help="write the raw results as JSON")
    return parser.parse_args()


def main() -> None:
    """Measure, print the tables, and write the raw results to --output."""
    args = parse()
    archs = [f"resnet{args.depth}", *(f"{name}_resnet{args.depth}" for name in args.attention or ATTENTIONS)]
    backends = args.backend or list(BACKENDS)
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for arch in archs:
            print(f"quantizing {arch}", file=sys.stderr, flush=True)
            models[arch] = int8_models(arch, backends, Path(folder), args)
        reports = {}
        for backend in backends:
            print(f"measuring {len(archs)} networks on {backend}", file=sys.stderr, flush=True)
            reports[backend] = compare(archs, backend, models, args)
    show(archs, reports, Console(width=120))
    if args.output:
        stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
        documents = {backend: to_json(report) for backend, report in reports.items()}
        write_json(args.output, {"created": stamp, "threads": args.threads, "backends": documents})


if __name__ == "__main__":
    main()
