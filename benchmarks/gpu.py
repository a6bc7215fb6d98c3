"""Compare engines of every EMCA architecture with PyTorch and ONNX Runtime on an NVIDIA GPU, in latency and in accuracy.

    python benchmarks/gpu.py --output result.json            # everything, on the first GPU; half an hour to an hour
    python benchmarks/gpu.py --arch emca_eca_resnet50 --batches 1 --target gpu:1
    python benchmarks/gpu.py --dry-run --arch resnet18       # needs no GPU: builds all TensorRT-RTX engines, and lists the rest

The candidates for every architecture and batch are TensorRT or TensorRT-RTX engines and, where it is installed, ONNX Runtime's
CUDA provider in fp32, fp16 and INT8, and PyTorch eager, compiled and in fp16. Each runs in its own process, interleaved block by
block. Weights are random: latency does not depend on them. Accuracy is that of the bundled trained network on its labelled
images, compared with fp32 on the CPU. Failures are listed with their reasons, and the run continues: where TensorRT-RTX does not
support the GPU, the other candidates are measured, and the messages of its builder and runtime are recorded. Results that
--output already has are not measured again; models that --models already has are not made again.

Host time is from an array to logits in an array; CUDA events around the network alone give device time. Where the trtexec of the
engines' version is installed, it times them too, and the last table has our median device time over its own.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_refusal import rtx_refusal
from gpu_tables import accuracy_table, latency_table, print_plan
from rich.console import Console
from vendor_time import compare_with_vendor, find_vendor_tool, vendor_document, vendor_table

from emca_deploy._machine import default_threads
from emca_deploy._optional import import_optional, installed_version
from emca_deploy.artifacts import Preprocessing, write_json
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import all_recipes, available, find_recipe
from emca_deploy.backends.tensorrt.builder import RtxBuilder, TrtBuilder
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.data.bundled import (
    BUNDLED_PREPROCESSING,
    bundled_calibration_images,
    bundled_checkpoint,
    bundled_test_images,
)
from emca_deploy.data.sources import open_source
from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.harness.accuracy.collection import LogitsResult, LogitsRun
from emca_deploy.harness.measure.latency import Protocol, measuring
from emca_deploy.harness.measure.raw_samples import write_raw
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.networks.registry import create_model, find_architecture
from emca_deploy.results.codec import to_json
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.gpu import GpuTarget, check_gpu, ways_to_run
from emca_deploy.tasks.classification import compare

FAMILIES = ("resnet", "se_resnet", "eca_resnet", "srm_resnet", "emca_se_resnet", "emca_eca_resnet", "emca_srm_resnet")
ARCHITECTURES = tuple(f"{family}{depth}" for depth in (18, 34, 50) for family in FAMILIES)
BASELINE = "torch compiled fp16 channels-last"
TRAINED = "bundled"
ACCURACY_AT_ONCE = 4
SAMPLES = 64
"""Number of calibration images of the random networks, whose accuracy is not measured; the trained one uses all bundled ones."""


@dataclass
class Bench:
    """A run.

    Attributes:
        backend: Backend of the engines.
        target: Target such as "gpu:0".
        capability: Compute capability that engines are built for; None builds portable ones.
        folder: Folder for models and engines.
        raw: Folder for the samples of every call; None discards them.
        refusal: Reason why this GPU cannot have engines; empty if it can.
        failures: Reasons by what was tried.
    """

    backend: str
    target: str
    capability: str | None
    folder: Path
    raw: Path | None = None
    refusal: str = ""
    failures: dict[str, str] = field(default_factory=dict)

    def forget(self, what: str) -> None:
        """Forget an earlier run's failures of what is tried again."""
        for name in [name for name in self.failures if name.startswith(what)]:
            del self.failures[name]

    def note(self, what: str, error: EmcaError) -> None:
        """Note a failure."""
        self.failures[what] = str(error)
        print(f"failed: {what}: {error}", file=sys.stderr)


