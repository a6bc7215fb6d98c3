"""`compare` on files of logits: two runs of `validate`, from one machine or two, and the noise floor between equal runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array
from emca_deploy.errors import InputError
from emca_deploy.harness.accuracy.logits_store import Kept, read_kept
from emca_deploy.results.logits_comparison import ChangedPredictions, LogitsComparison
from emca_deploy.stats.confidence import share_interval
from emca_deploy.stats.estimates import paired_difference_ci
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.flips import find_flips
from emca_deploy.tasks.logits import predicted, signal_to_noise_db

__all__ = ["compare_logits"]

SUFFIX = ".npz"
CONFIDENCE = 0.95
_DATA = ("data set", "limit", "images")
_REMEDY = "compare two runs of `validate --logits` on the same images"


def compare_logits(a: Path | str, b: Path | str, floor: Path | str | None = None) -> LogitsComparison:
    """Compare the answers of two runs of `validate --logits`, which may come from different machines.

    Args:
        a: File of a run.
        b: File of another run on the same images.
        floor: File of a run equal to `a`, with other threads, another batch or after a restart: predictions that change between
            these two are noise, and those from `a` to `b` are compared with them.

    Raises:
        InputError: a file cannot be read, is of a detector, or of other images.
    """
    first, second = _read(Path(a)), _read(Path(b))
    _check_alike(first, second)
    ours, theirs = _logits(first), _logits(second)
    before, after = predicted(ours), predicted(theirs)
    changed, labels = before != after, first[1].labels
    flips = find_flips(after, before, labels, first[1].names).images if changed.any() else ()
    drop = None
    if labels is not None:
        lost = int(((before == labels) & (after != labels)).sum())
        won = int(((before != labels) & (after == labels)).sum())
        drop = (100 * (lost - won) / len(labels), _percent(paired_difference_ci(lost, won, len(labels))))
    found = LogitsComparison(
        a=str(a),
        b=str(b),
        images=len(before),
        changed=_changed(int(changed.sum()), len(before)),
        equal_images=int((ours == theirs).all(axis=1).sum()),
        largest_difference=_largest_difference(ours, theirs),
        sqnr_db=signal_to_noise_db(ours, theirs),
        top1_drop=None if drop is None else drop[0],
        top1_drop_ci95=None if drop is None else drop[1],
        flips=flips,
    )
    if floor is None:
        return found
    third = _read(Path(floor))
    _check_alike(first, third)
    return _with_floor(found, ours, changed, _logits(third))


_Run = tuple[Path, Kept, dict[str, object]]


def _read(path: Path) -> _Run:
    if not path.is_file():
        raise InputError(f"{path}: no such file", _REMEDY)
    return path, *read_kept(path)


def _check_alike(first: _Run, second: _Run) -> None:
    """Refuse runs on other images, or of networks with other classes."""
    other = [name for name in _DATA if first[2].get(name) != second[2].get(name)]
    if other:
        raise InputError(f"{first[0]} and {second[0]}: are runs on different images ({', '.join(other)})", _REMEDY)
    if _logits(first).shape != _logits(second).shape:
        raise InputError(f"{first[0]} and {second[0]}: have different numbers of images or classes", _REMEDY)


def _logits(run: _Run) -> Float32Array:
    answers = run[1].answers
    if isinstance(answers, Detections):
        raise InputError(f"{run[0]}: has detections, no logits", "compare the files of two classifiers")
    return answers


def _with_floor(
    found: LogitsComparison, ours: Float32Array, changed: npt.NDArray[np.bool_], again: Float32Array
) -> LogitsComparison:
    """Add the changed predictions between A's logits (N, classes) and those of an equal run; `changed`, (N,), is from A to B."""
    noise = predicted(ours) != predicted(again)
    only_b, only_floor = int((changed & ~noise).sum()), int((noise & ~changed).sum())
    leads, leads_again = (_leads(each, predicted(ours)) for each in (ours, again))
    tied = (np.sort(leads, axis=1)[:, 1:2] <= np.abs(leads - leads_again).max()).any(axis=1)  # one class has no other: no tie
    without_tie = int((changed & ~tied).sum())
    return replace(
        found,
        floor=_changed(int(noise.sum()), len(noise)),
        floor_equal_images=int((ours == again).all(axis=1).sum()),
        floor_largest_difference=_largest_difference(ours, again),
        near_ties=int(tied.sum()),
        changed_without_tie=without_tie,
        without_tie_ci95=_percent(paired_difference_ci(without_tie, 0, len(noise))),
        above_floor=100 * (only_b - only_floor) / len(noise),
        above_floor_ci95=_percent(paired_difference_ci(only_b, only_floor, len(noise))),
    )


def _leads(logits: Float32Array, classes: Int64Array) -> Float64Array:
    """Return by how much the logit of a class, (N,), exceeds each logit, (N, classes)."""
    wide = logits.astype(np.float64)
    return np.take_along_axis(wide, classes[:, None], axis=1) - wide


def _largest_difference(first: Float32Array, second: Float32Array) -> float:
    return float(np.abs(first.astype(np.float64) - second).max())


def _changed(count: int, total: int) -> ChangedPredictions:
    return ChangedPredictions(count, 100 * count / total, _percent(share_interval(count, total, CONFIDENCE)))


def _percent(limits: tuple[float, float]) -> tuple[float, float]:
    return 100 * limits[0], 100 * limits[1]
