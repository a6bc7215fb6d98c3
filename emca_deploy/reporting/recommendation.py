"""The recommendation in words: one sentence, cautions, reasons against the others, and the warnings of the measurements."""

import re

from emca_deploy.reporting.formats import fixed, interval, plain, signed
from emca_deploy.reporting.sweeps.words import MOST_OPEN, Choice, Rejected, choice_of
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.deployment_cells import deployment_document
from emca_deploy.results.figures import figures_of, worst_figure
from emca_deploy.results.recommendation import DEPLOY_GATE, Doubt, Recommendation, drop_of, loss_of, recommend

__all__ = ["cautions_of", "choices_of", "sentence_of", "warnings_of"]

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?%?")


def sentence_of(report: DeployReport, found: Recommendation) -> str:
    """Return the sentence with the recommendation."""
    base, best = plain(report.baseline), found.best
    if best is None:
        return f"Keep {base}: no other candidate is faster."
    name, ratio = plain(best.name), _ratio(best)
    if found.level == "unknown":
        why = "its accuracy is unknown, because the validation images have no labels."
        return f"{name} is {ratio} faster than {base}{_agreement(best)}; {why}"
    if best in found.too_lossy:
        allowed = f"more than the allowed {DEPLOY_GATE.max_drop:g}."
        return f"Keep {base}: {name} is {ratio} faster but at {_change(best)} of {_measure(best)}, {allowed}"
    endings = {
        "recommended": "recommended",
        "caution": "the best candidate, with the reservations below",
        "keep": f"no clear gain, so keep {base} unless a longer measurement shows one",
    }
    return f"{name}: {ratio} faster than {base} at {_change(best)} of {_measure(best)}{_range(best)}; {endings[found.level]}."


def cautions_of(found: Recommendation) -> list[str]:
    """Return sentences about open questions and other candidates."""
    best = found.best
    lines = ["Validate it on labelled images before deploying it."] if found.level == "unknown" else []
    lines += [_doubt(doubt, best) for doubt in found.doubts if best is not None]
    if found.unstable:
        names = " and ".join(plain(candidate.name) for candidate in found.unstable)
        ending = "was not stable (see the warnings): measure again on an idle machine before relying on it."
        lines.append(f"The measurement of {names} {ending}")
    if found.as_fast is not None:
        lines.append(f"{plain(found.as_fast.name)} may be as fast (the intervals overlap), at {_change(found.as_fast)}.")
    others = (candidate for candidate in found.too_lossy if candidate is not best)
    return [*lines, *(f"{plain(c.name)} is faster still ({_ratio(c)}) but at {_change(c)}{_lossy(c)}." for c in others)]


def choices_of(report: DeployReport) -> list[Choice]:
    """Return the choice under the requirements for each target and scenario; without requirements, the recommendation."""
    if report.requirements:
        names = {each.name: plain(each.name) for each in report.candidates}
        document = deployment_document(report)
        return [choice_of(document, group, names, "candidate") for group in report.groups]
    found = recommend(report)
    lost = [Rejected(*each) for each in _reasons(report, found)]
    return [Choice("Verdict", found.level, sentence_of(report, found), cautions_of(found), lost, len(lost) <= MOST_OPEN, "")]


def _reasons(report: DeployReport, found: Recommendation) -> list[tuple[str, str, str]]:
    """Return for each candidate that is not to be used its name, a verdict, and why; none where nothing can be recommended."""
    if found.use is None:
        return []
    used = next(each for each in report.candidates if each.name == found.use)
    return [(plain(each.name), *_reason(each, used, report)) for each in report.candidates if each is not used]


def _reason(candidate: DeployCandidate, used: DeployCandidate, report: DeployReport) -> tuple[str, str]:
    if candidate.name == report.baseline:
        return "slower", f"{plain(used.name)} is {_speed(used, report)}"
    speed = _speed(candidate, report)
    loss = loss_of(candidate)
    if loss == "above" or (drop_of(candidate) or 0.0) > DEPLOY_GATE.max_drop:
        verdict = "loses too much" if loss == "above" else "undecided"
        return verdict, f"{speed}, at {_change(candidate)} of {_measure(candidate)}{_range(candidate)}"
    if candidate.speedup <= 1 or used.name == report.baseline:
        sure = candidate.speedup_ci95 is not None and candidate.speedup_ci95[1] < 1
        return "slower" if sure else "no clear gain", speed
    if loss == "unsure" and candidate.speedup > used.speedup:
        return "undecided", f"{speed}, but at {_change(candidate)}{_lossy(candidate)}"
    ends = candidate.speedup_ci95, used.speedup_ci95
    close = ends[0] is not None and ends[1] is not None and ends[0][1] >= ends[1][0]
    return "may be as fast" if close else "slower", f"{speed}, {plain(used.name)} {_ratio(used)}{_limits(used)}"


