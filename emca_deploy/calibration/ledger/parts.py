"""The arithmetic of a ledger: logits after each stage in, shares of the error out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.results.ledger import DropLedger, LedgerStage
from emca_deploy.tasks.logits import predicted, signal_to_noise_db, top1_percent

__all__ = ["add_up", "power_of", "with_places"]


def add_up(reference: Float32Array, after: Sequence[tuple[str, Float32Array]], labels: Int64Array | None) -> DropLedger:
    """Return the ledger of logits (N, classes) float32 after each named stage, which start from the reference's.

    The change of a stage is the difference of the logits before and after it, so that the changes add up to the whole one. Their
    powers do so only where the changes are not correlated; the rest is the interaction.
    """
    whole = power_of(after[-1][1], reference)
    stages, before = [], reference
    for name, logits in after:
        power = power_of(logits, before)
        stages.append(
            LedgerStage(
                name=name,
                sqnr_db=_decibels(reference, power),
                share_percent=100 * power / whole if whole else 0.0,
                changed=int((predicted(before) != predicted(logits)).sum()),
                top1_drop=_drop(before, logits, labels),
            )
        )
        before = logits
    largest = max(stages, key=lambda stage: stage.share_percent)
    return DropLedger(
        images=len(reference),
        sqnr_db=signal_to_noise_db(reference, before),
        changed=int((predicted(reference) != predicted(before)).sum()),
        top1_drop=_drop(reference, before, labels),
        stages=tuple(stages),
        interaction_percent=100 - sum(stage.share_percent for stage in stages) if whole else 0.0,
        largest=largest.name if largest.share_percent > 0 else None,
    )


def with_places(ledger: DropLedger, places: Mapping[str, tuple[str, str] | None]) -> DropLedger:
    """Return the ledger with the place and the detail of stages by name."""
    named = []
    for stage in ledger.stages:
        found = places.get(stage.name)
        named.append(stage if found is None else replace(stage, place=found[0], detail=found[1]))
    return replace(ledger, stages=tuple(named))


def power_of(logits: Float32Array, before: Float32Array) -> float:
    """Return the power of the difference of two arrays of one shape, in float64."""
    return float(np.square(logits.astype(np.float64) - before).sum())


def _decibels(reference: Float32Array, power: float) -> float | None:
    signal = float(np.square(reference, dtype=np.float64).sum())
    return 10 * float(np.log10(signal / power)) if power > 0 and signal > 0 else None


def _drop(before: Float32Array, after: Float32Array, labels: Int64Array | None) -> float | None:
    return None if labels is None else top1_percent(predicted(before), labels) - top1_percent(predicted(after), labels)
