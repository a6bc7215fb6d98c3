"""`fleet status`: the workers of a cluster, and what each runs."""

from contextlib import suppress
from typing import Any

from emca_deploy.errors import InputError
from emca_deploy.fleet.cluster import ClusterOptions, connected
from emca_deploy.fleet.fleet import Fleet
from emca_deploy.fleet.work import cell_of
from emca_deploy.results.fleet import FleetReport, WorkerStatus

__all__ = ["ClusterOptions", "fleet_status"]


def fleet_status(options: ClusterOptions) -> FleetReport:
    """Ask each worker of a running cluster what it is and what it runs.

    Raises:
        InputError: an option is wrong.
        MissingError: Dask is not installed, or no scheduler answers.
    """
    if options.address is None:
        raise InputError("a cluster is missing", "name its scheduler: --cluster tls://HOST:8786")
    with connected(options) as client:
        fleet = Fleet(client)
        fleet.look()
        running: dict[str, Any] = {}
        with suppress(Exception):  # a worker that ends now
            running = client.run(cell_of, workers=list(fleet.workers), on_error="ignore") if fleet.workers else {}
    measuring = {worker.address for worker in fleet.latency_workers}
    found = [
        WorkerStatus(
            one.name,
            one.address,
            one.host,
            one.hardware,
            one.fingerprint,
            dict(one.backends),
            dict(one.resources),
            one.address in measuring,
            str(running.get(one.address, "")),
            "",
        )
        for one in fleet.workers.values()
    ]
    found += [WorkerStatus(address, address, None, "", None, {}, {}, False, "", why) for address, why in fleet.unusable.items()]
    machines = len({worker.machine for worker in fleet.workers.values()})
    return FleetReport(options.address, machines, tuple(sorted(found, key=lambda one: (one.name, one.address))))
