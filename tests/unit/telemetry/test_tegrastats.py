"""The tegrastats parser: every collected line, every form of every field, and any other text without an exception."""

import dataclasses
import json
import math
import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.telemetry.tegrastats import EngineState, TegrastatsSample, parse_line

SAMPLES = (Path(__file__).parent / "tegrastats_samples.txt").read_text().splitlines()
LINES = [line for line in SAMPLES if not line.startswith("#")]


def numbers(value):
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from numbers(inner)


@pytest.mark.parametrize("line", LINES)
def test_collected_line_is_understood_to_its_end(line):
    sample = parse_line(line + "\n")
    assert not sample.is_empty
    assert all(text.startswith("MTS fg") for text in sample.unknown)  # the only fields left as text
    cpu = re.search(r"\[([^\]]*%[^\]]*)\]", line)[1].split(",")
    assert len(sample.cpu_load_percent) == len(sample.cpu_freq_mhz) == len(cpu)
    assert [load is None for load in sample.cpu_load_percent] == [core == "off" for core in cpu]
    assert len(sample.power_mw) == len(set(re.findall(r"(\w+) -?\d+(?:mW)?/\d+(?:mW)?(?= |/|$)", line)))
    zones = re.findall(r"(\w+)@(-?[\d.]+)C", line)
    assert sample.temperature_c == {name: float(value) for name, value in zones if value != "-256"}
    assert (sample.timestamp is None) == (re.match(r"\d\d-", line) is None)


def test_jetpack4_nano_as_root():
    sample = parse_line(LINES[0])
    assert sample.timestamp is None
    assert (sample.ram_used_mib, sample.ram_total_mib, sample.ram_largest_free_block_mib) == (1923, 3964, 2)
    assert (sample.swap_used_mib, sample.swap_total_mib, sample.swap_cached_mib) == (191, 1982, 6)
    assert (sample.iram_used_kib, sample.iram_total_kib) == (0, 252)
    assert sample.cpu_load_percent == (5, 4, 3, 6)
    assert sample.cpu_freq_mhz == (1224,) * 4
    assert (sample.gpu_load_percent, sample.gpu_freq_mhz, sample.emc_load_percent, sample.emc_freq_mhz) == (0, 76, 0, 1600)
    assert sample.power_mw == {"POM_5V_IN": 1750, "POM_5V_GPU": 0, "POM_5V_CPU": 366}
    assert sample.power_average_mw["POM_5V_CPU"] == 406
    assert sample.power_peak_mw == {}
    assert sample.engines == {"APE": EngineState(freq_mhz=25)}


def test_agx_xavier_rails_and_zones_of_one_name_stay_apart():
    sample = parse_line(next(line for line in LINES if "GPU 18401/18525" in line))
    assert (sample.temperature_c["GPU"], sample.power_mw["GPU"]) == (54.5, 18401)
    assert (sample.temperature_c["CPU"], sample.power_mw["CPU"]) == (49, 2301)
    assert sample.unknown == ("MTS fg 0% bg 10%",)


def test_busy_orin_with_engines_on_and_off():
    sample = parse_line(next(line for line in LINES if "NVENC 79%@166" in line))
    assert sample.timestamp == datetime(2026, 5, 9, 18, 42, 6)
    assert sample.engines["NVENC"] == EngineState(79, 166)
    assert sample.engines["VIC"] == EngineState(36, 115)
    assert sample.engines["NVDLA0"] is None
    assert sample.engines["PVA0"] is None
    assert "NVDLA2" not in sample.engines


def test_thor_has_gpu_clocks_and_no_gpu_load():
    sample = parse_line(next(line for line in LINES if "@[314,314,314]" in line))
    assert sample.gpu_load_percent is None
    assert sample.gpu_freq_mhz == 314
    assert sample.gpu_cluster_freq_mhz == (314, 314, 314)
    assert sample.swap_used_mib is None
    assert sample.power_mw["VIN"] == 19780


def test_jetpack_7_2_has_peaks():
    sample = parse_line(next(line for line in LINES if "tj@47.906C/48.343C" in line))
    assert (sample.temperature_c["tj"], sample.temperature_peak_c["tj"]) == (47.906, 48.343)
    rail = "VDD_CPU_CV"
    assert (sample.power_mw[rail], sample.power_average_mw[rail], sample.power_peak_mw[rail]) == (1137, 1296, 2273)
    assert sample.emc_load_percent is None


GPU_FORMS = {
    "0%": (0, None, ()),
    "53%@140": (53, 140, ()),
    "7%@[407]": (7, 407, (407,)),
    "14%@[0,407]": (14, 407, (0, 407)),
    "@[1,2,3]": (None, 3, (1, 2, 3)),
    "@306": (None, 306, ()),
    "off": (None, None, ()),
}


