"""Build every architecture with TensorRT-RTX in fp32, fp16, INT8 and INT8 with fp16. Needs no GPU.

    python benchmarks/tensorrt_build.py                          # 22 architectures at 224x224, about fifteen minutes on one core
    python benchmarks/tensorrt_build.py --arch emca_eca_resnet50 --placements --output result.json

The first table has for each architecture: whether parser and builder accept it, the number of warnings, the processor time of the
build, how much smaller fp16 and INT8 are (INT8 also with its float part in fp16), and the error of fp16 logits against fp32 ones
(emulated on the CPU) next to its tolerance. With --placements, a second table compares fp16, with and without attention in
float32, and other placements of Q/DQ: kernels, INT8 convolutions, convolutions with the residual Add inside, and the bytes of
activations that all kernels read and write for one image. Both tables come from the builder's own log: nothing is run.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from emca_deploy._optional import installed_version
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Preprocessing, write_json
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.backends.tensorrt.builder import RtxBuilder, TrtBuild
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.calibration.calibrate import ensure_ranges
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.placement.weight_only import in_place_of
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.data.bundled import bundled_calibration_images
from emca_deploy.data.sources import open_source
from emca_deploy.errors import EmcaError
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.exporting.half import convert_to_half, to_half
from emca_deploy.exporting.half_layers import float_beside_int8
from emca_deploy.exporting.half_quantized import to_half_quantized
from emca_deploy.exporting.parity import parity_images
from emca_deploy.results.codec import to_json

BACKEND = "tensorrt-rtx"
TYPES = re.compile(r"zero.?point|u?int8|int64|int32|half|fp16|datatype|data type|type cast|clamp|quantiz", re.IGNORECASE)
RECIPE = find_recipe(BACKEND)
FAMILIES = ("resnet", "se_resnet", "eca_resnet", "srm_resnet", "emca_se_resnet", "emca_eca_resnet", "emca_srm_resnet")
ARCHITECTURES = (*(f"{family}{depth}" for depth in (18, 34, 50) for family in FAMILIES), "pkcam_eca_resnet18")
PLACED = ("resnet18", "resnet50", "emca_eca_resnet18", "emca_eca_resnet50", "emca_srm_resnet18")
SAMPLES = 2
"""Number of calibration images: the builder's choices do not depend on the scales."""

STEM = ("stem.conv",)
NOT_KERNELS = {"shape_call", "signal", "wait"}
PRODUCTS = {"gemm", "runtime_fusion"}
"""Kernel of a 1x1 convolution or of the head where TensorRT-RTX does not make a convolution of it."""

BASE = Recipe(BACKEND, symmetric=True, integer_bias=False, readers=frozenset(), residual="none")
POOL = frozenset({"AttentionPool"})
PLACEMENTS: dict[str, tuple[Recipe, tuple[str, ...]]] = {
    "inputs of convolutions only": (BASE, ()),
    "+ identity operand of Add": (replace(BASE, residual="identity"), ()),
    "+ both operands of Add": (replace(BASE, residual="both"), ()),
    "+ every reader of those": (replace(BASE, every_reader=True), ()),
    "+ every reader, stem in float": (replace(BASE, every_reader=True), STEM),
    "+ identity, stem in float": (replace(BASE, residual="identity"), STEM),
    "+ identity, attention's pools": (replace(BASE, residual="identity", readers=POOL), ()),
    "+ every reader, attention's pools": (replace(BASE, every_reader=True, readers=POOL), ()),
}


@dataclass(frozen=True)
class Built:
    """One build: its summary, the engine's size, and the processor time of all its threads."""

    build: TrtBuild
    engine_bytes: int
    cpu_s: float

    def row(self) -> dict[str, Any]:
        """Return the recorded fields."""
        layers = [layer for layer in self.build.layers if layer.kind not in NOT_KERNELS]
        products = [layer for layer in layers if layer.is_convolution or layer.kind in PRODUCTS]
        return {
            "engine_mib": self.engine_bytes / 2**20,
            "build_cpu_s": self.cpu_s,
            "kernels": len(layers),
            "convolutions": self.build.convolutions,
            "half_products": sum(layer.inputs[0].dtype == "float16" for layer in products),
            "float_products": sum(layer.inputs[0].dtype == "float32" for layer in products),
            "quantized_convolutions": self.build.quantized_convolutions,
            "int8_convolutions": self.build.int8_convolutions,
            "int8_results": sum(layer.is_convolution and layer.outputs[0].dtype == "int8" for layer in layers),
            "convolutions_with_add": sum(layer.is_convolution and len(layer.inputs) > 1 for layer in layers),
            "activations_mib": sum(layer.moved_bytes for layer in layers) / 2**20,
            "warnings": list(self.build.warnings),
            "notes": list(self.build.notes),
            "type_warnings": [text for text in self.build.warnings if TYPES.search(text)],
        }


