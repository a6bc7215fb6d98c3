"""The bounds of percentiles beside those of MLPerf's own load generator."""

import re
import subprocess
import sys

import numpy as np
import pytest

from emca_deploy.stats.confidence import percentile_bound

pytestmark = pytest.mark.slow

RUN = """
import mlperf_loadgen as lg, sys
settings, output, logs = lg.TestSettings(), lg.LogOutputSettings(), lg.LogSettings()
settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
settings.min_duration_ms, settings.min_query_count, settings.max_query_count = 0, int(sys.argv[1]), int(sys.argv[1])
output.outdir, logs.log_output = sys.argv[2], output
answer = lambda samples: lg.QuerySamplesComplete([lg.QuerySampleResponse(each.id, 0, 0) for each in samples])
system = lg.ConstructSUT(answer, lambda: None)
lg.StartTestWithLogSettings(system, lg.ConstructQSL(9, 9, lambda _: None, lambda _: None), settings, logs)
"""


@pytest.mark.parametrize("calls", [64, 100, 700, 2000, 24576])
def test_the_bound_of_p90_is_that_of_mlperf(calls, tmp_path):
    pytest.importorskip("mlperf_loadgen")
    subprocess.run([sys.executable, "-c", RUN, str(calls), str(tmp_path)], check=True, timeout=120)
    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    discarded = int(re.search(r"Would discard (\d+) highest", summary)[1])
    rank = int(percentile_bound(np.arange(1.0, calls + 1), 90, confidence=0.99))  # MLPerf's confidence
    # MLPerf keeps one call more than the binomial distribution asks for.
    assert calls - rank == discarded + 1
