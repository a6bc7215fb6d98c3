"""Files of a report: opened before the work, so an unwritable folder is found at once, and written after it."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from emca_deploy.atomic import atomic_write
from emca_deploy.errors import OutputError
from emca_deploy.results.codec import to_json

__all__ = ["measured", "write_document"]

Report = TypeVar("Report")


def measured(
    measure: Callable[[], Report],
    files: Sequence[tuple[Path | None, Callable[[Report, Path], object]]],
    finish: Callable[[Report], Report] | None = None,
) -> tuple[Report, OutputError | None]:
    """Measure, and write the requested files.

    Args:
        measure: Function that does the work.
        files: Files with the functions that write them; None is a file that was not requested. The first is written last.
        finish: Function that makes the final report; where it cannot write something, the report stays as it was.

    Returns:
        The report, and the error of a file that could not be written: the measurement is not lost with it.

    Raises:
        OutputError: a file cannot be opened; nothing was measured.
    """
    report: list[Report] = []
    try:
        with ExitStack() as stack:
            drafts = [(stack.enter_context(atomic_write(path)), write) for path, write in files if path is not None]
            report.append(measure())
            if finish is not None:
                report.append(finish(report[0]))
            for draft, write in reversed(drafts):
                write(report[-1], draft)
    except OutputError as error:
        if not report:
            raise
        return report[-1], error
    return report[-1], None


def write_document(report: Any, path: Path) -> None:
    """Write a report as a JSON document."""
    path.write_text(json.dumps(to_json(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
