"""A candidate while it is measured: its processes, and the blocks they ran."""

import time
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from emca_deploy.arrays import Float64Array, Int64Array
from emca_deploy.harness.measure.pacing import Frames
from emca_deploy.harness.measure.protocol import BACK_TO_BACK, Turn
from emca_deploy.harness.measure.worker import Opened, Prepared, Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.latency import WarmUp

__all__ = ["Block", "Candidate", "PacedBlock", "Process"]

_SETTLED = 0.02
_WINDOWS = 20
_FEWEST_CALLS = 3
_LONGEST_QUEUE = 2


@dataclass(frozen=True)
class Block:
    """One block of calls.

    Attributes:
        process: Index of the process that ran it.
        calls_ms: Milliseconds of each call, (calls,) float64.
        device_ms: Milliseconds of the same calls by the accelerator's own clock; None where it has none.
        window_ns: Start and end by `time.monotonic_ns`, unmeasured calls at its start included.
        calls_per_s: Calls per second of all callers; 0 where there is one.
        usage: Counts around each call, (calls, 3), see `UsageLog`; None where there are none.
        steal_ms: Milliseconds that the hypervisor gave to other machines, of all cores; None where that is not known.
        stages_ms: Milliseconds of each stage of each call, (calls, stages); None where there are no stages.
    """

    process: int
    calls_ms: Float64Array
    device_ms: Float64Array | None
    window_ns: tuple[int, int]
    calls_per_s: float = 0.0
    usage: Int64Array | None = None
    steal_ms: float | None = None
    stages_ms: Float64Array | None = None

    @property
    def wall_ms(self) -> float:
        """The time that it took."""
        return (self.window_ns[1] - self.window_ns[0]) / 1e6


@dataclass(frozen=True)
class PacedBlock:
    """One block of frames at a rate; its queue is empty at the start. Other fields are as in `Block`."""

    process: int
    frames: Frames
    window_ns: tuple[int, int]


@dataclass
class Process:
    """One process of a candidate, with an artifact loaded.

    Attributes:
        warmup_ms: Medians of the warm-up's windows, in order.
        cpu_s_before: Processor seconds of the process when the run began.
    """

    worker: Worker
    opened: Opened
    prepared: Prepared
    warm_up: WarmUp | None = None
    warmup_ms: tuple[float, ...] = ()
    cpu_s_before: float = 0.0

    @property
    def artifact(self) -> str:
        """The artifact as the user gave it, or the spec's name."""
        return self.worker.spec.artifact or self.worker.spec.name

    def run_warm_up(self, limit_s: float) -> None:
        """Run until two successive windows have medians within 2 %, or the time is over; a limit of 0 runs nothing.

        Raises:
            EmcaError: as `Worker.block`.
        """
        started = time.monotonic()
        medians: list[float] = []
        calls, settled = 0, limit_s == 0
        while not settled and time.monotonic() - started < limit_s:
            window_ns = self.worker.block(limit_s / _WINDOWS, _FEWEST_CALLS)
            calls += len(window_ns)
            medians.append(float(np.median(window_ns)) / 1e6)
            settled = len(medians) > 1 and abs(medians[-1] - medians[-2]) <= _SETTLED * medians[-2]
        self.warm_up = WarmUp(settled, round(time.monotonic() - started, 3), calls, len(medians))
        self.warmup_ms = tuple(medians)


