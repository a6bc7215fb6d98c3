"""The options that name a Dask cluster."""

from typing import TYPE_CHECKING, Any

from emca_deploy.commands._options import as_one
from emca_deploy.commands._types import INPUT, option

if TYPE_CHECKING:
    from emca_deploy.api.fleet import ClusterOptions

__all__ = ["cluster_options", "fleet_of"]

_OPTIONS = (
    option("--cluster", "cluster_address", metavar="ADDRESS", unset="none", help="Dask scheduler, such as tls://host:8786."),
    option("--tls-ca", type=INPUT, unset="Dask's configuration", help="Certificate of the authority, for tls://."),
    option("--tls-cert", type=INPUT, unset="Dask's configuration", help="Certificate of this client, for tls://."),
    option("--tls-key", type=INPUT, unset="Dask's configuration", help="Key of that certificate, for tls://."),
    option("--insecure", is_flag=True, help="Connect to another machine without TLS: everyone on the way can run code there."),
)
_NAMES = ("cluster_address", "tls_ca", "tls_cert", "tls_key", "insecure")


def cluster_options(function: Any) -> Any:
    """Add the options that name a cluster; the command gets them as `cluster`, which `fleet_of` takes."""
    return as_one(function, _OPTIONS, "cluster", lambda values: {name: values.pop(name) for name in _NAMES})


def fleet_of(cluster: dict[str, Any], local_workers: int | None = None, pin: bool = False) -> "ClusterOptions | None":
    """Return the cluster that the options name; None for no cluster.

    Raises:
        InputError: the options do not go together.
    """
    from emca_deploy.api.fleet import ClusterOptions

    values = {**cluster, "address": cluster["cluster_address"]}
    del values["cluster_address"]
    options = ClusterOptions(**values, local_workers=local_workers or 0, pin=pin)
    if options == ClusterOptions():
        return None
    options.check()
    return options
