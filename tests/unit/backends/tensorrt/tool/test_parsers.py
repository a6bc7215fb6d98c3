"""Parsers of trtexec's output and exports, on recorded and on arbitrary texts."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.backends.tensorrt.tool.exports import read_layer_info, read_profile, read_times
from emca_deploy.backends.tensorrt.tool.log import read_log
from emca_deploy.errors import InputError

# 8.2.5, from the quickstart's qat-ptq-workflow notebook at release/10.0
OLD = """&&&& RUNNING TensorRT.trtexec [TensorRT v8205] # trtexec --onnx=model.onnx
[06/01/2022-10:00:00] [I] Warmup completed 19 queries over 200 ms
[06/01/2022-10:00:00] [I] Timing trace has 517 queries over 3.01 s
[06/01/2022-10:00:00] [I] Throughput: 171.5 qps
[06/01/2022-10:00:00] [I] Latency: min = 5.1 ms, max = 7.2 ms, mean = 5.9 ms, median = 5.8 ms, percentile(99%) = 7.1 ms
[06/01/2022-10:00:00] [I] End-to-End Host Latency: min = 10.1021 ms, max = 12.6202 ms, mean = 11.6584 ms, median = 11.5563 ms, percentile(99%) = 12.5932 ms
&&&& PASSED TensorRT.trtexec [TensorRT v8205] # trtexec --onnx=model.onnx
"""  # noqa: E501

# 10.3, from the quickstart's introduction notebook at release/10.13
NEW = """&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=model.onnx
[08/09/2024-23:12:04] [I] [TRT] [MemUsageChange] Init CUDA: CPU +13, GPU +0, now: CPU 33, GPU 516 (MiB)
[08/09/2024-23:12:04] [W] * GPU compute time is unstable, with coefficient of variance = 1.92%.
[08/09/2024-23:12:04] [W]   If not already in use, locking GPU clock frequency or adding --useSpinWait may improve the stability.
[08/09/2024-23:12:04] [I] Throughput: 873.17 qps
[08/09/2024-23:12:04] [I] Latency: min = 1.18591 ms, max = 1.36273 ms, mean = 1.20476 ms, median = 1.2041 ms, percentile(90%) = 1.21265 ms, percentile(95%) = 1.21558 ms, percentile(99%) = 1.22229 ms
[08/09/2024-23:12:04] [I] GPU Compute Time: min = 1e-05 ms, max = inf ms, mean = 1.2e+03 ms, median = 1.2 ms
[08/09/2024-23:12:04] [I] Total Host Walltime: 3.00285 s
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=model.onnx
"""  # noqa: E501


def test_an_old_log() -> None:
    log = read_log(OLD)
    assert (log.version, log.passed, log.queries_per_s) == ((8, 2, 5), True, 171.5)
    assert (log.warm_up_queries, log.queries) == (19, 517)
    assert log.summaries["Latency"].percentiles == {99: 7.1}
    assert log.summaries["End-to-End Host Latency"].median == 11.5563


def test_a_new_log() -> None:
    log = read_log(NEW)
    assert log.version == (10, 3, 0)
    assert log.summaries["Latency"].percentiles == {90: 1.21265, 95: 1.21558, 99: 1.22229}
    assert log.summaries["GPU Compute Time"].max == float("inf")
    assert log.memory_mib == 33
    assert len(log.warnings) == 1
    assert "locking GPU clock" in log.warnings[0]


def test_11_prints_its_build_behind_the_version() -> None:
    lines = [f"&&&& {state} TensorRT.trtexec [TensorRT v110100] [b30] # trtexec" for state in ("RUNNING", "FAILED")]
    log = read_log("\n".join(lines))
    assert (log.version, log.passed) == ((11, 1, 0), False)


def test_a_log_that_breaks_off_did_not_pass() -> None:
    assert read_log(NEW[: len(NEW) // 2]).passed is None


BUILT = """[05/01/2024-10:00:00] [E] Unknown option: --odd
[05/01/2024-10:00:00] [I] [TRT] [MemUsageChange] Init builder: CPU +1, GPU +0, now: CPU 945, GPU 516 (MiB)
[05/01/2024-10:00:00] [I] [TRT] [MemUsageChange] Init CUDA: CPU +13, GPU +0, now: CPU 33, GPU 516 (MiB)
[05/01/2024-10:00:00] [I] Engine deserialized in 0.25 sec.
[05/01/2024-10:00:00] [W]
[05/01/2024-10:00:00] [W] * first
[05/01/2024-10:00:00] [W]   and more
[05/01/2024-10:00:00] [W] * first
[05/01/2024-10:00:00] [W]   and more
[05/01/2024-10:00:00] [W] CUDA graph capture failed
[05/01/2024-10:00:00] [F]   fatal
&&&& FAILED TensorRT.trtexec [TensorRT v8601] # trtexec
&&&& PASSED TensorRT.trtexec [TensorRT v8602] # trtexec
"""


@pytest.mark.parametrize("name", ["old", "new", "built"])
def test_logs_are_read_as_before(golden, name) -> None:
    log = read_log({"old": OLD, "new": NEW, "built": BUILT}[name])
    golden(f"trtexec/log-{name}", json.loads(json.dumps(asdict(log)).replace("Infinity", '"inf"')))


def test_exports_are_read_as_before(golden) -> None:
    times = json.dumps([{"latencyMs": n + 1.5, "computeMs": n, "h2dMs": n / 4, "d2hMs": 0} for n in range(5)])
    found = read_times(times, "times")
    profile = """[
  { "count" : 7 }
, { "name" : "a "b"", "timeMs" : 1, "averageMs" : 0.02, "medianMs" : 0.03, "percentage" : 40.5 }
, no layer
, { "name" : "c", "timeMs" : 1, "averageMs" : 0.04, "percentage" : 59.5 }
]
"""
    layers = [
        {"Name": "n", "LayerType": "k", "Inputs": [{"Name": "x"}, 3], "Outputs": [], "Metadata": "[m]"},
        "named",
        {"Name": "z"},
    ]
    golden(
        "trtexec/exports",
        to_json_lists(
            {
                "times": asdict(found),
                "later": asdict(found.without_first(2)),
                "profile": asdict(read_profile(profile, "p")),
                "layers": [asdict(one) for one in read_layer_info(json.dumps({"Layers": layers}), "l")],
            }
        ),
    )


def to_json_lists(document):
    return json.loads(json.dumps(document))


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (read_profile, "[]"),
        (read_profile, '[{"name": "a"}]'),
        (read_profile, '[{"count": true}]'),
        (read_profile, '[{"count": -1}]'),
        (read_profile, '[{"count": 1}, {"averageMs": 1}]'),
        (read_profile, '[{"count": 1}, 2]'),
        (read_layer_info, "[]"),
        (read_layer_info, '{"Layers": {}}'),
        (read_layer_info, '{"Layers": [{"Name": 1}]}'),
        (read_layer_info, '{"Layers": [1]}'),
    ],
)
def test_exports_of_another_form_are_refused(reader, text) -> None:
    with pytest.raises(InputError, match="file"):
        reader(text, "file")


def row(**values):
    return json.dumps([{"latencyMs": 1.5, "computeMs": 1.4, "h2dMs": 0.07, "d2hMs": 0.03, **values}])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ('[ { "latencyMs" : 1', "cut off"),
        ("[]", "not the times"),
        ("{}", "not the times"),
        ("[1]", "not the times"),
        (row(latencyMs=None), "lacks its latencyMs"),
        (row(computeMs=True), "lacks its computeMs"),
        (row(h2dMs=-1), "h2dMs.*-1.0 ms"),
        (row().replace("1.5", "inf"), "latencyMs.*inf ms"),
        (row().replace("1.5", "-nan"), "latencyMs.*inf ms"),
        (row().replace("1.5", "1" * 5000), "cut off|no time"),
        ("[" * 100_000, "cut off"),
    ],
)
def test_times_that_are_none(text, what) -> None:
    with pytest.raises(InputError, match=what):
        read_times(text, "times.json")


def test_a_profile_without_medians_and_one_where_nothing_took_time() -> None:
    old = '[\n  { "count" : 50 }\n, { "name" : "conv", "timeMs" : 0, "averageMs" : 0, "percentage" : nan }\n]\n'
    layer = read_profile(old, "p").layers[0]
    assert (layer.median_ms, layer.percent) == (None, 0.0)


def test_a_profile_whose_names_have_quotes_is_refused_where_it_is_cut_off() -> None:
    text = (
        '[\n  { "count" : 50 }\n, { "name" : "a "b"", "timeMs" : 1, "averageMs" : 0.02, "medianMs" : 0.02, "percentage" : 100 }\n'
    )
    assert read_profile(text + "]\n", "p").layers[0].name == 'a "b"'
    with pytest.raises(InputError, match="cut off"):
        read_profile(text, "p")


def test_layers_are_names_or_objects() -> None:
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Int8"}],
    }
    named, detailed = read_layer_info(json.dumps({"Layers": ["conv", layer]}), "l")
    assert (named.name, named.kind) == ("conv", "")
    assert (detailed.kind, detailed.inputs) == ("CaskConvolution", ("x: Int8",))


KEYS = ["latencyMs", "computeMs", "h2dMs", "d2hMs", "count", "name", "averageMs", "percentage", "Layers", "Name", "Inputs"]

JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(KEYS),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSONISH.map(json.dumps) | st.text() | st.builds(lambda text, at: text[:at], JSONISH.map(json.dumps), st.integers(0, 60)))
def test_no_file_crashes_a_reader(text) -> None:
    for reader in (read_times, read_profile, read_layer_info):
        try:
            found = reader(text, "file")
        except InputError:
            continue
        assert found is not None


FRAGMENTS = st.sampled_from(
    ["&&&& RUNNING TensorRT.trtexec [TensorRT v", "100300", "] # ", "[I] ", "[W] ", "[E] ", "Latency: min = ", "1.5",
     " ms, max = ", "inf", "percentile(", "99%) = ", "Throughput: ", " qps", "\n", "Warmup completed ", "9" * 400, " queries",
     "Unknown option: --x", "nan", "e-", "now: CPU "]
)  # fmt: skip


@given(st.lists(FRAGMENTS | st.text(max_size=4), max_size=30).map("".join))
def test_no_log_crashes_the_reader(text) -> None:
    assert read_log(text) == read_log(text) or "nan" in text
