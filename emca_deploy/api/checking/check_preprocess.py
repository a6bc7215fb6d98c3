"""`check-preprocess`: what somebody's own preprocessing does otherwise than a model needs."""

import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from emca_deploy._machine import default_threads
from emca_deploy._progress import Counter, Progress, Stage, silent
from emca_deploy.api.load_bundle import LoadedBundle, load_bundle
from emca_deploy.arrays import Int64Array
from emca_deploy.atomic import hidden_folder
from emca_deploy.data.checking.diagnosis import Given, diagnose, read_given
from emca_deploy.data.checking.probes import Probe, probes
from emca_deploy.data.checking.steps import Steps
from emca_deploy.data.preprocess import stored
from emca_deploy.data.sources import ImageSource, choose_indices, open_source
from emca_deploy.errors import DataError, InputError
from emca_deploy.harness.accuracy.labelled import LabelledImages
from emca_deploy.preprocessing import Labelling
from emca_deploy.results.check_preprocess import PreprocessCheck, PreprocessCost

__all__ = ["CheckPreprocessRequest", "check_preprocess"]

IMAGE, OUTPUT = "{image}", "{out.npy}"
LARGEST_OUTPUT = 1 << 28
"""Largest file that is read from a command, in bytes."""

_REMEDY = "check it by itself: it must write the model's input for one image, with numpy.save"


@dataclass(frozen=True)
class CheckPreprocessRequest:
    """Options of a check.

    Attributes:
        model: a bundle, or an ONNX model or engine with its manifest.
        command: program and arguments; `{image}` and `{out.npy}` in them stand for an image file and the file to write.
        data: labelled images, on which the cost of a mistake is measured; None leaves it out.
        limit: number of these images, spread over the data set.
        time_limit_s: seconds that the command may take for one image.
        labelling: known facts about the labels.
    """

    model: Path
    command: tuple[str, ...]
    data: Path | None = None
    limit: int = 500
    time_limit_s: float = 60.0
    labelling: Labelling = field(default_factory=Labelling)


def check_preprocess(request: CheckPreprocessRequest, stage: Stage = silent) -> PreprocessCheck:
    """Run a command on images made for this, and name the steps that it does otherwise than the model needs.

    Raises:
        InputError: the command lacks a placeholder, cannot be started, fails, or takes too long; or the model is wrong.
        DataError: it writes no array, or `data` has no labels.
        MissingError: no runtime runs the model on this machine.
    """
    for placeholder in (IMAGE, OUTPUT):
        if not any(placeholder in word for word in request.command):
            problem = f"the command has no {placeholder}"
            raise InputError(problem, f"for example -- python preprocess.py {IMAGE} {OUTPUT}")
    with load_bundle(request.model) as model:
        labelled = None if request.data is None else _labelled(request, model)
        right = Steps.of(model.preprocessing, interleaved=model.takes_channels_last)
        images = probes(model.preprocessing)
        with stage("running the command") as progress:
            given = _outputs(request, images, progress)
        with stage("comparing"):
            found = diagnose(images, given, right, model.input.dtype)
        cost = None
        if labelled is not None and found.steps is not None and not found.right:
            with stage("measuring the cost") as progress:
                cost = _cost(model, labelled, right, found.steps, request.limit, progress)
        return PreprocessCheck(
            model=str(request.model),
            images=len(images),
            right=found.right,
            explained=found.steps is not None,
            wrong=found.mistakes,
            mean_steps=found.mean_steps,
            largest_steps=found.largest_steps,
            same_class=_same_class(model, images, given, right),
            cost=cost,
        )


def _labelled(request: CheckPreprocessRequest, model: LoadedBundle) -> LabelledImages:
    assert request.data is not None
    images = LabelledImages(open_source(request.data, model.preprocessing, request.labelling))
    if images.found is None:
        raise DataError(
            f"{request.data}: has no labels to measure the cost with", "give one subfolder per class, or --labels FILE"
        )
    if images.source.finished:
        raise InputError(f"{request.data}: has arrays, which are preprocessed already", "name a folder or a zip of image files")
    images.check(str(request.model), None)
    return images


def _outputs(request: CheckPreprocessRequest, images: Sequence[Probe], progress: Progress | None) -> list[Given]:
    """Return what the command makes of each image; as many run at once as there are cores."""
    with hidden_folder(Path(tempfile.gettempdir())) as folder, ThreadPoolExecutor(default_threads()) as pool:
        found, count = [], Counter(progress, len(images))
        try:
            for given in pool.map(partial(_output, request, folder), images):
                found.append(given)
                count(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _output(request: CheckPreprocessRequest, folder: Path, probe: Probe) -> Given:
    image, output = folder / probe.name, folder / f"{probe.name}.npy"
    image.write_bytes(probe.content)
    words = [word.replace(IMAGE, str(image)).replace(OUTPUT, str(output)) for word in request.command]
    called = words[0]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=request.time_limit_s, check=False)
    except OSError as exc:
        raise InputError(f"{called}: cannot be started: {exc.strerror}", "check the path and its permissions") from exc
    except subprocess.TimeoutExpired as exc:
        problem = f"{called}: took longer than {request.time_limit_s:g} s for one image"
        raise InputError(problem, "give more time with --time-limit") from exc
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["without a message"])[-1]
        raise InputError(f"{called}: failed with code {done.returncode} on an image: {last}", _REMEDY)
    if not output.is_file():
        raise InputError(f"{called}: wrote no {OUTPUT}", _REMEDY)
    if output.stat().st_size > LARGEST_OUTPUT:
        raise DataError(f"{called}: wrote more than {LARGEST_OUTPUT >> 20} MiB for one image", _REMEDY)
    return read_given(output.read_bytes(), f"{OUTPUT} of {called}")


def _same_class(model: LoadedBundle, images: Sequence[Probe], given: Sequence[Given], right: Steps) -> int | None:
    """Return for how many images the model predicts the same class from both inputs; None where it cannot take one."""
    same = 0
    for probe, each in zip(images, given, strict=True):
        wanted = right.tensor(probe.opened(), right, model.input.dtype)
        if each.array.size != wanted.size:
            return None
        inputs = np.ascontiguousarray(each.array).reshape(wanted.shape).astype(wanted.dtype)
        same += int(model.logits(inputs).argmax() == model.logits(wanted).argmax())
    return same


def _cost(
    model: LoadedBundle, images: LabelledImages, right: Steps, wrong: Steps, limit: int, progress: Progress | None
) -> PreprocessCost:
    """Return the top-1 with both preprocessings on some images of a data set, equally many of each class."""
    source, labels = images.source, images.found
    assert labels is not None
    indices = choose_indices(len(source), min(limit, len(source)), labels.labels)
    count = Counter(progress, 2 * len(indices))
    own, other = (_classes(model, source, indices, steps, right, count) for steps in (right, wrong))
    orders = [labels] if labels.as_strings is None else [labels, labels.as_strings]
    truth = max((each.labels[indices] for each in orders), key=lambda each: int((each == own).sum()))
    return PreprocessCost(len(indices), *(100 * float((each == truth).mean()) for each in (own, other)))


def _classes(
    model: LoadedBundle, source: ImageSource, indices: Sequence[int], steps: Steps, right: Steps, count: Counter
) -> Int64Array:
    """Return the classes that a model, which needs the steps `right`, predicts for images that are preprocessed by `steps`."""
    found = []
    for index in indices:
        image = stored(source.content(index), source.item_name(index))
        found.append(int(model.logits(steps.tensor(image, right, model.input.dtype)).argmax()))
        count(1)
    return np.array(found, np.int64)
