"""`emca-deploy plan`: what a TensorRT build must look like, before it is begun."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy._text import shell_line
from emca_deploy.backends.records import names_where
from emca_deploy.commands._console import echo, json_option, print_json

if TYPE_CHECKING:
    from emca_deploy.artifacts import Precision
    from emca_deploy.backends.tensorrt.planner import Plan
    from emca_deploy.backends.tensorrt.steps import Step

__all__ = ["command"]

SCHEMA_VERSION = 1
BACKENDS = names_where(trt_settings=True)


@click.command("plan")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--backend", required=True, type=click.Choice(BACKENDS), help="Whose engine.")
@click.option(
    "--device", required=True, metavar="NAME", help="A board (orin-nx, agx-orin, thor, ...) or a compute capability (8.6, sm_87)."
)
@click.option("--jetpack", metavar="VERSION", help="Of the board: says which TensorRT it has.")
@click.option("--tensorrt-version", metavar="VERSION", help="Where the engine is built.  [the JetPack's]")
@click.option("--dla", is_flag=True, help="On a DLA core, with the GPU for the layers it does not take.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="int8", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Calibration images, to complete the commands with.")
@json_option
def command(
    model: Path,
    backend: str,
    device: str,
    jetpack: str | None,
    tensorrt_version: str | None,
    dla: bool,
    precision: "Precision",
    data: Path | None,
    as_json: bool,
) -> None:
    """Choose how TensorRT builds an engine of MODEL.onnx: Q/DQ or calibration cache, typed or by flags, and the commands to type.

    Neither TensorRT nor the device is needed. What cannot work is refused with the reason and the way out. Nothing is built, and
    MODEL is only read.

    \b
    emca-deploy plan model.onnx --backend tensorrt --device orin-nx --jetpack 6.2
    emca-deploy plan model.onnx --backend tensorrt --device agx-orin --jetpack 6.2 --dla --json
    emca-deploy plan model.onnx --backend tensorrt --device sm_89 --tensorrt-version 11.1 --precision fp16
    """
    from emca_deploy.backends.tensorrt.model_facts import read_facts
    from emca_deploy.backends.tensorrt.planner import PlanRequest, make_plan
    from emca_deploy.backends.tensorrt.steps import can_build, list_steps, trtexec_command
    from emca_deploy.machines.boards import find_device, find_jetpack

    wanted = PlanRequest(
        backend, find_device(device), tensorrt_version, find_jetpack(jetpack) if jetpack else None, dla, precision
    )
    facts = read_facts(model)
    plan = make_plan(facts, wanted)
    steps, trtexec = list_steps(plan, facts, data), trtexec_command(plan, facts, _float_layers(plan, model))
    off_dla = _off_dla(model) if plan.request.dla and facts.precision == "fp32" else None
    if as_json:
        commands = [step.to_dict() for step in steps]
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "model": str(model),
                **plan.to_dict(),
                "commands": commands,
                "trtexec": trtexec,
                **({"off_dla": off_dla} if off_dla is not None else {}),
            }
        )
    else:
        _print(plan, steps, trtexec, builds=can_build(plan))
        _tell_off_dla(model, off_dla or {})


def _off_dla(model: Path) -> dict[str, int]:
    """Return how many nodes of each operator a DLA does not run."""
    from collections import Counter

    from emca_deploy.exporting.dla_convert import load_float_model
    from emca_deploy.exporting.dla_rules import nodes_off_dla

    return dict(Counter(node.operator for node in nodes_off_dla(load_float_model(model).graph)))


def _tell_off_dla(model: Path, off_dla: dict[str, int]) -> None:
    if sum(off_dla.values()) > 1:  # one is left in the forms for a DLA, too: the result's
        listed = ", ".join(f"{count} {operator}" for operator, count in off_dla.items())
        echo(f"\nnot for a DLA: {listed}. Most of it has forms that are; plan again with those:")
        words = ["emca-deploy", "export", str(model), "--form", "dla", "-o", str(model.with_suffix(".dla.onnx"))]
        echo(f"  {shell_line(words)}")


def _float_layers(plan: "Plan", model: Path) -> tuple[str, ...]:
    """Return the layers that trtexec is told to leave in float, where INT8 comes from a cache."""
    from emca_deploy.calibration.placement.implicit_layers import float_layers

    return float_layers(model) if plan.quantization == "cache" else ()


def _print(plan: "Plan", steps: list["Step"], trtexec: str | None, *, builds: bool) -> None:
    request = plan.request
    source = {"qdq": "Q/DQ", "cache": "a calibration cache", "none": "no calibration"}[plan.quantization]
    where = f"{request.device.title} (sm_{request.device.capability.replace('.', '')}{', DLA' if request.dla else ''})"
    echo(f"{request.precision} on {where} with {request.backend} {plan.version_text}: {source}, {plan.typing}")
    echo(f"builder flags: {', '.join(plan.flags) or 'none'}")
    for reason in plan.reasons:
        echo(f"- {reason}")
    for warning in plan.warnings:
        echo(f"warning: {warning}", err=True)
    place = ""
    for step in steps:
        if step.where != place:
            place = step.where
            echo(f"\n{place}{', with the files copied there' if place == 'on the device' else ''}:")
        echo(f"  {step.command}")
    if trtexec is not None:
        echo(f"\n{'or with' if builds else 'with'} TensorRT's own tool, on the device:\n  {trtexec}")
