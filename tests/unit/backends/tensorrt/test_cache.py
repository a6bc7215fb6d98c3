"""Calibration caches and flags for TensorRT up to 10 and DLA.

TensorRT-RTX has the configuration but no calibrator, and TensorRT itself is unavailable: a stand-in replaces it where only the
calls can be checked.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt.builder import TrtBuild, TrtBuilder, _allow_types, _lost_int8
from emca_deploy.backends.tensorrt.cache import read_header, reading_calibrator
from emca_deploy.backends.tensorrt.network import ParsedModel
from emca_deploy.backends.tensorrt.settings import TrtSettings, batches_of, check_trt_settings, make_config
from emca_deploy.backends.tensorrt.versions import rules_of
from emca_deploy.calibration.placement.calibration_cache import cache_version, write_cache
from emca_deploy.errors import InputError, MissingError, ModelError, OutputError

SPEC = TensorSpec("images", "float32", ("batch", 3, 16, 16))
TEN = rules_of("tensorrt", "10.3.0.30")


class Calibrator:
    """Common base of TensorRT's calibrators."""


@pytest.fixture
def trt() -> Any:
    return SimpleNamespace(
        __version__="10.3.0.30",
        IInt8EntropyCalibrator2=Calibrator,
        BuilderFlag=SimpleNamespace(INT8="INT8", FP16="FP16"),
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write_cache({}, tmp_path / "net.cache", "10.3.0")
    return tmp_path / "net.cache"


class Config:
    def __init__(self) -> None:
        self.flags: set[str] = set()
        self.int8_calibrator: Any = None

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)


def parsed(quantized: int) -> ParsedModel:
    return ParsedModel(None, SPEC, 3, quantized, None)


@pytest.mark.parametrize("version", ["8.6.1", "8.0.1", "10.3.0", "10.13.3", "10.1.0"])
def test_headers_come_back(tmp_path: Path, version: str) -> None:
    write_cache({}, tmp_path / "c", version)
    assert ".".join(map(str, read_header(tmp_path / "c"))) == version


def test_versions_of_two_numbers_where_there_was_no_patch() -> None:
    assert cache_version("10.3") == "100300"
    for version, problem in (
        ("8.6", "lacks its third number"),
        ("10.13", "third number"),
        ("11.1.0", "takes no calibration cache"),
    ):
        with pytest.raises(InputError, match=problem):
            cache_version(version)


def test_the_calibrator_has_the_cache_and_nothing_else(trt: Any, cache: Path) -> None:
    calibrator = reading_calibrator(trt, cache)
    assert isinstance(calibrator, Calibrator)
    before = cache.read_bytes()
    assert calibrator.read_calibration_cache() == before
    assert calibrator.get_batch(["images"]) is None
    assert calibrator.get_batch_size() == 1
    calibrator.write_calibration_cache(b"other")
    assert cache.read_bytes() == before


