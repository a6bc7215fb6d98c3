"""The ledger of a change of predictions on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import fixed, plain, signed
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.ledger import DropLedger, LedgerStage

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ledger_words", "print_ledger"]

_HEADINGS = ("stage", "dB", "share %", "changed", "drop")

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
    rows = [(_row(stage), stage.name == ledger.largest) for stage in ledger.stages]
    rows.append((("interaction", "", fixed(ledger.interaction_percent, 1), "", ""), False))
    show_table(console, _HEADINGS, rows)
    for stage in ledger.stages:
        if stage.place is not None:
            say(console, f"  {ledger_words(stage)}")


def ledger_words(stage: LedgerStage) -> str:
    """Return the place of a stage's change in words; the stage must have one."""
    return f"{_STAGES[stage.name]}: {plain(stage.place or '')}: {plain(stage.detail or '')}"


def _row(stage: LedgerStage) -> tuple[str, ...]:
    drop = "" if stage.top1_drop is None else signed(stage.top1_drop)
    return _STAGES[stage.name], fixed(stage.sqnr_db, 1), fixed(stage.share_percent, 1), f"{stage.changed:,}", drop
