"""Flags, causes and remedies that come from what TensorRT says, and engines that lost their INT8."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from refusals import refusing

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import ModelIo, RunOptions
from emca_deploy.backends.tensorrt import builder
from emca_deploy.backends.tensorrt.builder import TrtBuild, _failure, _lost_int8
from emca_deploy.backends.tensorrt.inspect import EngineLayer, EngineTensor
from emca_deploy.backends.tensorrt.log import BuildLog, attach, started
from emca_deploy.backends.tensorrt.network import _complaint, _flags, _remedy, engine_boundary
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.backends.tensorrt.versions import rules_of
from emca_deploy.errors import InputError, MissingError, ModelError

IMAGES, LOGITS = TensorSpec("images", "float32", ("n", 3, 4, 4)), TensorSpec("logits", "float32", ("n", 2))


@pytest.mark.parametrize(
    ("backend", "version", "flags"),
    [("tensorrt", "8.6.1", 1 << 2), ("tensorrt", "10.3.0", 1 << 5), ("tensorrt", "11.0", 0), ("tensorrt-rtx", "1.4", 1 << 5)],
)
def test_flags_of_a_network(backend, version, flags):
    trt = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=2, STRONGLY_TYPED=5))
    assert _flags(trt, rules_of(backend, version)) == flags


def parser_of(desc="cannot  do\nit", **known):
    error = SimpleNamespace(node=lambda: 7, desc=lambda: desc, **known)
    return SimpleNamespace(num_errors=1, get_error=lambda index: error if index == 0 else None)


def test_complaints_name_the_node():
    log = BuildLog()
    log.add(1, "the first reason")
    log.add(1, "another")
    assert _complaint(SimpleNamespace(num_errors=0), log) == "the first reason"
    assert _complaint(parser_of(), log) == "node number 7: cannot do it"
    assert _complaint(parser_of(node_operator=lambda: "Conv"), log) == "node number 7 Conv: cannot do it"
    named = parser_of(node_name=lambda: "stem", node_operator=lambda: "Conv")
    assert _complaint(named, log) == "node 'stem' (Conv): cannot do it"
    assert "plugin" in _complaint(parser_of(desc="Plugin not found, x"), log)
    assert len(_complaint(parser_of(desc="x" * 1000), log)) == len("node number 7: ") + 240


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Zero point is not 0", "--backend tensorrt"),
        ("error in DequantizeLinear", "--backend tensorrt"),
        ("Plugin not found", "plugins"),
        ("something else", "onnx.checker"),
    ],
)
def test_remedies_follow_what_was_said(text, words):
    log = BuildLog()
    log.add(1, "nothing of interest")
    log.add(1, text)
    assert words in _remedy(log, "tensorrt")


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([], [LOGITS]),
        ([IMAGES, IMAGES], [LOGITS]),
        ([IMAGES], [LOGITS, LOGITS]),
        ([TensorSpec("images", "float16", IMAGES.shape)], [LOGITS]),
        ([IMAGES], [TensorSpec("logits", "float32", ("n", 2, 1))]),
        ([IMAGES], [TensorSpec("logits", "float16", ("n", 2))]),
        ([TensorSpec("images", "float32", ("n", 3))], [LOGITS]),
    ],
)
def test_networks_of_another_input_or_output(inputs, outputs):
    found = engine_boundary(Path("net"), [IMAGES], [LOGITS], ModelIo())
    assert (found.input, found.output, found.task) == (IMAGES, LOGITS, "classification")
    with pytest.raises(ModelError, match="net"):
        engine_boundary(Path("net"), inputs, outputs, ModelIo())


def test_plain_pixels_are_an_input():
    found = engine_boundary(Path("net"), [TensorSpec("images", "uint8", ("n", 4, 4, 3))], [LOGITS], ModelIo())
    assert (found.native.dtype, found.native.shape, found.input) == ("uint8", ("n", 4, 4, 3), IMAGES)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error Code 2: OutOfMemory", InputError),
        ("needs more workspace", InputError),
        ("cudaError 35", MissingError),
        ("no tactic", ModelError),
    ],
)
def test_failed_builds_say_why(text, kind):
    log = BuildLog()
    log.add(0, text)
    assert type(_failure(Path("net.onnx"), "tensorrt", log)) is kind


CONVOLUTION = EngineLayer("conv", "CaskConvolution", (EngineTensor("x", "int8", (1, 3, 4, 4)),), ())


@pytest.mark.parametrize(
    ("quantized", "layers", "core", "cache", "lost"),
    [
        (3, (), None, None, True),
        (3, (CONVOLUTION,), None, None, False),
        (0, (), None, None, False),
        (0, (), None, "c", True),
        (0, (), 0, "c", False),
        (1, (), 1, None, False),
    ],
)
def test_int8_that_was_wanted_and_lost(quantized, layers, core, cache, lost):
    built = TrtBuild("10.3.0", (), (1, 1, 1), 3, quantized, layers, (), core, cache)
    assert _lost_int8(built) is lost
    document = built.to_dict()
    assert (document["layers"], document["int8_convolutions"]) == (len(layers), len(layers))
    assert document["moved_bytes"] == ({"int8": 48} if layers else {})
    assert (document["version_compatible"], document["hardware_compatible"]) == (False, False)


def test_a_logger_sorts_by_severity_and_a_library_that_does_not_start_says_why():
    log = BuildLog()
    logger = attach(SimpleNamespace(ILogger=type("ILogger", (), {"__init__": lambda self: None})), log)
    for severity, text in ((0, "internal"), (1, "error"), (2, "warning"), (3, "Layers:\na"), (4, "DLA talk")):
        logger.log(severity, text)
    assert (log.errors, log.warnings, log.layer_lines, log.dla_lines) == (
        ["internal", "error"], ["warning"], ["Layers:", "a"], ["DLA talk"],
    )  # fmt: skip

    def broken(given):
        raise TypeError("nothing was returned")

    for told, words in ((log, "internal"), (BuildLog(), "nothing was returned")):
        with pytest.raises(MissingError, match=words):
            started(broken, logger, told, "tensorrt")
    assert started(lambda given: given, logger, log, "tensorrt") is logger
    assert BuildLog().reason() == BuildLog().reason() != ""


@pytest.mark.parametrize(("settings", "words"), [({"calibration_cache": "8601"}, "8.6.1"), ({"workspace_mib": 0}, "0 MiB")])
def test_settings_are_refused_before_the_build_begins(monkeypatch, tmp_path, settings, words):
    if "calibration_cache" in settings:
        (tmp_path / "cache").write_text("TRT-8601-EntropyCalibration2\n")
        settings = {"calibration_cache": tmp_path / "cache"}
    monkeypatch.setattr(builder, "import_optional", lambda name: SimpleNamespace(__version__="10.3.0"))
    with refusing(InputError, words):
        builder.TrtBuilder(TrtSettings(**settings)).compile(tmp_path / "net.onnx", tmp_path / "out", RunOptions())
