"""Lends workers to work, sends each the files it lacks, and has another one repeat what a worker could not finish.

A machine is busy with one latency measurement, or with other work: never with both. `Fleet.idle` and `Fleet.here` include the
work of this process, if workers share its machine.
"""

import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from emca_deploy import errors
from emca_deploy.errors import EmcaError, WorkerError
from emca_deploy.fleet import work as remote
from emca_deploy.fleet.errors import ClusterLostError, WorkerLostError
from emca_deploy.fleet.workers import LATENCY, FleetWorker, describe_workers
from emca_deploy.remote.files import Blob
from emca_deploy.targets.shipment import Shipment

__all__ = ["Fits", "Fleet"]

RETRIES = 2
"""Workers that may end during the same work before it counts as failed."""
LOOK_S = 1.0
POLL_S = 0.5
WAIT_S = 30.0
"""Longest wait for a worker where none is left that fits; a worker that ended may be started again."""
PIECE = 4 << 20
"""Bytes of a file in one message."""

Fits = Callable[[FleetWorker], bool]


class Fleet:
    """The usable workers of a cluster. A context manager, which watches them and ends all that they run.

    Args:
        client: Dask client.
        pin: Whether each worker gets a core of its own.
    """

    def __init__(self, client: Any, *, pin: bool = False) -> None:
        self._client, self._pin = client, pin
        self._run = secrets.token_hex(8)
        self.workers: dict[str, FleetWorker] = {}
        self.unusable: dict[str, str] = {}
        self._cores: dict[str, int] = {}
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        self._users: Counter[str] = Counter()
        self._alone: set[str] = set()
        self._reserved: dict[str, object] = {}
        self._sent: dict[str, set[str]] = {}
        self._sending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.bytes_sent: Counter[str] = Counter()
        self._lost: ClusterLostError | None = None
        self._ended = threading.Event()
        self._own = remote.machine_id()
        self._held = threading.local()

    def __enter__(self) -> "Fleet":
        self.look()
        threading.Thread(target=self._watch, name="fleet", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.stop()

    def stop(self) -> None:
        """End all that the workers run; threads that wait for it get a `ClusterLostError`."""
        with self._changed:
            self._lost = self._lost or ClusterLostError("the run was stopped", "run the same command again")
            running = list(self._busy)
            self._changed.notify_all()
        if running and self._client.status == "running":
            with suppress(Exception):  # they end by themselves
                self._client.run(remote.stop, self._run, workers=running, on_error="ignore")

    @property
    def latency_workers(self) -> tuple[FleetWorker, ...]:
        """The workers that measure latency: of each machine the first by name."""
        chosen: dict[str, FleetWorker] = {}
        for worker in sorted(self.workers.values(), key=lambda one: (one.name, one.address)):
            if worker.resources.get(LATENCY):
                chosen.setdefault(worker.machine, worker)
        return tuple(chosen.values())

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                self.look()
            except Exception as exc:  # whatever a broken connection raises
                if self._client.status != "running":
                    self._lose(f"the scheduler has ended or cannot be reached: {type(exc).__name__}")

    def look(self) -> None:
        """Take in new workers, and drop those that ended."""
        if self._client.status != "running":
            raise ConnectionError(self._client.status)
        known = self._client.scheduler_info(n_workers=-1)["workers"]
        new = [address for address in known if address not in self.workers and address not in self.unusable]
        if self._pin:
            free = [core for core in self._all_cores() if core not in self._cores.values()]
            self._cores |= dict(zip((one for one in new if one not in self._cores), free, strict=False))
        found, unusable = describe_workers(self._client, known, new, self._cores) if new else ({}, {})
        with self._changed:
            for address in [one for one in self.workers if one not in known]:
                del self.workers[address]
                self._cores.pop(address, None)
                self._sent.pop(address, None)
            self.workers |= found
            self.unusable |= unusable
            self._changed.notify_all()

    @staticmethod
    def _all_cores() -> list[int]:
        import os

        return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

    def _lose(self, problem: str) -> None:
        with self._changed:
            if self._lost is None:
                remedy = "start it again and run the same command, which goes on with the missing cells"
                self._lost = ClusterLostError(problem, remedy)
            self._changed.notify_all()

    def _check(self) -> None:
        if self._client.status not in ("running", "connecting"):
            self._lose("the scheduler has ended or cannot be reached")
        if self._lost is not None:
            raise type(self._lost)(self._lost.problem, self._lost.remedy)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Do work in this process: no latency is measured on this machine meanwhile, except inside `idle`."""
        self._take_here()
        try:
            yield
        finally:
            self._give_here()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Wait for something else within `here`."""
        inside = getattr(self._held, "here", False)
        if inside:
            self._give_here()
        try:
            yield
        finally:
            if inside:
                self._take_here()

    def _take_here(self) -> None:
        with self._changed:
            while (self._own in self._alone or self._own in self._reserved) and self._lost is None:
                self._changed.wait(POLL_S)
            self._users[self._own] += 1
            self._held.here = True

    def _give_here(self) -> None:
        with self._changed:
            self._users[self._own] -= 1
            self._held.here = False
            self._changed.notify_all()

    @contextmanager
    def lent(self, fits: Fits, files: Shipment, *, alone: bool) -> Iterator[FleetWorker]:
        """Yield a free worker, one that has most of the files; alone on its machine, or not."""
        token, deadline = object(), time.monotonic() + WAIT_S
        with self._changed:
            try:
                while (worker := self._choose(fits, files, token, alone=alone)) is None:
                    self._check()
                    if any(map(fits, self._able(alone=alone))):
                        deadline = time.monotonic() + WAIT_S
                    elif time.monotonic() > deadline:
                        raise ClusterLostError(
                            f"no worker is left that fits; {len(self.workers)} others are there",
                            "start one and run the same command, which goes on with the missing cells",
                        )
                    self._changed.wait(POLL_S)
            finally:
                self._reserved = {machine: owner for machine, owner in self._reserved.items() if owner is not token}
            self._busy.add(worker.address)
            self._users[worker.machine] += 1
            if alone:
                self._alone.add(worker.machine)
        try:
            yield worker
        finally:
            with self._changed:
                self._busy.discard(worker.address)
                self._users[worker.machine] -= 1
                if alone:
                    self._alone.discard(worker.machine)
                self._changed.notify_all()

    def _able(self, *, alone: bool) -> list[FleetWorker]:
        """Return the workers; for work that must be alone, only one of each machine's latency workers."""
        one_each = self.latency_workers
        return [one for one in self.workers.values() if not (alone and one.resources.get(LATENCY)) or one in one_each]

    def _choose(self, fits: Fits, files: Shipment, token: object, *, alone: bool) -> FleetWorker | None:
        """Return a free worker; without one, reserve the least used machine for work that must be alone."""
        able = [worker for worker in self._able(alone=alone) if fits(worker) and worker.machine not in self._alone]
        open_to = [one for one in able if self._reserved.get(one.machine, token) is token and one.address not in self._busy]
        free = [worker for worker in open_to if not (alone and self._users[worker.machine])]
        if free:
            wanted = {blob.digest for blob in files.blobs.values()}
            return max(free, key=lambda one: len(wanted & self._sent.get(one.address, set())))
        if alone and token not in self._reserved.values():
            left = [worker for worker in able if worker.machine not in self._reserved]
            if left:
                self._reserved[min(left, key=lambda one: self._users[one.machine]).machine] = token
        return None

    def call(
        self, name: str, document: Mapping[str, Any], files: Shipment, fits: Fits, title: str, *, alone: bool
    ) -> tuple[dict[str, Any], FleetWorker]:
        """Run a request on a worker that fits, and return the answer of `work.work`, without an error, and the worker.

        Raises:
            EmcaError: the request failed on the worker, or every worker that tried it has ended.
            ClusterLostError: the scheduler has ended, or no worker is left.
        """
        ended: list[str] = []
        with self.idle():
            while len(ended) <= RETRIES:
                with self.lent(fits, files, alone=alone) as worker:
                    try:
                        return self._ask(worker, name, document, files, title, alone=alone), worker
                    except WorkerLostError:
                        ended.append(worker.name)
                        with self._changed:
                            self.workers.pop(worker.address, None)
        raise WorkerError(
            f"every worker that ran it has ended: {', '.join(ended)}",
            "look at their logs, most likely for a lack of memory; then run again with --retry-failed",
        )

    def _ask(
        self, worker: FleetWorker, name: str, document: Mapping[str, Any], files: Shipment, title: str, *, alone: bool
    ) -> dict[str, Any]:
        self._send(worker, files)
        digests = {short: blob.digest for short, blob in files.blobs.items()}
        needs = {LATENCY: 1} if alone and worker.resources.get(LATENCY) else None
        future = self._client.submit(
            remote.work,
            name,
            dict(document),
            digests,
            title,
            self._run,
            alone=alone,
            key=f"emca-deploy-{secrets.token_hex(8)}",
            pure=False,
            workers=[worker.address],
            resources=needs,
        )
        try:
            answer = self._result(worker, future)
        finally:
            future.cancel() if not future.done() else future.release()
        if "error" in answer:
            self._check()  # it may have been stopped
            raise _error_of(answer)
        return answer

    def _result(self, worker: FleetWorker, future: Any) -> dict[str, Any]:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(POLL_S):
            self._check()
            if worker.address not in self.workers:
                raise WorkerLostError(worker.name)
        try:
            found: dict[str, Any] = future.result()
        except Exception as exc:  # Dask raises many kinds for a worker or a scheduler that ended
            self._check()
            raise self._trouble(worker, exc) from exc
        return found

    def _trouble(self, worker: FleetWorker, exc: Exception) -> Exception:
        """Return the error for what Dask raised: a worker that ended, or else a defect."""
        until = time.monotonic() + 3 * LOOK_S
        while time.monotonic() < until:
            self._check()
            if worker.address not in self.workers:
                return WorkerLostError(worker.name)
            time.sleep(POLL_S / 5)
        return (
            exc
            if isinstance(exc, EmcaError)
            else WorkerError(f"worker {worker.name}: {type(exc).__name__}: {exc}", "see its log")
        )

    def send_ahead(self, fits: Fits, files: Shipment) -> None:
        """Send files to all workers that fit at the same time, without waiting; none goes to a machine that measures latency."""
        with self._changed:
            closed = self._alone | self._reserved.keys()
            chosen = [one for one in self.workers.values() if fits(one) and one.machine not in closed]
            self._users.update(one.machine for one in chosen)
        for worker in chosen:
            threading.Thread(target=self._send_one, args=(worker, files), name="fleet-send", daemon=True).start()

    def _send_one(self, worker: FleetWorker, files: Shipment) -> None:
        try:
            with suppress(Exception):  # `call` sends it again, and says what is wrong
                self._send(worker, files)
        finally:
            with self._changed:
                self._users[worker.machine] -= 1
                self._changed.notify_all()

    def _send(self, worker: FleetWorker, files: Shipment) -> None:
        """Send the files that a worker lacks, piece by piece."""
        sent = self._sent.setdefault(worker.address, set())
        with self._sending[worker.address]:
            for blob in files.blobs.values():
                if blob.digest not in sent:
                    self._send_file(worker, blob)
                    sent.add(blob.digest)

    def _send_file(self, worker: FleetWorker, blob: Blob) -> None:
        offset = 0
        with blob.open() as stream:
            while (piece := stream.read(PIECE)) or not offset:
                self._put(worker, blob.digest, offset, piece, blob.size)
                offset += len(piece)
                if not piece:
                    break
        self.bytes_sent[worker.name] += blob.size

    def _put(self, worker: FleetWorker, digest: str, offset: int, piece: bytes, size: int) -> None:
        try:
            (problem,) = self._client.run(remote.put, digest, offset, piece, size, workers=[worker.address]).values()
        except Exception as exc:  # as in `_result`
            self._check()
            raise self._trouble(worker, exc) from exc
        if problem:
            raise WorkerError(f"worker {worker.name}: a file cannot be sent to it: {problem}", "check its disk")


def _error_of(answer: Mapping[str, Any]) -> EmcaError:
    kind = getattr(errors, answer["error"], None) if answer["error"] in errors.__all__ else None
    if kind is None:
        return WorkerError(answer["problem"], answer["remedy"])
    error: EmcaError = kind(answer["problem"], answer["remedy"])
    return error
