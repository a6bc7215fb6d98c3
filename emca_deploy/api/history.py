"""`history`: results over time, in a store that is only added to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.errors import UnknownNameError
from emca_deploy.history_store.importing import import_result
from emca_deploy.history_store.series import history_of
from emca_deploy.history_store.store import artifacts_in, store_file
from emca_deploy.results.history import HistoryReport
from emca_deploy.results.requirements import FIGURES

__all__ = ["HistoryAdded", "add_history", "history"]


@dataclass(frozen=True)
class HistoryAdded:
    """What `history add` did.

    Attributes:
        store: File of the history.
        added: Results that were added.
        known: Results that were there already.
    """

    store: Path
    added: tuple[Path, ...]
    known: tuple[Path, ...]


def add_history(results: Sequence[Path], store: Path | None = None) -> HistoryAdded:
    """Add result files to the history, each whole or not at all. A result that is there already adds nothing.

    Args:
        results: files of `profile -o`, `validate --json` or `deploy`, of any schema version.
        store: file of the history; None is the one in the user's data folder.

    Raises:
        InputError: a file is no result; those before it are added.
        OutputError: the history cannot be written.
    """
    place = store_file(store)
    outcome = {path: import_result(path, place) for path in results}
    added = tuple(path for path, new in outcome.items() if new)
    return HistoryAdded(place, added, tuple(path for path, new in outcome.items() if not new))


def history(figure: str, artifact: str | None = None, store: Path | None = None) -> HistoryReport:
    """Return a figure over time by machine and artifact, with its lasting changes.

    Args:
        figure: name of a figure, as `gate --require` takes it; "slowdown" is none.
        artifact: name of an artifact; None returns all.
        store: file of the history; None is the one in the user's data folder.

    Raises:
        UnknownNameError: the figure or the artifact is unknown.
        InputError: the history cannot be read.
    """
    known = [name for name in FIGURES if name != "slowdown"]
    if figure not in known:
        raise UnknownNameError.of("figure", figure, known, f"the history has {', '.join(known)}")
    place = store_file(store)
    report = history_of(figure, place, artifact)
    if artifact is not None and not report.series and artifact not in (names := artifacts_in(place)):
        raise UnknownNameError.of("artifact", artifact, names, f"{place} has results of {len(names)} artifacts")
    return report
