"""The targets of a deployment, and the measurement of their candidates against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from emca_deploy._progress import Progress
from emca_deploy.backends.registry import BACKENDS, get_builder
from emca_deploy.errors import InputError
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.targets.base import Part, Shared
from emca_deploy.targets.named_machines import open_target

__all__ = ["find_parts", "measure_parts"]


def find_parts(targets: Sequence[str], backends: Sequence[str] = ()) -> tuple[Part, ...]:
    """Return the targets of a deployment, and check that everything they need is available.

    Args:
        targets: "cpu", "gpu", "gpu:1", "jetson", "ssh://host" or names of machines, each once. The first has the baseline.
        backends: backends to use; none means all that fit a target.

    Raises:
        UnknownNameError: a target or backend has an unknown name.
        InputError: a target is named twice, or a backend runs on none of them.
        MissingError: a machine, a device or a backend's library is missing.
    """
    opened = [open_target(target) for target in targets]
    names = [target.name for target, _ in opened]
    if not names or len(set(names)) < len(names):
        raise InputError(f"--targets {','.join(targets)}: has no target, or the same one twice", "for example --targets cpu,gpu")
    backends = tuple(dict.fromkeys(backends))
    for backend in backends:
        if backend not in BACKENDS:
            get_builder(backend)  # raises with the known names
    parts = tuple(Part(target, target.deployment(backends), power_mode=mode) for target, mode in opened)
    for backend in backends:
        if not any(backend in part.deployment.backends for part in parts):
            get_builder(backend)  # raises first if it is not installed or builds nothing
            other = "gpu" if BACKENDS[backend].on_gpu else "cpu"
            raise InputError(f"backend '{backend}' does not run on target {', '.join(names)}", f"add {other} to --targets")
    for part in parts:
        if not part.deployment.backends:
            raise InputError(f"none of the named backends runs on target '{part.target.name}'", "leave that target out")
    return parts


def measure_parts(
    parts: Sequence[Part], duration_s: float, progress: Progress | None = None, shared: Shared | None = None
) -> ProfileReport:
    """Measure all candidates of a deployment; those of one machine are interleaved.

    `shared` keeps the local processes for later use; without it they end.

    Returns:
        The results in the order of the parts. Only candidates on the baseline's machine are compared with it, since two machines
        cannot take turns.

    Raises:
        EmcaError: a candidate cannot be measured.
    """
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.target.name if part.target.is_remote else "", []).append(part)
    reports = [group[0].target.measure(group, duration_s, progress, shared) for group in groups.values()]
    results: dict[str, LatencyResult] = {}
    for group, report in zip(groups.values(), reports, strict=True):
        names = [candidate.name for part in group for candidate in part.candidates]
        results.update(zip(names, report.results, strict=True))
    others: Mapping[str, object] = dict(zip(list(groups)[1:], (report.environment for report in reports[1:]), strict=True))
    first = reports[0]
    return replace(
        first,
        results=tuple(results[candidate.name] for part in parts for candidate in part.candidates),
        environment={**first.environment, **{name or "local": environment for name, environment in others.items()}},
    )
