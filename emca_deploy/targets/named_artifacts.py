"""Several builds of one model as one candidate: "first.engine+second.engine"."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emca_deploy.errors import InputError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.candidates import split_artifact

__all__ = ["Builds", "grouped", "split_builds"]

_SIGN = "+"


@dataclass(frozen=True)
class Builds:
    """What a user named.

    Attributes:
        artifacts: every single one, as "path" or "backend=path".
        groups: for each path that is one build of several, what the user called all of them together.
    """

    artifacts: tuple[str, ...]
    groups: dict[str, str]


def split_builds(artifacts: Sequence[str]) -> Builds:
    """Return the single artifacts in what a user named, "a+b" being two builds of one candidate; a file is never split.

    Raises:
        InputError: a build is named twice, or a part is empty.
    """
    single: list[str] = []
    groups: dict[str, str] = {}
    for text in artifacts:
        backend, path = split_artifact(text)
        parts = [path] if Path(path).exists() else path.split(_SIGN)
        prefix = f"{backend}=" if backend else ""
        if len(parts) > 1:
            if not all(parts):
                raise InputError(f"{text}: a build has no name", f"name every build: first.engine{_SIGN}second.engine")
            groups.update(dict.fromkeys(parts, path))
        single += [prefix + part for part in parts]
    for path in groups:
        if sum(split_artifact(text)[1] == path for text in single) > 1:
            raise InputError(f"{path}: is named twice, and once as a build of several", "name it once")
    return Builds(tuple(single), groups)


def grouped(specs: Sequence[RunnerSpec], builds: Builds) -> tuple[RunnerSpec, ...]:
    """Return the specs, those that are builds of one candidate on one backend marked as such."""
    backends = {spec.artifact: {other.backend for other in specs if other.artifact == spec.artifact} for spec in specs}

    def marked(spec: RunnerSpec) -> RunnerSpec:
        together = builds.groups.get(spec.artifact)
        if together is None:
            return spec
        return replace(spec, candidate=together if len(backends[spec.artifact]) == 1 else f"{spec.backend}={together}")

    return tuple(marked(spec) for spec in specs)
