"""Turns artifacts, as a user names them, into candidates that run on the processor of this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Manifest, read_manifest
from emca_deploy.backends.registry import BACKENDS, backend_of, names_no_file
from emca_deploy.errors import InputError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.named_artifacts import digests_of, precision_of, split_artifact
from emca_deploy.targets.settings import Tuned, find_tuned, with_values

__all__ = ["CandidateOptions", "candidate", "candidates", "processor_ways", "run_notes"]

TARGET = "cpu"


@dataclass(frozen=True)
class CandidateOptions:
    """How candidates run on this machine.

    Attributes:
        threads: Number of intra-operator threads of each; None for one per physical core.
        precision: Precision of the float parts, "f32" or "bf16", if the backend has a choice.
        batch: Batch size to specialise to; None leaves a dynamic one dynamic.
        scenario: Scenario whose tuned settings are used.
        untuned: Whether to ignore tuned settings in the manifest.
        batch_chosen: Whether the user chose the batch, which excludes settings tuned for another one.
        io: Fields of `ModelIo` that the user gave: "image_size", "output_name".
    """

    threads: int | None = None
    precision: str = "f32"
    batch: int | None = None
    scenario: str = "single-stream"
    untuned: bool = False
    batch_chosen: bool = False
    io: Mapping[str, Any] = field(default_factory=dict)


Ways = Callable[[str, Sequence[str], CandidateOptions], list[RunnerSpec]]
"""Returns a candidate for each way to run a file on some backends, by default on all that fit; see `LocalTarget.ways`."""


def candidates(
    artifacts: Sequence[str], backends: Sequence[str], options: CandidateOptions, ways: Ways | None = None
) -> tuple[RunnerSpec, ...]:
    """Return every artifact on every backend, by default on the artifact's own, under unique names.

    With several candidates the runtimes' idle threads do not spin, which would disturb the others. Without `ways` the candidates
    run on the processor of this machine.

    Raises:
        EmcaError: an artifact or option is wrong, or something is missing.
    """
    found: list[RunnerSpec] = []
    for text in artifacts:
        own, path = split_artifact(text)
        found += (ways or processor_ways)(path, [own] if own else backends, options)
    paths = [spec.artifact for spec in found]
    seen: dict[str, int] = {}
    named = []
    for spec in found:
        alone = spec.name != spec.artifact or paths.count(spec.artifact) == 1
        name = spec.name if alone else f"{spec.backend}={spec.artifact}"
        seen[name] = seen.get(name, 0) + 1
        kwargs = {**spec.kwargs, "spin": False} if len(found) > 1 and "spin" in spec.kwargs else spec.kwargs
        named.append(replace(spec, name=name if seen[name] == 1 else f"{name} #{seen[name]}", kwargs=kwargs))
    return tuple(named)


def processor_ways(path: str, backends: Sequence[str], options: CandidateOptions) -> list[RunnerSpec]:
    """Return a file as a candidate for the processor on each backend."""
    return [candidate(path, backend, options) for backend in backends or (None,)]


def candidate(artifact: str, backend: str | None, options: CandidateOptions) -> RunnerSpec:
    """Return one artifact as a candidate.

    Raises:
        InputError: there is no such file, or it cannot run on that backend.
        ModelError: its manifest is damaged, or belongs to another file.
    """
    from emca_deploy._machine import default_threads

    path = Path(artifact)
    is_file = not names_no_file(artifact)
    if is_file and not path.is_file():
        raise InputError(f"{artifact}: no such file", "name an .onnx file, or an engine with its manifest")
    found = backend_of(path, backend)
    if BACKENDS[found].needs_gpu:
        raise InputError(f"{artifact}: backend '{found}' runs on a GPU, not on target '{TARGET}'", "add --target gpu")
    threads = options.threads if options.threads is not None else default_threads()
    if threads < 1:
        raise InputError(f"--threads {threads}", "give at least 1")
    manifest = read_manifest(path) if is_file else None
    precision = precision_of(path, manifest) if is_file else "fp32"
    if precision == "fp32" and options.precision == "bf16":
        precision = "bf16"
    kwargs = {
        "backend": found,
        "artifact": artifact,
        "threads": threads,
        "precision": options.precision,
        "batch": options.batch,
        "spin": True,
        **({"io": dict(options.io)} if options.io else {}),
    }
    spec = RunnerSpec(artifact, kwargs=kwargs, artifact=artifact, backend=found, precision=precision, target=TARGET)
    spec = replace(spec, digests=digests_of(path) if is_file else {})
    return with_values(spec, _tuned(path, manifest, found, options).values)


def run_notes(specs: Sequence[RunnerSpec], options: CandidateOptions) -> tuple[str, ...]:
    """Return a note for each artifact that has tuned settings, used or not, or that saturates on this processor.

    Raises:
        ModelError: a manifest is damaged.
    """
    notes = []
    for spec in specs:
        path = Path(spec.artifact)
        manifest = read_manifest(path, verify=False)
        for note in (_tuned(path, manifest, spec.backend, options).note, _saturates(path, manifest, spec.backend)):
            if note is not None and note not in notes:
                notes.append(note)
    return tuple(notes)


def _saturates(path: Path, manifest: Manifest | None, backend: str) -> str | None:
    """Return a warning if this backend and processor add the products of 8-bit weights in 16 bits."""
    from emca_deploy._machine import cpu_info

    if manifest is None or not BACKENDS[backend].saturates or manifest.details.get("weight_bits") != 8:
        return None
    if not cpu_info().saturates_int8:
        return None
    return (
        f"{path}: may give wrong answers on this processor, which lacks VNNI: sums of products with 8-bit weights saturate; "
        "calibrate with --weight-bits 7"
    )


def _tuned(path: Path, manifest: Manifest | None, backend: str, options: CandidateOptions) -> Tuned:
    """Return an artifact's tuned settings; all or none, so none if the user chose one of them."""
    if manifest is None or not manifest.settings or options.untuned:
        return Tuned({})
    tuned = find_tuned(path, manifest, backend, options.scenario)
    if tuned.values and (options.threads is not None or options.precision != "f32"):
        chosen = "threads" if options.threads is not None else "precision"
        return Tuned({}, f"{path}: its tuned settings are not used, because --{chosen} is given")
    if tuned.values and options.batch_chosen and options.batch != tuned.batch:
        return Tuned({}, f"{path}: its tuned settings are not used, because they are for a batch of {tuned.batch}")
    return tuned