def make_models(bench: Bench, arch: str, size: int) -> tuple[Path, dict[str, Path]]:
    """Write an architecture's checkpoint and its models by precision, or find those of an earlier run; note failures."""
    folder = bench.folder / f"{arch}-{size}-{bench.backend}"
    checkpoint = bundled_checkpoint() if arch == TRAINED else folder / f"{arch}.safetensors"
    models = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    if all(path.is_file() for path in (checkpoint, *models.values())):
        return checkpoint, models
    folder.mkdir(parents=True, exist_ok=True)
    if arch == TRAINED:
        return checkpoint, _convert(bench, folder, checkpoint, BUNDLED_PREPROCESSING)
    torch = import_optional("torch")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(create_model(arch).state_dict(), checkpoint)
    return checkpoint, _convert(bench, folder, checkpoint, Preprocessing.for_size(size))


def _convert(bench: Bench, folder: Path, checkpoint: Path, preprocessing: Preprocessing) -> dict[str, Path]:
    models = {"fp32": folder / "fp32.onnx"}
    export_checkpoint(checkpoint, models["fp32"], ExportOptions(preprocessing=preprocessing))
    try:
        half = ExportOptions(preprocessing=preprocessing, precision="fp16")
        models["fp16"] = export_checkpoint(checkpoint, folder / "fp16.onnx", half).onnx
    except EmcaError as error:
        bench.note(f"{folder.name} fp16 export", error)
    images = open_source(bundled_calibration_images(), preprocessing)
    trained = checkpoint == bundled_checkpoint()
    options = CalibrationOptions(
        find_recipe(bench.backend),
        all_recipes(),
        method="auto" if trained else "minmax",
        samples=len(images) if trained else SAMPLES,
        threads=default_threads(),
        recover="weights" if trained else "none",
    )
    try:
        models["int8"] = calibrate_model(models["fp32"], images, folder / "int8.onnx", options).onnx
    except EmcaError as error:
        bench.note(f"{folder.name} int8 calibration", error)
    return models


def build_engines(bench: Bench, models: dict[str, Path], batch: int) -> dict[str, Path]:
    """Build an engine of every model for one batch size; note failures."""
    if bench.refusal:
        return {}
    targets = (bench.capability,) if bench.backend == "tensorrt-rtx" and bench.capability else ()
    engines = {}
    for precision, model in models.items():
        engine = model.with_name(f"{precision}-{batch}.engine")
        builder = RtxBuilder if bench.backend == "tensorrt-rtx" else TrtBuilder
        try:
            builder(TrtSettings(targets=targets)).build(model, engine, RunOptions(default_threads(), batch=batch))
            engines[precision] = engine
        except EmcaError as error:
            bench.note(f"{model.parent.name} {precision} engine, batch {batch}", error)
    return engines


def describe_engine(engine: Path) -> dict[str, Any]:
    """Return an engine's facts from its manifest."""
    details = json.loads(engine.with_name(f"{engine.name}.manifest.json").read_text(encoding="utf-8"))["details"]
    counts = {name: details["tensorrt"][name] for name in ("int8_convolutions", "quantized_convolutions", "layers")}
    return {"engine_mib": engine.stat().st_size / 2**20, **counts, "for": details["machine"]["instruction_sets"]}


def planned(checkpoint: Path, models: dict[str, Path], engines: dict[str, Path]) -> list[tuple[str, str]]:
    """Return (name, artifact in the target's form) of all candidates, in the order of the table."""
    found = [(f"engine {precision}", str(engine)) for precision, engine in engines.items()]
    if "CUDAExecutionProvider" in import_optional("onnxruntime").get_available_providers():
        found += [(f"onnxruntime {precision}", f"onnxruntime={models[precision]}") for precision in models]
    return [*found, ("torch", str(checkpoint))]


def named_specs(bench: Bench, plan: Sequence[tuple[str, str]], batch: int | None) -> list[RunnerSpec]:
    """Return the candidates under their short names, the baseline first."""
    specs = []
    for name, artifact in plan:
        for spec in GpuTarget.parse(bench.target).candidates([artifact], [], CandidateOptions(batch=batch)):
            variant = spec.kwargs.get("variant")
            values = {**spec.__dict__, "name": f"{name} {variant}" if variant else name}
            specs.append(RunnerSpec(**values))
    return sorted(specs, key=lambda spec: spec.name != BASELINE)


