"""What attention costs an INT8 ResNet-50 over the plain one, on each CPU runtime: 224x224, batch 1, paired and interleaved.

    python benchmarks/attention_cost.py                      # about four minutes on two cores
    python benchmarks/attention_cost.py --depth 18 --backend openvino --output result.json

Every network runs in its own process; weights are random, as latency does not depend on them.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from emca_deploy._machine import default_threads
from emca_deploy.artifacts import Preprocessing, write_json
from emca_deploy.calibration.calibrate import CalibrationOptions, calibrate_model
from emca_deploy.data.bundled import bundled_calibration_images
from emca_deploy.data.sources import open_source
from emca_deploy.export.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.harness.latency import Protocol, measure
from emca_deploy.harness.results import ProfileReport
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.models.registry import create_model

FAMILIES = ("resnet", "emca_eca_resnet", "emca_se_resnet", "emca_srm_resnet", "eca_resnet", "se_resnet", "srm_resnet")
BACKENDS = ("openvino", "onnxruntime")
CALIBRATION_IMAGES = 16
"""Ranges do not change how long anything takes."""


def prepare(arch: str, backends: list[str], folder: Path, threads: int) -> dict[str, Path]:
    """Export a network with random weights and place it in INT8 for each backend; returns the files."""
    torch.manual_seed(0)
    checkpoint = folder / f"{arch}.safetensors"
    save_file(create_model(arch).state_dict(), checkpoint)
    preprocessing = Preprocessing()
    fp32 = export_checkpoint(checkpoint, folder / f"{arch}.onnx", ExportOptions(preprocessing=preprocessing, batch=1)).onnx
    images = open_source(bundled_calibration_images(), preprocessing)
    files = {}
    for backend in backends:
        files[backend] = folder / f"{arch}.{backend}.onnx"
        wanted = CalibrationOptions(backend, samples=CALIBRATION_IMAGES, threads=threads, recover="none")
        calibrate_model(fp32, images, files[backend], wanted)
    return files


def show(backend: str, report: ProfileReport, names: list[str], console: Console) -> None:
    """Print one runtime's table: the cost first."""
    table = Table(title=f"INT8 on {backend}, 224x224, batch 1")
    for heading in ("network", "over the plain one, % (95% CI)", "p50 ms", "samples"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    costs = [""]
    for comparison in report.comparisons:  # how many times faster than the plain network
        low, high = comparison.ratio_ci95
        costs.append(f"{100 / comparison.ratio_p50 - 100:.1f} ({100 / high - 100:.1f} to {100 / low - 100:.1f})")
    for name, cost, result in zip(names, costs, report.results, strict=True):
        table.add_row(name, cost, f"{result.latency_ms.p50:.2f}", str(result.samples))
    console.print(table)


def main() -> None:
    """Measure, print the tables, and keep the raw results where --output says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, choices=(18, 34, 50, 101, 152), default=50)
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="may be repeated; both unless given")
    parser.add_argument("--family", action="append", choices=FAMILIES[1:], help="may be repeated; all unless given")
    parser.add_argument("--duration", type=float, default=15, help="seconds of measuring for each network")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--output", type=Path, help="raw results, JSON")
    args = parser.parse_args()
    console, backends = Console(), args.backend or list(BACKENDS)
    names = [f"{family}{args.depth}" for family in (FAMILIES[0], *(args.family or FAMILIES[1:]))]
    documents = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: prepare(name, backends, Path(folder), args.threads) for name in names}
        for backend in backends:
            specs = [
                RunnerSpec(
                    name,
                    kwargs={"backend": backend, "artifact": str(files[name][backend]), "threads": args.threads, "spin": False},
                    artifact=name,
                    backend=backend,
                    precision="int8",
                )
                for name in names
            ]
            report = measure(specs, Protocol(duration_s=args.duration))
            show(backend, report, names, console)
            documents[backend] = report.to_dict()
    if args.output:
        write_json(args.output, {"threads": args.threads, "backends": documents})


if __name__ == "__main__":
    main()
