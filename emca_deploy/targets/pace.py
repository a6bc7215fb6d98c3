"""Checks the rates and the deadline of a request."""

from emca_deploy.errors import InputError
from emca_deploy.requests import ProfileRequest

__all__ = ["check_pace"]

LOWEST_PER_S, HIGHEST_PER_S = 0.1, 10_000.0


def check_pace(request: ProfileRequest) -> None:
    """Refuse rates and a deadline outside the paced scenario, that scenario without either, and rates out of range.

    Raises:
        InputError: the options do not belong together.
    """
    if request.scenario != "paced":
        for name, given in (("--rate", bool(request.rates)), ("--deadline", request.deadline_ms is not None)):
            if given:
                raise InputError(f"{name} is for paced frames, not for --scenario {request.scenario}", "add --scenario paced")
        return
    if not request.rates and request.deadline_ms is None:
        raise InputError("--scenario paced needs the rate of the frames", "add --rate 10,30 or --deadline 20ms")
    if request.max_duration_s is not None:
        raise InputError("--scenario paced measures for --duration at each rate", "leave out --max-duration")
    if request.deadline_ms is not None and not request.deadline_ms > 0:
        raise InputError(f"--deadline: {request.deadline_ms:g} ms is not above 0", "for example --deadline 20ms")
    for rate in request.rates:
        if not LOWEST_PER_S <= rate <= HIGHEST_PER_S:
            problem = f"--rate {rate:g}: not {LOWEST_PER_S:g} to {HIGHEST_PER_S:,.0f} frames per second"
            raise InputError(problem, "for example --rate 5,10,30")
    if len(set(request.rates)) < len(request.rates):
        raise InputError("--rate names a rate twice", "name every rate once")
