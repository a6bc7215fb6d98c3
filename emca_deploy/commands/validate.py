"""`emca-deploy validate`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._console import echo, json_option, print_json, tell_notes, tell_warnings
from emca_deploy.commands._measuring_options import power_mode_option, precision_option, untuned_option
from emca_deploy.commands._options import io_of, label_options, output_name_option
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import progress
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from emca_deploy.arrays import Float32Array
    from emca_deploy.artifacts import Preprocessing, TensorSpec
    from emca_deploy.data.choosing import InputFacts
    from emca_deploy.harness.accuracy.evaluate import LogitsResult
    from emca_deploy.harness.accuracy.flips import FlipsFile
    from emca_deploy.harness.accuracy.labelled import LabelledImages
    from emca_deploy.requests import LogitsRequest
    from emca_deploy.results.accuracy import AccuracyReport
    from emca_deploy.targets.base import Target

__all__ = ["command"]

INTERRUPTED = 130


@click.command("validate")
@click.argument("artifact")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Labelled images: folder, zip or npz.")
@click.option("--backend", metavar="NAME", help="Run ARTIFACT on this one.")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="Where to run ARTIFACT: cpu, gpu, gpu:1, jetson, ssh://host; MODEL runs on the CPU there.",
)
@click.option("--reference", metavar="MODEL", help="The model to hold it against, for example the fp32 .onnx file.")
@click.option("--reference-backend", metavar="NAME", help="Run MODEL on this one.  [default: onnxruntime for .onnx]")
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="PT",
    help="Exit 4 unless the images show that top-1 drops by PT points at most: the end of the drop's interval counts.",
)
@click.option("--limit", type=click.IntRange(1), help="Use this many images, the same number of each class.  [default: all]")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Images a call.")
@click.option("--threads", type=click.IntRange(1), help="[default: one a physical core]")
@precision_option
@click.option(
    "--logits",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Keep ARTIFACT's logits here; interrupted, the same command goes on where it was.",
)
@click.option("--reference-logits", type=click.Path(path_type=Path), metavar="FILE.npz", help="Likewise for MODEL's.")
@click.option(
    "--flips", type=click.Path(path_type=Path), metavar="FILE.csv|.json", help="Write all images whose class differs here."
)
@power_mode_option
@untuned_option
@output_name_option
@preprocessing_options
@label_options
@json_option
def command(artifact: str, data: Path, reference: str | None, max_drop: float | None, as_json: bool, **options: Any) -> int:
    """Measure the accuracy of ARTIFACT, and what it lost against a reference on the same images.

    The interval of the drop is that of paired proportions (Tango's score interval, 95 %). Without labels only the agreement with
    the reference is measured. Images are preprocessed as ARTIFACT's manifest says, unless options say otherwise.

    \b
    emca-deploy validate model.openvino.onnx --data val/ --reference model.onnx --max-drop 0.5
    """
    from emca_deploy.harness.accuracy.evaluate import compare
    from emca_deploy.harness.accuracy.flips import find_flips

    flips_file = _check(reference, max_drop, options)
    try:
        ours, theirs, images = _run_both(artifact, reference, data, max_drop, options)
    except KeyboardInterrupt:
        if not _tell_what_is_kept(options):
            raise
        return INTERRUPTED
    ours = images.settle(ours, theirs)
    report = compare(artifact, ours.logits, ours.labels, reference, theirs, ours.names)
    images.check_overlap(_calibrated(artifact), ours)
    tell_warnings(images.warnings)
    rate, warnings = ours.images_per_s, tuple(images.warnings)
    _tell(replace(report, images_per_s=rate, warnings=warnings, class_order=images.class_order), as_json)
    if flips_file is not None and theirs is not None:  # last: a full disk takes nothing else away
        found = find_flips(ours.logits.argmax(axis=1), theirs.argmax(axis=1), ours.labels, ours.names, most=None)
        flips_file.write(found, ours.names.classes)
    _gate(report, max_drop)
    return 0


def _tell_what_is_kept(options: dict[str, Any]) -> bool:
    """Say which logits an interrupted run leaves; return whether there are any."""
    from emca_deploy.harness.accuracy.logits_store import partial_path

    asked = [options[name] for name in ("logits", "reference_logits") if options[name] is not None]
    kept = [str(place) for path in asked for place in (path, partial_path(path)) if place.exists()]
    if kept:
        echo(f"interrupted: the logits until then are in {' and '.join(kept)}; the same command goes on from there", err=True)
    return bool(kept)


def _run_both(
    artifact: str, reference: str | None, data: Path, max_drop: float | None, options: dict[str, Any]
) -> "tuple[LogitsResult, Float32Array | None, LabelledImages]":
    """Return what ARTIFACT gives, the logits of the reference, if there is one, and the images."""
    from emca_deploy.requests import LogitsRequest
    from emca_deploy.targets.named_artifacts import split_artifact
    from emca_deploy.targets.named_machines import open_target

    target, power_mode = open_target(options["target"], options["power_mode"])
    request = LogitsRequest(
        artifact,
        str(data),
        options["backend"],
        target.name,
        power_mode,
        limit=options["limit"],
        batch=options["batch"],
        threads=options["threads"],
        precision=options["precision"],
        untuned=options["untuned"],
        io=io_of(options["preprocessing"].image_size, options["output_name"]),
        logits=None if options["logits"] is None else str(options["logits"]),
    )
    target.check(request)
    for note in target.notes(request):
        echo(f"note: {note}", err=True)
    images: list[LabelledImages] = []

    def check(used: "Preprocessing", outputs: int | None) -> None:
        images.append(_opened(artifact, data, used, outputs, (max_drop, reference), options))

    if reference is None:
        return _run(target, request, options, check), None, images[0]
    own, path = split_artifact(reference)
    backend = own or options["reference_backend"] or ("onnxruntime" if path.lower().endswith(".onnx") else None)
    keep = options["reference_logits"]
    theirs = replace(
        request,
        artifact=path,
        backend=backend,
        target=target.processor.name,
        power_mode=None,
        precision="f32",  # it is the reference
        untuned=True,
        logits=None if keep is None else str(keep),
    )
    target.processor.check(theirs)
    target.processor.notes(theirs)  # refuses a model that cannot be run
    ours = _run(target, request, options, check)
    return ours, _run(target.processor, theirs, options, None, ours.preprocessing).logits, images[0]


def _opened(
    artifact: str,
    data: Path,
    used: "Preprocessing",
    outputs: int | None,
    asked: tuple[float | None, str | None],
    options: dict[str, Any],
) -> "LabelledImages":
    """Return the data set, refused where its labels are missing or cannot be ARTIFACT's; say what is assumed of it."""
    from emca_deploy.api.images import image_notes, image_warnings
    from emca_deploy.data.sources import open_source
    from emca_deploy.errors import InputError
    from emca_deploy.harness.accuracy.labelled import LabelledImages
    from emca_deploy.targets.named_artifacts import split_artifact

    max_drop, reference = asked
    images = LabelledImages(open_source(data, used, options["labelling"]))
    if images.found is None:
        remedy = "give one subfolder per class, or --labels FILE"
        if max_drop is not None:
            raise InputError(f"{data}: has no labels, so that --max-drop cannot be checked", remedy)
        if reference is None:
            raise InputError(f"{data}: has no labels", f"{remedy}, or a --reference to agree with")
    images.check(artifact, outputs)
    model = Path(split_artifact(artifact)[1])
    tell_notes(image_notes(str(model), images.source))
    images.warnings += image_warnings(model, data, images.source, options["preprocessing"])
    return images


def _calibrated(artifact: str) -> tuple[str, ...]:
    """Return the digests of the images that ARTIFACT was calibrated with, where its manifest has them."""
    from emca_deploy.artifacts import read_manifest
    from emca_deploy.targets.named_artifacts import split_artifact

    manifest = read_manifest(Path(split_artifact(artifact)[1]), verify=False)
    known = None if manifest is None else manifest.details.get("calibration_images")
    return tuple(str(digest) for digest in known) if isinstance(known, list) else ()


def _check(reference: str | None, max_drop: float | None, options: dict[str, Any]) -> "FlipsFile | None":
    """Refuse, before any work is done, what needs a reference where there is none, and files that could not be written."""
    from emca_deploy.errors import InputError
    from emca_deploy.harness.accuracy.flips import FlipsFile

    if reference is None:
        needs = {"--max-drop": max_drop, "--flips": options["flips"], "--reference-logits": options["reference_logits"]}
        for option, value in needs.items():
            if value is not None:
                raise InputError(f"{option} needs something to compare with", "name the fp32 model with --reference")
    return None if options["flips"] is None else FlipsFile(options["flips"])


def _run(
    target: "Target",
    request: "LogitsRequest",
    options: dict[str, Any],
    check: "Callable[[Preprocessing, int | None], None] | None" = None,
    fallback: "Preprocessing | None" = None,
) -> "LogitsResult":
    """Run the data set, once `check` has been given the preprocessing and the number of classes."""
    from emca_deploy.backends.registry import CHECKPOINTS
    from emca_deploy.data.choosing import InputFacts, file_facts
    from emca_deploy.targets.named_artifacts import split_artifact

    path = Path(split_artifact(request.artifact)[1])

    def choose(given: "TensorSpec | None", classes: int | None) -> "Preprocessing":
        facts = None if given is None else InputFacts.of(given, file_facts(path).pixel_range if path.is_file() else None)
        if facts is not None and path.suffix.lower() in CHECKPOINTS and options["preprocessing"].image_size is not None:
            facts = replace(facts, height=None, width=None)  # a checkpoint takes any size
        used = _chosen(request.artifact, options, fallback, facts)
        if check is not None:
            check(used, classes)
        return used

    with progress(request.artifact, "images") as report:
        found, warnings = target.validate(request, report, choose)
    for warning in warnings:
        echo(f"warning: {warning}", err=True)
    if found.reused and not target.is_remote:
        echo(
            f"note: {found.reused:,} of {len(found.logits):,} images of {request.artifact} were in {request.logits} already",
            err=True,
        )
    return found


def _chosen(
    artifact: str, options: dict[str, Any], fallback: "Preprocessing | None" = None, facts: "InputFacts | None" = None
) -> "Preprocessing":  # fmt: skip
    """Return the preprocessing: the options' over the manifest's over `fallback` over what the graph shows over ImageNet's."""
    from emca_deploy.data.choosing import preprocessing_of_file
    from emca_deploy.targets.named_artifacts import split_artifact

    return preprocessing_of_file(Path(split_artifact(artifact)[1]), options["preprocessing"], fallback, facts)


def _tell(report: "AccuracyReport", as_json: bool) -> None:
    from emca_deploy.commands._console import table_console
    from emca_deploy.reporting.accuracy import print_accuracy

    if as_json:
        print_json(to_json(report))
    else:
        print_accuracy(report, table_console())


def _gate(report: "AccuracyReport", max_drop: float | None) -> None:
    from emca_deploy.reporting.gate import closed_gate
    from emca_deploy.results.gate import Gate

    if max_drop is not None and not (verdict := Gate(max_drop).judge_report(report)).reached:
        raise closed_gate(Gate(max_drop), verdict, report)
