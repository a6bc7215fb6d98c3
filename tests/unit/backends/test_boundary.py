"""Models with inputs other than (N, C, H, W) float32 or outputs other than (N, classes) float32 give the same logits."""

import numpy as np
import pytest

from emca_deploy.backends.registry import open_runner
from emca_deploy.errors import InputError, ModelError, UnknownNameError
from emca_deploy.tasks.logits import logits_of

BACKENDS = ("onnxruntime", "openvino")
WEIGHT = "<float[4,3,3,3] w>"


def network(head: str, body: str, ins: str, outs: str, channels: int = 3, kind: str = "float") -> str:
    rng = np.random.default_rng(7)
    numbers = ", ".join(f"{x:.6f}" for x in rng.standard_normal(4 * channels * 9))
    weight = f"{kind}[4,{channels},3,3] w = {{{numbers}}}"
    return f"({ins}) => ({outs}) <{weight}> {{ {head} c = Conv(x, w) p = GlobalAveragePool(c) {body} }}"


def plain(channels: int = 3) -> str:
    return network("x = Identity(images)", "y = Flatten(p)", f"float[N,{channels},8,6] images", "float[N,4] y", channels)


def logits(path, backend, images, **options):
    pytest.importorskip(backend)
    with open_runner(backend, str(path), **options) as runner:
        assert runner.input.dtype == "float32"
        assert runner.input.shape[1:] == images.shape[1:]
        answer = runner.infer(images).copy()
        again = runner.infer(runner.to_native(images)).copy()
        np.testing.assert_array_equal(answer, again)
        return logits_of(answer) if runner.softmax else answer


FORMS = {
    "nhwc": network("x = Transpose <perm = [0, 3, 1, 2]> (images)", "y = Flatten(p)", "float[N,8,6,3] images", "float[N,4] y"),
    "nhwc of dynamic size": network(
        "x = Transpose <perm = [0, 3, 1, 2]> (images)", "y = Flatten(p)", "float[N,H,W,3] images", "float[N,4] y"
    ),
    "dynamic size": network("x = Identity(images)", "y = Flatten(p)", "float[N,3,H,W] images", "float[N,4] y"),
    "nameless sizes": network("x = Identity(images)", "y = Flatten(p)", "float[?,3,?,?] images", "float[?,4] y"),
    "uint8": network("x = Cast <to = 1> (images)", "y = Flatten(p)", "uint8[N,3,8,6] images", "float[N,4] y"),
    "uint8 nhwc": network(
        "t = Transpose <perm = [0, 3, 1, 2]> (images) x = Cast <to = 1> (t)",
        "y = Flatten(p)",
        "uint8[N,8,6,3] images",
        "float[N,4] y",
    ),
    "four dimensions": network("x = Identity(images)", "y = Identity(p)", "float[N,3,8,6] images", "float[N,4,1,1] y"),
    "class index beside": network(
        "x = Identity(images)",
        "y = Flatten(p) k = ArgMax <axis = 1, keepdims = 0> (y)",
        "float[N,3,8,6] images",
        "int64[N] k, float[N,4] y",
    ),
    "probabilities beside": network(
        "x = Identity(images)", "y = Flatten(p) s = Softmax <axis = 1> (y)", "float[N,3,8,6] images", "float[N,4] s, float[N,4] y"
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_logits(make_onnx, form: str, backend: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 6)).astype(np.float32)
    wanted = logits(make_onnx(plain(), "plain.onnx"), backend, images)
    io = {"image_size": [8, 6]} if "size" in form else None
    found = logits(make_onnx(FORMS[form]), backend, images, io=io)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_probabilities_become_logits(make_onnx, backend: str) -> None:
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 6)).astype(np.float32)
    wanted = logits(make_onnx(plain(), "plain.onnx"), backend, images)
    graph = network("x = Identity(images)", "f = Flatten(p) y = Softmax <axis = 1> (f)", "float[N,3,8,6] images", "float[N,4] y")
    found = logits(make_onnx(graph), backend, images)
    np.testing.assert_allclose(found, wanted - wanted.mean(axis=1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_at_both_ends(make_onnx, backend: str) -> None:
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 6)).astype(np.float32)
    wanted = logits(make_onnx(plain(), "plain.onnx"), backend, images)
    graph = network(
        "x = Cast <to = 1> (images)", "f = Flatten(p) y = Cast <to = 10> (f)", "float16[N,3,8,6] images", "float16[N,4] y"
    )
    np.testing.assert_allclose(logits(make_onnx(graph), backend, images), wanted, atol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_channel(make_onnx, backend: str) -> None:
    images = np.random.default_rng(1).standard_normal((2, 1, 8, 6)).astype(np.float32)
    assert logits(make_onnx(plain(1)), backend, images).shape == (2, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_output_by_name(make_onnx, backend: str) -> None:
    pytest.importorskip(backend)
    graph = network(
        "x = Identity(images)",
        "y = Flatten(p) m = GlobalMaxPool(c) z = Flatten(m)",
        "float[N,3,8,6] images",
        "float[N,4] y, float[N,4] z",
    )
    path = make_onnx(graph)
    images = np.random.default_rng(1).standard_normal((1, 3, 8, 6)).astype(np.float32)
    with pytest.raises(ModelError, match="--output-name"):
        open_runner(backend, str(path)).open()
    with pytest.raises(UnknownNameError):
        open_runner(backend, str(path), io={"output_name": "q"}).open()
    first, second = (logits(path, backend, images, io={"output_name": name}) for name in ("y", "z"))
    assert (second > first).all()  # the largest value is above the mean


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_size_that_the_model_does_not_take(make_onnx, backend: str) -> None:
    pytest.importorskip(backend)
    with pytest.raises(InputError, match="8x6"):
        open_runner(backend, str(make_onnx(plain())), io={"image_size": [16, 16]}).open()
