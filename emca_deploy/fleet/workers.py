"""The workers of a cluster, and what each says about itself."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pydoc import locate
from typing import Any

from emca_deploy._version import __version__
from emca_deploy.fleet.work import describe

__all__ = ["LATENCY", "FleetWorker", "describe_workers"]

LATENCY = "latency"
"""Resource of a worker that measures latency."""


@dataclass(frozen=True)
class FleetWorker:
    """One worker, as it describes itself.

    Attributes:
        address: Its address in the cluster.
        name: Its name in the cluster.
        host: Name of its machine.
        machine: What all workers of the same machine have in common.
        hardware: Its processor and accelerators, for people.
        fingerprint: Fingerprint of the machine, with the cores that the worker may use.
        numeric: Digest of what decides the last bits of a model's answers.
        backends: Version of each backend that it has, by name.
        resources: Resources that it was started with.
    """

    address: str
    name: str
    host: str
    machine: str
    hardware: str
    fingerprint: str
    numeric: str
    backends: Mapping[str, str]
    resources: Mapping[str, float]

    @property
    def kind(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What is equal for workers whose results may be compared: the fingerprint, and the versions of all backends."""
        return self.fingerprint, tuple(sorted(self.backends.items()))


def describe_workers(
    client: Any, known: Mapping[str, Mapping[str, Any]], addresses: Iterable[str], cores: Mapping[str, int] | None = None
) -> tuple[dict[str, FleetWorker], dict[str, str]]:
    """Ask workers what they are.

    Args:
        client: Client of the cluster.
        known: What the scheduler knows of each worker, by address.
        addresses: Workers to ask.
        cores: Core that each one is pinned to.

    Returns:
        The workers by address, and why others cannot be used.
    """
    addresses, cores = list(addresses), cores or {}
    names = {address: str(known[address].get("name", address)) for address in addresses}
    # A function of Python itself: the worker may have no emca-deploy, or one without this module.
    versions = client.run(locate, "emca_deploy._version.__version__", workers=addresses, on_error="return")
    unusable = {address: why for address in addresses if (why := _unusable(names[address], versions.get(address)))}
    usable = [address for address in addresses if address not in unusable]
    answers = client.run(describe, dict(cores), workers=usable, on_error="return") if usable else {}
    found: dict[str, FleetWorker] = {}
    for address, answer in answers.items():
        if isinstance(answer, dict):
            found[address] = _worker(address, names[address], answer, known[address].get("resources") or {})
        else:
            unusable[address] = f"worker {names[address]}: does not answer: {answer}"
    return found, unusable


def _unusable(name: str, version: Any) -> str:
    if version is None:
        return f"worker {name}: has no emca-deploy; install emca-deploy {__version__} with its extra fleet there"
    if not isinstance(version, str):
        return f"worker {name}: does not answer: {version}"
    return "" if version == __version__ else f"worker {name}: has emca-deploy {version}, and this is {__version__}"


def _worker(address: str, name: str, answer: Mapping[str, Any], resources: Mapping[str, float]) -> FleetWorker:
    hardware = ", ".join([f"{answer['cpu']}, {answer['cores']} cores", *answer["gpus"]])
    same = {key: answer[key] for key in ("host", "machine", "fingerprint", "numeric", "backends")}
    return FleetWorker(address=address, name=name, hardware=hardware, resources=dict(resources), **same)
