"""What `export` prints."""

from typing import TYPE_CHECKING

from emca_deploy.commands._console import echo, tell
from emca_deploy.commands._detector_options import print_detector

if TYPE_CHECKING:
    from emca_deploy.api.export import CheckpointExport, ExportReport, PixelConversion

__all__ = ["print_exported"]

FORMS = ("poolings", "bands", "products", "sums", "scales", "stacks")


def print_exported(report: "ExportReport") -> None:
    """Print what was exported, and how far it is from what it was made from."""
    if report.dla is not None:
        converted = report.dla
        forms = ", ".join(f"{count} {name}" for name in FORMS if (count := getattr(converted.forms, name)))
        echo(f"{converted.onnx}: in forms for a DLA: {forms or 'nothing to change'}; constants {converted.grown_mib:+.1f} MiB")
        parity = converted.parity
        echo(f"parity on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
        for node in converted.forms.remaining:
            echo(f"not on a DLA: {node.node} ({node.operator}): {node.reason}")
    if report.pixels is not None:
        _print_pixels(report.pixels)
    if report.exported is not None and report.dla is None:
        _print_export(report.exported, report.pixels or report.exported)
    if report.output is not None:
        names = f"names of {report.output.classes} classes in its metadata" if report.output.classes else ""
        echo(f"{report.output.onnx}: {', '.join(filter(None, ['probabilities' if report.output.softmax else '', names]))}")


def _print_pixels(made: "PixelConversion") -> None:
    graph, parity = made.graph, made.parity
    where = [f"{what} {', '.join(names)}" for what, names in (("folded:", graph.folded), ("nodes:", graph.nodes)) if names]
    echo(f"{made.onnx}: input {graph.form}, pixels of 0 to 255 in {made.preprocessing.channels}; {'; '.join(where)}")
    errors = f"max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)"
    echo(f"parity with the normalized input on {parity.samples} images: {errors}")


def _print_export(made: "CheckpointExport", file: "CheckpointExport | PixelConversion") -> None:
    half, parity = made.half, made.fp32_parity
    precision, what = ("fp32", "parity") if half is None else ("fp16", "fp32 parity")
    echo(f"{file.onnx}: {made.arch}, {made.num_classes} classes, {made.params:,} parameters, {precision}")
    echo(f"{what} with PyTorch on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
    if made.detector is not None:
        print_detector(made.detector)
    if half is None:
        return
    limit = f"at most {half.tolerance:.2g} from {half.roundings} roundings"
    echo(f"fp16 parity with fp32, emulated: {half.parity.max_rel:.2g} relative, {limit}")
    kept = half.graph.float32_nodes
    echo(f"{half.graph.half_nodes} nodes in fp16; in float32: {', '.join(f'{n} {why}' for why, n in kept.items())}")
    if zeroed := sum(half.graph.weights_rounded_to_zero.values()):
        tell(warnings=[f"{zeroed:,} of {half.graph.half_weights:,} weights are too small for fp16 and became 0"])
