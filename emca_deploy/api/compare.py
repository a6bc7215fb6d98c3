"""`compare`: two runs of `profile` on the same machine."""

from pathlib import Path

from emca_deploy.harness.measure.comparing import Measured, compare_runs
from emca_deploy.results.latency import CompareReport

__all__ = ["compare"]


def compare(a: Path | str, b: Path | str, *, force: bool = False, seed: int = 0) -> CompareReport:
    """Compare the latency of each candidate in two runs: a ratio above 1 is faster in `a`.

    Args:
        a: JSON document of a run of `profile`.
        b: JSON document of another run.
        force: whether to compare even if machine or protocol differ or are unknown; the report lists the differences.
        seed: random seed for the bootstrap.

    Raises:
        InputError: a document cannot be read, has no samples, or is of another machine or protocol.
    """
    return compare_runs(Measured.read(Path(a)), Measured.read(Path(b)), seed, force=force)
