"""A target on the workers of one kind: requests are sent to a worker, as `targets/ssh` sends them to an agent."""

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from emca_deploy._progress import Counter, Progress
from emca_deploy.artifacts import Manifest, this_command, write_artifact
from emca_deploy.backends.registry import names_no_file
from emca_deploy.errors import InputError
from emca_deploy.fleet.fleet import Fleet
from emca_deploy.fleet.shards import Cut, Shard, Shards
from emca_deploy.fleet.workers import LATENCY, FleetWorker
from emca_deploy.harness.accuracy.collection import LogitsResult, data_key
from emca_deploy.harness.accuracy.logits_store import Kept, LogitsStore
from emca_deploy.npz import read_arrays
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.remote.protocol import ENGINE, LOGITS
from emca_deploy.requests import BuildRequest, DeploymentRequest, LogitsRequest, ProfileRequest, Request
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.base import ChoosePreprocessing, Target, Validated
from emca_deploy.targets.deployment import Deployment
from emca_deploy.targets.named_artifacts import split_artifact
from emca_deploy.targets.shipment import Shipment
from emca_deploy.targets.ssh import chosen_preprocessing
from emca_deploy.tasks.registry import TASKS
from emca_deploy.tasks.task import Answers

__all__ = ["FleetTarget"]

OF_THE_DATA = ("data set", "limit", "images")
"""Parts of the key of kept logits that differ between a shard and the whole run."""


