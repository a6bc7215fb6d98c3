"""Real builds with TensorRT-RTX, which needs no GPU to build."""

import gc
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emca_deploy.artifacts import manifest_path, read_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt.builder import RtxBuilder, TrtBuilder
from emca_deploy.backends.tensorrt.log import BuildLog, started
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.errors import InputError, MissingError, ModelError, OutputError

pytestmark = pytest.mark.usefixtures("rtx")
OPTIONS = RunOptions()


def built(model: Path, settings: TrtSettings | None = None, options: RunOptions = OPTIONS) -> dict[str, Any]:
    output = model.with_suffix(".engine")
    RtxBuilder(settings).build(model, output, options)
    manifest = read_manifest(output)
    assert manifest is not None
    return {"precision": manifest.precision, "machine": manifest.details["machine"], **manifest.details["tensorrt"]}


def refused(model: Path, kind: type[Exception], match: str, settings: TrtSettings | None = None, **options: Any) -> Any:
    before = set(model.parent.iterdir())
    with pytest.raises(kind, match=match) as caught:
        RtxBuilder(settings).build(model, model.with_suffix(".engine"), RunOptions(**options))
    assert set(model.parent.iterdir()) == before
    return caught.value


def test_int8_is_claimed_where_the_log_shows_it(make_net: Callable[..., Path], rtx: Any) -> None:
    found = built(make_net())
    assert found["precision"] == "int8"
    assert (found["convolutions"], found["quantized_convolutions"], found["int8_convolutions"]) == (3, 3, 3)
    assert found["warnings"] == []
    assert found["version"] == rtx.__version__
    assert found["targets"] == ["8.6", "8.9", "12.0"]
    assert found["machine"]["instruction_sets"] == ["sm_86", "sm_89", "sm_120"]
    assert found["layers"] == sum(found["layer_kinds"].values()) > 3


def test_float_is_float(make_net: Callable[..., Path]) -> None:
    found = built(make_net(quantized=False))
    assert (found["precision"], found["convolutions"]) == ("fp32", 3)
    assert found["quantized_convolutions"] == found["int8_convolutions"] == 0


def test_int8_weights_alone_are_not_int8(make_net: Callable[..., Path]) -> None:
    error = refused(make_net(activation=None), ModelError, "compiles none of its 3 INT8 convolutions to INT8")
    assert "calibrate" in error.remedy


def targets_of(*targets: str) -> TrtSettings:
    return TrtSettings(targets=targets)


def test_batches_of_the_profile(make_net: Callable[..., Path]) -> None:
    assert built(make_net())["batches"] == [1, 1, 64]
    assert built(make_net(), TrtSettings(batches=(2, 4, 8)))["batches"] == [2, 4, 8]
    assert built(make_net(), options=RunOptions(batch=3))["batches"] == [3, 3, 3]
    assert built(make_net(batch=4))["batches"] is None
    refused(make_net(batch=4), InputError, "batch is fixed to 4", batch=2)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (TrtSettings(batches=(4, 2, 8)), r"batches \(4, 2, 8\)"),
        (TrtSettings(batches=(0, 1, 8)), r"batches \(0, 1, 8\)"),
        (TrtSettings(optimization_level=6), "optimization level 6"),
        (TrtSettings(workspace_mib=0), "workspace of 0 MiB"),
        (targets_of("9.9"), "'9.9'"),
        (TrtSettings(timing_cache=Path()), "does not have a timing cache"),
        (TrtSettings(version_compatible=True), "does not have version-compatible engines"),
        (TrtSettings(hardware_compatible=True), "does not have the flag for hardware-compatible engines"),
        (TrtSettings(dla_core=0), "does not have DLA"),
        (TrtSettings(calibration_cache=Path("x.cache")), "does not have calibration caches"),
    ],
)
def test_settings_that_make_no_sense(make_net: Callable[..., Path], settings: TrtSettings, match: str) -> None:
    refused(make_net(), InputError, match, settings)


def test_a_build_after_a_refused_one_keeps_its_int8(make_net: Callable[..., Path]) -> None:
    """TensorRT-RTX has no float32 matrix product on Turing; after refusing one, version 1.7 ignores INT8 in its next build."""
    refused(make_net(), ModelError, "SM75", targets_of("7.5"))
    assert built(make_net())["int8_convolutions"] == 3