def build(model: Path, batch: int | None = None, targets: tuple[str, ...] = ()) -> Built:
    """Build an engine next to a model."""
    engine = model.with_suffix(".engine")
    builder = RtxBuilder(TrtSettings(targets=targets))
    started = time.process_time()
    builder.build(model, engine, RunOptions(batch=batch))
    assert builder.last is not None
    return Built(builder.last, engine.stat().st_size, time.process_time() - started)


def quantized(model: Path, ranges: dict[str, TensorRange], recipe: Recipe, keep_float: tuple[str, ...] = ()) -> Path:
    """Write a model with the Q/DQ pairs of a recipe."""
    graph = load_graph(model)
    insert_qdq(graph, place(graph.graph, recipe, keep_float), ranges)
    output = model.with_name("int8.onnx")
    ir.save(graph, output)
    return output


def mixed(model: Path, ranges: dict[str, TensorRange]) -> tuple[Path, dict[str, Any]]:
    """Write a model with our recipe's Q/DQ pairs and an fp16 float part, and return the conversion's result."""
    graph = load_graph(model)
    keep = float_beside_int8(graph.graph, {name: found.magnitude for name, found in ranges.items()})
    counts = insert_qdq(graph, place(graph.graph, RECIPE), ranges)
    found = to_half_quantized(graph, in_place_of(keep, counts.replaced)).to_dict()
    output = model.with_name("mixed.onnx")
    ir.save(graph, output)
    return output, found


def halved(model: Path, images: Float32Array, *, attention: bool = True) -> tuple[Path, dict[str, Any]]:
    """Write a model in fp16, with or without its attention in float32, and return the conversion's result."""
    graph = ir.load(model)
    output = model.with_name("fp16.onnx")
    if attention:
        conversion = convert_to_half(graph, images)
        found = {**conversion.to_dict(), "parity": to_json(conversion.parity)}
    else:
        found = to_half(graph, {}).to_dict()
    ir.save(graph, output)
    return output, found


def exported(arch: str, folder: Path, size: int) -> tuple[Path, dict[str, TensorRange]]:
    """Export an architecture with fresh weights, and measure its ranges."""
    preprocessing = Preprocessing.for_size(size)
    model = folder / f"{arch}.onnx"
    export_checkpoint(None, model, ExportOptions(arch=arch, preprocessing=preprocessing))
    images = open_source(bundled_calibration_images(), preprocessing)
    return model, ensure_ranges(model, images, CalibrationOptions(RECIPE, all_recipes(), samples=SAMPLES))[0].ranges


def builds(model: Path, ranges: dict[str, TensorRange], images: Float32Array) -> dict[str, Any]:
    """Build fp32, fp16 and INT8 by our recipe: a dynamic batch, and every GPU of TensorRT-RTX's portable engines."""
    try:
        fp32 = build(model).row()
        converted = halved(model, images)
        fp16 = {**build(converted[0]).row(), "conversion": converted[1]}
        int8 = build(quantized(model, ranges, RECIPE)).row()
        written = mixed(model, ranges)
        both = {**build(written[0]).row(), "conversion": written[1]}
    except EmcaError as error:
        return {"error": str(error)}
    found = {"fp32": fp32, "fp16": fp16, "int8": int8, "int8_fp16": both}
    return {**found, **{f"{name}_ratio": row["engine_mib"] / fp32["engine_mib"] for name, row in found.items() if name != "fp32"}}