def _speed(candidate: DeployCandidate, report: DeployReport) -> str:
    words = "faster than" if candidate.speedup > 1 else "the speed of"
    return f"{_ratio(candidate)} {words} {plain(report.baseline)}{_limits(candidate)}"


def _limits(candidate: DeployCandidate) -> str:
    return "" if candidate.speedup_ci95 is None else f" ({interval(candidate.speedup_ci95)})"


def _lossy(candidate: DeployCandidate) -> str:
    """Return the interval of the change of a candidate that is not within the gate, and how many images would decide."""
    if loss_of(candidate) == "above":
        return _range(candidate)
    accuracy, needed = candidate.accuracy, None
    if isinstance(accuracy, AccuracyReport) and (against := accuracy.reference) is not None:
        known = against.flips is not None and against.top1_drop_ci95 is not None
        needed = DEPLOY_GATE.judge_report(accuracy).images_needed if known else None
    more = "" if needed is None else f"; about {needed:,} images would decide"
    return f"{_range(candidate)}, not shown to be within {DEPLOY_GATE.max_drop:g}{more}"


def _doubt(doubt: Doubt, best: DeployCandidate) -> str:
    intervals = [figure.drop_ci95 for figure in figures_of(best.accuracy) if figure.drop_ci95 is not None]
    limits = max(intervals, key=lambda limits: limits[1], default=(0.0, 0.0))
    return {
        "drop not measured": "The drop has no 95% interval: validate again.",
        "drop unsure": f"{best.accuracy.samples:,} images are too few to rule out a larger drop: its 95% interval is "
        f"{interval(limits)} points. Validate on more images to be sure that it is at most {DEPLOY_GATE.max_drop:g}.",
        "agreement": _disagreement(best),
        "speed-up not measured": "The speed-up has no 95% interval: measure again.",
        "speed-up unsure": f"The speed-up's 95% interval is {interval(best.speedup_ci95 or (0.0, 0.0))}: "
        "measure longer with --duration.",
    }[doubt]


def _agreement(candidate: DeployCandidate) -> str:
    accuracy = candidate.accuracy
    if accuracy.reference is None or accuracy.reference.agreement is None:
        return ""
    share = f"{fixed(accuracy.reference.agreement)}%"
    if isinstance(accuracy, AccuracyReport):
        return f" and predicts the same class for {share} of the images"
    return f" and finds {share} of its detections"


def _disagreement(candidate: DeployCandidate) -> str:
    accuracy = candidate.accuracy
    agreement = None if accuracy.reference is None else accuracy.reference.agreement
    share = f"{fixed(100 - (100.0 if agreement is None else agreement))}%"
    if isinstance(accuracy, AccuracyReport):
        what = f"It predicts another class than the baseline for {share} of the images, although top-1 changed little"
    else:
        what = f"It does not find {share} of the baseline's detections, although AP changed little"
    return f"{what}: check these images before replacing the baseline."


def _measure(candidate: DeployCandidate) -> str:
    return worst_figure(candidate.accuracy).name


def _ratio(candidate: DeployCandidate) -> str:
    return f"{fixed(candidate.speedup, 1 if candidate.speedup >= 2 else 2)}x"


def _change(candidate: DeployCandidate) -> str:
    return f"{signed(-(drop_of(candidate) or 0.0))} points"


def _range(candidate: DeployCandidate) -> str:
    """Return the interval of the change, which is the negative of the drop."""
    limits = worst_figure(candidate.accuracy).drop_ci95
    if limits is None:
        return ""
    low, high = limits
    return f" (95% interval {signed(-high)} to {signed(-low)})"


def warnings_of(report: DeployReport) -> list[tuple[str, str]]:
    """Return (candidates, warning); candidates is "" where the warning is about all.

    Warnings that differ only in numbers become one, with all the numbers: "latency drifted by +15%/-64% ...".
    """
    about: dict[str, list[tuple[str, str]]] = {}
    for candidate in report.candidates:
        for warning in dict.fromkeys(plain(text) for text in candidate.latency.warnings):
            about.setdefault(_NUMBER.sub("#", warning), []).append((plain(candidate.name), warning))
    merged = []
    for group in about.values():
        names = list(dict.fromkeys(name for name, _ in group))
        merged.append(("" if len(names) == len(report.candidates) else ", ".join(names), _joined([text for _, text in group])))
    return merged


def _joined(warnings: list[str]) -> str:
    """Join sentences with the same words, with the different numbers of each place side by side."""
    numbers = zip(*(_NUMBER.findall(warning) for warning in warnings), strict=True)
    sides = ["/".join(dict.fromkeys(place)) for place in numbers]
    words = _NUMBER.split(warnings[0])
    return "".join(word + number for word, number in zip(words, [*sides, ""], strict=True))
