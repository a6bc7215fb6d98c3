"""The option `--mlflow` of commands that measure."""

from collections.abc import Sequence
from pathlib import Path

from emca_deploy.commands._console import remark
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import option
from emca_deploy.errors import InputError

__all__ = ["check", "log", "mlflow_option"]

mlflow_option = option("--mlflow", metavar="URI", help="Log the results on this MLflow server too, such as http://host:5000.")


def check(uri: str | None, place: Path | None) -> None:
    """Check before the work that its results can be logged from `place`; without a `uri`, do nothing.

    Raises:
        InputError: there is no file that the results could be sent from again.
        MissingError: MLflow is not installed, or there is no server.
    """
    if uri is None:
        return
    from emca_deploy.api.tracking.mlflow import check_mlflow

    if place is None:
        raise InputError("--mlflow without -o would lose the results if the server failed", "add -o result.json")
    check_mlflow(uri)


def log(uri: str | None, places: Sequence[Path]) -> None:
    """Log written results; without a `uri`, do nothing.

    Raises:
        OutputError: not all could be logged.
    """
    if uri is None:
        return
    from emca_deploy.api.tracking.mlflow import log_to_mlflow

    with progress("logging") as advance:
        done = log_to_mlflow(places, uri, advance)
    remark(f"{done.added} runs logged in the experiment {done.experiment}, {done.known} known already")
