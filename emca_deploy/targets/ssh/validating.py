"""`validate` on another machine: models and images go there, logits come home."""

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emca_deploy._progress import Progress, Stage, silent
from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.arrays import read_npz
from emca_deploy.errors import EmcaError, InputError
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.logits_store import LogitsStore
from emca_deploy.remote.address import Destination, parse_destination
from emca_deploy.remote.errors import LineLostError
from emca_deploy.remote.files import Blob
from emca_deploy.remote.packing import packed
from emca_deploy.remote.probe import Facts, check_runtime
from emca_deploy.remote.session import session
from emca_deploy.targets.candidates import split_artifact
from emca_deploy.targets.requirements import check_backends, needed_backend
from emca_deploy.targets.shipment import Belongings

__all__ = ["DataThere", "RunThere", "logits_there"]

RECONNECT_AFTER_S = (1.0, 4.0, 10.0)
LOGITS = "logits.npz"


@dataclass(frozen=True)
class RunThere:
    """A model to be run over the data set on the far side.

    Attributes:
        artifact: "path" or "backend=path".
        backend: to run it on; None means the artifact's own.
        preprocessing: how images become its input.
        keep: a file here to keep the logits in; None for none.
        reference: whether it is what the other one is held against: it runs on the processor, as it is.
    """

    artifact: str
    backend: str | None
    preprocessing: Preprocessing
    keep: Path | None = None
    reference: bool = False


@dataclass(frozen=True)
class DataThere:
    """Which images, and how they are run.

    Attributes:
        source: where the data set lies here.
        limit: images, the same number of each class; None for all.
        batch: images a call.
        options: "threads", "precision", "untuned", "power_mode" as the command has them, and "io" as `ModelIo` takes it.
    """

    source: Path
    limit: int | None
    batch: int
    options: dict[str, Any]


def logits_there(target: str, data: DataThere, runs: Sequence[RunThere], stage: Stage = silent) -> list[LogitsResult]:
    """Run a data set through models on another machine, and return what each says.

    Where the line goes down, what was done is kept there, and goes on as soon as it is up again.

    Args:
        target: "ssh://...".
        data: which images, and how.
        runs: the models.
        stage: opens a progress bar by its name.

    Raises:
        EmcaError: a model, the data set or an option is wrong, or the machine cannot be used.
        LineLostError: the connection was lost, and is still down.
    """
    destination = parse_destination(target)
    for run in runs:
        if run.keep is not None and run.keep.exists():
            raise InputError(f"{run.keep}: is there already", "name another file")
    files = Belongings()
    with packed(data.source) as source:
        work = _Work(destination, data, files, source)
        work.there = [work.request(run) for run in runs]
        try:
            return [work.patiently(run, request, stage) for run, request in zip(runs, work.there, strict=True)]
        except LineLostError:
            raise
        except EmcaError as error:
            raise type(error)(files.ours(error.problem), files.ours(error.remedy)) from error


class _Work:
    """The runs over one data set."""

    def __init__(self, destination: Destination, data: DataThere, files: Belongings, source: Path) -> None:
        self.there: list[dict[str, Any]] = []
        self._destination, self._data, self._files = destination, data, files
        self._name = f"@data/images{source.suffix.lower()}"
        self._blob = Blob.of_file(source)
        self._needs_pillow = source.suffix.lower() != ".npz" or str(read_npz(source)[0].dtype) != "float32"
        files.names[self._name] = str(data.source)

    def request(self, run: RunThere) -> dict[str, Any]:
        """Return what the agent is asked for a run."""
        options = {**self._data.options, "limit": self._data.limit, "batch": self._data.batch}
        backend, path = split_artifact(run.artifact)
        wanted = {
            "artifact": self._files.add(path),
            "backend": backend or run.backend,
            "preprocessing": asdict(run.preprocessing),
            "reference": run.reference,
            "there": self._destination.there,
            "data": self._name,
            **options,
        }
        blobs = {**self._files.blobs, self._name: self._blob}
        content = {name: blob.digest for name, blob in blobs.items()}
        key = hashlib.sha256(json.dumps([wanted, content], sort_keys=True).encode()).hexdigest()
        return {"do": "validate", "key": key, "options": wanted}

    def patiently(self, run: RunThere, request: dict[str, Any], stage: Stage) -> LogitsResult:
        """Do one run, again after the line was down: it goes on where it was."""
        for pause_s in RECONNECT_AFTER_S:
            try:
                with stage(run.artifact) as report:
                    return self._once(run, request, report)
            except LineLostError:
                time.sleep(pause_s)
        with stage(run.artifact) as report:
            return self._once(run, request, report)

    def _once(self, run: RunThere, request: dict[str, Any], progress: Progress | None) -> LogitsResult:
        blobs = {**self._files.blobs, self._name: self._blob}
        with session(self._destination, lambda facts: self._check(facts, request["options"])) as there:
            sent = there.give(blobs, progress)
            asked = {**request, "run": secrets.token_hex(8), "files": sent}
            with there.ask(asked, progress) as working, TemporaryDirectory(prefix="emca-") as folder:
                if working.answer.stopped:
                    raise KeyboardInterrupt
                place = run.keep or Path(folder) / LOGITS
                working.fetch(LOGITS, place)
                document = working.answer.document
                kept = LogitsStore(place, document["key"]).kept()
        assert kept is not None  # it was fetched
        rate = document["images_per_s"]
        return LogitsResult(kept.logits, kept.labels, rate, run.preprocessing, kept.names, document["reused"])

    def _check(self, facts: Facts, options: dict[str, Any]) -> None:
        backend = needed_backend(Path(self._files.names[options["artifact"]]), options["backend"])
        check_backends(self._destination, facts, [backend], builds=options["artifact"].endswith(".onnx"))
        if self._needs_pillow and facts.python is not None:
            check_runtime(self._destination, facts, "PIL", "images that are to be preprocessed")