def time_architecture(
    bench: Bench, arch: str, made: tuple[Path, dict[str, Path]], batch: int, duration_s: float
) -> dict[str, Any]:
    """Measure an architecture with its checkpoint and models in `made` at one batch size, also with trtexec if installed."""
    checkpoint, models = made
    engines = build_engines(bench, models, batch)
    what = f"{arch}, batch {batch}"
    specs = named_specs(bench, planned(checkpoint, models, engines), batch)
    protocol = Protocol(batch=batch, duration_s=duration_s, warmup_s=5.0, timeout_s=900, load_together=True)
    with GpuTarget.parse(bench.target).hold() as held, measuring(specs, protocol, keep_going=True) as run:
        pass
    report = to_json(run.report())
    if bench.raw is not None:
        write_raw(bench.raw / f"{arch}-batch{batch}.npz", run.raw())
        for result in report["results"]:
            del result["samples_ms"]
    for failure in report["failures"]:
        bench.failures[f"{what}: {failure['name']}"] = failure["error"]
        print(f"failed: {what}: {failure['name']}: {failure['error']}", file=sys.stderr)
    failed = {failure["name"] for failure in report["failures"]}
    names = [spec.name for spec in specs if spec.name not in failed]
    built = {precision: describe_engine(engine) for precision, engine in engines.items()}
    row = {"names": names, "engines": built, **report, "gpu": held.record["gpu"]}
    if (tool := find_vendor_tool(bench.backend)[0]) is not None:
        device = {
            name.removeprefix("engine "): result.get("device_ms") for name, result in zip(names, row["results"], strict=True)
        }
        known = {name: times for name, times in device.items() if times is not None}
        row["vendor"] = compare_with_vendor(tool, engines, known, batch, duration_s)
    return row


def measure_accuracy(bench: Bench, limit: int | None) -> dict[str, Any]:
    """Run the bundled labelled images through every engine of the trained network and through fp32 on the CPU."""
    checkpoint, models = make_models(bench, TRAINED, BUNDLED_PREPROCESSING.image_size)
    engines = build_engines(bench, models, 64)
    images = bundled_test_images()
    kwargs = {"backend": "onnxruntime", "artifact": str(models["fp32"]), "threads": default_threads()}
    reference = LogitsRun(RunnerSpec("fp32 on the CPU", kwargs=kwargs), images, BUNDLED_PREPROCESSING, limit=limit).collect()
    specs = named_specs(bench, planned(checkpoint, models, engines), None)

    def collect(spec: RunnerSpec) -> LogitsResult | EmcaError:
        try:
            return LogitsRun(spec, images, BUNDLED_PREPROCESSING, limit=limit, batch_size=64).collect()
        except EmcaError as error:
            return error

    found = {}
    with ThreadPoolExecutor(ACCURACY_AT_ONCE) as pool:  # this run is not timed
        for spec, ours in zip(specs, pool.map(collect, specs), strict=True):
            if isinstance(ours, EmcaError):
                bench.note(f"{TRAINED} accuracy of {spec.name}", ours)
                continue
            found[spec.name] = to_json(compare(spec.name, ours.logits, ours.labels, "fp32 on the CPU", reference.logits))
    return found


def dry_run(bench: Bench, archs: Sequence[str], size: int, batches: Sequence[int]) -> dict[str, Any]:
    """Build every engine and list the candidates."""
    found: dict[str, Any] = {}
    for arch in archs:
        checkpoint, models = make_models(bench, arch, size)
        for batch in batches:
            engines = build_engines(bench, models, batch)
            names = [
                f"{name} {variant}".rstrip()
                for name, artifact in planned(checkpoint, models, engines)
                for _, variant in ways_to_run(Path(artifact.partition("=")[2] or artifact), [])
            ]
            built = {precision: describe_engine(engine) for precision, engine in engines.items()}
            found[f"{arch}, batch {batch}"] = {"names": names, "engines": built}
    return found


def read_document(args: argparse.Namespace, key: dict[str, Any]) -> dict[str, Any]:
    """Return the document of an earlier run of the same kind, or an empty one."""
    if args.output and args.output.is_file():
        try:
            document: dict[str, Any] = json.loads(args.output.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise InputError(f"{args.output}: not a result of this benchmark", "name another file with --output") from exc
        if {name: document.get(name) for name in key} != key:
            raise InputError(f"{args.output}: comes from another machine, version or size", "name another file with --output")
        return document
    stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"created": stamp, **key, "architectures": {}, "accuracy": {}, "vendor": {}, "failures": {}}


