"""Build the three kinds of detectors with TensorRT-RTX in fp32, fp16 and INT8. Needs no GPU.

    python benchmarks/detector_engines.py                       # three networks of random weights at 320x320
    python benchmarks/detector_engines.py --checkpoint mask_rcnn.safetensors --size 96 --output result.json

The table has for each engine: its size, the processor time of its build, its kernels, and its convolutions in INT8. Regions are
cropped in the grid-sample form. The INT8 model is calibrated on a few bundled photographs, because the builder's choices do not
depend on the ranges. Nothing is run: the figures come from the builder's own log.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from rich.console import Console
from rich.table import Table

from emca_deploy import CalibrateRequest, ExportRequest, PreprocessingOptions, calibrate, export
from emca_deploy._optional import installed_version
from emca_deploy.artifacts import write_json
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt.builder import RtxBuilder
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.data.bundled import bundled_calibration_images
from emca_deploy.errors import EmcaError
from emca_deploy.exporting.half_detector import convert_detector
from emca_deploy.exporting.parity import parity_images
from emca_deploy.tasks.detector_config import DETECTOR_KINDS

SAMPLES = 4
DENSE = re.compile(r"(logits|objectness|deltas)_p\d|p\d")
PRECISIONS = ("fp32", "fp16", "int8")


def models(name: str, checkpoint: Path | None, size: int, folder: Path) -> dict[str, Path]:
    """Export a detector, convert it to fp16, and calibrate it; without a checkpoint `name` is its architecture."""
    paths = {name: folder / f"{name}.onnx" for name in PRECISIONS}
    arch = name if checkpoint is None else None
    roi = None if name.startswith("retinanet") else "gridsample"
    preprocessing = PreprocessingOptions(image_size=size)
    export(ExportRequest(checkpoint, paths["fp32"], arch=arch, preprocessing=preprocessing, roi=roi))
    halve(paths["fp32"], paths["fp16"], size)
    calibrate(
        CalibrateRequest(
            paths["fp32"],
            data=bundled_calibration_images(),
            output=paths["int8"],
            backend="tensorrt-rtx",
            method="minmax",
            samples=SAMPLES,
            recover="none",
        )
    )
    return paths


def halve(model: Path, output: Path, size: int) -> None:
    """Write an exported detector in fp16, as `export --precision fp16` does."""
    graph = ir.load(model)
    found = list(graph.graph.outputs)
    dense = [value for node in graph.graph for value in node.outputs if DENSE.fullmatch(str(value.name))]
    graph.graph.outputs.extend(dense)
    convert_detector(graph, parity_images(size, None), tuple(str(value.name) for value in dense), 0.05)
    graph.graph.outputs[:] = graph.graph.outputs[: len(found)]
    common.RemoveUnusedNodesPass()(graph)
    ir.save(graph, output)


def build(model: Path, capability: str) -> dict[str, Any]:
    """Build an engine next to a model, and return its row, or why it cannot be built."""
    engine = model.with_suffix(".engine")
    builder = RtxBuilder(TrtSettings(targets=(capability,)))
    started_s, cpu_s = time.perf_counter(), time.process_time()
    try:
        builder.build(model, engine, RunOptions())
    except EmcaError as error:
        return {"error": str(error)}
    assert builder.last is not None
    return {
        "engine_mib": engine.stat().st_size / 2**20,
        "build_cpu_s": time.process_time() - cpu_s,
        "build_s": time.perf_counter() - started_s,
        "kernels": len(builder.last.layers),
        "convolutions": builder.last.convolutions,
        "int8_convolutions": builder.last.int8_convolutions,
        "warnings": list(builder.last.warnings),
    }


def table(found: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """Return the table of all engines."""
    made = Table(title="TensorRT-RTX engines of detectors, built without a GPU")
    for heading in ("network", "precision", "engine MiB", "build CPU s", "kernels", "INT8 convolutions"):
        made.add_column(heading)
    for name, rows in found.items():
        for precision, row in rows.items():
            if "error" in row:
                made.add_row(name, precision, row["error"])
                continue
            integers = f"{row['int8_convolutions']} of {row['convolutions']}"
            made.add_row(name, precision, f"{row['engine_mib']:.1f}", f"{row['build_cpu_s']:.1f}", str(row["kernels"]), integers)
    return made


def main() -> None:
    """Export, build, print the table, and write the results to --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, action="append", help="detector to build; may be repeated; else random ones")
    parser.add_argument("--backbone", default="emca_eca_resnet18", help="backbone of random detectors")
    parser.add_argument("--size", type=int, default=320, help="height and width of the images")
    parser.add_argument("--capability", default="8.6", help="compute capability of the GPU")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    wanted: dict[str, Path | None] = {path.stem: path for path in args.checkpoint or ()}
    wanted = wanted or dict.fromkeys(f"{kind}_{args.backbone}_fpn" for kind in DETECTOR_KINDS)
    facts = {"tensorrt_rtx": installed_version("tensorrt_rtx"), "capability": args.capability, "size": args.size}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, checkpoint in wanted.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = models(name, checkpoint, args.size, Path(folder))
            found[name] = {precision: build(paths[precision], args.capability) for precision in PRECISIONS}
        if args.output:
            write_json(args.output, {**facts, "engines": found})
    Console(width=140).print(table(found))


if __name__ == "__main__":
    main()