def test_settings_that_do(make_net: Callable[..., Path]) -> None:
    settings = TrtSettings(workspace_mib=64, optimization_level=0, targets=("8.9", "12.0"))
    assert built(make_net(), settings)["targets"] == ["8.9", "12.0"]


def test_too_little_workspace_says_so(make_net: Callable[..., Path]) -> None:
    settings = TrtSettings(workspace_mib=1, batches=(1, 1, 512))
    assert "more workspace" in refused(make_net(), InputError, "workspace is too small", settings).remedy


def test_uint8_that_would_be_read_as_int8_is_refused(make_net: Callable[..., Path]) -> None:
    """The parser only warns, and continues with values other than the model's."""
    error = refused(make_net(activation=np.uint8), ModelError, "would misread it.*Defaulting to INT8")
    assert "--backend tensorrt-rtx" in error.remedy


def test_int32_biases_are_refused_with_their_node(make_net: Callable[..., Path]) -> None:
    refused(make_net(bias=np.int32), ModelError, r"node 'stem.bias/d' \(DequantizeLinear\)")


def test_an_operator_it_does_not_know_is_named(tmp_path: Path) -> None:
    import onnx.parser

    text = """<ir_version: 8, opset_import: ["" : 17, "other" : 1]>
    net (float[1,3,8,8] images) => (float[1,3] logits) { pooled = other.Odd(images) logits = Flatten(pooled) }"""
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    error = refused(path, ModelError, "Odd.*plugin")
    assert "plugins are not loaded" in error.remedy


def test_images_must_have_a_size(make_net: Callable[..., Path]) -> None:
    assert "--image-size" in refused(make_net(size="side"), ModelError, "no fixed size").remedy


def test_a_precision_it_does_not_have(make_net: Callable[..., Path]) -> None:
    refused(make_net(), InputError, "f16", precision="f16")


def test_progress_grows_to_the_end(make_net: Callable[..., Path]) -> None:
    seen: list[tuple[int, int]] = []
    RtxBuilder(progress=lambda done, total: seen.append((done, total))).build(
        make_net(), make_net().with_suffix(".engine"), OPTIONS
    )
    assert seen == sorted(set(seen))
    assert seen[0][0] == 0
    assert seen[-1] == (1000, 1000)


def test_ctrl_c_stops_the_build_and_leaves_nothing(make_net: Callable[..., Path]) -> None:
    model = make_net()
    seen: list[int] = []

    def interrupt(done: int, total: int) -> None:
        if not seen:
            os.kill(os.getpid(), signal.SIGINT)
        seen.append(done)

    with pytest.raises(KeyboardInterrupt):
        RtxBuilder(progress=interrupt).build(model, model.with_suffix(".engine"), OPTIONS)
    assert list(model.parent.iterdir()) == [model]
    assert not any(thread.name == "tensorrt build" for thread in threading.enumerate())
    assert built(model)["int8_convolutions"] == 3


def test_a_manifest_that_cannot_be_written_takes_the_engine_with_it(make_net: Callable[..., Path]) -> None:
    model = make_net()
    engine = model.with_suffix(".engine")
    manifest_path(engine).mkdir()
    with pytest.raises(OutputError):
        RtxBuilder().build(model, engine, OPTIONS)
    assert not engine.exists()


def test_tensorrt_builds_only_on_a_gpu(make_net: Callable[..., Path]) -> None:
    from emca_deploy._machine import find_gpus

    if find_gpus():
        pytest.skip("there is a GPU here")
    with pytest.raises(MissingError) as caught:
        TrtBuilder().build(make_net(), make_net().with_suffix(".engine"), OPTIONS)
    assert caught.value.exit_code == 3


def test_no_older_builder_is_deleted_while_the_library_logs() -> None:
    """The garbage collector deleted one in the logger once, and TensorRT-RTX waited for its own lock for ever."""
    assert started(lambda _: [gc.isenabled()], None, BuildLog(), "tensorrt-rtx") == [False]
    assert gc.isenabled()
