"""Plans of sweeps: their cells, and what is refused before anything runs."""

import numpy as np
import onnx
import pytest
from refusals import refusing

from emca_deploy.api.sweeping.plan import read_plan
from emca_deploy.errors import DataError, InputError, ModelError, UnknownNameError
from zoo.networks import residual, to_onnx

FAKE = 'models = ["fake:latency_ms=1", "fake:latency_ms=2"]\nbackends = "fake"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("plans")
    onnx.save(to_onnx(residual, size=16), made / "net.onnx")
    (made / "damaged.onnx").write_text("no model")
    (made / "weights.pth").write_bytes(b"opened only when it is exported")
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)
    np.savez(made / "images.npz", images=images, labels=np.arange(4))
    return made


@pytest.fixture
def cells(folder):
    def read(text):
        (folder / "plan.toml").write_text(text, encoding="utf-8")
        return read_plan(folder / "plan.toml").cells

    return read


def test_a_plan_is_the_product_of_its_lists(cells):
    found = cells(FAKE + 'threads = [1, 2]\nbatch = [1, 8]\nscenario = ["single-stream", "offline"]')
    assert len(found) == len(set(found)) == 16
    assert {cell.backend for cell in found} == {"fake"}


def test_values_that_are_left_out_are_those_of_the_options(cells):
    (one, other) = cells(FAKE + 'scenario = ["single-stream", "offline"]\n[[exclude]]\nmodels = "*=2"')
    assert (one.batch, other.batch) == (1, 8)
    assert (one.precision, one.target, one.threads, one.image_size) == ("fp32", "cpu", None, None)


def test_excludes_and_includes(cells):
    text = FAKE + "threads = [1, 2]\n[[exclude]]\nmodels = '*=1'\nthreads = 2\n[[include]]\nthreads = 4\nbatch = 2\n"
    found = {(cell.model[-1], cell.threads, cell.batch) for cell in cells(text)}
    assert found == {("1", 1, 1), ("2", 1, 1), ("2", 2, 1), ("1", 4, 2), ("2", 4, 2)}


def test_backends_and_precisions_are_what_deploy_builds(cells):
    found = cells('models = ["net.onnx"]\ndata = "images.npz"')
    assert {(cell.backend, cell.precision) for cell in found} == {
        (backend, precision) for backend in ("onnxruntime", "openvino") for precision in ("fp32", "int8")
    }
    assert {cell.precision for cell in cells('models = ["net.onnx"]')} == {"fp32"}


def test_assumed_preprocessing_is_noted_where_images_are_read(cells, folder):
    def notes(text):
        cells('models = ["net.onnx"]\nbackends = "onnxruntime"\n' + text)
        return [note for note in read_plan(folder / "plan.toml").notes if "net.onnx" in note]

    assert notes("") == []
    (note,) = notes('val = "images.npz"\nbatch = [1, 2]')
    assert "mean" in note
    values = 'mean = 0.5\nstd = 0.5\ninterpolation = "bilinear"\nchannels = "rgb"\nresize = "shortest"\nexif = "ignore"'
    assert notes(f'val = "images.npz"\n[preprocessing]\n{values}') == []


def test_checkpoints_and_architectures_have_every_size(cells):
    found = cells('models = ["weights.pth", "resnet18"]\nimage_size = [64, "96x64"]\nbackends = "onnxruntime"')
    assert {(cell.model, cell.image_size) for cell in found} == {
        (model, size) for model in ("weights.pth", "resnet18") for size in ("64", "96x64")
    }


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("models = [}]", InputError, "line 1"),
        ("", InputError, "models"),
        ("models = []", InputError, "models"),
        (FAKE + "batchs = 2", UnknownNameError, "batchs"),
        (FAKE + "[measure]\ndurations = 2", UnknownNameError, "durations"),
        (FAKE + "[[exclude]]\nbackend = 'fake'", UnknownNameError, "backend"),
        (FAKE + "[[exclude]]\nbackends = 'fak'", UnknownNameError, "fak"),
        (FAKE + "batch = 0", InputError, "batch"),
        (FAKE + "threads = true", InputError, "threads"),
        (FAKE + "image_size = 'big'", InputError, "image_size"),
        (FAKE + "scenario = 'ofline'", UnknownNameError, "ofline"),
        (FAKE + "precision = 'int4'", UnknownNameError, "int4"),
        (FAKE + "targets = 'tpu'", UnknownNameError, "tpu"),
        (FAKE + "[measure]\nduration = '5d'", InputError, "duration"),
        (FAKE + "[measure]\nduration = 0.01", InputError, "duration"),
        (FAKE + "[preprocessing]\nresize = 'sideways'", InputError, "[preprocessing]"),
        (FAKE + "val = 'none'", DataError, "val"),
        (FAKE + "[[exclude]]\nmodels = '*'", InputError, "no cell"),
        ("models = ['fake']\nbackends = 'fakes'", UnknownNameError, "fakes"),
        ("models = ['resnet81']", UnknownNameError, "resnet81"),
        ("models = ['nets.onnx']", InputError, "nets.onnx"),
        ("models = ['images.npz']", InputError, "images.npz"),
        ("models = ['damaged.onnx']", ModelError, "damaged.onnx"),
        ("models = ['net.onnx']\nprecision = 'int8'", InputError, "data"),
        ("models = ['net.onnx']\nimage_size = 32", InputError, "image_size"),
        ("models = ['net.onnx']\nprecision = ['fp32', 'fp16']", InputError, "fp16"),
        ("models = ['net.onnx']\nbackends = 'tensorrt'", InputError, "tensorrt"),
        ("models = ['weights.pth']\narch = 'resnet81'", UnknownNameError, "resnet81"),
    ],
)
def test_a_wrong_plan_is_refused(text, kind, named, cells, folder):
    if "tensorrt" in text:
        pytest.importorskip("tensorrt")
    with refusing(kind, named):
        cells(text)


def test_the_nearest_name_is_offered(cells):
    for text, near in (
        (FAKE + "batchs = 2", "batch"),
        ("models = ['nets.onnx']", "net.onnx"),
        (FAKE + "precision = 'in8'", "int8"),
    ):
        with pytest.raises(InputError) as caught:
            cells(text)
        assert f"nearest: {near}" in caught.value.remedy