def test_caches_of_another_version_and_other_files_are_refused(trt: Any, cache: Path, tmp_path: Path) -> None:
    trt.__version__ = "10.7.0.23"
    with refusing(InputError, cache, "10.3.0", "10.7.0") as caught:
        reading_calibrator(trt, cache)
    assert "--tensorrt-version 10.7.0" in caught.value.remedy
    (tmp_path / "min-max").write_text("TRT-8601-MinMaxCalibration\nx: 3f800000\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 9)
    for name, problem in (
        ("min-max", "not a TensorRT entropy"),
        ("binary", "not a TensorRT entropy"),
        ("none", "cannot be read"),
    ):
        with pytest.raises(InputError, match=problem):
            reading_calibrator(trt, tmp_path / name)


def test_flags_of_a_weakly_typed_build(trt: Any, cache: Path) -> None:
    def flags(quantized: int, settings: TrtSettings) -> tuple[set[str], bool]:
        config = Config()
        kept = _allow_types(trt, config, cache, parsed(quantized), settings)
        assert kept is config.int8_calibrator
        return config.flags, kept is not None

    model = cache.with_name("net.onnx")
    model.write_bytes(b"")
    assert flags(0, TrtSettings(dla_core=0, calibration_cache=cache)) == ({"INT8", "FP16"}, True)
    assert flags(0, TrtSettings(dla_core=1)) == ({"FP16"}, False)


@pytest.mark.parametrize(("core", "words"), [(0, "Q/DQ.* DLA"), (None, "Q/DQ.* calibration cache")])
def test_qdq_goes_with_neither_cache_nor_dla(trt: Any, cache: Path, core: int | None, words: str) -> None:
    settings = TrtSettings(dla_core=core, calibration_cache=None if core is not None else cache)
    with pytest.raises(ModelError, match=words):
        _allow_types(trt, Config(), Path("net.onnx"), parsed(3), settings)


def test_fp16_pairs_want_a_typed_network(trt: Any, make_net: Callable[..., Path]) -> None:
    import onnx

    proto = onnx.load(make_net())
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("/scale"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    half = make_net("half.onnx")
    onnx.save(proto, half)
    config = Config()
    _allow_types(trt, config, make_net(), parsed(3), TrtSettings())
    assert config.flags == {"INT8"}
    with refusing(ModelError, "fp16"):
        _allow_types(trt, Config(), half, parsed(3), TrtSettings())


def test_networks_are_weakly_typed_for_a_cache_or_a_dla_only(cache: Path) -> None:
    assert not TrtSettings().weakly_typed(TEN)
    assert TrtSettings(calibration_cache=cache).weakly_typed(TEN)
    assert TrtSettings(dla_core=0).weakly_typed(TEN)
    assert TrtSettings().weakly_typed(rules_of("tensorrt", "8.6.1"))
    assert not TrtSettings(dla_core=0).weakly_typed(rules_of("tensorrt", "11.4.1"))


@pytest.mark.parametrize(
    ("version", "settings", "problem"),
    [
        ("10.8.0", TrtSettings(dla_core=0), "10.8.0 does not have DLA"),
        ("11.3.0", TrtSettings(dla_core=0), "does not have DLA"),
        ("11.0.0", TrtSettings(calibration_cache=Path("x")), "does not have calibration caches"),
        ("10.3.0", TrtSettings(targets=("8.6",)), "builds for the GPU it runs on"),
    ],
)
def test_what_a_version_lacks(version: str, settings: TrtSettings, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_trt_settings(SimpleNamespace(__version__=version), "tensorrt", rules_of("tensorrt", version), settings)


def test_what_a_version_has() -> None:
    settings = TrtSettings(
        dla_core=1, calibration_cache=Path("x"), timing_cache=Path(), version_compatible=True, hardware_compatible=True
    )
    for version in ("8.6.1", "10.3.0", "10.7.0"):
        check_trt_settings(SimpleNamespace(__version__=version), "tensorrt", rules_of("tensorrt", version), settings)
    check_trt_settings(SimpleNamespace(__version__="11.4.1"), "tensorrt", rules_of("tensorrt", "11.4.1"), TrtSettings(dla_core=0))


def test_a_dla_takes_one_batch() -> None:
    settings = TrtSettings(dla_core=0)
    with refusing(InputError, "DLA"):
        batches_of(SPEC, settings, RunOptions())
    assert batches_of(SPEC, settings, RunOptions(batch=4)) == (4, 4, 4)
    assert batches_of(SPEC, TrtSettings(dla_core=0, batches=(2, 2, 2)), RunOptions()) == (2, 2, 2)
    assert batches_of(TensorSpec("images", "float32", (1, 3, 16, 16)), settings, RunOptions()) is None


def test_the_configuration_says_what_was_asked_for(rtx: Any) -> None:
    """TensorRT-RTX has all configuration options of TensorRT, even for hardware it does not support."""
    builder = rtx.Builder(rtx.Logger(rtx.Logger.ERROR))

    def config(**options: Any) -> Any:
        return make_config(rtx, builder, SPEC, (1, 1, 1), TEN, TrtSettings(**options))

    plain = config()
    assert not plain.get_flag(rtx.BuilderFlag.VERSION_COMPATIBLE)
    assert plain.default_device_type == rtx.DeviceType.GPU
    made = config(version_compatible=True, workspace_mib=64, optimization_level=2)
    assert made.get_flag(rtx.BuilderFlag.VERSION_COMPATIBLE)
    assert made.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 64 << 20
    assert made.builder_optimization_level == 2
    with refusing(MissingError, "DLA"):
        config(dla_core=0)


def test_a_dla_core_falls_back_to_the_gpu(rtx: Any) -> None:
    builder = rtx.Builder(rtx.Logger(rtx.Logger.ERROR))

    class TwoCores:
        num_DLA_cores = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(builder, name)

    made = make_config(rtx, TwoCores(), SPEC, None, TEN, TrtSettings(dla_core=1))
    assert made.get_flag(rtx.BuilderFlag.GPU_FALLBACK)
    assert made.default_device_type == rtx.DeviceType.DLA
    with refusing(InputError, "DLA core 2"):
        make_config(rtx, TwoCores(), SPEC, None, TEN, TrtSettings(dla_core=2))


def test_hardware_compatibility() -> None:
    """A stand-in is used because TensorRT-RTX ignores the level."""
    config = SimpleNamespace()
    builder = SimpleNamespace(create_builder_config=lambda: config)
    trt = SimpleNamespace(
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"), HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere+")
    )
    make_config(trt, builder, SPEC, None, TEN, TrtSettings(hardware_compatible=True))
    assert config.hardware_compatibility_level == "ampere+"


def test_int8_is_not_claimed_for_a_dla_whose_log_does_not_show_it(cache: Path) -> None:
    from emca_deploy.artifacts import Manifest

    build = TrtBuild("10.3.0", (), None, 3, 0, (), (), dla_core=0, calibration_cache=str(cache))
    assert not _lost_int8(build)
    builder = TrtBuilder(TrtSettings(dla_core=0, calibration_cache=cache))
    builder.last = build
    manifest = builder.describe(Manifest("engine", "", "fp32"))
    assert manifest.precision == "fp16"
    assert manifest.inputs.keys() == {"calibration_cache"}
    assert _lost_int8(TrtBuild("10.3.0", (), None, 3, 0, (), (), calibration_cache=str(cache)))


def test_a_folder_for_timings_that_cannot_be_is_said_before_the_build(tmp_path: Path) -> None:
    from emca_deploy.backends.tensorrt.settings import prepare_timing_cache

    prepare_timing_cache(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with refusing(OutputError, tmp_path / "file"):
        prepare_timing_cache(tmp_path / "file")