@dataclass
class Candidate:
    """All that is measured under one name.

    Attributes:
        processes: Processes so far; the last `alive` of them still live.
        blocks: Blocks so far, in order of time.
        paced: Blocks at each rate in frames per second, in order of time.
        others: Blocks of its other turns, in order of time; those of several callers have the calls of all of them.
        turns: Its blocks in each round.
        real_images: Number of different real images of its last block with those.
        notes: Events that are worth a warning.
    """

    name: str
    processes: list[Process] = field(default_factory=list)
    alive: int = 1
    blocks: list[Block] = field(default_factory=list)
    paced: dict[float, list[PacedBlock]] = field(default_factory=dict)
    others: dict[Turn, list[Block]] = field(default_factory=dict)
    turns: tuple[Turn, ...] = (BACK_TO_BACK,)
    real_images: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def living(self) -> list[Process]:
        """The processes that still live."""
        return self.processes[-self.alive :]

    @property
    def spec(self) -> RunnerSpec:
        """The spec of the first process."""
        return self.processes[0].worker.spec

    def batch(self, default: int) -> int:
        """Return the images per call: `default`, unless its spec has another number."""
        return self.spec.batch or default

    @property
    def in_flight(self) -> int:
        """Concurrent requests; the maximum of its processes."""
        return max(process.prepared.in_flight for process in self.processes)

    @property
    def calls(self) -> int:
        """The number of measured calls so far."""
        return sum(len(block.calls_ms) for block in self.blocks)

    @property
    def wall_s(self) -> float:
        """The time that its blocks took so far."""
        return sum(block.wall_ms for block in self.blocks) / 1000

    @property
    def block_processes(self) -> list[int] | None:
        """The index in `processes` of each block; None where there is only one process."""
        return [block.process for block in self.blocks] if len(self.processes) > 1 else None

    @property
    def calls_ms(self) -> list[Float64Array]:
        """Milliseconds of each call, block by block."""
        return [block.calls_ms for block in self.blocks]

    @property
    def device_ms(self) -> list[Float64Array]:
        """Milliseconds of each call by the accelerator's clock, block by block; empty where it has none."""
        return [block.device_ms for block in self.blocks if block.device_ms is not None]

    def headline_ms(self, batch: int, *, offline: bool) -> list[Float64Array]:
        """Return the compared milliseconds, block by block: the latency of each call, or offline the block's time per image."""
        if not offline:
            return self.calls_ms
        images = self.batch(batch)
        return [np.array([block.wall_ms / (images * len(block.calls_ms))]) for block in self.blocks]

    def run_turn(self, turn: Turn, seconds: float, max_calls: int, lead_calls: int) -> None:
        """Run the next block of one of its turns, on the live processes in order, and keep it.

        Raises:
            EmcaError: as `Worker.block`, `Worker.paced` and `Worker.crowd`.
        """
        if turn.kind == "rate":
            self.run_paced(turn.value, seconds, max_calls, lead_calls)
        elif turn.kind == "callers":
            self.run_crowd(turn, seconds, max_calls)
        elif turn.kind == "real":
            self.run_real(turn, seconds, max_calls)
        elif turn.kind == "chain":
            self.run_chain(turn, seconds, max_calls)
        else:
            self.run_block(seconds, max_calls, lead_calls)

    def run_crowd(self, turn: Turn, seconds: float, max_calls: int) -> None:
        """Run the next block of several callers, and keep it.

        Raises:
            EmcaError: as `Worker.crowd`.
        """
        done = self.others.setdefault(turn, [])
        index, worker = self.next_worker(len(done))
        latencies_ns, calls_per_s = worker.crowd(int(turn.value), seconds, max_calls)
        done.append(Block(index, latencies_ns / 1e6, None, worker.window_ns, calls_per_s))

    def run_real(self, turn: Turn, seconds: float, max_calls: int) -> None:
        """Run the next block on real images, and keep it.

        Raises:
            EmcaError: as `Worker.real`.
        """
        done = self.others.setdefault(turn, [])
        index, worker = self.next_worker(len(done))
        latencies_ns, self.real_images = worker.real(seconds, max_calls)
        done.append(Block(index, latencies_ns / 1e6, None, worker.window_ns))

    def run_chain(self, turn: Turn, seconds: float, max_calls: int) -> None:
        """Run the next block from image files to answers, and keep it.

        Raises:
            EmcaError: as `Worker.chain`.
        """
        done = self.others.setdefault(turn, [])
        index, worker = self.next_worker(len(done))
        stages_ms = worker.chain(seconds, max_calls) / 1e6
        done.append(Block(index, stages_ms.sum(axis=1), None, worker.window_ns, stages_ms=stages_ms))

    @property
    def all_blocks(self) -> int:
        """The number of blocks of all turns so far."""
        return len(self.blocks) + sum(map(len, self.paced.values())) + sum(map(len, self.others.values()))

    def run_block(self, seconds: float, max_calls: int, lead_calls: int) -> None:
        """Run the next block, on the live processes in turn, and keep it.

        Raises:
            EmcaError: as `Worker.block`.
        """
        index, worker = self.next_worker(len(self.blocks))
        latencies_ns = worker.block(seconds, 1, max_calls, lead_calls)
        block = Block(index, latencies_ns / 1e6, worker.device_ms, worker.window_ns, usage=worker.usage, steal_ms=worker.steal_ms)
        self.blocks.append(block)

    def run_paced(self, rate_per_s: float, seconds: float, max_frames: int, lead_calls: int) -> None:
        """Run the next block at a rate, on the live processes in turn, and keep it.

        A runner that is too slow for the rate gets as many frames as it answers in twice the time.

        Raises:
            EmcaError: as `Worker.paced`.
        """
        done = self.paced.setdefault(rate_per_s, [])
        index, worker = self.next_worker(len(done))
        frames = min(round(rate_per_s * seconds), ceil(_LONGEST_QUEUE * seconds * 1000 / self._call_ms(index)), max_frames)
        found = worker.paced(rate_per_s, max(1, frames), lead_calls)
        done.append(PacedBlock(index, found, worker.window_ns))

    def next_worker(self, done: int) -> tuple[int, Worker]:
        """Return the process that runs the block after so many, and its worker."""
        index = len(self.processes) - self.alive + done % self.alive
        return index, self.processes[index].worker

    def _call_ms(self, index: int) -> float:
        """Return about how long a call takes."""
        process = self.processes[index]
        if self.blocks:
            return float(np.median(self.blocks[-1].calls_ms))
        return process.warmup_ms[-1] if process.warmup_ms else process.prepared.first_inference_ms
