"""Result of `compare` on files of logits as lines of text."""

from collections.abc import Iterator

from emca_deploy.reporting.formats import fixed, interval, plain, significant
from emca_deploy.results.logits_comparison import ChangedPredictions, LogitsComparison

__all__ = ["lines_of"]


def lines_of(found: LogitsComparison) -> Iterator[str]:
    """Yield the changed predictions, those of the noise floor, the logits' difference and the drop, a line each."""
    yield f"{plain(found.a)} against {plain(found.b)}: {found.images:,} images"
    yield f"  changed predictions: {_changed(found.changed)}"
    yield from _floor(found)
    if found.sqnr_db is None:
        yield "  all logits are equal to the bit"
    else:
        largest = f"largest difference {significant(found.largest_difference)}"
        yield f"  SQNR of the logits {fixed(found.sqnr_db, 1)} dB, {largest}, {found.equal_images:,} images equal to the bit"
    if found.top1_drop is not None and found.top1_drop_ci95 is not None:
        yield f"  drop of top-1 {fixed(found.top1_drop)} points (95%: {interval(found.top1_drop_ci95)})"


def _floor(found: LogitsComparison) -> Iterator[str]:
    """Yield how equal runs differ, and the changed predictions that this cannot explain; nothing without a floor."""
    if found.floor is None or found.above_floor is None or found.above_floor_ci95 is None or found.without_tie_ci95 is None:
        return
    largest = found.floor_largest_difference
    differ = f"logits differ by at most {significant(largest)}" if largest else "equal to the bit"
    yield f"  between equal runs: {_changed(found.floor)}; {differ}"
    yield f"  above the noise floor: {fixed(found.above_floor, 3)} points (95%: {_limits(found.above_floor_ci95)})"
    verdict = "more than noise" if found.without_tie_ci95[0] > 0 else "no difference shown"
    count, share = f"{found.changed_without_tie:,}", f"(95%: {_limits(found.without_tie_ci95)}% of all images)"
    yield f"  not explained by near ties ({found.near_ties:,} images): {count} changed predictions {share}, {verdict}"


def _changed(one: ChangedPredictions) -> str:
    return f"{one.images:,}, {fixed(one.percent, 3)}% (95%: {_limits(one.ci95)})"


def _limits(limits: tuple[float, float]) -> str:
    return f"{fixed(limits[0], 3)} to {fixed(limits[1], 3)}"