@pytest.mark.parametrize("form", GPU_FORMS)
def test_gpu_forms(form):
    sample = parse_line(f"GR3D_FREQ {form} APE 150")
    assert (sample.gpu_load_percent, sample.gpu_freq_mhz, sample.gpu_cluster_freq_mhz) == GPU_FORMS[form]
    assert sample.engines == {"APE": EngineState(freq_mhz=150)}
    assert sample.unknown == ()


@pytest.mark.parametrize(
    ("form", "load", "freq"), [("3%", 3, None), ("3%@2133", 3, 2133), ("@4266", None, 4266), ("off", None, None)]
)
def test_memory_controller_forms(form, load, freq):
    sample = parse_line(f"EMC_FREQ {form} GR3D_FREQ 1%")
    assert (sample.emc_load_percent, sample.emc_freq_mhz, sample.gpu_load_percent) == (load, freq, 1)


@pytest.mark.parametrize(
    ("text", "name", "state"),
    [
        ("NVENC 716", "NVENC", EngineState(None, 716)),
        ("NVENC 79%@166", "NVENC", EngineState(79, 166)),
        ("NVENC0_FREQ @314", "NVENC0", EngineState(None, 314)),
        ("NVDEC off", "NVDEC", None),
        ("PVA0_FREQ [10%,30%]@500", "PVA0", EngineState(20, 500)),
        ("VIC_FREQ 115", "VIC", EngineState(None, 115)),
        ("MSENC 268", "MSENC", EngineState(None, 268)),
        ("GR3D2_FREQ 5%@114", "GR3D2", EngineState(5, 114)),
        ("NEWTHING_FREQ 5%@114", "NEWTHING", EngineState(5, 114)),
    ],
)
def test_engine_forms(text, name, state):
    sample = parse_line(text)
    assert sample.engines == {name: state}
    assert sample.unknown == ()


@pytest.mark.parametrize(
    ("text", "loads", "clocks"),
    [
        ("CPU [3%@345,off,off,0%@346]", (3, None, None, 0), (345, None, None, 346)),
        ("CPU [0%,5%,off]@2601", (0, 5, None), (2601, 2601, None)),
        ("cpu [0%,0%,off,off]@518", (0, 0, None, None), (518, 518, None, None)),
        ("CPU [7%,8%]", (7, 8), (None, None)),
        ("CPU [@729,1%@729]", (None, 1), (729, 729)),
        ("CPU [off]", (None,), (None,)),
    ],
)
def test_cpu_forms(text, loads, clocks):
    sample = parse_line(text)
    assert sample.cpu_load_percent == loads
    assert sample.cpu_freq_mhz == clocks
    assert sample.unknown == ()


def test_power_forms():
    sample = parse_line("VDD_CPU_CV -398mW/-398mW A 1/2 B 1mW/2mW/3mW C 4/5/6 D 7mW NC 0mW/0mW NC 0mW/0mW E 0/0")
    assert sample.power_mw == {"VDD_CPU_CV": -398, "A": 1, "B": 1, "C": 4, "D": 7, "NC": 0, "E": 0}
    assert sample.power_average_mw == {"VDD_CPU_CV": -398, "A": 2, "B": 2, "C": 5, "NC": 0, "E": 0}
    assert sample.power_peak_mw == {"B": 3, "C": 6}
    assert sample.unknown == ()


def test_switched_off_zones_are_left_out_and_frost_is_not():
    sample = parse_line("CV0@-256C CV1@-256C/41C CV2@-256.000C tj@-12.5C gpu@30C/31.5C")
    assert sample.temperature_c == {"tj": -12.5, "gpu": 30}
    assert sample.temperature_peak_c == {"CV1": 41, "gpu": 31.5}


def test_memory_in_kilobytes():
    sample = parse_line("RAM 1048576/2097152kB (lfb 3x4096kB) SWAP 1024/2048kB (cached 512kB) IRAM 1/252kB (lfb 252kB)")
    assert (sample.ram_used_mib, sample.ram_total_mib, sample.ram_largest_free_block_mib) == (1024, 2048, 4)
    assert (sample.swap_used_mib, sample.swap_total_mib, sample.swap_cached_mib) == (1, 2, 0.5)
    assert (sample.iram_used_kib, sample.iram_total_kib) == (1, 252)
    assert parse_line("IRAM 0/252kB(lfb 252kB)").iram_total_kib == 252


def test_unknown_and_repeated_fields_are_kept():
    sample = parse_line("RAM 1/2MB (lfb 1x4MB) EDP limit 0 GR3D_FREQ 1% XYZ{7} tj@1C tj@2C GR3D_FREQ 9% RAM 7/8MB")
    assert sample.unknown == ("EDP limit 0", "XYZ{7}", "tj@2C", "GR3D_FREQ 9%", "RAM 7/8MB")
    assert (sample.temperature_c, sample.gpu_load_percent, sample.ram_used_mib) == ({"tj": 1}, 1, 1)


