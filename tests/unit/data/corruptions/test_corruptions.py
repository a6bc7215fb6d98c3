from math import log10

import numpy as np
import pytest

from emca_deploy.data.corruptions.corruption import STRENGTHS
from emca_deploy.data.corruptions.filters import convolved, disk, gaussian, line, moved, plasma, scale_of
from emca_deploy.data.corruptions.registry import CORRUPTIONS, chosen_corruptions, corruption_names
from emca_deploy.errors import UnknownNameError

FIXED = {"defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg", "nearest-resize", "strong-jpeg"}
"""Kinds without random numbers."""

KINDS = pytest.mark.parametrize("kind", CORRUPTIONS.values(), ids=CORRUPTIONS)


def picture(height=64, width=48, seed=0):
    """A dark image with a bright, coloured, striped shape, like an object on a background."""
    rows, columns = np.mgrid[:height, :width] / 64
    stripes = 0.7 + 0.3 * np.sin(20 * columns + 9 * rows)
    shape = (np.hypot(rows - 0.45, columns - 0.4) < 0.3) * stripes
    grain = np.random.default_rng(seed).random((height, width, 1)) * 0.1
    return np.rint(255 * (0.05 + grain + 0.8 * shape[:, :, None] * (1, 0.8, 0.5))).clip(0, 255).astype(np.uint8)


@KINDS
def test_every_kind_changes_the_image_more_with_every_strength_and_keeps_its_form(kind):
    image = picture(112, 112)
    before = image.copy()
    results = [kind.corrupted(image, strength, index=3) for strength in STRENGTHS]
    assert {(result.shape, result.dtype.name) for result in results} == {(image.shape, "uint8")}
    assert (image == before).all()
    away = [np.abs(result.astype(float) - image).mean() for result in results]
    assert away[0] > 0
    assert away[0] < away[-1]
    assert away == sorted(away)


@KINDS
def test_the_seed_the_kind_and_the_index_decide(kind):
    image = picture(32, 32)
    found = kind.corrupted(image, 3, index=5)
    assert (found == kind.corrupted(image, 3, index=5)).all()
    others = kind.corrupted(image, 3, index=6), kind.corrupted(image, 3, index=5, seed=1)
    assert [(found == other).all() for other in others] == [kind.name in FIXED] * 2


@KINDS
@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_and_small_ones_are_no_special_case(kind, value):
    for size in ((1, 1), (8, 9)):
        assert kind.corrupted(np.full((*size, 3), value, np.uint8), 5, 0).shape == (*size, 3)


def values(image, name, strength):
    """The corruption of a flat image of 0.5, as numbers."""
    return CORRUPTIONS[name].corrupted(image, strength, 0).astype(float) / 255


@pytest.mark.parametrize(("side", "deviation"), [(224, 0.08), (56, 0.04)])
def test_noise_falls_with_the_root_of_the_size(side, deviation):
    flat = np.full((side, side, 3), 128, np.uint8)
    assert values(flat, "gaussian-noise", 1).std() == pytest.approx(deviation, rel=0.03)
    photons = 60 * 224 / side
    assert values(flat, "shot-noise", 1).std() == pytest.approx((0.502 / photons) ** 0.5, rel=0.03)
    share = (values(flat, "impulse-noise", 5) != 128 / 255).mean()
    assert share == pytest.approx(0.27 * (side / 224) ** 0.5, rel=0.05)


def test_formulas_at_known_values():
    image = np.zeros((224, 224, 3), np.uint8)
    image[:, :112] = (200, 100, 50)
    assert values(image, "contrast", 1)[0, [0, -1], 0] * 255 == pytest.approx([140, 60], abs=0.51)  # 100 +- 0.4 * 100
    assert values(image, "brightness", 1)[0, 0] * 255 == pytest.approx(np.array((200, 100, 50)) * 225.5 / 200, abs=0.51)
    assert values(image, "brightness", 1)[0, -1] * 255 == pytest.approx([25.5] * 3, abs=0.51)
    linear = (values(image, "white-balance", 5)[0, 0] * 255 / (200, 100, 50)) ** 2.2
    assert linear[1] == pytest.approx(1, rel=0.02)
    assert linear[[0, 2]] == pytest.approx((0.5, 2), rel=0.05) or linear[2] == pytest.approx(0.5, rel=0.05)
    blocks = CORRUPTIONS["pixelate"].corrupted(picture(224, 224), 5, 0)  # 4 x 4 pixels
    assert (blocks.reshape(56, 4, 56, 4, 3) == blocks[::4, ::4].reshape(56, 1, 56, 1, 3)).all()


def test_jpeg_has_the_authors_quality_at_224_and_finer_steps_below():
    from emca_deploy.data.corruptions.digital import encoded

    for side, quality in ((224, 10), (112, 20), (56, 40)):  # steps of 500%, 250% and 125%
        image = picture(side, side)
        expected = np.rint(encoded(image / np.float32(255), quality) * 255)
        assert (CORRUPTIONS["jpeg"].corrupted(image, 4, 0) == expected).all()


def test_filters():
    image = np.random.default_rng(0).random((20, 30, 3), np.float32)
    alone = np.zeros((5, 3), np.float32)
    alone[0, 2] = 1  # moves by 2 rows up and 1 column to the right
    assert convolved(image, alone)[:-2, 1:] == pytest.approx(image[2:, :-1], abs=1e-6)
    assert [float(kernel.sum()) for kernel in (disk(0.3), disk(4), gaussian(0.2), line(3, 30))] == pytest.approx(
        [1] * 4, abs=1e-6
    )
    assert disk(1)[1] == pytest.approx(np.array((1, 1, 1)) / (5 + 4 * (2 - 2**0.5)), abs=1e-6)
    level = line(2, 0)  # to the right only
    assert level[:, level.shape[1] // 2 :].sum() == pytest.approx(1, abs=1e-6)
    assert moved(image, np.full((20, 30), 1, np.float32), np.full((20, 30), -2, np.float32))[:-1, 2:] == pytest.approx(
        image[1:, :-2]
    )
    assert moved(image, np.full((20, 30), 0.5, np.float32), np.zeros((20, 30), np.float32))[0] == pytest.approx(
        (image[0] + image[1]) / 2, abs=1e-6
    )
    clouds = plasma((20, 30), 2, np.random.default_rng(0))
    assert (clouds.min(), clouds.max(), clouds.shape) == (0, 1, (20, 30))
    assert log10(scale_of(np.zeros((2240, 4000, 3), np.float32))) == 1


def test_names_of_kinds_and_sets():
    assert len(CORRUPTIONS) == 20
    assert all(len(kind.parameters) == len(STRENGTHS) == 5 for kind in CORRUPTIONS.values())
    assert {kind.group for kind in chosen_corruptions("imagenet-c")} == {"noise", "blur", "weather", "digital"}
    assert len(chosen_corruptions("imagenet-c")) == 15
    assert chosen_corruptions("all") == tuple(CORRUPTIONS.values())
    assert [kind.name for kind in chosen_corruptions("fog, jpeg,fog,camera")][:3] == ["fog", "jpeg", "low-light"]
    assert corruption_names()[:3] == ("all", "imagenet-c", "camera")
    with pytest.raises(UnknownNameError) as caught:
        chosen_corruptions("fog,motion")
    assert "motion-blur" in caught.value.remedy
