"""Starts, loads and warms up the candidates' processes, and replaces them with new ones where memory is too small for all.

The first processes to load get the scattered pages that others left, and stay some percent slower than later ones for their whole
life (benchmarks/LOG.md has the figures). Where a candidate has several processes, four that are never measured are therefore
loaded first, and the candidates take turns in loading first. All are loaded together as far as memory allows: processes that are
started at different times, after others have freed their pages, differ several times as much.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from emca_deploy.errors import EmcaError, WorkerError
from emca_deploy.harness.measure.candidate import Candidate, Process
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.harness.measure.rounds import planned_renewals
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.memory import available_mib, peak_rss_mib

__all__ = ["Processes", "finish"]

DECOYS = 4
"""On some machines the order of loading makes no difference from the third process on, on others from the fifth."""

_SHARE = 0.5
"""Share of the free memory to use; free memory includes the file cache, which holds the models."""


@dataclass
class Processes:
    """The processes of a run. Its methods raise what `failed` raises.

    Attributes:
        stack: Stack that ends every process with the run.
        failed: Function that is called with a candidate that fails, its live workers and the error; it may raise.
        sets: Number of sets of processes started so far.
        at_once: Number of processes of each artifact that live together, known once the first is loaded.
        decoys_cpu_s: Processor seconds of the processes that are not measured.
    """

    specs: Sequence[RunnerSpec]
    protocol: Protocol
    stack: ExitStack
    failed: Callable[[str, Sequence[Worker], EmcaError], None]
    sets: int = 0
    at_once: int = 1
    decoys_cpu_s: float = 0.0
    _groups: dict[str, list[RunnerSpec]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Group the specs by candidate, in their order."""
        for spec in self.specs:
            self._groups.setdefault(spec.group or spec.name, []).append(spec)

    def start(self) -> list[Candidate]:
        """Return every candidate, loaded and warmed up, in the order of the specs, without those that fail."""
        candidates = [Candidate(name, turns=self.protocol.turns) for name in self._groups]
        self._start_set(candidates)
        return candidates

    @property
    def renewals(self) -> frozenset[int]:
        """The numbers of the rounds after which `renew` is called."""
        return planned_renewals(self.protocol, self.at_once)

    def renew(self, candidates: list[Candidate]) -> None:
        """Replace every process with a new one; candidates that fail are removed from the list."""
        for candidate in candidates:
            finish(candidate)
        self._start_set(candidates)

    def _start_set(self, candidates: list[Candidate]) -> None:
        with ExitStack() as while_loading:
            self._load_decoys(candidates[0].name, while_loading)
            for turn in range(self.sets, self.sets + self.at_once):
                order = list(candidates if turn % 2 == 0 else reversed(candidates))
                started = {each.name: self._begin(each.name) for each in order} if self.protocol.load_together else {}
                for candidate in order:
                    self._load(candidate, candidates, started.get(candidate.name))
        for candidate in list(candidates):
            self._warm_up(candidate, candidates)
        self.sets += 1

    def _load_decoys(self, name: str, while_loading: ExitStack) -> None:
        """Load processes that take the scattered pages; if they fail, so will the candidate, which reports the error."""
        spec = self._groups[name][0]
        workers = [Worker(spec, self.protocol.timeout_s) for _ in range(DECOYS if self.protocol.processes > 1 else 0)]
        for worker in workers:
            while_loading.enter_context(worker)
            while_loading.callback(worker.abandon)
            if self.protocol.load_together:
                self._send_ahead(worker)
            else:
                self._note_decoy(worker)
        for worker in workers if self.protocol.load_together else ():
            self._note_decoy(worker)

    def _note_decoy(self, worker: Worker) -> None:
        with suppress(EmcaError):
            _open(worker, self.protocol)
            self.decoys_cpu_s += worker.cpu_s
            if self.sets == 0:
                self.at_once = min(self.protocol.processes, self._that_fit(worker))

    def _that_fit(self, loaded: Worker) -> int:
        """Return how many processes of every artifact fit into memory, judging by one of them; at least 1."""
        each_mib, free_mib = peak_rss_mib(loaded.pid), available_mib()
        if not each_mib or free_mib is None:
            return 1
        return max(1, int(free_mib * _SHARE / (each_mib * len(self.specs))))

    def _enter(self, name: str) -> list[Worker]:
        return [self.stack.enter_context(Worker(spec, self.protocol.timeout_s)) for spec in self._groups[name]]

    def _begin(self, name: str) -> list[Worker]:
        """Start loading a candidate's processes; an error appears when their answer is awaited."""
        workers = self._enter(name)
        for worker in workers:
            self._send_ahead(worker)
        return workers

    def _send_ahead(self, worker: Worker) -> None:
        with suppress(WorkerError):
            worker.begin(worker.spec.batch or self.protocol.batch, self.protocol.seed, self.protocol.scenario)

    def _load(self, candidate: Candidate, candidates: list[Candidate], started: list[Worker] | None = None) -> None:
        workers = started or self._enter(candidate.name)
        try:
            candidate.processes += [_open(worker, self.protocol) for worker in workers]
        except EmcaError as exc:
            candidates.remove(candidate)
            self.failed(candidate.name, [*workers, *(process.worker for process in candidate.processes)], exc)

    def _warm_up(self, candidate: Candidate, candidates: list[Candidate]) -> None:
        candidate.alive = self.at_once * len(self._groups[candidate.name])
        try:
            for process in candidate.living:
                process.run_warm_up(self.protocol.warmup_s)
                if self.sets == 0:  # all the time of a later process is part of the run
                    process.cpu_s_before = process.worker.cpu_s
        except EmcaError as exc:
            candidates.remove(candidate)
            self.failed(candidate.name, [process.worker for process in candidate.living], exc)


def finish(candidate: Candidate) -> None:
    """Close a candidate's models and let its processes end; a model that fails to close keeps its result."""
    for process in candidate.living:
        try:
            process.worker.finish()
        except EmcaError as exc:
            process.worker.abandon()
            candidate.notes.append(f"failed while closing: {exc.problem}")


def _open(worker: Worker, protocol: Protocol) -> Process:
    opened = worker.open()
    return Process(worker, opened, worker.prepare(worker.spec.batch or protocol.batch, protocol.seed, protocol.scenario))
