"""The contract of runners, tested on every backend."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.backends.base import Runner
from emca_deploy.backends.registry import BACKENDS, available, get_builder, open_runner
from emca_deploy.errors import InputError

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A runner's factory (it takes `open_runner`'s options), the size of its images and the expected logits.

    OpenVINO's engines are already compiled: a dynamic batch in one stays dynamic. TensorRT's fp32 may be TF32.
    """

    make: Callable[..., Runner]
    size: int
    expected: Callable[[np.ndarray], np.ndarray]
    specialises: bool = True
    tolerance: float = 1e-4

    def images(self, count: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((count, 3, self.size, self.size)).astype(np.float32)


def of_onnx(classifier: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(classifier), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def of_checkpoint(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from emca_deploy.networks.registry import create_model

    module = create_model("emca_eca_resnet10", CLASSES).eval()
    module.load_state_dict(torch.load(path, weights_only=True))

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return logits


def of_fake(images: np.ndarray) -> np.ndarray:
    weights = np.random.default_rng(0).standard_normal((24, CLASSES)).astype(np.float32)
    return np.concatenate([image.mean(axis=1).reshape(1, -1) @ weights for image in images])


KINDS = ["onnxruntime", "openvino", "torch", "fake", "tensorrt", "tensorrt-rtx", "onnxruntime engine", "openvino engine"]


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    backend, _, engine = request.param.partition(" ")
    status = available()[backend]
    if status.reason:
        pytest.skip(f"{backend}: {status.reason}")
    if backend == "fake":
        return Case(lambda **options: open_runner("fake", f"fake:classes={CLASSES},size=8", **options), 8, of_fake)
    if backend == "torch":
        checkpoint: Path = request.getfixturevalue("checkpoint")
        return Case(lambda **options: open_runner("torch", str(checkpoint), **options), 32, of_checkpoint(checkpoint))
    model: Path = request.getfixturevalue("classifier")
    artifact = model
    if engine:
        from emca_deploy.backends.base import RunOptions

        artifact = tmp_path / "classifier.engine"
        get_builder(backend).build(model, artifact, RunOptions())
    return Case(
        lambda **options: open_runner(backend, str(artifact), **options),
        8,
        of_onnx(model),
        specialises=request.param != "openvino engine",
        tolerance=1e-2 if backend.startswith("tensorrt") else 1e-4,
    )


class TestRunnerContract:
    def test_nothing_is_loaded_before_enter(self, case: Case) -> None:
        runner = case.make()
        assert not hasattr(runner, "input")
        with pytest.raises(RuntimeError):
            runner.infer(case.images(1))

    def test_names_its_input_and_output(self, case: Case) -> None:
        with case.make() as runner:
            assert runner.input.dtype == runner.output.dtype == "float32"
            assert isinstance(runner.input.shape[0], str)
            assert runner.input.shape[1] == 3
            assert all(isinstance(size, int) for size in runner.input.shape[1:])
            assert runner.output.shape[1:] == (CLASSES,)

    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("fixed", [False, True])
    def test_logits_are_right(self, case: Case, count: int, fixed: bool) -> None:
        images = case.images(count)
        with case.make(batch=count if fixed else None) as runner:
            logits = runner.infer(images)
            assert logits.shape == (count, CLASSES)
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, case.expected(images), rtol=case.tolerance, atol=case.tolerance)

    def test_every_call_sees_its_own_batch(self, case: Case) -> None:
        first, second, many = case.images(1, seed=1), case.images(1, seed=2), case.images(3, seed=3)
        with case.make() as runner:
            answers = [runner.infer(images).copy() for images in (first, second, many, first, first)]
            reused = first.copy()
            runner.infer(reused)
            reused[:] = second
            answers.append(runner.infer(reused).copy())
        for images, answer in zip((first, second, many, first, first, second), answers, strict=True):
            np.testing.assert_allclose(answer, case.expected(images), rtol=case.tolerance, atol=case.tolerance)

    def test_memory_of_any_layout_will_do(self, case: Case) -> None:
        images = case.images(2)
        frozen = images.copy()
        frozen.flags.writeable = False
        with case.make() as runner:
            for variant in (np.asfortranarray(images), images[:, :, ::-1, ::-1], frozen):
                expected = case.expected(np.array(variant, order="C"))
                np.testing.assert_allclose(runner.infer(variant), expected, rtol=case.tolerance, atol=case.tolerance)

    def test_what_does_not_fit_is_refused_and_does_no_harm(self, case: Case) -> None:
        images = case.images(1)
        wrong = [
            images[0],
            images[:, :1],
            images[:0],
            images.astype(np.float64),
            images.astype(np.float16),
            images.astype(">f4"),
            images.tolist(),
        ]
        with case.make() as runner:
            for batch in wrong:
                with pytest.raises(InputError):
                    runner.infer(batch)
            np.testing.assert_allclose(runner.infer(images), case.expected(images), rtol=case.tolerance, atol=case.tolerance)

    def test_a_fixed_batch_takes_no_other(self, case: Case) -> None:
        with case.make(batch=2) as runner:
            if case.specialises:
                assert runner.input.shape[0] == 2
                with pytest.raises(InputError, match="2"):
                    runner.infer(case.images(3))
            else:
                assert len(runner.infer(case.images(3))) == 3

    def test_threads_do_not_change_the_answer(self, case: Case) -> None:
        images = case.images(2)
        with case.make(threads=2, spin=False) as runner:
            np.testing.assert_allclose(runner.infer(images), case.expected(images), rtol=case.tolerance, atol=case.tolerance)
            assert runner.describe()["threads"] == 2

    def test_closes_twice_and_opens_again(self, case: Case) -> None:
        images = case.images(1)
        runner = case.make()
        for _ in range(2):
            with runner:
                np.testing.assert_allclose(runner.infer(images), case.expected(images), rtol=case.tolerance, atol=case.tolerance)
            runner.close()
            with pytest.raises(RuntimeError):
                runner.infer(images)

    def test_two_live_side_by_side(self, case: Case) -> None:
        images, others = case.images(1, seed=1), case.images(1, seed=2)
        with case.make() as one, case.make() as two:
            first = one.infer(images)
            two.infer(others)
            np.testing.assert_allclose(first, case.expected(images), rtol=case.tolerance, atol=case.tolerance)

    def test_a_precision_it_does_not_have_is_refused(self, case: Case) -> None:
        with pytest.raises(InputError, match="f128"), case.make(precision="f128"):
            pass


def test_the_contract_covers_every_backend_with_a_runner() -> None:
    assert {name for name, entry in BACKENDS.items() if entry.runner} == {kind.split()[0] for kind in KINDS}
