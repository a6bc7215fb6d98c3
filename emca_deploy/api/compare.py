"""`compare`: two runs of `profile` on the same machine."""

from pathlib import Path

from emca_deploy.harness.measure.comparing import CompareReport, Measured, check_comparable, compare_runs, differences

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
    runs = Measured.read(Path(a)), Measured.read(Path(b))
    if not force:
        check_comparable(runs[0].report, runs[1].report)
    found = differences(runs[0].report, runs[1].report)
    return CompareReport(tuple(found), compare_runs(*runs, seed))
