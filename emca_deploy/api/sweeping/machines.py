"""The kinds of machines of a fleet that measure a sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.fleet.fleet import Fleet
from emca_deploy.fleet.shards import Shards
from emca_deploy.fleet.target import FleetTarget
from emca_deploy.fleet.workers import FleetWorker
from emca_deploy.targets.base import Part
from emca_deploy.targets.named_machines import open_target

__all__ = ["FleetMachine", "kinds_of"]


@dataclass(frozen=True)
class FleetMachine:
    """One kind of machine of a fleet.

    Attributes:
        like: A worker of this kind.
        count: Number of its machines that measure latency.
        own_fingerprint: Fingerprint of the machine that the sweep runs on.
        twin: Whether a kind before it has the same fingerprint and other versions of backends.
    """

    fleet: Fleet
    shards: Shards
    like: FleetWorker
    count: int
    own_fingerprint: str
    twin: bool = False

    @property
    def label(self) -> str | None:
        """Its hardware and fingerprint, and versions that tell it from a twin; None for the kind of the sweep's own machine."""
        if self.twin:
            versions = ", ".join(f"{name} {version}" for name, version in sorted(self.like.backends.items()))
            return f"{self.like.hardware} ({self.like.fingerprint}; {versions})"
        if self.like.fingerprint == self.own_fingerprint:
            return None
        return f"{self.like.hardware} ({self.like.fingerprint})"

    def target(self, name: str) -> FleetTarget:
        """Return a target of the plan on this kind of machine."""
        opened, _ = open_target(name)
        return FleetTarget(self.fleet, self.shards, opened, (name, opened.name), self.like)

    def parts(self, targets: Sequence[str], backends: Sequence[str]) -> tuple[Part, ...]:
        """Return targets with what `deploy` builds there; see `find_parts`.

        Raises:
            MissingError: the machine lacks a device or a library, or no worker drives a remote machine.
            InputError: a backend runs on none of the targets.
        """
        found = []
        for name in targets:
            opened, mode = open_target(name)
            target = self.target(name)
            if opened.is_remote and not any(map(target.drives, self.fleet.workers.values())):
                raise MissingError(
                    f"no worker drives {name}", f'start one near it: dask worker ADDRESS --resources "latency=1,{name}=1"'
                )
            found.append(Part(opened, target.deployment(tuple(backends)), power_mode=mode))
        for backend in backends:
            if not any(backend in part.deployment.backends for part in found):
                raise InputError(f"backend '{backend}' does not run on {', '.join(targets)} of {self.like.host}", "leave it out")
        return tuple(found)


def kinds_of(fleet: Fleet, folder: Path, own_fingerprint: str) -> tuple[FleetMachine, ...]:
    """Return the kinds of machines that measure latency, that of the sweep's own machine first.

    Args:
        fleet: the fleet.
        folder: where shards of the images are written.
        own_fingerprint: fingerprint of this machine.

    Raises:
        MissingError: no worker measures latency.
    """
    shards = Shards(folder)
    groups: dict[object, list[FleetWorker]] = {}
    for worker in fleet.latency_workers:
        groups.setdefault(worker.kind, []).append(worker)
    if not groups:
        raise _nobody(fleet)
    seen: set[str] = set()
    kinds = []
    for group in groups.values():
        like = group[0]
        kinds.append(FleetMachine(fleet, shards, like, len(group), own_fingerprint, twin=like.fingerprint in seen))
        seen.add(like.fingerprint)
    return tuple(sorted(kinds, key=lambda kind: (kind.label is not None, kind.label or "")))


def _nobody(fleet: Fleet) -> EmcaError:
    if fleet.workers:
        return MissingError(
            f"none of {len(fleet.workers)} workers measures latency", "start one per machine with --resources latency=1"
        )
    if fleet.unusable:
        first, *more = fleet.unusable.values()
        return MissingError(first + (f"; and {len(more)} other workers" if more else ""), "install the same version there")
    return MissingError("the cluster has no worker", "start one: dask worker ADDRESS --nthreads 1 --resources latency=1")
