"""Checks how the calls of a request come: at rates, several at once, or beside those of another model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emca_deploy.artifacts import read_manifest
from emca_deploy.errors import InputError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.requests import ProfileRequest

__all__ = ["check_load", "with_images"]

LOWEST_PER_S, HIGHEST_PER_S = 0.1, 10_000.0


MOST_CALLERS = 64


def check_load(request: ProfileRequest, *, on_processor: bool, here: bool) -> None:
    """Refuse options of a request that do not belong together, or cannot be measured.

    Raises:
        InputError: the options do not belong together, or a value is out of range.
    """
    _check_pace(request)
    given = {"--concurrency": bool(request.concurrency), "--co-run": request.co_run, "--data": request.data is not None}
    for name in (name for name, is_given in given.items() if is_given):
        if request.scenario != "single-stream":
            raise InputError(f"{name} is not for --scenario {request.scenario}", "leave out --scenario")
        if request.max_duration_s is not None:
            raise InputError(f"{name} measures for --duration", "leave out --max-duration")
    _check_concurrency(request, on_processor=on_processor)
    _check_data(request, here=here)
    if request.co_run and (len(request.artifacts), len(request.backends) < 2) != (2, True):
        raise InputError("--co-run is for two models on one backend each", "name one ARTIFACT, and the other as --co-run")


def _check_data(request: ProfileRequest, *, here: bool) -> None:
    if request.end_to_end and request.data is None:
        raise InputError("--end-to-end needs images", "add --data with a folder of images, or a .zip of one")
    if request.end_to_end and (request.batch or 1) > 1:
        raise InputError("--end-to-end runs one image at a time", "leave out --batch")
    if request.data is not None and not here:
        raise InputError("--data is for targets on this machine", "run it there, or leave out --data")
    if request.data is not None and not Path(request.data).exists():
        raise InputError(f"{request.data}: no such file or folder", "name a folder of images, a .zip or an .npz")


def _check_concurrency(request: ProfileRequest, *, on_processor: bool) -> None:
    if request.concurrency and not on_processor:
        raise InputError("--concurrency is measured on processors only", "add --target cpu")
    for callers in request.concurrency:
        if not 1 <= callers <= MOST_CALLERS:
            raise InputError(f"--concurrency {callers}: not 1 to {MOST_CALLERS} calls", "for example --concurrency 1,2,4,8")
    if len(set(request.concurrency)) < len(request.concurrency):
        raise InputError("--concurrency names a number twice", "name every number once")


def _check_pace(request: ProfileRequest) -> None:
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


def with_images(specs: Sequence[RunnerSpec], data: str | None) -> tuple[RunnerSpec, ...]:
    """Return the specs with a data set, and the preprocessing in their manifests; as they are without one.

    Raises:
        ModelError: a manifest is damaged.
    """
    if data is None:
        return tuple(specs)
    manifests = [read_manifest(Path(str(spec.kwargs.get("artifact", ""))), verify=False) for spec in specs]
    known = [None if manifest is None else manifest.preprocessing for manifest in manifests]
    return tuple(replace(spec, data=data, preprocessing=used) for spec, used in zip(specs, known, strict=True))
