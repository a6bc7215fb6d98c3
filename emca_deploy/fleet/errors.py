"""Errors of a cluster."""

from emca_deploy.errors import MissingError

__all__ = ["ClusterLostError", "WorkerLostError"]


class ClusterLostError(MissingError):
    """The scheduler has ended or cannot be reached, or no worker is left: the run ends, and no cell is to blame."""


class WorkerLostError(Exception):
    """A worker ended before it had answered; its work is done again by another one."""
