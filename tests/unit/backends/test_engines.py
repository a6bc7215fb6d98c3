"""Engines: their recorded facts, and when they are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import Manifest, Preprocessing, manifest_path, read_manifest, sha256_file, write_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import available, get_builder, open_runner
from emca_deploy.errors import EngineError, InputError, ModelError, OutputError

IMAGES = np.ones((1, 3, 8, 8), np.float32)


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    reason = available()[request.param].reason
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


@pytest.fixture
def model(make_onnx: Callable[..., Path]) -> Path:
    return make_onnx()


@pytest.fixture
def engine(backend: str, model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    get_builder(backend).build(model, path, RunOptions(batch=1))
    return path


def edit_manifest(engine: Path, **changes: object) -> None:
    place = manifest_path(engine)
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))


def edit_machine(engine: Path, **changes: object) -> None:
    details = json.loads(manifest_path(engine).read_text())["details"]
    edit_manifest(engine, details={**details, "machine": {**details["machine"], **changes}})


def refuse(backend: str, engine: Path, match: str) -> EngineError:
    with pytest.raises(EngineError, match=match) as caught:
        open_runner(backend, str(engine)).open()
    return caught.value


def test_the_manifest_says_what_the_engine_is(backend: str, engine: Path, model: Path) -> None:
    manifest = read_manifest(engine)
    assert manifest is not None
    assert (manifest.kind, manifest.backend, manifest.precision) == ("engine", backend, "fp32")
    assert manifest.inputs == {"model": sha256_file(model)}
    assert backend in manifest.versions
    assert manifest.details["batch"] == 1
    assert manifest.details["machine"]["architecture"]


def test_what_the_model_knew_is_carried_over(backend: str, model: Path, tmp_path: Path) -> None:
    preprocessing = Preprocessing.for_size(8)
    write_manifest(model, Manifest("onnx", "", "int8", "openvino", "emca_eca_resnet18", 3, preprocessing))
    made = get_builder(backend).build(model, tmp_path / "out", RunOptions())
    assert (made.precision, made.arch, made.num_classes, made.preprocessing) == ("int8", "emca_eca_resnet18", 3, preprocessing)
    assert made.backend == backend


def test_a_batch_is_built_in(backend: str, engine: Path) -> None:
    with open_runner(backend, str(engine)) as runner:
        assert runner.input.shape == (1, 3, 8, 8)
        np.testing.assert_allclose(runner.infer(IMAGES), [[1, 1, 1]])
    with refusing(InputError, engine, 1):
        open_runner(backend, str(engine), batch=4).open()


@pytest.mark.parametrize("suffix", [".onnx", ".ort", ".ov", "", ".bin", ".XML"])
def test_any_suffix_will_do(backend: str, model: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"an engine{suffix}"
    get_builder(backend).build(model, path, RunOptions())
    with open_runner(backend, str(path)) as runner:
        np.testing.assert_allclose(runner.infer(IMAGES), [[1, 1, 1]])
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([model.name, path.name, manifest_path(path).name])


def test_changed_bytes_are_refused(backend: str, engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-1] + b"?")
    error = refuse(backend, engine, "sha256 differs")
    assert f"--backend {backend} -o {engine} --batch 1" in error.remedy


def test_a_lost_manifest_is_asked_for(backend: str, engine: Path) -> None:
    manifest_path(engine).unlink()
    assert "model.engine.manifest.json" in refuse(backend, engine, "nor an engine with its manifest").remedy


def test_another_runtime_version_is_refused(backend: str, engine: Path) -> None:
    edit_manifest(engine, versions={backend: "0.1"})
    assert "emca-deploy build" in refuse(backend, engine, f"built with {backend} 0.1").remedy


def test_another_architecture_is_refused(backend: str, engine: Path) -> None:
    edit_machine(engine, architecture="mips64")
    refuse(backend, engine, "built for mips64")


def test_a_processor_that_lacks_instructions_is_refused(backend: str, engine: Path) -> None:
    edit_machine(engine, instruction_sets=["avx2048_vnni"])
    refuse(backend, engine, "avx2048_vnni, which this one lacks")


def test_a_processor_that_has_more_will_do(backend: str, engine: Path) -> None:
    edit_machine(engine, instruction_sets=[])
    with open_runner(backend, str(engine)) as runner:
        np.testing.assert_allclose(runner.infer(IMAGES), [[1, 1, 1]])


def test_another_backends_engine_is_refused(backend: str, engine: Path) -> None:
    edit_manifest(engine, backend="tensorrt")
    with refusing(InputError, engine, "'tensorrt'"):
        open_runner(backend, str(engine)).open()


def test_a_manifest_that_vouches_for_junk_ends_in_our_error(backend: str, engine: Path) -> None:
    engine.write_bytes(b"junk" * 100)
    edit_manifest(engine, sha256=sha256_file(engine))
    with pytest.raises(InputError, match="does not"):
        open_runner(backend, str(engine)).open()


def test_no_engine_of_an_engine_nor_over_the_model(backend: str, engine: Path, model: Path, tmp_path: Path) -> None:
    with refusing(InputError, engine):
        get_builder(backend).build(engine, tmp_path / "again", RunOptions())
    before = model.read_bytes()
    with refusing(InputError, model):
        get_builder(backend).build(model, model, RunOptions())
    assert model.read_bytes() == before


def test_nothing_is_left_of_a_failed_build(backend: str, make_onnx: Callable[..., Path], tmp_path: Path) -> None:
    model = make_onnx("(float[1,3,8,8] images) => (float[1,3] logits) { logits = NoSuchOperator(images) }", "odd.onnx")
    with refusing(ModelError, model):
        get_builder(backend).build(model, tmp_path / "out", RunOptions())
    assert [file.name for file in tmp_path.iterdir()] == ["odd.onnx"]


def test_no_engine_without_its_manifest(backend: str, model: Path, tmp_path: Path) -> None:
    manifest_path(tmp_path / "out").mkdir()
    with pytest.raises(OutputError):
        get_builder(backend).build(model, tmp_path / "out", RunOptions())
    assert not (tmp_path / "out").exists()


def test_no_folder_to_write_to(backend: str, model: Path, tmp_path: Path) -> None:
    with refusing(OutputError, tmp_path / "none"):
        get_builder(backend).build(model, tmp_path / "none" / "out", RunOptions())


def test_openvino_keeps_the_precision_it_was_built_with(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    made = get_builder("openvino").build(model, tmp_path / "out", RunOptions(precision="bf16"))
    assert made.precision == "bf16"
    with open_runner("openvino", str(tmp_path / "out")) as runner:
        hint = runner._compiled.get_property("INFERENCE_PRECISION_HINT")  # type: ignore[attr-defined]
        assert runner.describe()["inference_precision"] == hint.to_string()  # bf16, if the processor has it
