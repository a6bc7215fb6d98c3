"""Parsers of other tools' text take linear time: any piece of their grammars, repeated up to 16 KiB, takes under a second."""

import time
from contextlib import suppress

import pytest

from emca_deploy.api.layer_times.trtexec import _names
from emca_deploy.backends.tensorrt.dla_log import place_nodes, read_placement
from emca_deploy.backends.tensorrt.inspect import read_layers
from emca_deploy.backends.tensorrt.tool.exports import read_layer_info, read_profile, read_times
from emca_deploy.backends.tensorrt.tool.log import read_log
from emca_deploy.errors import EmcaError
from emca_deploy.machines.jetson.clocks import parse_show
from emca_deploy.machines.jetson.modes import parse_modes, parse_query
from emca_deploy.telemetry.tegrastats import parse_line

SIZE = 1 << 14
NODES = ("a", "b", "c")


def placed(text):
    found = read_placement(text.splitlines())
    return found and place_nodes(found, NODES)


PARSERS = {
    "trtexec log": (
        read_log,
        ["Throughput: ", "1", ".", "Latency: min = 1 ms, ", "now: CPU 1 ", "(MiB)", "  ", "[W] ", "[I] ", "percentile("],
    ),
    "dla log": (
        placed,
        [
            "[GpuLayer] ",
            "[DlaLayer] ",
            "a",
            " ",
            ",",
            "...",
            "{ForeignNode[",
            "]}",
            "Layer '",
            "' (A): ",
            "] ",
            ": DLA ",
            "{",
            "Default DLA is enabled but layer ",
            "DLA supports only 1 subgraphs per DLA core. Switching to GPU for layer ",
        ],
    ),
    "engine layers": (
        lambda text: read_layers(text.splitlines()),
        [
            "Name: ",
            ", LayerType: b",
            ", Inputs: [",
            "], Outputs: [",
            "], Constants: [",
            "}]",
            "{ Name: ",
            ", Dimensions: [1",
            "Datatype: ",
            "Layer(a): ",
            ", Tactic: 1, ",
            " -> ",
            "x[Float(",
            "1,",
            ")]",
            "[ONNX Layer: ",
        ],
    ),
    "clocks": (
        parse_show,
        ["cpu0: ", "Online=1 ", "MinFreq=1 ", "MaxFreq=1 ", "CurrentFreq=1 ", "GPU ", "EMC ", "Online CPUs: ", "1,", " ", "\n"],
    ),
    "power modes": (
        parse_modes,
        ["< POWER_MODEL ID=0 NAME=A >", "<", " ", "\n", "CPU_ONLINE CORE_0 1", "GPU MAX_FREQ 1", "CPU_A MAX_FREQ ", "1"],
    ),
    "power mode": (parse_query, ["NV Power Mode: A", "\n", "1", " "]),
    "times": (lambda text: read_times(text, "x"), ["[", "{", "nan", ", ", "inf ", "1", '"latencyMs" : ', "-"]),
    "profile": (
        lambda text: read_profile('[{ "count" : 1 }' + text + "]", "x"),
        ['"name" : "', '", "timeMs" : ', '1, "averageMs" : ', '1, "percentage" : ', "1 }", "nan ", "\n", " "],
    ),
    "layer info": (lambda text: read_layer_info(text, "x"), ['{"Layers": [', '"', "[", "{", "inf", " "]),
    "fused name": (_names, ["(", ")", "a", " + ", "...", "||", "{", "]"]),
    "tegrastats": (
        parse_line,
        [
            "CPU [1%@1",
            ",1%@1",
            ", ",
            "off,",
            "]",
            "GR3D_FREQ ",
            "5 %",
            "@[1",
            "a@1C",
            "/1C",
            "A 1mW",
            "/1mW",
            "RAM 1/1MB ",
            "(lfb 1x1MB)",
            "1",
            "[",
            " ",
        ],
    ),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_repeated_piece_takes_no_time(name):
    parse, pieces = PARSERS[name]
    pairs = [(one, other) for one in pieces for other in ("", *pieces[:3])]
    for one, other in pairs:
        for unit in (one + other, other + one):
            for start in ("", *pieces[:2]):
                text = (start + unit * (SIZE // len(unit)))[:SIZE] + "x"
                started = time.process_time()
                with suppress(EmcaError):
                    parse(text)
                taken = time.process_time() - started
                assert taken < 1, (start, unit, taken)
