"""`profile` on a board: the usual protocol, with the board's power, loads and clocks beside it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from emca_deploy._progress import Progress
from emca_deploy.errors import MissingError
from emca_deploy.harness.measure.hook import Telemetry
from emca_deploy.harness.measure.latency import Protocol, measure_raw
from emca_deploy.harness.measure.raw_samples import RawSamples
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.jetson.session import BoardSession, board_session
from emca_deploy.results.latency import ProfileReport

__all__ = ["profile_on_board"]

IDLE_S = 1.0


def profile_on_board(
    find: Callable[[], Sequence[RunnerSpec]],
    protocol: Protocol,
    power_mode: str | None = None,
    progress: Progress | None = None,
    *,
    telemetry: bool = True,
) -> tuple[ProfileReport, RawSamples]:
    """Measure candidates on this board, in a power mode that is held for as long as it takes.

    Args:
        find: returns the candidates; called in that power mode, which decides how many cores there are to use.
        protocol: how to measure.
        power_mode: name or number; None leaves it as it is.
        progress: called with (blocks done, blocks in all).
        telemetry: whether power, loads, clocks and temperatures are sampled beside the run.

    Raises:
        MissingError: this is no Jetson, or the power mode cannot be set or put back.
        EmcaError: as `measure_raw`.
    """
    measured: tuple[ProfileReport, RawSamples] | None = None
    board: BoardSession | None = None
    try:
        with board_session(power_mode) as board, ExitStack() as stack:
            specs = find()
            sampler = stack.enter_context(Telemetry(board.sources(), idle_s=IDLE_S)) if telemetry else None
            measured = measure_raw(specs, protocol, progress, sampler, keep_going=True)
    except MissingError as exc:
        if measured is None or board is None:
            raise
        # The power mode could not be put back: to be told, but not at the price of what was measured.
        board.record["warnings"].append(f"{exc.problem}: {exc.remedy}")
    assert measured is not None  # else an error has been raised
    report, raw = measured
    return board.annotate(report), raw
