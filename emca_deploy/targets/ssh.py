"""A remote machine, reached over ssh: its agent runs requests, and their reports are fetched."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from emca_deploy._progress import Progress
from emca_deploy.artifacts import Manifest, read_manifest, this_command, write_artifact
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import BACKENDS, CHECKPOINTS, DEFAULT, backend_of
from emca_deploy.data.arrays import read_npz
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.errors import InputError, MissingError, WorkerError
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.logits_store import LogitsStore
from emca_deploy.harness.measure.raw_samples import read_raw
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions
from emca_deploy.remote.address import SCHEME, Address, parse_address
from emca_deploy.remote.files import Arriving
from emca_deploy.remote.probe import Facts, check_runtime
from emca_deploy.remote.protocol import ENGINE, LOGITS, RAW
from emca_deploy.remote.session import Answer, Session, session
from emca_deploy.requests import BuildRequest, DeploymentRequest, LogitsRequest, ProfileRequest, Request, TrtChoices
from emca_deploy.results.codec import from_json
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.base import Built, ChoosePreprocessing, Part, Profiled, Shared, Target, Validated
from emca_deploy.targets.building import builder_of
from emca_deploy.targets.by_trtexec import build_by_trtexec, profile_by_trtexec
from emca_deploy.targets.capabilities import Capabilities, remote_capabilities
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models
from emca_deploy.targets.errand import Errand
from emca_deploy.targets.named_artifacts import split_artifact, split_artifacts
from emca_deploy.targets.shipment import Shipment, packed
from emca_deploy.tasks.registry import TASKS

__all__ = ["SshTarget", "check_backends", "chosen_preprocessing", "trtexec_suffices"]

CACHE = "@cache/calibration.cache"
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class SshTarget(Target):
    """A remote machine; the address includes the target on it."""

    address: Address
    kind: ClassVar[str] = "ssh"
    is_remote: ClassVar[bool] = True
    has_power_modes: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "SshTarget":
        """Return the machine of "ssh://[user@]host[:port][/target]"; see `Target.parse`."""
        return cls.at(parse_address(text))

    @classmethod
    def at(cls, address: Address) -> "SshTarget":
        """Return the target of an address."""
        return cls(f"{address}/{address.target}" if address.target else str(address), address)

    @property
    def host(self) -> str:
        """The machine's address, "[user@]host[:port]"."""
        return str(self.address).removeprefix(SCHEME)

    @property
    def on_host(self) -> str | None:
        """The target on that machine; None means jetson on a Jetson board, and cpu elsewhere."""
        return self.address.target

    @property
    def processor(self) -> Target:
        """The processor of the same machine."""
        return SshTarget.at(replace(self.address, target="cpu"))

    def check(self, request: Request) -> None:
        """Also refuse a missing model, and a file for the logits that already exists; see `Target.check`."""
        super().check(request)
        if not isinstance(request, LogitsRequest):
            return
        path = split_artifact(request.artifact)[1]
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file", "name an .onnx file, or an engine with its manifest")
        if request.logits is not None and Path(request.logits).exists():
            raise InputError(f"{request.logits}: already exists", "name another file")

    def profile(self, request: ProfileRequest, progress: Progress | None = None) -> Profiled:
        """Measure on the remote machine; files in the report have their local names. See `Target.profile`.

        A machine whose Python cannot run the agent measures with its trtexec, if it has one. If the connection is lost, the run
        ends; what was measured is fetched once the machine can be reached again, and marked incomplete.
        """
        files = Shipment()
        sent = replace(request, artifacts=files.add_all(request.artifacts), target=self.address.target)
        backends = _backends(request)
        builds = any(name.lower().endswith(".onnx") for name in files.names)
        errand = Errand(self.address, "profile", sent, files)
        with files.naming(), session(self.address) as first:
            if not trtexec_suffices(first.facts, backends, builds=builds):
                check_backends(self.address, first.facts, backends, builds=builds)
                return errand.run(first, lambda answer: self._profiled(answer, errand), progress)
        if request.scenario == "paced" or request.concurrency or request.co_run:
            problem = f"{self.address}: its trtexec makes neither paced calls nor several at once"
            raise InputError(problem, "install Python 3.10 and numpy on it")
        return profile_by_trtexec(self.address, first.facts.trtexec, request, progress)

    def _profiled(self, answer: Answer, errand: Errand) -> Profiled:
        with TemporaryDirectory(prefix="emca-") as folder:
            path = Path(folder) / RAW
            answer.fetch(RAW, path)
            raw = read_raw(path)
        files = errand.files
        report = from_json(ProfileReport, files.local(answer.document["report"]))
        notes = files.local(list(answer.notes))
        if (facts := answer.session.facts).clock_is_off:
            notes.append(f"its clock is {facts.clock_difference} this machine's: see 'created'")
        if errand.collecting:
            notes.append("the connection was lost: this is what was measured until then")
        record = {**answer.session.record(), "target_there": answer.document["target"], "notes": notes}
        record["log"] = files.local(list(answer.log))
        results = tuple(replace(result, target=str(self.address)) for result in report.results)
        report = replace(report, results=results, environment={**report.environment, "ssh": record})
        named = (replace(one, name=files.local(one.name), builds=tuple(files.local(one.builds))) for one in raw.candidates)
        return Profiled(
            replace(report, complete=report.complete and not errand.collecting), replace(raw, candidates=tuple(named))
        )

    def validate(
        self, request: LogitsRequest, progress: Progress | None = None, choose: ChoosePreprocessing | None = None
    ) -> Validated:
        """Run a data set through a model on the remote machine; see `Target.validate`. Labels are not sent.

        If the connection is lost, the machine keeps what it has done, and the run resumes once it can be reached again.
        """
        self.check(request)
        backend, path = split_artifact(request.artifact)
        used = request.preprocessing or chosen_preprocessing(Path(path), request, choose)
        files = Shipment()
        with packed(Path(request.data), request.images) as images, files.naming():
            needs_pillow = images.suffix.lower() != ".npz" or str(read_npz(images)[0].dtype) != "float32"
            sent = replace(
                request,
                artifact=files.add(path),
                backend=backend or request.backend,
                data=files.add_as(f"@data/images{images.suffix.lower()}", images, request.data),
                target=self.address.target,
                preprocessing=used,
                logits=None,
            )

            def take(answer: Answer) -> Validated:
                document = answer.document
                with TemporaryDirectory(prefix="emca-") as folder:
                    kept_in = Path(request.logits or Path(folder) / LOGITS)
                    answer.fetch(LOGITS, kept_in)
                    kept = LogitsStore(kept_in, document["key"], TASKS[request.task]).kept()
                assert kept is not None  # it was fetched
                rate = document["images_per_s"]
                found = LogitsResult(kept.answers, kept.labels, rate, used, kept.names, document["reused"])
                return Validated(found, notes=tuple(files.local(list(answer.notes))))

            with session(self.address) as first:
                needed = needed_backend(Path(path), sent.backend)
                check_backends(self.address, first.facts, [needed], builds=sent.artifact.endswith(".onnx"))
                if needs_pillow and first.facts.python is not None:
                    check_runtime(self.address, first.facts, "PIL", "decoding images")
                return Errand(self.address, "validate", sent, files).run(first, take, progress)

    def build(self, request: BuildRequest, progress: Progress | None = None) -> Built:
        """Build on the remote machine and write the engine with its manifest on this one. See `Target.build`.

        A timing cache is a folder on the remote machine; all other files are local. If the connection is lost after the build,
        the engine is fetched once the machine can be reached again.
        """
        with suppress(MissingError):  # wrong choices are refused before anything is sent; libraries may be missing locally
            builder_of(request)
        files = Shipment()
        sent = replace(request, model=files.add(request.model), output=ENGINE, target=self.address.target)
        cache = request.choices.calibration_cache
        if cache is not None:
            sent = replace(sent, choices=replace(request.choices, calibration_cache=Path(files.add_as(CACHE, cache))))
        trtexec = None if request.trtexec == "auto" else request.trtexec
        if request.trtexec is None:
            with files.naming(), session(self.address) as first:
                suffices = request.backend in names_where(trtexec=True) and trtexec_suffices(
                    first.facts, {request.backend}, builds=True
                )
                if not suffices:
                    check_backends(self.address, first.facts, [request.backend], builds=True)
                    errand = Errand(self.address, "build", sent, files)
                    return self._built(errand, first, Path(request.output), progress)
            trtexec = first.facts.trtexec
        return build_by_trtexec(self.address, trtexec, request, progress)

    def _built(self, errand: Errand, first: Session, output: Path, progress: Progress | None) -> Built:
        files = errand.files
        with write_artifact(output) as draft:
            with draft.path.open("wb") as stream:
                arriving = Arriving(stream.write)

                def take(answer: Answer) -> Answer:
                    answer.fetch_rest(ENGINE, arriving)
                    return answer

                answer = errand.run(first, take, progress)
            manifest = from_json(Manifest, files.local(answer.document["report"]))
            details = {**manifest.details, "built_on": str(self.address), "log": files.local(list(answer.log))}
            draft.manifest = replace(manifest, command=this_command(), details=details)
        return Built(draft.written, tuple(files.local(list(answer.notes))))

    def capabilities(self) -> Capabilities:
        """Return what the remote machine can do."""
        return remote_capabilities(self.address)

    def deployment(self, backends: Sequence[str] = ()) -> Deployment:
        """Return what the remote machine builds and measures; see `Target.deployment`. Checkpoints are left out."""
        request = DeploymentRequest(self.address.target, tuple(backends))
        with session(self.address) as first:
            errand = Errand(self.address, "deployment", request, Shipment())
            found = errand.run(first, lambda answer: from_json(Deployment, answer.document["report"]), None)
        return replace(found.without_checkpoints(), target=self.name)

    def build_step(self, step: BuildStep, models: Models, threads: int | None = None) -> list[BuiltCandidate]:
        """Build on the remote machine what a step builds; see `Target.build_step`."""
        source = models.source(step)
        assert source is not None  # `deployment` leaves checkpoints out
        path = source
        if step.file is not None:
            path = models.fp32.parent / f"{_PLAIN.sub('-', self.host)}-{step.file}"
            choices = TrtChoices(targets=step.capabilities)
            self.build(BuildRequest(str(source), step.backend, str(path), self.name, threads=threads, batch=1, choices=choices))
        kwargs = {"threads": threads}
        spec = RunnerSpec(step.name, "", kwargs, str(path), step.backend, step.precision or "fp32", self.name)
        return [BuiltCandidate(step.name, path, spec)]

    def measure(
        self, parts: Sequence[Part], duration_s: float, progress: Progress | None = None, shared: Shared | None = None
    ) -> ProfileReport:
        """Measure the candidates on the remote machine; see `Target.measure`."""
        (part,) = parts  # a session has one target
        specs = [candidate.spec for candidate in part.candidates]
        request = ProfileRequest(
            tuple(f"{spec.backend}={spec.artifact}" for spec in specs),
            target=self.name,
            threads=specs[0].kwargs["threads"],
            duration_s=duration_s,
            max_duration_s=duration_s,
            processes=part.deployment.processes,
            telemetry=False,
            power_mode=part.power_mode,
        )
        report = self.profile(request, progress).report
        if report.failures:
            raise WorkerError(report.failures[0].error, report.failures[0].remedy)
        if not report.complete:
            raise KeyboardInterrupt
        names = [spec.name for spec in specs]
        compared = [replace(one, a=name, b=names[0]) for name, one in zip(names[1:], report.comparisons, strict=True)]
        notes = part.deployment.notes
        results = (replace(one, warnings=(*one.warnings, *notes)) for one in report.results)
        return replace(report, results=tuple(results), comparisons=tuple(compared))

    def logits(self, built: BuiltCandidate, request: LogitsRequest, progress: Progress | None, shared: Shared) -> LogitsResult:
        """Run the validation images through a candidate on the remote machine; see `Target.logits`."""
        spec = built.spec
        own = replace(request, artifact=f"{spec.backend}={spec.artifact}", target=self.name, threads=spec.kwargs["threads"])
        return self.validate(own, progress).logits


