"""Versions, the log and progress, which need no TensorRT."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from refusals import refusing

from emca_deploy.backends.tensorrt import builder
from emca_deploy.backends.tensorrt.builder import TrtBuilder
from emca_deploy.backends.tensorrt.log import BuildLog
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.backends.tensorrt.versions import TABLE, rules_of
from emca_deploy.backends.tensorrt.watch import PhaseTracker, run_build
from emca_deploy.errors import MissingError

MISREAD = (
    "onnxOpImporters.cpp:1980: TensorRT supports QuantizeLinear/DequantizeLinear with UINT8 zero_point only on DLA "
    "(version >= 3.16). Defaulting to INT8 instead. To import as UINT8, set the kIMPORT_UINT8_QUANTIZATION flag."
)


@pytest.mark.parametrize(
    ("backend", "version", "facts"),
    [
        ("tensorrt", "8.6.2.3", {"explicit_batch": True, "strong_flag": False, "weak_typing": True, "progress": False}),
        ("tensorrt", "10.3.0.30", {"explicit_batch": False, "strong_flag": True, "calibration_cache": True, "progress": True}),
        ("tensorrt", "10.16.2", {"weak_typing": True, "timing_cache": True}),
        ("tensorrt", "11.4.1", {"weak_typing": False, "strong_flag": False, "calibration_cache": False, "gpu_to_build": True}),
        ("tensorrt-rtx", "1.7.1.116", {"targets": True, "gpu_to_build": False, "timing_cache": False, "weak_typing": False}),
    ],
)
def test_rules_of_versions(backend: str, version: str, facts: dict[str, bool]) -> None:
    rules = rules_of(backend, version)
    assert {name: getattr(rules, name) for name in facts} == facts


@pytest.mark.parametrize(("backend", "version"), [("tensorrt", "8.5.2.2"), ("tensorrt", "7.1"), ("tensorrt-rtx", "1.3.0")])
def test_older_versions_are_refused(backend: str, version: str) -> None:
    with refusing(MissingError, version):
        rules_of(backend, version)


def test_the_table_is_in_order() -> None:
    for backend in ("tensorrt", "tensorrt-rtx"):
        versions = [first for name, first, _ in TABLE if name == backend]
        assert versions == sorted(set(versions))


@pytest.mark.parametrize(("gpus", "name"), [((), "gpu"), (("NVIDIA L4", "NVIDIA A2"), "NVIDIA-L4")])
def test_a_timing_cache_is_of_one_backend_version_and_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: tuple[str, ...], name: str
) -> None:
    monkeypatch.setattr(builder, "find_gpus", lambda: gpus)
    given: list[tuple[bytes, bool]] = []
    config = SimpleNamespace(create_timing_cache=bytes, set_timing_cache=lambda *arguments: given.append(arguments))
    make, trt = TrtBuilder(TrtSettings(timing_cache=tmp_path)), SimpleNamespace(__version__="10.3.0")
    path = make._timing_cache(trt, config)
    assert path == tmp_path / f"tensorrt-10.3.0-{name}.timing"
    path.write_bytes(b"measured")
    make._timing_cache(trt, config)
    assert given == [(b"", False), (b"measured", False)]


def test_a_log_keeps_what_matters() -> None:
    log = BuildLog()
    for severity, text in (
        (4, "talk"),
        (3, "more"),
        (2, MISREAD),
        (2, MISREAD),
        (2, "x.cpp:7: unused input"),
        (4, "Layers:\na\nb"),
    ):
        log.add(severity, text)
    log.add(1, "[localCheckMacros.cpp::getErrorStr::132] Error Code 2: OutOfMemory\n(Requested size was 11230872 bytes.)")
    assert [text.split()[0] for text in log.warnings] == ["TensorRT", "unused"]
    assert log.misreadings() == log.warnings[:1]
    assert log.layer_lines == ["Layers:", "a", "b"]
    assert log.reason() == "Error Code 2: OutOfMemory (Requested size was 11230872 bytes.)"


def test_what_changes_no_number_is_a_note() -> None:
    log = BuildLog()
    for _ in range(2):
        log.add(2, "(foreignNode) Converting conv activation scales to fp32.")
        log.add(2, "Converting conv inputs to fp32.")
    assert log.notes == ["(foreignNode) Converting conv activation scales to fp32."]
    assert log.warnings == ["Converting conv inputs to fp32."]


def test_nested_phases_become_one_growing_number() -> None:
    seen: list[int] = []
    tracker = PhaseTracker(lambda done, total: seen.append(done))
    tracker.start("all", None, 2)
    tracker.step("all", 0)
    tracker.start("part", "all", 4)
    tracker.step("part", 1)
    tracker.start("piece", "part", 5)
    tracker.step("piece", 2)
    tracker.finish("piece")
    tracker.finish("part")
    tracker.step("all", 1)
    tracker.finish("all")
    tracker.step("unknown", 3)
    assert seen == [0, 500, 750, 825, 1000]


@pytest.mark.parametrize("steps", [0, 1])
def test_a_phase_of_one_step_is_whole_after_it(steps: int) -> None:
    seen: list[tuple[int, int]] = []
    tracker = PhaseTracker(lambda *place: seen.append(place))
    tracker.start("all", None, steps)
    tracker.step("all", 0)
    assert seen == [(0, 1000), (1000, 1000)]


def test_what_a_build_raises_is_raised_where_it_was_asked_for() -> None:
    class Broken:
        def build_serialized_network(self, network: Any, config: Any) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run_build(None, Broken(), None, None, None)
