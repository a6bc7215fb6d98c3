"""`emca-deploy plan`: what a TensorRT build must look like, before it is begun."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy._text import shell_line
from emca_deploy.api.names import PLANNED
from emca_deploy.commands._console import echo, json_option, print_json, tell_warnings

if TYPE_CHECKING:
    from emca_deploy.api.plan import PlanReport

__all__ = ["command"]


@click.command("plan")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--backend", required=True, type=click.Choice(PLANNED), help="Backend of the engine.")
@click.option(
    "--device", required=True, metavar="NAME", help="A board (orin-nx, agx-orin, thor, ...) or a compute capability (8.6, sm_87)."
)
@click.option("--jetpack", metavar="VERSION", help="The board's release: says which TensorRT it has.")
@click.option("--tensorrt-version", metavar="VERSION", help="Where the engine is built.  [the JetPack's]")
@click.option("--dla", is_flag=True, help="On a DLA core, with the GPU for the layers it does not take.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="int8", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Calibration images, to complete the commands with.")
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Choose how TensorRT builds an engine of MODEL.onnx: Q/DQ or calibration cache, typed or by flags, and the commands to type.

    Neither TensorRT nor the device is needed. What cannot work is refused with the reason and the way out. Nothing is built, and
    MODEL is only read.

    \b
    emca-deploy plan model.onnx --backend tensorrt --device orin-nx --jetpack 6.2
    emca-deploy plan model.onnx --backend tensorrt --device agx-orin --jetpack 6.2 --dla --json
    emca-deploy plan model.onnx --backend tensorrt --device sm_89 --tensorrt-version 11.1 --precision fp16
    """
    from emca_deploy.api.plan import plan

    report = plan(**options)
    if as_json:
        print_json(report)
    else:
        _print(report)
        _tell_off_dla(report)


def _tell_off_dla(report: "PlanReport") -> None:
    off_dla = report.off_dla or {}
    if sum(off_dla.values()) > 1:  # one is left in the forms for a DLA, too: the result's
        listed = ", ".join(f"{count} {operator}" for operator, count in off_dla.items())
        echo(f"\nnot for a DLA: {listed}. Most of it has forms that are; plan again with those:")
        words = ["emca-deploy", "export", str(report.model), "--form", "dla", "-o", str(report.model.with_suffix(".dla.onnx"))]
        echo(f"  {shell_line(words)}")


def _print(report: "PlanReport") -> None:
    plan, request = report.plan, report.plan.request
    source = {"qdq": "Q/DQ", "cache": "a calibration cache", "none": "no calibration"}[plan.quantization]
    where = f"{request.device.title} (sm_{request.device.capability.replace('.', '')}{', DLA' if request.dla else ''})"
    echo(f"{request.precision} on {where} with {request.backend} {plan.version_text}: {source}, {plan.typing}")
    echo(f"builder flags: {', '.join(plan.flags) or 'none'}")
    for reason in plan.reasons:
        echo(f"- {reason}")
    tell_warnings(plan.warnings)
    place = ""
    for step in report.commands:
        if step.where != place:
            place = step.where
            echo(f"\n{place}{', with the files copied there' if place == 'on the device' else ''}:")
        echo(f"  {step.command}")
    if report.trtexec is not None:
        echo(f"\n{'or with' if report.builds else 'with'} TensorRT's own tool, on the device:\n  {report.trtexec}")