@pytest.mark.parametrize("text", ["", "\n", "hello world", "99-99-2026 10:00:00", "CPU [0%@729,0%@7", "RAM 8207/628", "tj@57.4"])
def test_text_that_is_no_line_gives_an_empty_sample(text):
    sample = parse_line(text)
    assert sample.is_empty
    assert sample.unknown == ((" ".join(text.split()),) if text.strip() else ())


def test_sample_is_frozen_and_becomes_json():
    sample = parse_line(LINES[-1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.gpu_freq_mhz = 0.0
    document = json.dumps(dataclasses.asdict(dataclasses.replace(sample, timestamp=None)), allow_nan=False)
    assert json.loads(document)["power_mw"]["VIN"] == 28906


@given(st.text())
def test_any_text_is_survived_and_no_word_of_it_is_made_up(text):
    sample = parse_line(text)
    assert all(math.isfinite(number) for number in numbers(dataclasses.asdict(sample)))
    words = set(text.split())
    assert all(word in words for part in sample.unknown for word in part.split())


JUNK = st.sampled_from(" @%/[],CmWkBMB-+.0123456789offRAMCPU\x00\u0661\u00b2")


@given(st.sampled_from(LINES), st.data())
def test_damaged_lines_are_survived(line, data):
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, len(line)))
        end = data.draw(st.integers(start, min(len(line), start + 12)))
        line = line[:start] + data.draw(st.text(JUNK, max_size=6)) + line[end:]
    sample = parse_line(line)
    assert all(math.isfinite(number) for number in numbers(dataclasses.asdict(sample)))
    assert len(sample.cpu_load_percent) == len(sample.cpu_freq_mhz)


@given(st.sampled_from(LINES), st.data())
def test_line_cut_between_fields_gives_what_is_left(line, data):
    whole = parse_line(line)
    cut = parse_line(line[: data.draw(st.sampled_from([m.start() for m in re.finditer(" ", line)]))])
    assert cut.temperature_c.items() <= whole.temperature_c.items()
    assert cut.power_mw.items() <= whole.power_mw.items()
    assert cut.cpu_load_percent in ((), whole.cpu_load_percent)
    assert cut.gpu_load_percent in (None, whole.gpu_load_percent)


PERCENT = st.integers(0, 100)
MHZ = st.integers(0, 5000)
NAME = st.from_regex(r"[A-Z][A-Z0-9]{2,8}_[A-Z0-9]{1,6}", fullmatch=True).filter(lambda name: not name.endswith("_FREQ"))


@given(
    cores=st.lists(st.none() | st.tuples(PERCENT, MHZ), min_size=1, max_size=16),
    rails=st.dictionaries(NAME, st.tuples(*[st.integers(-5000, 90000)] * 3), max_size=6),
    zones=st.dictionaries(NAME, st.integers(-200, 110000), max_size=6),
    fields=st.sampled_from([2, 3]),
    unit=st.sampled_from(["", "mW"]),
    order=st.randoms(use_true_random=False),
)
def test_what_is_written_is_read(cores, rails, zones, fields, unit, order):
    parts = ["CPU [" + ",".join("off" if core is None else f"{core[0]}%@{core[1]}" for core in cores) + "]"]
    parts += [f"{name} " + "/".join(f"{value}{unit}" for value in values[:fields]) for name, values in rails.items()]
    parts += [f"{name}@{value / 1000:.3f}C" for name, value in zones.items()]
    order.shuffle(parts)
    sample = parse_line(" ".join(parts))
    assert sample == TegrastatsSample(
        cpu_load_percent=tuple(core and core[0] for core in cores),
        cpu_freq_mhz=tuple(core and core[1] for core in cores),
        power_mw={name: values[0] for name, values in rails.items()},
        power_average_mw={name: values[1] for name, values in rails.items()},
        power_peak_mw={name: values[2] for name, values in rails.items()} if fields == 3 else {},
        temperature_c={name: value / 1000 for name, value in zones.items()},
    )


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("name", ["GR3D_FREQ", "EMC_FREQ", "VIC_FREQ"])
@pytest.mark.parametrize("load", [0, 5, 100])
def test_a_load_may_have_a_blank_before_its_percent_sign(name, load, blank):
    sample = parse_line(f"RAM 1/2MB CPU [1%@2] {name} {load}{blank}%@[100,200] VDD_IN 5mW/6mW")
    found = {"GR3D_FREQ": sample.gpu_load_percent, "EMC_FREQ": sample.emc_load_percent}
    engine = sample.engines.get("VIC")
    assert found.get(name, engine and engine.load_percent) == load
    assert not sample.unknown
    assert sample.power_mw == {"VDD_IN": 5}
