"""Read a result.json whose every value has been checked, so that drawing it cannot fail halfway."""

from pathlib import Path

from emca_deploy.errors import InputError
from emca_deploy.results.deploy import DeployReport, read_deploy_report

__all__ = ["RESULT_NAME", "read_result"]

RESULT_NAME = "result.json"


def read_result(place: Path) -> DeployReport:
    """Return the report of a finished deployment.

    Args:
        place: the folder that `deploy` or `demo` made, or the result.json in it.

    Raises:
        InputError: there is none, or it is no result of `deploy`, damaged, or of another schema version.
    """
    if not place.exists():
        raise InputError(f"{place}: no such folder", "name the folder that `deploy -o` or `demo -o` made")
    path = place / RESULT_NAME if place.is_dir() else place
    if not path.exists():
        raise InputError(f"{place}: has no {RESULT_NAME}", "name the folder of a finished `deploy` or `demo`")
    return read_deploy_report(path)
