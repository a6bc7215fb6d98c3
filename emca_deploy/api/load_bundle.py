"""`load_bundle`: the best variant of a bundle that this machine can run, which answers for images."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.artifacts import read_manifest
from emca_deploy.atomic import hidden_folder
from emca_deploy.backends.base import Runner
from emca_deploy.backends.registry import BACKENDS, DEFAULT, available, backend_of, open_gpu_runner, open_runner
from emca_deploy.bundles.opened import OpenedBundle, open_bundle
from emca_deploy.data.choosing import InputFacts, file_facts, preprocessing_of_file
from emca_deploy.data.given import GivenImage, GivenImages
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import EmcaError, InputError, MissingError, ModelError, UnknownNameError
from emca_deploy.harness.measure.feed import answered
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions
from emca_deploy.results.bundle import BundleReport, BundleVariant
from emca_deploy.targets.candidates import CandidateOptions, candidate, run_notes
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.logits import predicted
from emca_deploy.tasks.registry import TASKS
from emca_deploy.tasks.task import Answers

__all__ = ["BATCH", "Classified", "LoadedBundle", "load_bundle"]

ARCHIVE = ".emca"
BATCH = 16
"""Images per call where the variant takes any number."""


@dataclass(frozen=True)
class Classified:
    """The answers of a classifier for N images.

    Attributes:
        logits: (N, classes) float32.
        classes: Most probable class of each image, (N,) int64.
        labels: Name of that class; its number where the bundle has no names.
    """

    logits: Float32Array
    classes: Int64Array
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Opened:
    """An artifact that runs: its name in messages, its file, its backend, its open runner, and facts of its manifest."""

    name: str
    path: Path
    backend: str
    runner: Runner
    preprocessing: Preprocessing
    temperature: float
    notes: tuple[str, ...]


class LoadedBundle:
    """A variant of a bundle that is loaded: call it with images. A context manager, which frees it in the end.

    Attributes:
        variant: Name of the variant, or of the file that was named instead of a bundle.
        backend: Backend that runs it.
        preprocessing: How an image becomes its input.
        temperature: Number to divide logits by before Softmax, from `validate --fit-temperature`; 1 without it.
        input: Name, dtype and shape of its input.
        names: Names of the classes; empty where nobody stated them.
        notes: Which variants were left out and why, and other facts for the user.
    """

    def __init__(self, opened: _Opened, names: Sequence[str], notes: Sequence[str], held: ExitStack) -> None:
        self.variant, self.backend, self.preprocessing = opened.name, opened.backend, opened.preprocessing
        self.temperature = opened.temperature
        self.input = opened.runner.input
        self.names, self.notes = tuple(names), (*notes, *opened.notes)
        self._path, self._runner, self._held = opened.path, opened.runner, held

    def __call__(self, images: GivenImage | Sequence[GivenImage], batch: int = BATCH) -> Classified | Detections:
        """Return the answers for images: paths, Pillow images, or uint8 arrays (H, W, 3) in RGB or (H, W) in gray.

        Returns:
            A `Classified`, or the detections of a detector, whose boxes are in pixels of the images.

        Raises:
            DataError: an image cannot be read.
            InputError: there are no images, or they do not fit the model.
            ModelError: the model fails.
        """
        given = _as_list(images)
        if not given:
            raise InputError("there are no images", "give at least one")
        task = TASKS[self._runner.task]
        collected = task.collector(None)
        for _, answers in self.parts(GivenImages(given, self.preprocessing), batch):
            collected.add(task.arrays(answers), len(given))
        found = collected.finish()
        if isinstance(found, Detections):
            return found
        classes = predicted(found)
        return Classified(found, classes, tuple(self.name_of(int(index)) or str(index) for index in classes))

    def parts(self, source: ImageSource, batch: int = BATCH) -> Iterator[tuple[Sequence[int], Answers]]:
        """Yield (indices, answers) for the images of a source, batch by batch; the next images are decoded meanwhile.

        Raises what calling it raises.
        """
        task = TASKS[self._runner.task]
        for part in answered(self.variant, self._runner, source, range(len(source)), batch, self._path):
            yield part.indices, task.answers({name: np.array(values) for name, values in part.arrays.items()})

    def logits(self, inputs: npt.NDArray[Any]) -> Float32Array:
        """Return the logits of inputs that are preprocessed already, (N, classes) float32.

        Args:
            inputs: Array of the shape and dtype of `input`.

        Raises:
            ModelError: the model fails, or is a detector.
        """
        answers = TASKS[self._runner.task].rows(self.variant, self._runner.infer(inputs), len(inputs))
        if isinstance(answers, Detections):
            raise ModelError(f"{self.variant}: is a detector, which has no logits", "call it with images")
        return answers

    @property
    def takes_channels_last(self) -> bool:
        """Whether its input is (N, height, width, channels)."""
        shape = self.input.shape[1:]
        return shape != self.preprocessing.shape and shape[-1] == self.preprocessing.channel_count

    def name_of(self, index: int) -> str | None:
        """Return the name of a class; None where nobody stated it."""
        return self.names[index] if index < len(self.names) else None

    def close(self) -> None:
        """Free the variant and remove its files; calling it twice is fine."""
        self._held.close()

    def __enter__(self) -> "LoadedBundle":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _as_list(images: Any) -> list[GivenImage]:
    """Return images as a list; a path, a Pillow image and an array of up to three axes are one image."""
    if isinstance(images, (str, Path)) or not hasattr(images, "__iter__") or getattr(images, "ndim", 4) < 4:
        return [images]
    return list(images)


def load_bundle(
    path: Path | str, variant: str | None = None, threads: int | None = None, *, untuned: bool = False
) -> LoadedBundle:
    """Load a bundle, an .emca file or its unpacked folder, after comparing every byte; or a single artifact.

    The variants are tried in their order, those that were measured to be fastest first. An engine runs where its backend, version
    and machine fit; a model for a backend that is missing runs on ONNX Runtime if nothing else does. What is loaded are private
    copies of the bytes that were compared.

    Args:
        path: The bundle, or an ONNX model or engine with its manifest.
        variant: Name of the variant to run; None takes the first that runs.
        threads: Threads of the runtime; None takes the tuned number, or one for each physical core.
        untuned: Whether to ignore tuned settings in the manifest.

    Raises:
        BundleError: a byte differs from what was bundled.
        InputError: there is no such file, variant or number of threads.
        MissingError: no variant runs on this machine.
    """
    place, options = Path(path), CandidateOptions(threads=threads, untuned=untuned)
    with ExitStack() as held:
        if place.is_file() and place.suffix.lower() != ARCHIVE:
            opened = _open(place.name, place, None, options)
            names: tuple[str, ...] = ()
            notes: tuple[str, ...] = ()
        else:
            bundle = open_bundle(place)
            report = bundle.report()
            folder = held.enter_context(hidden_folder(Path(tempfile.gettempdir())))
            opened, notes = _first(bundle, _ways(report, variant), folder, options)
            names = report.classes
        held.callback(opened.runner.close)
        return LoadedBundle(opened, names, notes, held.pop_all())


@dataclass(frozen=True)
class _Way:
    """A way to run a variant: on a backend, or not at all for a reason."""

    variant: BundleVariant
    backend: str | None = None
    reason: str | None = None


def _ways(report: BundleReport, name: str | None) -> list[_Way]:
    """Return the ways to run the variants, the best first; a model runs on another backend than its own last."""
    known = [variant.name for variant in report.variants]
    if name is not None and name not in known:
        raise UnknownNameError.of("variant", name, known, f"variants of {report.path}: {', '.join(known)}")
    status, first, last = available(), list[_Way](), list[_Way]()
    for variant in report.variants:
        if name not in (None, variant.name):
            continue
        backend = variant.backend
        reason = None if backend is None else status[backend].reason if backend in status else f"backend '{backend}' is unknown"
        first.append(_Way(variant, backend, reason))
        if reason is not None and variant.kind == "onnx":
            last.append(_Way(variant, DEFAULT))
    return first + last


def _first(
    bundle: OpenedBundle, ways: Sequence[_Way], folder: Path, options: CandidateOptions
) -> tuple[_Opened, tuple[str, ...]]:
    """Return the first way that runs, with notes on those that do not; its files are in `folder`."""
    left_out: list[str] = []
    for way in ways:
        variant, reason = way.variant, way.reason
        if reason is None:
            copies = folder / variant.name
            bundle.copy(str(PurePosixPath(variant.file).parent), copies)
            try:
                opened = _open(variant.name, copies / PurePosixPath(variant.file).name, way.backend, options)
            except EmcaError as error:
                reason = error.problem.replace(f"{folder}/", "")
                shutil.rmtree(copies)
            else:
                notes = tuple(note.replace(f"{folder}/", "") for note in opened.notes)
                return replace(opened, notes=notes), (*left_out, f"runs variant {variant.name} on {opened.backend}")
        left_out.append(f"variant {variant.name} is left out: {reason}")
    raise MissingError(f"{bundle.path}: no variant runs on this machine: {'; '.join(left_out)}", "bundle an ONNX model too")


def _open(name: str, path: Path, backend: str | None, options: CandidateOptions) -> _Opened:
    """Load an artifact on a backend; None takes its own."""
    found = backend or backend_of(path, None)
    with ExitStack() as held:
        notes: list[str] = []
        if BACKENDS[found].needs_gpu:
            runner = open_gpu_runner(found, str(path))
        else:
            spec = candidate(str(path), found, options)
            runner = open_runner(**spec.kwargs)
            notes += run_notes([spec], options)
        held.callback(runner.close)
        runner.open()
        facts = InputFacts.of(runner.input, file_facts(path).pixel_range)
        used = preprocessing_of_file(path, PreprocessingOptions(), None, facts)
        if used.assumed:
            notes.append(f"{name}: nobody stated parts of the preprocessing, which are assumed: {', '.join(used.assumed)}")
        manifest = read_manifest(path, verify=False)
        temperature = manifest.temperature if manifest is not None else None
        held.pop_all()
        return _Opened(name, path, found, runner, used, temperature or 1.0, tuple(notes))
