"""Results of `check-preprocess` as lines of text."""

from collections.abc import Iterator

from emca_deploy.errors import GateError
from emca_deploy.reporting.formats import fixed, plain
from emca_deploy.results.check_preprocess import PreprocessCheck

__all__ = ["lines_of", "wrong_preprocessing"]


def lines_of(report: PreprocessCheck) -> Iterator[str]:
    """Yield the verdict, each wrong step, the differences and the cost, a line each."""
    if report.right:
        yield f"right: {report.images} images become what {plain(report.model)} needs"
    elif report.explained:
        yield f"wrong: {' and '.join(step.step for step in report.wrong)}"
    else:
        yield "wrong: none of the known mistakes, nor a pair of them, gives these numbers"
    for step in report.wrong:
        yield f"  {step.step}: {plain(step.found)}; the model needs {plain(step.wanted)}"
    if report.mean_steps is not None and report.largest_steps is not None:
        largest = f"at most {fixed(report.largest_steps, 1)}"
        yield f"  difference from the right input: mean {fixed(report.mean_steps, 2)}, {largest} (255 steps of a pixel)"
    if report.same_class is not None and not report.right:
        yield f"  the model predicts the same class for {report.same_class} of these {report.images} images"
    if report.cost is not None:
        top1 = f"top-1 {fixed(report.cost.top1_wrong)}% instead of {fixed(report.cost.top1)}%"
        yield f"  cost: {top1}, on {report.cost.images:,} labelled images"


def wrong_preprocessing(report: PreprocessCheck) -> GateError:
    """Return the error of a preprocessing that is wrong."""
    if not report.explained:
        steps = "the right steps are in the manifest and in docs/reference/manifest.md"
        return GateError(f"{plain(report.model)}: the command gives another input than the model needs", steps)
    names = ", ".join(step.step for step in report.wrong)
    return GateError(
        f"{plain(report.model)}: the command gives another input than the model needs: {names}", "correct these steps"
    )
