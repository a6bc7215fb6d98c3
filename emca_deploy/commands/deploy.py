"""`emca-deploy deploy`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands import _mlflow_option as tracking
from emca_deploy.commands import _options as shared
from emca_deploy.commands import _recovery_options as recovery
from emca_deploy.commands._checkpoint_options import checkpoint_options, print_source
from emca_deploy.commands._console import echo, json_option, print_json, table_console, tell
from emca_deploy.commands._label_options import label_options
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._types import INPUT, OUTPUT, option
from emca_deploy.errors import InputError

if TYPE_CHECKING:
    from emca_deploy.results.deploy import DeployReport

__all__ = ["command", "show_deployment"]


@click.command("deploy")
@click.argument("checkpoint", required=False, type=INPUT)
@shared.data_option
@option(
    "--val", "validation", required=True, type=INPUT, help="Labelled images to validate on: a folder, a .zip or an .npz file."
)
@option("--annotations", type=INPUT, metavar="FILE.json", help="Objects of --val's images in COCO's format, for a detector.")
@option("-o", "--output", required=True, type=OUTPUT, help="Folder for everything that is made.")
@shared.arch_option
@checkpoint_options
@option(
    "--targets",
    default="cpu",
    shell_complete=completions.targets,
    metavar="TARGET,...",
    help="Where to measure: cpu, gpu, gpu:1, jetson, ssh://[user@]host or a named machine. The first has the baseline.",
)
@option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    shell_complete=completions.backends,
    unset="all",
    help="Backend to build for; may be repeated.",
)
@preprocessing_options
@label_options
@shared.samples_option
@recovery.recover_option
@recovery.finetune_budget_option
@shared.limit_option
@shared.threads_option
@shared.duration_option
@tracking.mlflow_option
@json_option
def command(targets: str, mlflow: str | None, as_json: bool, **options: Any) -> None:
    """Take a checkpoint to measured INT8 engines: export, calibrate, build, measure, validate, report.

    On the CPU, deploy compares fp32 and INT8 of ONNX Runtime and OpenVINO. On an NVIDIA GPU, it compares PyTorch, engines of
    TensorRT or TensorRT-RTX in fp32, fp16 and INT8, and ONNX Runtime if it has CUDA. The first candidate is the baseline.

    \b
    Examples:
      emca-deploy deploy model.pth --data calibration/ --val val/ -o out
      emca-deploy deploy model.pth --data calibration/ --val val/ -o out \\
          --targets cpu,gpu
      emca-deploy deploy mask_rcnn.pth --data calibration/ --val val2017/ \\
          --annotations instances_val2017.json -o out
    """
    from emca_deploy.api.deploy import DeployRequest, deploy, deploy_notes

    if options["checkpoint"] is None:
        raise InputError("no CHECKPOINT was given", "name one, or try `emca-deploy demo`")
    tracking.check(mlflow, options["output"])
    request = DeployRequest(targets=tuple(part.strip() for part in targets.split(",")), **options)
    with stages() as stage:
        report = deploy(request, stage)
    show_deployment(report, request.output, as_json=as_json)
    tell(notes=deploy_notes(request))
    tracking.log(mlflow, [request.output])


def show_deployment(report: "DeployReport", output: Path, *, as_json: bool) -> None:
    """Print the result, as a table or as JSON."""
    from emca_deploy.reporting.terminal import print_deploy

    tell(warnings=report.warnings)
    if as_json:
        print_json(report)
        return
    if report.checkpoint:
        print_source(report.checkpoint)
    print_deploy(report, table_console())
    echo(f"\neverything is in {output}: open {output / 'report.html'}")
