"""The result of `calibrate` on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.commands._console import echo

if TYPE_CHECKING:
    from emca_deploy.api.calibrate import CalibrateReport

__all__ = ["print_calibration"]


def print_calibration(report: "CalibrateReport", model: str) -> None:
    """Print how the INT8 model of `model` was made, one fact a line."""
    from emca_deploy.reporting.drawing import drawing_line
    from emca_deploy.reporting.finetuning import finetuning_line
    from emca_deploy.reporting.placement import placement_lines

    made = report.calibration
    counts, part = made.counts, made.float_part
    stored = f", {counts.weight_only} of these with INT8 weights" if counts.weight_only else ""
    in_float = f"{counts.weighted_float} in float{stored}, {made.coverage.int8_macs_percent:.1f}% of the multiply-adds in INT8"
    echo(f"{made.onnx}: INT8 for {made.recipe.backend}, {counts.weighted} operators in INT8, {in_float}")
    if part is not None:
        fp16, fp32 = (f"{part.sqnr_db[name]:.1f}" if part.sqnr_db[name] is not None else "exact" for name in ("fp16", "fp32"))
        nodes = f"{part.graph.half_nodes} nodes in fp16, {sum(part.graph.float32_nodes.values())} in float32"
        sqnr = f"simulated on {part.images} images: {fp16} dB against fp32 ({fp32} without fp16)"
        echo(f"float part: {nodes}; {sqnr}, the same class for {part.same_class_percent:.1f}%")
    if report.placement is not None:
        echo("\n".join(placement_lines(report.placement)))
    source = f"reused from {made.table}" if made.reused else f"measured on {made.samples} images, kept in {made.table}"
    echo(f"ranges ({made.method}) {source}")
    if made.drawing is not None:
        echo(drawing_line(made.drawing))
    if made.fine_tuned is not None:
        echo(finetuning_line(made.fine_tuned))
    if (cache := report.cache) is not None:
        echo(f"{cache.path}: calibration cache of {cache.scales} tensors for TensorRT {cache.tensorrt_version} and {model}")
