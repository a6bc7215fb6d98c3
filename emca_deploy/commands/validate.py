"""`emca-deploy validate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._console import json_option, print_json, progress
from emca_deploy.commands._options import preprocessing_options, read_preprocessing

if TYPE_CHECKING:
    from emca_deploy.artifacts import Preprocessing
    from emca_deploy.harness.accuracy import LogitsResult
    from emca_deploy.harness.accuracy_results import AccuracyReport
    from emca_deploy.harness.spec import RunnerSpec

__all__ = ["command"]


@click.command("validate")
@click.argument("artifact")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Labelled images: folder, zip or npz.")
@click.option("--backend", metavar="NAME", help="Run ARTIFACT on this one.")
@click.option(
    "--target", default="cpu", show_default=True, help="Where to run ARTIFACT: cpu, gpu or gpu:1; MODEL runs on the CPU."
)
@click.option("--reference", metavar="MODEL", help="The model to hold it against, for example the fp32 .onnx file.")
@click.option("--reference-backend", metavar="NAME", help="Run MODEL on this one.  [default: onnxruntime for .onnx]")
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="PT",
    help="Exit 4 if top-1 is more than PT points below the reference's (the estimate, not the end of its interval).",
)
@click.option("--limit", type=click.IntRange(1), help="Use this many images, the same number of each class.  [default: all]")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Images a call.")
@click.option("--threads", type=click.IntRange(1), help="[default: one a physical core]")
@click.option("--precision", type=click.Choice(["f32", "bf16"]), default="f32", show_default=True, help="Of the float parts.")
@preprocessing_options
@json_option
def command(artifact: str, data: Path, reference: str | None, max_drop: float | None, as_json: bool, **options: Any) -> None:
    """Measure the accuracy of ARTIFACT, and what it lost against a reference on the same images.

    The interval of the drop is that of paired proportions (Tango's score interval, 95 %). Without labels only the agreement with
    the reference is measured. Images are preprocessed as ARTIFACT's manifest says, unless options say otherwise.

    \b
    emca-deploy validate model.openvino.onnx --data val/ --reference model.onnx --max-drop 0.5
    """
    from emca_deploy.errors import InputError
    from emca_deploy.harness.accuracy import compare

    if max_drop is not None and reference is None:
        raise InputError("--max-drop needs something to have dropped from", "name the fp32 model with --reference")
    spec, reference_spec = _specs(artifact, reference, options)
    ours = _run(spec, data, options)
    if max_drop is not None and ours.labels is None:
        raise InputError(f"{data}: has no labels, so that --max-drop cannot be checked", "give one subfolder per class")
    if ours.labels is None and reference_spec is None:
        raise InputError(f"{data}: has no labels", "give one subfolder per class, or a --reference to agree with")
    theirs = None
    if reference_spec is not None:
        theirs = _run(reference_spec, data, options, ours.preprocessing).logits
    report = compare(artifact, ours.logits, ours.labels, reference, theirs)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    _gate(report, max_drop)


def _specs(artifact: str, reference: str | None, options: dict[str, Any]) -> "tuple[RunnerSpec, RunnerSpec | None]":
    from emca_deploy.targets.gpu import gpu_candidate, gpu_index
    from emca_deploy.targets.local import LocalOptions, candidate, split_artifact

    own, path = split_artifact(artifact)
    local = LocalOptions(options["threads"], options["precision"], target=options["target"])
    make = candidate if gpu_index(local.target) is None else gpu_candidate
    spec = make(path, own or options["backend"], local)
    if reference is None:
        return spec, None
    own, path = split_artifact(reference)
    asked = own or options["reference_backend"] or ("onnxruntime" if path.lower().endswith(".onnx") else None)
    return spec, candidate(path, asked, LocalOptions(options["threads"]))  # always f32: it is the reference


def _run(spec: "RunnerSpec", data: Path, options: dict[str, Any], fallback: "Preprocessing | None" = None) -> "LogitsResult":
    """Run the data set; preprocessing is the options' over the manifest's over `fallback` over ImageNet's at the model's size."""
    from emca_deploy.artifacts import Preprocessing, read_manifest
    from emca_deploy.harness.accuracy import collect_logits

    manifest = read_manifest(Path(spec.artifact), verify=False)
    known = manifest.preprocessing if manifest and manifest.preprocessing else fallback

    def choose(image_size: int) -> Preprocessing:
        base = known or Preprocessing.for_size(image_size)
        if known is None and not any(options[name] for name in ("mean", "std")):
            click.echo(f"note: {spec.name} has no manifest: ImageNet's preprocessing at {image_size} pixels is assumed", err=True)
        return read_preprocessing(base, options)

    with progress(spec.name) as report:
        return collect_logits(spec, data, choose, limit=options["limit"], batch_size=options["batch"], progress=report)


def _print(report: "AccuracyReport") -> None:
    from emca_deploy.commands._console import table_console
    from emca_deploy.report.terminal import print_accuracy

    print_accuracy(report, table_console())


def _gate(report: "AccuracyReport", max_drop: float | None) -> None:
    from emca_deploy.errors import GateError

    if max_drop is None or report.reference is None or report.reference.top1_drop is None:
        return
    drop = report.reference.top1_drop
    if drop > max_drop:
        raise GateError(
            f"{report.artifact}: top-1 is {drop:.2f} points below {report.reference.artifact}, more than --max-drop {max_drop:g}",
            "calibrate with more images or another --method, or keep sensitive layers in float with --keep-float",
        )
