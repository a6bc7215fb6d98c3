"""A candidate while it is measured: its processes, and the blocks they ran."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.harness.measure.warmup import WarmedUp
from emca_deploy.harness.measure.worker import Opened, Prepared, Worker
from emca_deploy.harness.spec import RunnerSpec

__all__ = ["Block", "Candidate", "Process", "groups_of"]


@dataclass(frozen=True)
class Block:
    """One block of calls.

    Attributes:
        process: the index of the process that ran it.
        calls_ms: milliseconds of each call, (calls,) float64.
        device_ms: milliseconds of the same calls by the accelerator's own clock; None where it has none.
        window_ns: when it ran, (start, end) of `time.monotonic_ns`; unmeasured calls at its beginning are within.
    """

    process: int
    calls_ms: Float64Array
    device_ms: Float64Array | None
    window_ns: tuple[int, int]

    @property
    def wall_ms(self) -> float:
        """How long it took."""
        return (self.window_ns[1] - self.window_ns[0]) / 1e6


@dataclass
class Process:
    """One process of a candidate, with its artifact loaded, or one of them where the candidate was built several times.

    Attributes:
        cpu_s_before: processor seconds of its process when the run began.
    """

    worker: Worker
    opened: Opened
    prepared: Prepared
    warm_up: WarmedUp | None = None
    cpu_s_before: float = 0.0


@dataclass
class Candidate:
    """What is measured under one name.

    Attributes:
        processes: at least one; the last `alive` of them are the processes that live now.
        alive: how many those are.
        blocks: so far, in the order of time.
        notes: what happened to it that is worth a warning.
    """

    name: str
    processes: list[Process] = field(default_factory=list)
    alive: int = 1
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def living(self) -> list[Process]:
        """The processes that live now."""
        return self.processes[-self.alive :]

    @property
    def spec(self) -> RunnerSpec:
        """The spec of the first process."""
        return self.processes[0].worker.spec

    def batch(self, default: int) -> int:
        """Return the images of a call, which are `default` unless its spec says others."""
        return self.spec.batch or default

    @property
    def in_flight(self) -> int:
        """Requests at once; of several processes, the most."""
        return max(process.prepared.in_flight for process in self.processes)

    @property
    def calls(self) -> int:
        """Measured so far."""
        return sum(len(block.calls_ms) for block in self.blocks)

    @property
    def wall_s(self) -> float:
        """Time that its blocks took so far."""
        return sum(block.wall_ms for block in self.blocks) / 1000

    @property
    def block_processes(self) -> list[int] | None:
        """The index in `processes` of each block; None where there is but one."""
        return [block.process for block in self.blocks] if len(self.processes) > 1 else None

    @property
    def calls_ms(self) -> list[Float64Array]:
        """Milliseconds of each call, block by block."""
        return [block.calls_ms for block in self.blocks]

    @property
    def device_ms(self) -> list[Float64Array]:
        """Likewise by the accelerator's clock; empty where it has none."""
        return [block.device_ms for block in self.blocks if block.device_ms is not None]

    def headline_ms(self, batch: int, *, offline: bool) -> list[Float64Array]:
        """Return what is compared, block by block: calls' latencies, or offline each block's time per image, in milliseconds."""
        if not offline:
            return self.calls_ms
        images = self.batch(batch)
        return [np.array([block.wall_ms / (images * len(block.calls_ms))]) for block in self.blocks]

    def run_block(self, seconds: float, max_calls: int, lead_calls: int) -> None:
        """Run the next block, on the processes in turn, and keep it.

        Raises:
            EmcaError: as `Worker.block`.
        """
        index = len(self.processes) - self.alive + len(self.blocks) % self.alive
        worker = self.processes[index].worker
        latencies_ns = worker.block(seconds, 1, max_calls, lead_calls)
        self.blocks.append(Block(index, latencies_ns / 1e6, worker.device_ms, worker.window_ns))


def groups_of(specs: Sequence[RunnerSpec]) -> dict[str, list[RunnerSpec]]:
    """Return the specs of each candidate by its name, in the order they were given."""
    groups: dict[str, list[RunnerSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.group or spec.name, []).append(spec)
    return groups
