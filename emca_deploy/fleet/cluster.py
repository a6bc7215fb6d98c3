"""Connects to a Dask cluster that people have started, or starts one of processes on this machine."""

import ipaddress
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from emca_deploy._optional import import_optional
from emca_deploy.errors import InputError, MissingError

__all__ = ["ClusterOptions", "connected"]

CONNECT_S = "10s"
SCHEMES = ("tcp", "tls")
STARTED = {
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "1s",
}
"""Settings of local workers: the environment of this process, and little watching, which would take time of what is measured."""


@dataclass(frozen=True)
class ClusterOptions:
    """The cluster of a run.

    Attributes:
        address: Address of its scheduler, "tcp://HOST:PORT" or "tls://HOST:PORT"; None starts workers on this machine.
        local_workers: Number of worker processes to start on this machine.
        pin: Whether each of them gets one core.
        insecure: Whether to connect to another machine without TLS.
        tls_ca: Certificate of the authority that signed the certificates of the cluster; None leaves TLS to Dask's configuration.
        tls_cert: Certificate of this client.
        tls_key: Key of that certificate.
    """

    address: str | None = None
    local_workers: int = 0
    pin: bool = False
    insecure: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def check(self) -> None:
        """Refuse options that do not go together, and an address that would send everything in the clear.

        Raises:
            InputError: an option is wrong.
        """
        if (self.address is None) == (self.local_workers == 0):
            raise InputError("a fleet has either a cluster or local workers", "give --cluster ADDRESS or --local-workers N")
        if self.pin and not self.local_workers:
            raise InputError("--pin: is for local workers", "start `dask worker` with taskset on the other machine")
        if self.address is not None:
            self._check_address(self.address)

    def _check_address(self, address: str) -> None:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or port is None or parts.scheme not in SCHEMES:
            raise InputError(f"--cluster {address}: not the address of a scheduler", "for example tls://build-server:8786")
        files = [name for name in ("tls_ca", "tls_cert", "tls_key") if getattr(self, name) is not None]
        if parts.scheme == "tcp":
            if files:
                raise InputError(f"--cluster {address}: has no TLS", "name it tls://HOST:PORT, or leave out the --tls options")
            if not self.insecure and not _is_loopback(host):
                raise InputError(
                    f"--cluster {address}: everything on the way to {host} could be read and changed, also code",
                    "use tls://, an ssh tunnel to localhost, or add --insecure in a network you trust",
                )
        elif 0 < len(files) < 3:
            raise InputError(f"--cluster {address}: TLS needs three files", "give --tls-ca, --tls-cert and --tls-key")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def connected(options: ClusterOptions) -> Iterator[Any]:
    """Yield a Dask client of the cluster; at the end, local workers have ended.

    Raises:
        InputError: an option is wrong, or a file for TLS cannot be used.
        MissingError: Dask is not installed, or no scheduler answers.
    """
    options.check()
    distributed = import_optional("distributed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # this package says what went wrong
    if options.address is None:
        with _local_cluster(distributed, options) as cluster, distributed.Client(cluster, set_as_default=False) as client:
            yield client
        return
    try:
        security = _security(distributed, options)
        client = distributed.Client(options.address, timeout=CONNECT_S, security=security, set_as_default=False)
    except (OSError, ValueError) as exc:
        if not isinstance(exc, OSError) or isinstance(exc, FileNotFoundError):
            raise InputError(f"--cluster {options.address}: {exc}", "check --tls-ca, --tls-cert and --tls-key") from exc
        raise MissingError(
            f"--cluster {options.address}: no scheduler answers: {_reason(exc)}",
            "start one with `dask scheduler`, or check the address and the certificates",
        ) from exc
    try:
        yield client
    finally:
        client.close(timeout=2)


def _reason(exc: BaseException) -> str:
    """Return the innermost cause, which names the certificate or the connection that was refused."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return " ".join(str(exc).split())[:200] or type(exc).__name__


def _security(distributed: Any, options: ClusterOptions) -> Any:
    if options.tls_ca is None:
        return None  # Dask's own configuration
    return distributed.Security(
        tls_ca_file=str(options.tls_ca),
        tls_client_cert=str(options.tls_cert),
        tls_client_key=str(options.tls_key),
        require_encryption=True,
    )


@contextmanager
def _local_cluster(distributed: Any, options: ClusterOptions) -> Iterator[Any]:
    """Yield a cluster of processes on this machine that nothing but this machine can reach."""
    import dask

    with dask.config.set(STARTED):
        cluster = distributed.LocalCluster(
            n_workers=options.local_workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            resources={"latency": 1},
            silence_logs=logging.CRITICAL,
        )
    try:
        yield cluster
    finally:
        cluster.close(timeout=10)
