"""`emca-deploy validate`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._board import on_board, power_mode_option
from emca_deploy.commands._console import echo, json_option, print_json, tell_notes, tell_warnings
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
    from emca_deploy.harness.spec import RunnerSpec
    from emca_deploy.results.accuracy import AccuracyReport

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
@click.option("--precision", type=click.Choice(["f32", "bf16"]), default="f32", show_default=True, help="Of the float parts.")
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
@click.option("--untuned", is_flag=True, help="Take no notice of the settings that `tune` kept in a manifest.")
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
    from emca_deploy.targets.named_machines import resolve_device

    options["target"], options["power_mode"] = resolve_device(options["target"], options["power_mode"])
    flips_file = _check(reference, max_drop, options)
    try:
        with on_board(options["target"], options["power_mode"]):
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
    from emca_deploy.remote.address import is_ssh

    if is_ssh(options["target"]):
        return _both_there(artifact, reference, data, max_drop, options)
    spec, reference_spec = _specs(artifact, reference, options)
    images: list[LabelledImages] = []

    def check(used: "Preprocessing", outputs: int | None) -> None:
        images.append(_opened(artifact, data, used, outputs, (max_drop, reference), options))

    ours = _run(spec, data, options, options["logits"], check)
    if reference_spec is None:
        return ours, None, images[0]
    return ours, _run(reference_spec, data, options, options["reference_logits"], None, ours.preprocessing).logits, images[0]


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
    from emca_deploy.targets.candidates import split_artifact

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
    from emca_deploy.targets.candidates import split_artifact

    manifest = read_manifest(Path(split_artifact(artifact)[1]), verify=False)
    known = None if manifest is None else manifest.details.get("calibration_images")
    return tuple(str(digest) for digest in known) if isinstance(known, list) else ()


def _both_there(
    artifact: str, reference: str | None, data: Path, max_drop: float | None, options: dict[str, Any]
) -> "tuple[LogitsResult, Float32Array | None, LabelledImages]":
    """Run both on another machine, over the same images, which are sent once; labels stay here."""
    from emca_deploy.targets.ssh.validating import DataThere, RunThere, logits_there

    used = _chosen(artifact, options)
    images = _opened(artifact, data, used, _outputs(artifact, options["output_name"]), (max_drop, reference), options)
    runs = [RunThere(artifact, options["backend"], used, options["logits"])]
    if reference is not None:
        theirs = _chosen(reference, options, used)
        backend = options["reference_backend"] or ("onnxruntime" if reference.lower().endswith(".onnx") else None)
        runs.append(RunThere(reference, backend, theirs, options["reference_logits"], reference=True))
    names = ("threads", "precision", "untuned", "power_mode")
    io = io_of(options["preprocessing"].image_size, options["output_name"])
    asked = {**{name: options[name] for name in names}, "io": io}
    there = DataThere(data, options["limit"], options["batch"], asked)
    found = logits_there(options["target"], there, runs, lambda name: progress(name, "images"))
    return found[0], found[1].logits if reference is not None else None, images


def _outputs(artifact: str, output_name: str | None) -> int | None:
    """Return the width of an ONNX file's logits, None where nothing here says it."""
    from emca_deploy.onnx_file import OnnxFile
    from emca_deploy.targets.candidates import split_artifact

    path = Path(split_artifact(artifact)[1])
    return OnnxFile.open(path).find_logits(output_name).classes if path.suffix.lower() == ".onnx" else None


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


def _specs(artifact: str, reference: str | None, options: dict[str, Any]) -> "tuple[RunnerSpec, RunnerSpec | None]":
    from emca_deploy.targets.candidates import LocalOptions, candidate, run_notes, split_artifact
    from emca_deploy.targets.gpu import gpu_candidate, gpu_index

    own, path = split_artifact(artifact)
    io = io_of(options["preprocessing"].image_size, options["output_name"])
    local = LocalOptions(options["threads"], options["precision"], target=options["target"], untuned=options["untuned"], io=io)
    make = candidate if gpu_index(local.target) is None else gpu_candidate
    if local.target == "jetson":
        from emca_deploy.targets.jetson_candidates import jetson_candidate as make
    spec = _quiet(make(path, own or options["backend"], local))
    for note in run_notes((spec,), local) if local.target == "cpu" else ():
        echo(f"note: {note}", err=True)
    if reference is None:
        return spec, None
    own, path = split_artifact(reference)
    asked = own or options["reference_backend"] or ("onnxruntime" if path.lower().endswith(".onnx") else None)
    return spec, _quiet(candidate(path, asked, LocalOptions(options["threads"], untuned=True, io=io)))  # f32: it is the reference


def _quiet(spec: "RunnerSpec") -> "RunnerSpec":
    """Let the runtime's waiting threads sleep: images are decoded meanwhile, on the same cores."""
    return replace(spec, kwargs={**spec.kwargs, "spin": False}) if "spin" in spec.kwargs else spec


def _run(
    spec: "RunnerSpec",
    data: Path,
    options: dict[str, Any],
    keep: Path | None,
    check: "Callable[[Preprocessing, int | None], None] | None" = None,
    fallback: "Preprocessing | None" = None,
) -> "LogitsResult":
    """Run the data set, once `check` has been given the preprocessing and the width of the logits."""
    from emca_deploy.data.choosing import InputFacts, file_facts
    from emca_deploy.harness.accuracy.evaluate import LogitsRun
    from emca_deploy.targets.candidates import split_artifact

    def choose(given: "TensorSpec", gives: "TensorSpec") -> "Preprocessing":
        path = Path(split_artifact(spec.artifact)[1])
        facts = InputFacts.of(given, file_facts(path).pixel_range if path.is_file() else None)
        if spec.backend == "torch" and options["preprocessing"].image_size is not None:  # a checkpoint takes any size
            facts = replace(facts, height=None, width=None)
        used = _chosen(spec.artifact, options, fallback, facts)
        if check is not None:
            check(used, gives.shape[-1] if isinstance(gives.shape[-1], int) else None)
        return used

    with progress(spec.name, "images") as report:
        found = LogitsRun(spec, data, choose, options["limit"], options["batch"]).collect(report, keep)
    if found.reused:
        echo(f"note: {found.reused:,} of {len(found.logits):,} images of {spec.name} were in {keep} already", err=True)
    return found


def _chosen(
    artifact: str, options: dict[str, Any], fallback: "Preprocessing | None" = None, facts: "InputFacts | None" = None
) -> "Preprocessing":  # fmt: skip
    """Return the preprocessing: the options' over the manifest's over `fallback` over what the graph shows over ImageNet's."""
    from emca_deploy.data.choosing import preprocessing_of_file
    from emca_deploy.targets.candidates import split_artifact

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
