"""Tables of latencies by how calls come: at a rate, several at once, or beside those of another model."""

from collections.abc import Sequence

from emca_deploy.reporting.formats import NONE, fixed, interval, plain, significant, uniform, upper
from emca_deploy.reporting.table import Column
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.load import PacedLatency

__all__ = [
    "co_run_lines",
    "crowd_columns",
    "end_to_end_lines",
    "highest_rate_lines",
    "outlier_lines",
    "paced_columns",
    "real_image_lines",
]


_BAR = 60
_FILLS = (
    "\N{FULL BLOCK}",
    "\N{DARK SHADE}",
    "\N{MEDIUM SHADE}",
    "\N{LIGHT SHADE}",
)


def paced_columns(results: Sequence[LatencyResult]) -> tuple[Column, ...]:
    """Return the columns, with a row for each result at each rate; without paced results there are no rows."""
    pairs = [(result, paced) for result in results for paced in result.paced]
    rows = [paced for _, paced in pairs]
    summaries = [row.latency_ms for row in rows]
    milliseconds = uniform([value for s in summaries for value in (s.p50, s.p90, s.p99, s.p99_9)])
    return (
        *_artifacts([result for result, _ in pairs]),
        Column("frames/s", tuple(f"{row.rate_per_s:g}" for row in rows)),
        Column("p50 ms", tuple(milliseconds[0::4])),
        Column("p90 ms", tuple(milliseconds[1::4]), tuple(upper(s.p90_upper95) for s in summaries), 6, 12),
        Column("p99 ms", tuple(milliseconds[2::4]), tuple(upper(s.p99_upper95) for s in summaries), 0, 9),
        Column("p99.9 ms", tuple(milliseconds[3::4]), tuple(upper(s.p99_9_upper95) for s in summaries), 5, 8),
        Column("call ms", tuple(uniform([row.service_ms.p50 for row in rows])), rank=2),
        Column(
            "idle/busy",
            tuple(f"{fixed(row.idle_to_busy)}x" for row in rows),
            tuple(interval(row.idle_to_busy_ci95) for row in rows),
            3,
            10,
        ),
        Column("overruns", tuple(f"{row.overruns} of {row.frames}" for row in rows), rank=4),
        *_missed(rows),
        Column("MHz", tuple(fixed(row.clock_mhz.mean if row.clock_mhz else None, 0) for row in rows), rank=7),
        Column("", tuple("" if row.valid else "not valid" for row in rows)),
    )


def crowd_columns(results: Sequence[LatencyResult]) -> tuple[Column, ...]:
    """Return the columns, with a row for each result at each number of calls at once."""
    pairs = [(result, crowd) for result in results for crowd in result.concurrency]
    rows = [crowd for _, crowd in pairs]
    milliseconds = uniform([value for row in rows for value in (row.latency_ms.p50, row.latency_ms.p99)])
    rates = uniform([row.throughput_images_per_s for row in rows])
    return (
        *_artifacts([result for result, _ in pairs]),
        Column("calls at once", tuple(str(row.callers) for row in rows)),
        Column("p50 ms", tuple(milliseconds[0::2]), tuple(interval(row.latency_ms.p50_ci95) for row in rows), 0, 2),
        Column("p99 ms", tuple(milliseconds[1::2]), tuple(upper(row.latency_ms.p99_upper95) for row in rows), 0, 3),
        Column("images/s", tuple(rates), tuple(interval(row.throughput_ci95) for row in rows), 0, 1),
        Column("", tuple("knee" if row.callers == result.knee else "" for result, row in pairs)),
    )


def _artifacts(results: Sequence[LatencyResult]) -> tuple[Column, ...]:
    """Return a column with the artifact of each row, if there are several."""
    names = [plain(f"{result.backend}={result.artifact}") for result in results]
    return (Column("artifact", tuple(names)),) if len(set(names)) > 1 else ()


