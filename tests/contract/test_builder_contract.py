"""The contract of builders, tested on every backend with engines; no engine runs."""

from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.artifacts import read_manifest, sha256_file
from emca_deploy.backends.base import Builder, RunOptions
from emca_deploy.backends.registry import BACKENDS, available, get_builder
from emca_deploy.errors import EmcaError, InputError, MissingError, ModelError, OutputError

NAMES = [name for name, entry in BACKENDS.items() if entry.builder]


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest, classifier: Path, tmp_path: Path) -> str:
    name: str = request.param
    try:
        get_builder(name)
        if available()[name].reason:  # it may still build, or need a device for that too
            get_builder(name).build(classifier, tmp_path / "trial", RunOptions())
    except MissingError as error:
        pytest.skip(str(error))
    for file in tmp_path.iterdir():
        file.unlink()
    return name


@pytest.fixture
def builder(backend: str) -> Builder:
    return get_builder(backend)


class TestBuilderContract:
    def test_an_engine_comes_with_its_manifest(self, builder: Builder, backend: str, classifier: Path, tmp_path: Path) -> None:
        engine = tmp_path / "classifier.engine"
        made = builder.build(classifier, engine, RunOptions(batch=2))
        found = read_manifest(engine)
        assert found == made
        assert (found.kind, found.backend, found.precision) == ("engine", backend, "fp32")
        assert found.inputs == {"model": sha256_file(classifier)}
        assert found.versions[backend]
        assert found.details["batch"] == 2
        assert {"model", "architecture", "instruction_sets"} <= found.details["machine"].keys()
        assert {file.name for file in tmp_path.iterdir()} == {"classifier.engine", "classifier.engine.manifest.json"}

    def test_an_engine_is_no_model(self, builder: Builder, classifier: Path, tmp_path: Path) -> None:
        engine = tmp_path / "classifier.engine"
        builder.build(classifier, engine, RunOptions())
        before = engine.read_bytes()
        with refusing(InputError, engine):
            builder.build(engine, tmp_path / "again", RunOptions())
        assert engine.read_bytes() == before
        assert not (tmp_path / "again").exists()

    @pytest.mark.parametrize(
        ("name", "content", "kind"),
        [("none.onnx", None, ModelError), ("empty.onnx", b"", ModelError), ("text.onnx", b"hello", ModelError)],
    )
    def test_what_is_no_model_is_refused(
        self, builder: Builder, tmp_path: Path, name: str, content: bytes | None, kind: type[EmcaError]
    ) -> None:
        model = tmp_path / name
        if content is not None:
            model.write_bytes(content)
        with pytest.raises(kind, match=name):
            builder.build(model, tmp_path / "out", RunOptions())
        assert not (tmp_path / "out").exists()

    def test_a_truncated_model_is_refused(self, builder: Builder, classifier: Path, tmp_path: Path) -> None:
        model = tmp_path / "cut.onnx"
        model.write_bytes(classifier.read_bytes()[:-100])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            builder.build(model, tmp_path / "out", RunOptions())
        assert [file.name for file in tmp_path.iterdir()] == ["cut.onnx"]

    def test_the_model_is_never_overwritten(self, builder: Builder, classifier: Path) -> None:
        before = classifier.read_bytes()
        with refusing(InputError, classifier):
            builder.build(classifier, classifier, RunOptions())
        assert classifier.read_bytes() == before

    def test_a_place_that_cannot_be_written_to(self, builder: Builder, classifier: Path, tmp_path: Path) -> None:
        with refusing(OutputError, tmp_path / "none"):
            builder.build(classifier, tmp_path / "none" / "out", RunOptions())

    def test_a_precision_it_does_not_have(self, builder: Builder, classifier: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="f128"):
            builder.build(classifier, tmp_path / "out", RunOptions(precision="f128"))
        assert list(tmp_path.iterdir()) == []


def test_the_contract_covers_every_builder() -> None:
    assert set(NAMES) == {"onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"}