def placements(model: Path, ranges: dict[str, TensorRange], images: Float32Array) -> Iterator[tuple[str, dict[str, Any]]]:
    """Build fp16 and other placements, for one image and one GPU generation."""
    yield "fp32", build(model, 1, ("8.9",)).row()
    yield "fp16", build(halved(model, images)[0], 1, ("8.9",)).row()
    yield "fp16, attention too", build(halved(model, images, attention=False)[0], 1, ("8.9",)).row()
    for name, (recipe, keep_float) in PLACEMENTS.items():
        yield name, build(quantized(model, ranges, recipe, keep_float), 1, ("8.9",)).row()


def builds_table(found: dict[str, dict[str, Any]]) -> Table:
    """Return the table of all architectures."""
    table = Table(title="TensorRT-RTX builds, dynamic batch")
    headings = (
        "architecture",
        "fp16/fp32 engine",
        "int8/fp32 engine",
        "int8+fp16/fp32 engine",
        "fp16 / float32 products",
        "int8 convolutions",
        "warnings",
        "MiB moved: fp32, int8, int8+fp16",
        "fp32, fp16, int8, int8+fp16 MiB",
        "fp32, fp16, int8, int8+fp16 s",
        "fp16 error, tolerated",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "architecture" else "right")
    for arch, row in found.items():
        if "error" in row:
            table.add_row(arch, row["error"])
            continue
        four = [row[name] for name in ("fp32", "fp16", "int8", "int8_fp16")]
        fp32, fp16, int8, both = four
        conversion = fp16["conversion"]
        table.add_row(
            arch, f"{row['fp16_ratio']:.3f}", f"{row['int8_ratio']:.3f}", f"{row['int8_fp16_ratio']:.3f}",
            f"{fp16['half_products']} / {fp16['float_products']}",
            f"{int8['int8_convolutions']}, {both['int8_convolutions']} of {int8['quantized_convolutions']}",
            str(sum(len(built["warnings"]) for built in four)),
            ", ".join(f"{built['activations_mib']:.1f}" for built in (fp32, int8, both)),
            ", ".join(f"{built['engine_mib']:.1f}" for built in four),
            ", ".join(f"{built['build_cpu_s']:.1f}" for built in four),
            f"{100 * conversion['parity']['max_rel']:.2f}%, {100 * conversion['tolerance']:.1f}%",
        )  # fmt: skip
    return table


def placements_table(arch: str, found: dict[str, dict[str, Any]]) -> Table:
    """Return the table of an architecture's placements."""
    table = Table(title=f"{arch}: what TensorRT-RTX makes of Q/DQ placements, batch 1")
    headings = ("Q/DQ at", "kernels", "int8 convolutions", "returning int8", "with Add inside", "activations MiB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "Q/DQ at" else "right")
    for name, row in found.items():
        counts = (row["kernels"], row["int8_convolutions"], row["int8_results"], row["convolutions_with_add"])
        table.add_row(name, *map(str, counts), f"{row['activations_mib']:.2f}")
    return table


def main() -> None:
    """Build, print the tables, and write the results to --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", help="may be repeated; default all of the EMCA paper's and pkcam_eca_resnet18")
    parser.add_argument("--placements", action="store_true", help="compare placements instead")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--output", type=Path, help="JSON file for the results; existing ones are not built again")
    args = parser.parse_args()
    console = Console(width=200)
    document = read_results(args.output, args.size, placements=args.placements)
    found = document["architectures"]
    wanted = args.arch or (PLACED if args.placements else ARCHITECTURES)
    for index, arch in enumerate(wanted):
        if arch not in found:
            print(f"{index + 1} of {len(wanted)}: {arch}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                model, ranges = exported(arch, Path(folder), args.size)
                images = parity_images(args.size, None)
                found[arch] = dict(placements(model, ranges, images)) if args.placements else builds(model, ranges, images)
            if args.output:
                write_json(args.output, document)
    if args.placements:
        for arch in wanted:
            console.print(placements_table(arch, found[arch]))
    else:
        console.print(builds_table({arch: found[arch] for arch in wanted}))


def read_results(path: Path | None, size: int, *, placements: bool) -> dict[str, Any]:
    """Return the document of an earlier run of the same kind, or an empty one."""
    key = {"version": 4, "tensorrt_rtx": installed_version("tensorrt_rtx"), "size": size, "placements": placements}
    if path is not None and path.is_file():
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {name: document.get(name) for name in key} == key:
            return document
    stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"created": stamp, **key, "architectures": {}}


if __name__ == "__main__":
    main()
