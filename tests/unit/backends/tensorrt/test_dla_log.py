"""The layers that fell back to the GPU, read from every form of the builder's lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.backends.tensorrt.dla_log import GpuLayer, place_nodes, read_placement

NODES = ("stem", "relu", "conv1", "pool", "fc", "gate", "mul", "head")

# 8.4 logs this at [I], 8.6 and newer at [V]
NEW = """
[02/19/2022-05:35:26] [W] [TRT] Layer 'pool' (REDUCE): Unsupported on DLA. Switching this layer's device type to GPU.
[02/19/2022-05:35:26] [I] [TRT] ---------- Layers Running on DLA ----------
[02/19/2022-05:35:26] [I] [TRT] [DlaLayer] {ForeignNode[stem...conv1]}
[02/19/2022-05:35:26] [I] [TRT] [DlaLayer] {ForeignNode[mul]}
[02/19/2022-05:35:26] [I] [TRT] ---------- Layers Running on GPU ----------
[02/19/2022-05:35:26] [I] [TRT] [GpuLayer] REDUCE: pool
[02/19/2022-05:35:26] [I] [TRT] [GpuLayer] CONVOLUTION: fc.weight + fc
[02/19/2022-05:35:26] [I] [TRT] [GpuLayer] POINTWISE: PWN(PWN(gate), other)
""".splitlines()

OLDEST = """
WARNING: [TRT]: DLA supports only 8 subgraphs per DLA core. Switching to GPU for layer head
INFO: [TRT]: --------------- Layers running on DLA: 
INFO: [TRT]: {stem,relu}, {conv1}
INFO: [TRT]: --------------- Layers running on GPU: 
INFO: [TRT]: pool, fc, head
""".splitlines()  # noqa: W291

WITHOUT_KINDS = """
[TRT] [I] ---------- Layers Running on DLA ----------
[TRT] [I] ---------- Layers Running on GPU ----------
[TRT] [I] [GpuLayer] stem
[TRT] [I] [GpuLayer] PWN(PWN(gate), mul)
""".splitlines()


def test_the_usual_lists() -> None:
    placement = read_placement(NEW)
    assert placement is not None
    assert placement.parts == ("{ForeignNode[stem...conv1]}", "{ForeignNode[mul]}")
    assert placement.gpu[0] == GpuLayer("REDUCE", "pool")
    assert placement.refused == {"pool": "Unsupported on DLA"}
    places = place_nodes(placement, NODES)
    assert places == {
        "stem": "dla", "relu": "dla", "conv1": "dla", "pool": "gpu", "fc": "gpu", "gate": "gpu", "mul": "dla", "head": "unknown",
    }  # fmt: skip


def test_the_share_of_the_work() -> None:
    placement = read_placement(NEW)
    assert placement is not None
    macs = {"stem": 100, "conv1": 700, "fc": 150, "head": 50}
    found = placement.to_dict(NODES, macs)
    assert (found["macs_on_dla_percent"], found["macs_of_unknown_place_percent"]) == (80, 5)
    assert found["nodes"] == {"dla": 4, "gpu": 3, "unknown": 1}
    assert found["gpu_nodes"] == ["pool", "fc", "gate"]


def test_the_oldest_lists() -> None:
    placement = read_placement(OLDEST)
    assert placement is not None
    assert placement.parts == ("{stem,relu}", "{conv1}")
    assert placement.refused == {"head": "DLA supports only 8 subgraphs per DLA core"}
    places = place_nodes(placement, NODES)
    assert [node for node, place in places.items() if place == "dla"] == ["stem", "relu", "conv1"]
    assert [node for node, place in places.items() if place == "gpu"] == ["pool", "fc", "head"]


def test_lists_without_kinds_and_an_empty_dla() -> None:
    placement = read_placement(WITHOUT_KINDS)
    assert placement is not None
    assert placement.parts == ()
    assert [layer.kind for layer in placement.gpu] == ["", ""]
    assert place_nodes(placement, NODES)["mul"] == "gpu"


def test_a_log_without_lists_says_nothing() -> None:
    assert read_placement(["[I] Engine built in 3 sec."]) is None


def test_the_last_of_several_builds_counts() -> None:
    placement = read_placement([*WITHOUT_KINDS, *NEW])
    assert placement is not None
    assert len(placement.parts) == 2
    assert GpuLayer("", "stem") not in placement.gpu


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("[W] [TRT] Default DLA is enabled but layer a b is not supported on DLA, falling back to GPU.", "a b"),
        ("WARNING: Default DLA is enabled but layer x is not running on DLA, falling back to GPU.", "x"),
        ("[W] [TRT] /model.24/Pow: DLA cores do not support POW ElementWise operation.", "/model.24/Pow"),
    ],
)
def test_refusals(line, name) -> None:
    placement = read_placement([line, *WITHOUT_KINDS])
    assert placement is not None
    assert list(placement.refused) == [name]


def test_names_with_dots_and_other_forms_in_a_part() -> None:
    placement = read_placement(["[DlaLayer] {ForeignNode[stage1.block0...conv + (Unnamed Layer* 3) [Shuffle]...head]}"])
    assert placement is not None
    nodes = ("x", "stage1.block0...conv", "y", "head")
    assert list(place_nodes(placement, nodes).values()) == ["unknown", "dla", "dla", "dla"]


WORDS = st.sampled_from(
    ["[DlaLayer] ", "[GpuLayer] ", "{ForeignNode[", "]}", "...", "stem", "CONVOLUTION: ", "PWN(", ")", " + ", ", ", "{", "}",
     "---------- Layers Running on DLA", "---------- Layers running on GPU:", "\n",
     "[I] [TRT] ", ": DLA ", "Layer 'x' (Y): Unsupported on DLA"]
)  # fmt: skip


@given(st.lists(WORDS | st.text(max_size=3), max_size=25).map("".join))
def test_no_log_crashes_it(text) -> None:
    placement = read_placement(text.splitlines())
    if placement is not None:
        assert set(place_nodes(placement, NODES)) == set(NODES)
        assert placement.to_dict(NODES, {"stem": 3})["nodes"]
