"""`emca-deploy plan`."""

from typing import TYPE_CHECKING, Any

import click

from emca_deploy._text import shell_line
from emca_deploy.api.names import PLANNED
from emca_deploy.commands import _completions as completions
from emca_deploy.commands._console import echo, json_option, show, tell
from emca_deploy.commands._types import INPUT, option

if TYPE_CHECKING:
    from emca_deploy.api.plan import PlanReport

__all__ = ["command"]


@click.command("plan")
@click.argument("model", type=INPUT)
@option("--backend", required=True, type=click.Choice(PLANNED), help="Backend of the engine.")
@option(
    "--device",
    required=True,
    metavar="NAME",
    shell_complete=completions.boards,
    help="Board (orin-nx, agx-orin, thor, ...) or compute capability (8.6, sm_87).",
)
@option("--jetpack", metavar="VERSION", help="JetPack release of the board, which implies its TensorRT version.")
@option("--tensorrt-version", metavar="VERSION", unset="the JetPack's", help="TensorRT version that builds the engine.")
@option("--dla", is_flag=True, help="Plan for a DLA core, with the GPU for the layers that it cannot run.")
@option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="int8", help="Precision of the engine.")
@option("--data", type=INPUT, help="Calibration images, to complete the printed commands.")
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Plan how TensorRT builds an engine from MODEL, an .onnx file, and print the commands to run.

    The plan chooses between Q/DQ nodes and a calibration cache, and between strong typing and builder flags. Neither TensorRT nor
    the device is needed, and nothing is built. A plan that cannot work is refused, with the reason and an alternative.

    \b
    Examples:
      emca-deploy plan model.onnx --backend tensorrt --device orin-nx \\
          --jetpack 6.2
      emca-deploy plan model.onnx --backend tensorrt --device agx-orin \\
          --jetpack 6.2 --dla
      emca-deploy plan model.onnx --backend tensorrt --device sm_89 \\
          --tensorrt-version 11.1 --precision fp16
    """
    from emca_deploy.api.plan import plan

    report = plan(**options)
    tell(warnings=report.plan.warnings)
    show(report, as_json, lambda: _print(report))


def _print(report: "PlanReport") -> None:
    plan, request = report.plan, report.plan.request
    source = {"qdq": "Q/DQ", "cache": "a calibration cache", "none": "no calibration"}[plan.quantization]
    where = f"{request.device.title} (sm_{request.device.capability.replace('.', '')}{', DLA' if request.dla else ''})"
    echo(f"{request.precision} on {where} with {request.backend} {plan.version_text}: {source}, {plan.typing}")
    echo(f"builder flags: {', '.join(plan.flags) or 'none'}")
    for reason in plan.reasons:
        echo(f"- {reason}")
    place = ""
    for step in report.commands:
        if step.where != place:
            place = step.where
            echo(f"\n{place}{', with the files copied there' if place == 'on the device' else ''}:")
        echo(f"  {step.command}")
    if report.trtexec is not None:
        echo(f"\n{'or with' if report.builds else 'with'} TensorRT's own tool, on the device:\n  {report.trtexec}")
    off_dla = report.off_dla or {}
    if sum(off_dla.values()) > 1:  # the forms for a DLA also leave one node on the GPU: the output's
        listed = ", ".join(f"{count} {operator}" for operator, count in off_dla.items())
        echo(f"\nnot for a DLA: {listed}. Most of them can be rewritten; export the model in forms for a DLA and plan again:")
        words = ["emca-deploy", "export", str(report.model), "--form", "dla", "-o", str(report.model.with_suffix(".dla.onnx"))]
        echo(f"  {shell_line(words)}")
