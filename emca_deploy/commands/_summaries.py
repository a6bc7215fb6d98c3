"""What an operation made or met with, in a few lines."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emca_deploy.commands._console import echo

if TYPE_CHECKING:
    from emca_deploy.api.build import BuildReport
    from emca_deploy.api.calibrate import CalibrateReport
    from emca_deploy.api.export import ExportReport

__all__ = ["print_calibration", "print_engine", "print_export"]

FORMS = ("poolings", "bands", "products", "sums", "scales", "stacks")


def print_export(report: "ExportReport") -> None:
    """Print what was exported, and how close it is to what it was made from."""
    if report.dla is not None:
        _print_dla(report)
        return
    made = report.exported
    assert made is not None  # only the form for a DLA has no export
    half, parity = made.half, made.fp32_parity
    precision = "fp32" if half is None else "fp16"
    echo(f"{made.onnx}: {made.arch}, {made.num_classes} classes, {made.params:,} parameters, {precision}")
    what = "parity" if half is None else "fp32 parity"
    echo(f"{what} with PyTorch on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
    if half is None:
        return
    echo(
        f"fp16 parity with fp32, emulated: {half.parity.max_rel:.2g} relative, at most {half.tolerance:.2g} "
        f"from {half.roundings} roundings"
    )
    kept = half.graph.float32_nodes
    echo(f"{half.graph.half_nodes} nodes in fp16; in float32: {', '.join(f'{n} {why}' for why, n in kept.items())}")
    if zeroed := sum(half.graph.weights_rounded_to_zero.values()):
        echo(f"warning: {zeroed:,} of {half.graph.half_weights:,} weights are too small for fp16 and became 0", err=True)


def _print_dla(report: "ExportReport") -> None:
    made = report.dla
    assert made is not None
    parity = made.parity
    found = ", ".join(f"{count} {name}" for name in FORMS if (count := getattr(made.forms, name)))
    echo(f"{made.onnx}: in forms for a DLA: {found or 'nothing to change'}; constants {made.grown_mib:+.1f} MiB")
    echo(f"parity on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
    for node in made.forms.remaining:
        echo(f"not on a DLA: {node.node} ({node.operator}): {node.reason}")


def print_calibration(report: "CalibrateReport") -> None:
    """Print what was quantized, from which ranges, and where the calibration cache is."""
    made = report.calibration
    counts, part = made.counts, made.float_part
    stored = f", {counts.weight_only} of these with INT8 weights" if counts.weight_only else ""
    in_float = f"{counts.weighted_float} in float{stored}, {made.coverage.int8_macs_percent:.1f}% of the multiply-adds in INT8"
    echo(f"{made.onnx}: INT8 for {made.backend}, {counts.weighted} operators in INT8, {in_float}")
    if part is not None:
        casts = sum(part.graph.float32_nodes.values())
        decibels = [f"{value:.1f}" if value is not None else "exact" for value in (part.sqnr_db["fp16"], part.sqnr_db["fp32"])]
        echo(
            f"float part: {part.graph.half_nodes} nodes in fp16, {casts} in float32; simulated on {part.images} images: "
            f"{decibels[0]} dB against fp32 ({decibels[1]} without fp16), the same class for {part.same_class_percent:.1f}%"
        )
    source = f"reused from {made.table}" if made.reused else f"measured on {made.samples} images, kept in {made.table}"
    echo(f"ranges ({made.method}) {source}")
    if (cache := report.cache) is not None:
        version = cache.tensorrt_version
        echo(f"{cache.path}: calibration cache for TensorRT {version}, {cache.scales} tensors, to go with {cache.model}")


def print_engine(report: "BuildReport") -> None:
    """Print what was built, and for which machine."""
    manifest = report.manifest
    machine, built = manifest.details["machine"], manifest.details.get("tensorrt")
    mixed = built is not None and manifest.precision == "int8" and built["float_precision"] == "fp16"
    precision = "int8, float part fp16" if mixed else manifest.precision
    echo(f"{report.engine}: {manifest.backend} engine, {precision}, {report.size_mib:.1f} MiB")
    if built is not None:
        echo(f"{built['int8_convolutions']} of {built['convolutions']} convolutions in INT8, {built['layers']} layers", err=True)
        for warning in built["warnings"]:
            echo(f"warning: {' '.join(warning.split())}", err=True)
    if dla := manifest.details.get("dla"):
        _print_dla_part(dla)
    echo(f"for {machine['model']} ({', '.join(machine['instruction_sets']) or machine['architecture']})", err=True)


def _print_dla_part(dla: Mapping[str, Any]) -> None:
    share = dla["macs_on_dla_percent"]
    work = "" if share is None else f", {share:.1f}% of the multiplications"
    echo(f"DLA: {len(dla['dla_parts'])} parts, {dla['nodes'].get('dla', 0)} nodes{work}", err=True)
    for node in dla["gpu_nodes"]:
        echo(f"on the GPU: {node}{': ' + reason if (reason := dla['refused'].get(node)) else ''}", err=True)
