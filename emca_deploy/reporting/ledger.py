"""The ledger of a change of predictions on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import fixed, plain, signed
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.ledger import DropLedger, LedgerStage

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LEDGER_HEADINGS", "ledger_lines", "ledger_rows", "print_ledger"]

LEDGER_HEADINGS = ("stage", "dB", "share %", "changed", "drop")

_STAGES = {
    "export": "export",
    "preprocessing": "preprocessing",
    "graph": "graph",
    "fp16": "float16",
    "weights": "weight rounding",
    "clipping": "clipping to ranges",
    "rounding": "activation rounding",
    "runtime": "runtime's kernels",
}


def print_ledger(ledger: DropLedger, console: "Console") -> None:
    """Print what each stage changes, and the places that were found."""
    whole = f"{fixed(ledger.sqnr_db, 1)} dB, {ledger.changed:,} predictions changed"
    say(console, f"where the change comes from ({ledger.images:,} images, {whole})", "bold")
    largest = [stage.name for stage in ledger.stages].index(ledger.largest) if ledger.largest else None
    show_table(console, LEDGER_HEADINGS, [(row, index == largest) for index, row in enumerate(ledger_rows(ledger))])
    for line in ledger_lines(ledger):
        say(console, f"  {line}")


def ledger_rows(ledger: DropLedger) -> list[tuple[str, ...]]:
    """Return a row for each stage, and one for the interaction."""
    return [*map(_row, ledger.stages), ("interaction", "", fixed(ledger.interaction_percent, 1), "", "")]


def ledger_lines(ledger: DropLedger) -> list[str]:
    """Return a line for each place that was found."""
    found = [stage for stage in ledger.stages if stage.place is not None]
    return [f"{_STAGES[stage.name]}: {plain(stage.place or '')}: {plain(stage.detail or '')}" for stage in found]


def _row(stage: LedgerStage) -> tuple[str, ...]:
    drop = "" if stage.top1_drop is None else signed(stage.top1_drop)
    return _STAGES[stage.name], fixed(stage.sqnr_db, 1), fixed(stage.share_percent, 1), f"{stage.changed:,}", drop
