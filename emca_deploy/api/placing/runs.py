"""Running .onnx files on the machine that a placement is measured for: latencies side by side, logits, and what it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array
from emca_deploy.backends.records import names_where, one_of
from emca_deploy.backends.registry import BACKENDS, available, find_recipe
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.errors import InputError, MissingError
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.requests import LogitsRequest, ProfileRequest
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.base import Target
from emca_deploy.targets.candidates import CandidateOptions, candidate
from emca_deploy.targets.named_machines import open_target
from emca_deploy.targets.settings import conditions_of, tuned_here

__all__ = ["IMAGES", "Runs", "check_measurable"]

IMAGES = 64
"""Calibration images whose logits are compared."""

_SHORT_S = 0.5
_SUFFICES = ("cpu", None)
"""Targets on a remote machine that may be measured: its processor, and its default."""


def check_measurable(backend: str) -> None:
    """Refuse a backend whose placements cannot be measured.

    Raises:
        UnknownNameError: the backend has no recipe.
        InputError: it does not run .onnx files on a processor.
    """
    find_recipe(backend)
    record = BACKENDS[backend]
    if record.needs_gpu or not record.reads_onnx:
        able = one_of(names_where(recipe=True, reads_onnx=True, needs_gpu=False))
        raise InputError(
            f"--placement measured: '{backend}' runs engines on a GPU, and placements are measured on processors only",
            f"leave --placement out, or use --backend {able}",
        )


@dataclass(frozen=True)
class Runs:
    """A backend on one machine.

    Attributes:
        threads: Threads of each process; None is one per physical core of that machine.
        data: Path of the images for the logits.
    """

    target: Target
    backend: str
    threads: int | None
    data: Path
    preprocessing: Preprocessing
    output_name: str | None = None

    @classmethod
    def on(cls, name: str, options: CalibrationOptions, data: Path, preprocessing: Preprocessing) -> "Runs":
        """Return a backend's runs on a target.

        Raises:
            InputError: the backend does not run .onnx files on a processor, or the target is no processor.
            MissingError: the backend is not installed on this machine, where it would run.
        """
        backend = options.backend
        check_measurable(backend)
        target, _ = open_target(name)
        on_processor = target.on_host in _SUFFICES if target.is_remote else target.kind == "cpu"
        if not on_processor:
            raise InputError(f"--target {name}: '{backend}' runs on a processor", "name cpu, ssh://HOST/cpu or a named machine")
        status = available()[backend]
        if not target.is_remote and status.reason is not None:
            raise MissingError(f"backend '{backend}': {status.reason}", status.remedy or "choose another backend")
        threads = None if target.is_remote else options.threads
        return cls(target, backend, threads, data, preprocessing, options.output_name)

    def conditions(self, model: Path) -> dict[str, Any]:
        """Return the machine and runtime that a result is valid for; a remote machine runs the model once to tell."""
        if not self.target.is_remote:
            return tuned_here(self.backend)
        report = self._profile([f"{self.backend}={model}"], Protocol(duration_s=_SHORT_S, warmup_s=0.0), None)
        environment = report.environment
        package = BACKENDS[self.backend].package
        runtime = environment["versions"].get(package.distribution) if package else None
        return conditions_of(environment["fingerprint_parts"], runtime)

    def candidate(self, name: str, path: Path) -> RunnerSpec:
        """Return a file as a candidate."""
        if self.target.is_remote:
            return RunnerSpec(name, artifact=str(path), backend=self.backend, precision="int8", target=self.target.name)
        options = CandidateOptions(self.threads, batch=1, untuned=True)
        spec = replace(candidate(str(path), self.backend, options), name=name)
        return replace(spec, kwargs={**spec.kwargs, "spin": False})

    def measure(
        self, specs: Sequence[RunnerSpec], protocol: Protocol, progress: Progress | None = None, *, keep_going: bool = False
    ) -> ProfileReport:
        """Measure candidates in turn on the machine; see `latency.measure`."""
        if not self.target.is_remote:
            return measure(specs, protocol, progress, keep_going=keep_going)
        report = self._profile([f"{self.backend}={spec.artifact}" for spec in specs], protocol, progress)
        names = {name: spec.name for spec in specs for name in (spec.artifact, f"{self.backend}={spec.artifact}")}
        compared = (replace(one, a=names[one.a], b=names[one.b]) for one in report.comparisons)
        failures = (replace(failure, name=names[failure.name]) for failure in report.failures)
        return replace(report, comparisons=tuple(compared), failures=tuple(failures))

    def _profile(self, artifacts: Sequence[str], protocol: Protocol, progress: Progress | None) -> ProfileReport:
        request = ProfileRequest(
            tuple(artifacts),
            target=self.target.name,
            threads=self.threads,
            duration_s=protocol.duration_s,
            max_duration_s=protocol.duration_s,
            processes=protocol.processes,
            warmup_s=protocol.warmup_s,
            seed=protocol.seed,
            telemetry=False,
            untuned=True,
        )
        return self.target.profile(request, progress).report

    def logits(self, path: Path) -> Float32Array:
        """Return the logits (N, classes) of a file on the backend, for the same N images each time."""
        request = LogitsRequest(
            str(path),
            str(self.data),
            self.backend,
            self.target.name,
            preprocessing=self.preprocessing,
            limit=IMAGES,
            threads=self.threads,
            untuned=True,
            io={"output_name": self.output_name} if self.output_name else {},
        )
        return self.target.validate(request).logits.logits
