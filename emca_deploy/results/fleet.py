"""Result of `fleet status`: immutable records that convert to JSON and back."""

from dataclasses import dataclass

from emca_deploy.results.codec import version

__all__ = ["FleetReport", "WorkerStatus"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class WorkerStatus:
    """One worker of a cluster.

    Attributes:
        name: Its name in the cluster.
        address: Its address in the cluster.
        host: Name of its machine; None for a worker that cannot be used.
        hardware: Processor with its cores, and accelerators.
        fingerprint: Fingerprint of the machine; results of equal fingerprints may be compared.
        backends: Version of each backend that it has, by name.
        resources: Resources that it was started with, such as "latency".
        measures: Whether it measures latency: it has the resource, and is the first of its machine by name.
        running: Cell that it runs now, or "".
        unusable: Why it cannot be used, or "".
    """

    name: str
    address: str
    host: str | None
    hardware: str
    fingerprint: str | None
    backends: dict[str, str]
    resources: dict[str, float]
    measures: bool
    running: str
    unusable: str


@dataclass(frozen=True)
class FleetReport:
    """The workers of a cluster.

    Attributes:
        cluster: Address of the scheduler.
        machines: Number of machines with a worker that can be used.
        workers: Its workers by name.
    """

    cluster: str
    machines: int
    workers: tuple[WorkerStatus, ...]
    schema_version: int = version(SCHEMA_VERSION)