def run(args: argparse.Namespace, console: Console) -> None:
    """Run the benchmark with these arguments.

    Raises:
        MissingError: There is no GPU, and it is not a dry run.
        InputError: --output is another kind of file.
    """
    index = GpuTarget.parse(args.target).device
    for arch in args.arch or ():
        find_architecture(arch)
    gpu = None if args.dry_run else check_gpu(index)
    backend = "tensorrt-rtx" if args.dry_run else args.backend or next(
        (name for name in ("tensorrt", "tensorrt-rtx") if available()[name].version), "tensorrt-rtx"
    )  # fmt: skip
    if available()[backend].version is None:
        raise MissingError(f"{backend} is not installed", f"pip install 'emca-deploy[{backend}]'")
    module = backend.replace("-", "_")
    key = {"version": 2, "backend": backend, "backend_version": installed_version(module), "size": args.size}
    key |= {"dry_run": args.dry_run, "gpu": gpu.to_dict() if gpu else None}
    document = read_document(args, key)
    with tempfile.TemporaryDirectory() as folder:
        where = args.models or Path(folder)
        raw = args.output.with_suffix("") if args.output and not args.dry_run else None
        if raw is not None:
            raw.mkdir(parents=True, exist_ok=True)
        bench = Bench(backend, args.target, gpu.capability if gpu else None, where, raw, failures=document["failures"])
        if args.dry_run:
            document["architectures"] = dry_run(bench, args.arch or ARCHITECTURES, args.size, args.batches)
            document["vendor"] = vendor_document(bench.backend, {})
            print_plan(console, document["architectures"])
            console.print(vendor_table(document["vendor"]))
            _keep(args.output, document)
        else:
            _measure_all(bench, args, document, console)
    for what, reason in document["failures"].items():
        console.print(f"failed: {what}: {reason}", style="yellow", markup=False)
    console.print(f"{len(document['failures'])} failures")


def _measure_all(bench: Bench, args: argparse.Namespace, document: dict[str, Any], console: Console) -> None:
    found = document["architectures"]
    if bench.backend == "tensorrt-rtx":
        document["refusal"] = said = rtx_refusal(bench.capability or "", bench.folder)
        bench.refusal = said.get("builder", "")
        for part, words in said.items():
            bench.failures[f"every engine: {bench.backend}'s {part}"] = words
    for arch in args.arch or ARCHITECTURES:
        left = [batch for batch in args.batches if f"{arch}, batch {batch}" not in found]
        if not left:
            continue
        bench.forget(arch)
        try:
            made = make_models(bench, arch, args.size)
        except EmcaError as error:
            bench.note(arch, error)
            continue
        for batch in left:
            what = f"{arch}, batch {batch}"
            print(what, file=sys.stderr)
            try:
                found[what] = time_architecture(bench, arch, made, batch, args.duration)
            except EmcaError as error:
                bench.note(what, error)
            _keep(args.output, document)
    if not document["accuracy"]:
        bench.forget(TRAINED)
        document["accuracy"] = measure_accuracy(bench, args.limit)
        _keep(args.output, document)
    for what, row in found.items():
        arch, _, batch = what.partition(", batch ")
        console.print(latency_table(arch, int(batch), row))
    console.print(accuracy_table(document["accuracy"]))
    document["vendor"] = vendor_document(bench.backend, found)
    console.print(vendor_table(document["vendor"]))
    _keep(args.output, document)


def _keep(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        write_json(path, document)


def main() -> int:
    """Parse the arguments, run, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", help="may be repeated; default all 21")
    parser.add_argument("--target", default="gpu", help="gpu, or gpu:1 for the second GPU")
    parser.add_argument(
        "--backend", choices=("tensorrt", "tensorrt-rtx"), help="backend of the engines; default the first installed"
    )
    parser.add_argument(
        "--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 64], help="batch sizes, such as 1,64"
    )
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--duration", type=float, default=5.0, help="measuring time of each candidate in seconds")
    parser.add_argument("--limit", type=int, help="number of labelled images; default all 2,000")
    parser.add_argument("--models", type=Path, help="folder for models and engines; existing ones are reused")
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file for the results; a folder next to it gets the times of all calls",
    )
    parser.add_argument("--dry-run", action="store_true", help="build the engines and list the rest; needs no GPU")
    try:
        run(parser.parse_args(), Console(width=160))
    except EmcaError as error:
        print(f"error: {error.problem}\n  try: {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
