"""Which source of preprocessing takes precedence, and when the default applies."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.data.choosing import InputFacts, assumed_note, choose_preprocessing
from emca_deploy.errors import DataError, InputError, ModelError
from emca_deploy.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, PreprocessingOptions
from emca_deploy.results.codec import from_json

FREE = InputFacts(3)
SQUARE = InputFacts(3, 32, 32)
DEVNET = Preprocessing(32, 36, (0.5,) * 3, (0.25,) * 3, "squash", "bicubic", channels="bgr")


def choose(asked=None, known=None, facts=SQUARE):
    return choose_preprocessing("m.onnx", PreprocessingOptions(**(asked or {})), known, facts)


def test_nothing_said_is_imagenets_and_all_of_it_assumed():
    used = choose()
    assert used == Preprocessing.for_size(32)
    assert set(used.assumed) == {"resize_size", "mean", "std", "resize", "interpolation", "channels", "scale", "exif"}
    assert "0.485,0.456,0.406" in assumed_note("m.onnx", used)


def test_the_users_word_is_over_the_manifests():
    used = choose({"interpolation": "lanczos", "mean": (0.0,), "std": (1.0,)}, DEVNET)
    assert used == replace(DEVNET, interpolation="lanczos", mean=(0.0,) * 3, std=(1.0,) * 3)
    assert (used.assumed, assumed_note("m.onnx", used)) == ((), None)


def test_a_manifest_that_assumed_is_still_an_assumption():
    first = choose()
    again = choose(known=first)
    assert (again, again.assumed) == (first, first.assumed)
    said = choose({"mean": (0.5,), "std": (0.5,)}, first)
    assert set(said.assumed) == set(first.assumed) - {"mean", "std"}


@pytest.mark.parametrize(
    ("pixel_range", "scale"), [(1.0, 255), (255.0, 1)]
)  # fmt: skip
def test_a_graph_that_normalises_gets_pixels_as_it_expects_them(pixel_range, scale):
    used = choose(facts=replace(SQUARE, pixel_range=pixel_range))
    assert (used.mean, used.std, used.scale) == ((0.0,) * 3, (1.0,) * 3, scale)
    assert not {"mean", "std", "scale"} & set(used.assumed)


def test_one_channel_is_gray_without_being_told():
    used = choose(facts=InputFacts(1, 32, 32))
    assert (used.channels, used.shape) == ("gray", (1, 32, 32))
    np.testing.assert_allclose((*used.mean, *used.std), (np.mean(IMAGENET_MEAN), np.mean(IMAGENET_STD)), atol=1e-6)
    with pytest.raises(InputError):
        choose({"channels": "rgb"}, facts=InputFacts(1, 32, 32))
    with pytest.raises(InputError):
        choose({"channels": "gray"})


def test_bgr_turns_the_means_that_nobody_said_around_and_leaves_those_that_somebody_did():
    assert choose({"channels": "bgr"}).mean == IMAGENET_MEAN[::-1]
    assert choose({"channels": "bgr", "mean": (0.1, 0.2, 0.3)}).mean == (0.1, 0.2, 0.3)
    assert choose({"channels": "rgb"}, replace(DEVNET, mean=(0.1, 0.2, 0.3))).mean == (0.3, 0.2, 0.1)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, 37),
        ({"crop_pct": 0.9}, 35),
        ({"resize_size": 40}, 40),
        ({"resize": "squash"}, 32),
        ({"resize": "squash", "crop_pct": 0.5}, 64),
        ({"resize": "letterbox"}, 32),
        ({"resize": "none"}, 32),
    ],
)
def test_the_size_before_the_crop(asked, expected):
    assert choose(asked).resize_size == expected


def test_another_size_keeps_the_proportions():
    assert choose({"image_size": 64}, Preprocessing(32, 36), FREE).resize_size == 72
    assert choose({"image_size": (64, 32)}, facts=FREE).resize_size == (73, 37)
    assert choose({"image_size": 64, "crop_pct": 1.0}, Preprocessing(32, 36), FREE).resize_size == 64


def test_a_letterbox_is_filled_as_yolos_unless_told():
    used = choose({"resize": "letterbox"})
    assert used.pad_value == 114
    assert {"pad", "pad_value"} <= set(used.assumed)
    assert choose({"resize": "letterbox", "pad_value": 0.0}).pad_value == 0
    assert choose().pad_value == 0


def test_sizes_come_from_the_model_then_the_user_then_the_manifest():
    assert choose(facts=InputFacts(3, 48, 192)).shape == (3, 48, 192)
    assert choose({"image_size": (48, 192)}, facts=InputFacts(3, 48, None)).shape == (3, 48, 192)
    assert choose(known=DEVNET, facts=InputFacts()).shape == (3, 32, 32)
    with pytest.raises(ModelError) as caught:
        choose(facts=InputFacts(3, 48, None))
    assert "--image-size" in caught.value.remedy
    with pytest.raises(InputError) as refused:
        choose({"image_size": 64})
    assert "--image-size 32x32" in refused.value.remedy


def test_statistics_of_pixels_up_to_255_are_refused_and_the_remedy_gives_the_same_input():
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    with pytest.raises(InputError) as caught:
        choose({"mean": mean, "std": std})
    assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in caught.value.remedy
    assert "--scale 1" in caught.value.remedy
    raw = choose({"mean": mean, "std": std, "scale": 1})
    divided = choose({"mean": tuple(m / 255 for m in mean), "std": tuple(s / 255 for s in std)})
    pixels = np.arange(256.0)
    for channel in range(3):
        one = (pixels / raw.scale - raw.mean[channel]) / raw.std[channel]
        other = (pixels / divided.scale - divided.mean[channel]) / divided.std[channel]
        np.testing.assert_allclose(one, other, atol=1e-9)
    for asked in ({"mean": mean}, {"mean": (0.0,), "std": (255.0,)}, {"scale": 1}, {"scale": 1, "mean": mean}):
        with pytest.raises(InputError):
            choose(asked)


@pytest.mark.parametrize("channels", ["rgb", "bgr", "gray"])
def test_another_scale_needs_statistics_and_those_of_its_remedy_are_the_usual_input(channels):
    facts = InputFacts(1 if channels == "gray" else 3, 32, 32)
    with pytest.raises(InputError) as caught:
        choose({"channels": channels, "scale": 1}, facts=facts)
    words = caught.value.remedy.split()[-3:]
    mean, std = (tuple(map(float, words[index].split(","))) for index in (0, 2))
    said = choose({"channels": channels, "scale": 1, "mean": mean, "std": std}, facts=facts)
    usual = choose({"channels": channels}, facts=facts)
    for channel in range(said.channel_count):
        one, other = ((100 / used.scale - used.mean[channel]) / used.std[channel] for used in (said, usual))
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(
    "asked",
    [
        {"std": (0.0,)},
        {"std": (0.1, -0.1, 0.1)},
        {"resize": "letterbox", "resize_size": 40},
        {"resize": "none", "crop_pct": 0.9},
        {"resize_size": 40, "crop_pct": 0.9},
    ],
)
def test_values_that_make_no_sense_are_refused(asked):
    with pytest.raises(InputError):
        choose(asked)


def test_models_of_other_channels_are_refused():
    with pytest.raises(ModelError):
        choose(facts=InputFacts(4, 32, 32))


numbers = st.floats(0, 1, exclude_min=True)
records = st.builds(
    Preprocessing,
    image_size=st.integers(1, 99) | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    resize_size=st.integers(1, 99) | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    mean=st.tuples(numbers, numbers, numbers),
    std=st.tuples(numbers, numbers, numbers),
    resize=st.sampled_from(("shortest", "squash")),
    interpolation=st.sampled_from(("bilinear", "bicubic", "nearest", "lanczos")),
    pad=st.sampled_from(("center", "end")),
    pad_value=st.floats(0, 255),
    channels=st.sampled_from(("rgb", "bgr")),
    scale=st.sampled_from((1, 255)),
    exif=st.sampled_from(("apply", "ignore")),
)


@given(records)
def test_a_record_survives_json_and_the_choice_of_a_model_that_says_nothing(record):
    import json

    assert from_json(Preprocessing, json.loads(json.dumps(asdict(record)))) == record
    assert choose(known=record, facts=InputFacts()) == record
    said = {field.name: getattr(record, field.name) for field in fields(record) if field.name != "assumed"}
    assert choose(said, facts=InputFacts()) == record


def test_a_record_of_before_there_was_a_choice_is_read_as_what_was_done_then():
    old = {"image_size": 64, "resize_size": 73, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    read = from_json(Preprocessing, old)
    assert read == Preprocessing(64, 73, (0.5,) * 3, (0.2,) * 3, exif="apply")
    assert read.assumed == ()


@pytest.mark.parametrize(
    "values",
    [
        {"image_size": 0},
        {"image_size": -3},
        {"image_size": True},
        {"image_size": [3]},
        {"image_size": [60_000, 60_000]},
        {"image_size": "224"},
        {"image_size": None},
        {"mean": [0.5]},
        {"mean": [0.5, float("nan"), 0.5]},
        {"mean": None},
        {"mean": [10**400, 0, 0]},
        {"std": [0.5, 0, 0.5]},
        {"scale": 2},
        {"resize": []},
        {"channels": "cmyk"},
        {"pad_value": 300},
        {"pad_value": 10**400},
        {"unknown": 1},
        {"assumed": 3},
    ],
)
def test_a_damaged_record_is_an_error_of_data(values):
    sound = {"image_size": 64, "resize_size": 73, "mean": [0.5] * 3, "std": [0.2] * 3}
    from_json(Preprocessing, sound)
    with pytest.raises(DataError):
        from_json(Preprocessing, {**sound, **values})
