import numpy as np
import pytest

from emca_deploy.data.checking.diagnosis import Given, diagnose
from emca_deploy.data.checking.mistakes import candidates
from emca_deploy.data.checking.probes import PROBES, probes
from emca_deploy.data.checking.steps import Steps
from emca_deploy.data.preprocess import normalize, to_pixels, upright
from emca_deploy.preprocessing import Preprocessing

USED = {
    "imagenet": Preprocessing(32, 37),
    "upright": Preprocessing(32, 37, exif="apply"),
    "stretched": Preprocessing(32, 32, resize="squash"),
    "letterbox": Preprocessing(32, 32, resize="letterbox", pad_value=114),
    "bgr": Preprocessing(32, 40, channels="bgr", scale=1, mean=(103.5, 116.3, 123.7), std=(1.0, 1.0, 1.0)),
    "opencv": Preprocessing(32, 37, interpolation="opencv-linear"),
    "gray": Preprocessing(32, 37, (0.3,), (0.35,), channels="gray"),
    "uncropped": Preprocessing((24, 40), (24, 40), resize="none"),
}


@pytest.mark.parametrize("name", USED)
def test_the_right_steps_are_those_of_the_package(name):
    used = USED[name]
    right = Steps.of(used)
    for probe in probes(used)[:6]:
        image = probe.opened()
        wanted = normalize(to_pixels(upright(image, used.exif), used), used)
        assert np.abs(right.tensor(image, right, "float32")[0] - wanted).max() < 1e-5


def test_probes_are_many_small_and_the_same_each_time():
    first, second = probes(Preprocessing()), probes(Preprocessing())
    assert first == second
    assert len(first) == PROBES
    assert sum(len(probe.content) for probe in first) + PROBES * 224 * 224 * 3 < 4e6
    assert {probe.name.rpartition(".")[2] for probe in first} == {"jpg", "png"}


def given(candidate, images, right):
    """Return what a program with these steps writes: arrays of the model's own shape."""
    return [Given(candidate.steps.tensor(image.opened(), right, "float32")) for image in images]


@pytest.mark.parametrize("name", ["imagenet", "letterbox", "bgr"])
def test_every_single_mistake_and_some_pairs_are_named(name):
    used = USED[name]
    right, images = Steps.of(used), probes(used)[:5]
    known = candidates(right)
    single = [each for each in known if len(each.mistakes) <= 1]
    pairs = [each for each in known if len(each.mistakes) == 2][::197]
    for candidate in (*single, *pairs):
        found = diagnose(images, given(candidate, images, right), right, "float32")
        for image, each in zip(images, given(candidate, images, right), strict=True):
            same = found.steps.tensor(image.opened(), right, "float32")
            assert np.abs(each.array - same).max() < 1e-4, (candidate.mistakes, found.mistakes)
        assert len(found.mistakes) <= len(candidate.mistakes)


def test_a_decoder_that_differs_by_rounding_is_right():
    right, images = Steps.of(USED["imagenet"]), probes(USED["imagenet"])
    random = np.random.default_rng(0)
    noisy = []
    for image in images:
        pixels = right.geometry.pixels(image.opened())
        off = random.choice([-1, 0, 0, 0, 1], pixels.shape)
        noisy.append(Given(right.values.numbers(pixels + off).transpose(2, 0, 1).astype(np.float32)))
    assert diagnose(images, noisy, right, "float32").right


def test_layout_and_dtype_show_in_the_array_itself():
    right, images = Steps.of(USED["imagenet"]), probes(USED["imagenet"])[:4]
    rows = [right.values.numbers(right.geometry.pixels(image.opened())) for image in images]
    found = diagnose(images, [Given(each[None]) for each in rows], right, "float32")
    assert [mistake.step for mistake in found.mistakes] == ["dtype", "layout"]
    assert found.steps.values.interleaved