def co_run_lines(results: Sequence[LatencyResult]) -> list[str]:
    """Return a line for each result that was also measured while another one ran."""
    lines = []
    for result in results:
        if result.co_run is not None:
            both, alone = significant(result.co_run.latency_ms.p50), significant(result.latency_ms.p50)
            ratio = f"{fixed(result.co_run.slowdown)}x ({interval(result.co_run.slowdown_ci95)})"
            where = f"while {plain(result.co_run.other)} runs, {alone} ms alone"
            lines.append(f"{plain(result.artifact)}: median {both} ms {where}: {ratio}")
    return lines


def real_image_lines(results: Sequence[LatencyResult]) -> list[str]:
    """Return a line for each result on real images, which says whether the time depends on the data."""
    lines = []
    for result in results:
        if (real := result.real_images) is not None:
            low, high = real.ratio_ci95
            depends = "the time depends on the data" if high < 1 or low > 1 else "no difference from random input shown"
            times = f"median {significant(real.latency_ms.p50)} ms on {real.images} real images"
            ratio = f"{fixed(real.ratio)}x ({interval(real.ratio_ci95)}) random input"
            lines.append(f"{plain(result.artifact)}: {times}, {ratio}: {depends}")
    return lines


def end_to_end_lines(results: Sequence[LatencyResult]) -> list[str]:
    """Return a stacked bar of the stages, and their mean times, for each result from image files to answers."""
    lines = []
    for result in results:
        if (found := result.end_to_end) is not None:
            total = sum(found.stages_mean_ms.values()) or 1.0
            fills = dict(zip(found.stages_mean_ms, _FILLS * len(found.stages_mean_ms), strict=False))
            bar = "".join(fills[name] * round(_BAR * ms / total) for name, ms in found.stages_mean_ms.items())
            parts = (f"{fills[name]} {plain(name)} {significant(ms)}" for name, ms in found.stages_mean_ms.items())
            lines += [
                f"{plain(result.artifact)}: mean {significant(total)} ms from file to answer, in ms:",
                bar,
                "  ".join(parts),
            ]
    return lines


def outlier_lines(results: Sequence[LatencyResult]) -> list[str]:
    """Return a line for each result whose slowest call has an explanation."""
    lines = []
    for result in results:
        found = next((each for each in result.outliers if each.evidence), None)
        if found is not None:
            ratio = fixed(found.latency_ms / result.latency_ms.p50, 1)
            lines.append(
                f"{plain(result.artifact)}: a call of {significant(found.latency_ms)} ms ({ratio}x p50): {found.evidence}"
            )
    return lines


def _missed(rows: Sequence[PacedLatency]) -> tuple[Column, ...]:
    found = [row.misses for row in rows]
    deadline = next((each.deadline_ms for each in found if each is not None), None)
    if deadline is None:
        return ()
    shares = tuple(NONE if each is None else significant(100 * each.share) for each in found)
    limits = ("" if each is None else " to ".join(significant(100 * end) for end in each.share_ci95) for each in found)
    return (Column(f"% over {deadline:g} ms", shares, tuple(limits), 0, 1),)


def highest_rate_lines(results: Sequence[LatencyResult]) -> list[str]:
    """Return a line for each result whose highest rate was searched."""
    return [f"{plain(f'{result.backend}={result.artifact}')}: {_highest(result)}" for result in results if result.highest_rate]


def _highest(result: LatencyResult) -> str:
    highest = result.highest_rate
    assert highest is not None
    found = next((each for each in result.paced if each.rate_per_s == highest.rate_per_s), None)
    if found is None or found.misses is None:
        fastest = significant(result.latency_ms.p50)
        return f"no rate that was tried meets the deadline; a call back to back takes {fastest} ms (median)"
    line = f"99.9 % of the frames meet {found.misses.deadline_ms:g} ms at up to {found.rate_per_s:g} frames/s"
    if highest.shown:
        return f"{line} (p99.9 is at most {significant(found.latency_ms.p99_9_upper95)} ms with 95 % confidence)"
    most = significant(100 * found.misses.share_ci95[1])
    missed = f"{found.misses.frames} of {found.frames} frames missed it, at most {most} % with 95 % confidence"
    return f"{line}; {missed}: measure longer with --duration to show 99.9 %"