def _backends(request: ProfileRequest) -> set[str | None]:
    """Return the backends that a request needs; None stands for one that the remote machine chooses."""
    found: set[str | None] = set()
    for text in split_artifacts(request.artifacts).artifacts:
        own, path = split_artifact(text)
        choices: Sequence[str | None] = [own] if own else request.backends or [None]
        found |= {needed_backend(Path(path), chosen) for chosen in choices}
    return found


def chosen_preprocessing(path: Path, request: LogitsRequest, choose: ChoosePreprocessing | None) -> Preprocessing:
    """Return the preprocessing of a model that only the remote machine loads."""
    if choose is None:
        return preprocessing_of_file(path, PreprocessingOptions())
    if path.suffix.lower() != ".onnx":
        return choose(None, None)
    logits = OnnxFile.open(path).classifier_logits(request.io.get("output_name"))
    return choose(None, None if logits is None else logits.classes)


def needed_backend(path: Path, chosen: str | None) -> str | None:
    """Return the backend that an artifact runs on: `chosen`, else its own; None if the remote machine chooses."""
    if chosen is not None:
        return chosen
    if path.suffix.lower() in CHECKPOINTS:
        return backend_of(path, None)
    manifest = read_manifest(path, verify=False)
    own = manifest.backend if manifest is not None else None
    if (manifest is not None and manifest.kind == "engine") or path.suffix.lower() != ".onnx":
        return own
    # An INT8 model placed for another backend runs only on a suitable processor.
    return DEFAULT if own in (None, DEFAULT) else None


def check_backends(address: Address, facts: Facts, backends: Iterable[str | None], *, builds: bool = False) -> None:
    """Refuse a machine that lacks the runtimes of these backends; None is an unknown one.

    With `builds`, TensorRT also needs the onnx package, to read the model.

    Raises:
        MissingError: a runtime is not installed.
    """
    if facts.python is None:  # this is reported instead
        return
    for name in sorted({backend for backend in backends if backend}):
        module = BACKENDS[name].module if name in BACKENDS else None
        if module is not None:
            check_runtime(address, facts, module, f"backend '{name}'")
        if builds and name in BACKENDS and BACKENDS[name].trt_settings:
            check_runtime(address, facts, "onnx", f"building an engine of backend '{name}'")


def trtexec_suffices(facts: Facts, backends: set[str | None], *, builds: bool) -> bool:
    """Return whether a machine's trtexec does the work, because the machine has one, and no Python that can."""
    if facts.trtexec is None or any(BACKENDS[name].checkpoints for name in backends if name in BACKENDS):
        return False
    able = names_where(trtexec=True)
    needed = {*(BACKENDS[name].module for name in able), *(["onnx"] if builds else [])}
    return facts.python is None or (backends == set(able) and not needed <= set(facts.versions))
