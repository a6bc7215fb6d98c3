"""`emca-deploy deploy`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._checkpoint_options import checkpoint_options, tell_source
from emca_deploy.commands._console import echo, json_option, print_json, table_console, tell_notes, tell_warnings
from emca_deploy.commands._options import label_options, recover_option
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import stages
from emca_deploy.errors import InputError

if TYPE_CHECKING:
    from emca_deploy.results.deploy import DeployReport

__all__ = ["command", "show_deployment"]


@click.command("deploy")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Calibration images: folder, zip or npz.")
@click.option("--val", "validation", required=True, type=click.Path(path_type=Path), help="Labelled images to validate on.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder for everything that is made.")
@click.option("--arch", help="The architecture; inferred from the checkpoint when not given.")
@checkpoint_options
@click.option(
    "--targets",
    default="cpu",
    show_default=True,
    metavar="TARGET,...",
    help="Where to measure: cpu, gpu, gpu:1, jetson, ssh://host; the first has the baseline.",
)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Only this one, where it runs; may be repeated.")
@preprocessing_options
@label_options
@click.option("--samples", type=click.IntRange(1), default=300, show_default=True, help="Calibration images.")
@recover_option
@click.option("--limit", type=click.IntRange(1), help="Validate on this many images only.")
@click.option("--threads", type=click.IntRange(1), help="For every runtime.  [default: all cores]")
@click.option(
    "--duration",
    "duration_s",
    type=click.FloatRange(0.5),
    default=5.0,
    show_default=True,
    help="Seconds to measure each candidate.",
)
@json_option
def command(targets: str, as_json: bool, **options: Any) -> None:
    """The whole walk in one command: export, calibrate, build, measure, validate, report.

    On the CPU: fp32 and INT8 engines of ONNX Runtime and OpenVINO. On an NVIDIA GPU: PyTorch as it is, engines of TensorRT or
    TensorRT-RTX in fp32, fp16 and INT8, and ONNX Runtime where it has CUDA. All are compared with the first.

    \b
    emca-deploy deploy model.pth.tar --data calibration/ --val val/ -o out
    emca-deploy deploy model.pth.tar --data calibration/ --val val/ -o out --targets gpu
    emca-deploy deploy model.pth.tar --data calibration/ --val val/ -o out --targets cpu,gpu
    """
    from emca_deploy.api.deploy import DeployRequest, deploy, deploy_notes

    if options["checkpoint"] is None:
        raise InputError("no CHECKPOINT was given", "name one, or try `emca-deploy demo`")
    request = DeployRequest(targets=tuple(part.strip() for part in targets.split(",")), **options)
    with stages() as stage:
        report = deploy(request, stage)
    show_deployment(report, request.output, as_json=as_json)
    tell_notes(deploy_notes(request))


def show_deployment(report: "DeployReport", output: Path, *, as_json: bool) -> None:
    """Show the result, as a table or as JSON."""
    from emca_deploy.reporting.terminal import print_deploy

    tell_warnings(report.warnings)
    if as_json:
        print_json(report)
        return
    if report.checkpoint:
        tell_source(report.checkpoint)
    print_deploy(report, table_console())
    echo(f"\neverything is in {output}: open {output / 'report.html'}")