@dataclass(frozen=True)
class FleetTarget:
    """A target of the plan on the workers of one kind, or on the one worker that drives a remote machine.

    Attributes:
        target: The target, as a worker opens it.
        names: Names under which a worker that drives it has it as a resource.
        like: A worker of the kind; all workers like it have equal results.
    """

    fleet: Fleet
    shards: Shards
    target: Target
    names: tuple[str, ...]
    like: FleetWorker
    is_remote: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Its name on a worker."""
        return self.target.name

    @property
    def processor(self) -> "FleetTarget":
        """The processor of the same kind of machine."""
        return replace(self, target=self.target.processor)

    def check(self, request: Request) -> None:
        """Refuse a request that the target cannot run; see `Target.check`."""
        Target.check(self.target, request)

    def notes(self, request: Request) -> tuple[str, ...]:
        """Return no notes: those of a worker are in its results."""
        del request
        return ()

    def drives(self, worker: FleetWorker) -> bool:
        """Return whether a worker runs requests whose result is of one machine only."""
        if self.target.is_remote:
            return any(name in worker.resources for name in self.names)
        return worker.kind == self.like.kind and bool(worker.resources.get(LATENCY))

    def shares(self, worker: FleetWorker, backend: str | None) -> bool:
        """Return whether a worker gives the same answers of a model on a backend."""
        same = worker.numeric == self.like.numeric
        return same and (backend is None or worker.backends.get(backend) == self.like.backends.get(backend))

    def deployment(self, backends: tuple[str, ...]) -> Deployment:
        """Return what `deploy` builds on it; see `Target.deployment`."""
        request = DeploymentRequest(self.target.name, backends)
        answer, _ = self.fleet.call("deployment", to_json(request), Shipment(), self.drives, self.target.name, alone=False)
        found = from_json(Deployment, answer["report"]["report"])
        return found.without_checkpoints()

    def profile(self, request: ProfileRequest, title: str) -> tuple[ProfileReport, FleetWorker]:
        """Measure latency on one worker, alone on its machine; return also that worker. See `Target.profile`."""
        files = Shipment()
        fakes = all(map(names_no_file, request.artifacts))
        artifacts = request.artifacts if fakes else files.add_all(request.artifacts)
        sent = replace(request, artifacts=artifacts, target=self.target.name)
        with files.naming():
            answer, worker = self.fleet.call("profile", to_json(sent), files, self.drives, title, alone=True)
        return from_json(ProfileReport, files.local(answer["report"]["report"])), worker

    def build(self, request: BuildRequest) -> Manifest:
        """Build on one worker, and write the engine with its manifest here; see `Target.build`."""
        files = Shipment()
        sent = replace(request, model=files.add(request.model), output=ENGINE, target=self.target.name)
        with files.naming(), write_artifact(Path(request.output)) as draft:
            answer, worker = self.fleet.call("build", to_json(sent), files, self.drives, request.output, alone=True)
            draft.path.write_bytes(answer["files"][ENGINE])
            manifest = from_json(Manifest, files.local(answer["report"]["report"]))
            draft.manifest = replace(manifest, command=this_command(), details={**manifest.details, "built_on": worker.host})
        return draft.written

    def validate(
        self, request: LogitsRequest, progress: Progress | None = None, choose: ChoosePreprocessing | None = None
    ) -> Validated:
        """Run a data set through a model on all workers with the same answers; see `Target.validate`."""
        backend, path = split_artifact(request.artifact)
        request = replace(request, artifact=path, backend=backend or request.backend)
        used = request.preprocessing or chosen_preprocessing(Path(path), request, choose)
        kept = None if request.logits is None else Path(request.logits)
        if kept is not None and kept.is_file():
            return Validated(_found(kept, request, used))
        began_s = time.monotonic()
        if self.target.is_remote:
            cut = self._whole(request, used)
        else:
            model = Shipment()
            model.add(request.artifact)
            self.fleet.send_ahead(lambda worker: self.shares(worker, request.backend), model)
            able = sum(self.shares(worker, request.backend) for worker in list(self.fleet.workers.values()))
            cut = self.shards.of(Path(request.data), used, request.images, request.limit, request.batch, max(able, 1))
        parts = self._run(replace(request, preprocessing=used), cut, progress)
        task = TASKS[request.task]
        arrays = [task.arrays(answers) for answers, _ in parts]
        answers = task.answers({name: np.concatenate([part[name] for part in arrays]) for name in arrays[0]})
        if kept is not None:
            key = {name: value for name, value in parts[0][1].items() if name not in OF_THE_DATA} | _data_key(request)
            with LogitsStore(kept, key, task) as store:
                store.complete(Kept(answers, cut.labels, cut.names))
        rate = len(answers) / (time.monotonic() - began_s)
        return Validated(LogitsResult(answers, cut.labels, rate, used, cut.names))

    def _whole(self, request: LogitsRequest, used: Preprocessing) -> Cut:
        return self.shards.of(Path(request.data), used, request.images, request.limit, request.batch, 1)

    def _run(self, request: LogitsRequest, cut: Cut, progress: Progress | None) -> list[tuple[Answers, Mapping[str, Any]]]:
        """Return the answers for each shard in order, with the keys of their logits."""
        count = Counter(progress, sum(shard.count for shard in cut.shards))

        def one(shard: Shard) -> tuple[Answers, Mapping[str, Any]]:
            found = self._shard(request, shard)
            count(shard.count)
            return found

        with self.fleet.idle(), ThreadPoolExecutor(len(cut.shards)) as pool:
            return list(pool.map(one, cut.shards))

    def _shard(self, request: LogitsRequest, shard: Shard) -> tuple[Answers, Mapping[str, Any]]:
        files = Shipment()
        sent = replace(
            request,
            artifact=files.add(request.artifact),
            data=files.add_as(f"@data/images{shard.path.suffix}", shard.path, request.data),
            target=self.target.name,
            images=shard.images,
            limit=None,
            logits=LOGITS,
        )

        def fits(worker: FleetWorker) -> bool:
            return self.drives(worker) if self.target.is_remote else self.shares(worker, request.backend)

        title = f"{request.artifact}: {shard.count} images"
        with files.naming():
            answer, _ = self.fleet.call("validate", to_json(sent), files, fits, title, alone=self.target.is_remote)
        with TemporaryDirectory(prefix="emca-") as folder:
            path = Path(folder) / LOGITS
            path.write_bytes(answer["files"][LOGITS])
            return TASKS[request.task].answers(read_arrays(path)), answer["report"]["key"]


def _found(kept: Path, request: LogitsRequest, used: Preprocessing) -> LogitsResult:
    """Return logits that an earlier run kept.

    Raises:
        InputError: the file is damaged, or is of another data set.
    """
    try:
        key = json.loads(str(read_arrays(kept)["key"]))
    except (OSError, ValueError, KeyError) as exc:
        raise InputError(f"{kept}: not an emca-deploy file of logits: {exc}", "remove it and run the sweep again") from exc
    own = {**_data_key(request), "preprocessing": used.identity()}
    with LogitsStore(kept, {**key, **own}, TASKS[request.task]) as store:
        found = store.kept()
    assert found is not None  # the file exists
    return LogitsResult(found.answers, found.labels, None, used, found.names, len(found.answers))


def _data_key(request: LogitsRequest) -> dict[str, Any]:
    """Return the parts of the key of kept logits that are about the data, as `LogitsRun` writes them."""
    return data_key(Path(request.data), request.limit, request.images)
