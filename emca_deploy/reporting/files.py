"""Files of a report: opened before the work, so that a folder that cannot be written to is known at once, and written after."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from emca_deploy.atomic import atomic_write
from emca_deploy.errors import OutputError

__all__ = ["measured", "write_document"]

Report = TypeVar("Report")


def measured(
    measure: Callable[[], Report], files: Sequence[tuple[Path | None, Callable[[Report, Path], object]]]
) -> tuple[Report, OutputError | None]:
    """Measure, and write what was asked for of the report.

    Args:
        measure: does the work.
        files: each with what writes it; None stands for a file that was not asked for. Of several the first is written last.

    Returns:
        The report, and why a file could not be written: what was measured is not lost with it.

    Raises:
        OutputError: a file cannot be opened; nothing was measured.
    """
    report: list[Report] = []
    try:
        with ExitStack() as stack:
            drafts = [(stack.enter_context(atomic_write(path)), write) for path, write in files if path is not None]
            report.append(measure())
            for draft, write in reversed(drafts):
                write(report[0], draft)
    except OutputError as error:
        if not report:
            raise
        return report[0], error
    return report[0], None


def write_document(document: dict[str, Any], path: Path) -> None:
    """Write a JSON document as text."""
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
