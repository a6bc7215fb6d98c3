"""Preprocessing files of other tools: the same input as from the tools' own code, and files that say something else."""

import json

import numpy as np
import pytest
from PIL import Image

from emca_deploy.artifacts import Manifest
from emca_deploy.data.choosing import InputFacts, choose_preprocessing
from emca_deploy.data.preprocessing_files import read_preprocessing_file
from emca_deploy.errors import InputError
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions
from emca_deploy.results.codec import to_json
from zoo.images import preprocess

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))


def used_of(path, document, facts=None):
    place = path / "config.json"
    place.write_text(json.dumps(document))
    said = PreprocessingOptions().over(read_preprocessing_file(place))
    return choose_preprocessing("m.onnx", said, None, facts or InputFacts())


def test_timms_config(tmp_path):
    cfg = {**SOUND, "input_size": [3, 48, 48], "interpolation": "bicubic", "mean": CLIP_MEAN, "std": CLIP_STD}
    used = used_of(tmp_path, {"architecture": "x", "pretrained_cfg": cfg})
    assert used == Preprocessing(48, 53, tuple(CLIP_MEAN), tuple(CLIP_STD), interpolation="bicubic")
    assert used.assumed == ("exif",)
    assert used_of(tmp_path, cfg) == used
    assert used_of(tmp_path, {**cfg, "crop_mode": "squash", "crop_pct": 1.0}).resize == "squash"
    assert (
        used_of(tmp_path, {name: cfg[name] for name in ("mean", "std", "crop_pct")}, InputFacts(height=48, width=48)).resize_size
        == 53
    )
    gray = used_of(tmp_path, {**cfg, "input_size": [1, 28, 28], "mean": [0.5], "std": [0.5]})
    assert gray.shape == (1, 28, 28)


@pytest.mark.parametrize(("factor", "offset"), [(1 / 255, False), (1 / 127.5, False), (1 / 127.5, True)])
def test_hugging_faces_arithmetic_comes_to_one_mean_and_one_std(tmp_path, factor, offset):
    document = {
        "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True, "rescale_factor": factor,
        "rescale_offset": offset, "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    }  # fmt: skip
    used = used_of(tmp_path, document)
    pixels = np.asarray(PHOTO.resize((32, 32), Image.Resampling.BICUBIC)).astype(np.float64)
    expected = (pixels * factor - offset - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(preprocess(PHOTO, used).transpose(1, 2, 0), expected, atol=1e-5)


def test_hugging_faces_sizes(tmp_path):
    base = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, "do_resize": True}
    clip = used_of(
        tmp_path, {**base, "size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    )
    assert (clip.resize, clip.resize_size, clip.image_size) == ("shortest", 40, 32)
    old = used_of(tmp_path, {**base, "feature_extractor_type": "ViTFeatureExtractor", "size": 24})
    assert (old.resize, old.resize_size, old.image_size) == ("squash", 24, 24)
    small = used_of(
        tmp_path, {**base, "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875}
    )
    assert (small.resize, small.resize_size, small.image_size) == ("shortest", 256, 224)
    large = used_of(tmp_path, {**base, "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}})
    assert (large.resize, large.image_size) == ("squash", 384)
    mobile = used_of(tmp_path, {"do_resize": True, "size": 32, "do_normalize": False, "do_flip_channel_order": True})
    assert (mobile.channels, mobile.mean, mobile.std) == ("bgr", (0.0,) * 3, (1.0,) * 3)


def test_a_manifest_of_ours_says_what_it_does_not_assume(tmp_path):
    known = Preprocessing((48, 64), 50, (0.1, 0.2, 0.3), (0.5,) * 3, channels="bgr", exif="apply", assumed=("mean", "std"))
    document = json.loads(json.dumps(to_json(Manifest("onnx", "0" * 64, "fp32", preprocessing=known))))
    used = used_of(tmp_path, document)
    assert used.shape == (3, 48, 64)
    assert (used.exif, used.channels, used.mean) == ("apply", "bgr", (0.406, 0.456, 0.485))
    assert used.assumed == ("mean", "std")


def test_options_go_before_the_file_and_a_wrong_value_is_said_of_the_file(tmp_path):
    place = tmp_path / "config.json"
    place.write_text(json.dumps({"mean": [123.0, 116.0, 103.0], "std": [58.0, 57.0, 57.0], "input_size": [3, 32, 32]}))
    read = read_preprocessing_file(place)
    said = PreprocessingOptions(mean=(0.5,), std=(0.5,), resize_size=40).over(read)
    used = choose_preprocessing("m.onnx", said, None, InputFacts())
    assert (used.mean, used.resize_size) == ((0.5,) * 3, 40)
    with pytest.raises(InputError) as caught:
        choose_preprocessing("m.onnx", PreprocessingOptions().over(read), None, InputFacts())
    assert str(place) in caught.value.problem


SOUND = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32], "crop_pct": 0.9}


@pytest.mark.parametrize(
    "document",
    [
        {}, [], 3, None, "x", {"pretrained_cfg": 3}, {"pretrained_cfg": []}, {"manifest_version": 1},
        {"manifest_version": 1, "preprocessing": 3}, {"manifest_version": 1, "preprocessing": {"image_size": "x"}},
        {**SOUND, "mean": None}, {**SOUND, "std": [0.5]*2}, {**SOUND, "mean": [float("inf")] * 3},
        {**SOUND, "mean": [10**400] * 3},
        {**SOUND, "input_size": [3]}, {**SOUND, "input_size": [3, 0, 1]}, {**SOUND, "crop_pct": 0}, {**SOUND, "crop_pct": "x"},
        {**SOUND, "crop_mode": "border"}, {**SOUND, "interpolation": "box"}, {**SOUND, "std": [0.0] * 3},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, {"do_normalize": True, "size": 32},
        {"do_normalize": False, "size": {"shortest_edge": 32}}, {"do_normalize": False, "size": 32, "resample": 4},
        {"do_normalize": False, "size": 32, "rescale_factor": 0}, {"do_normalize": False, "size": {"height": 3}},
        {"do_normalize": False, "size": 10**9}, {"do_normalize": False, "size": [[]]}, {"do_normalize": False, "size": True},
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_an_input_error(tmp_path, document):
    with pytest.raises(InputError):
        used_of(tmp_path, document, InputFacts(3, 32, 32) if isinstance(document, dict) and "crop_pct" in document else None)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"\0" * 10])
def test_what_is_no_json_is_an_input_error(tmp_path, content):
    place = tmp_path / "config.json"
    place.write_bytes(content)
    with pytest.raises(InputError):
        read_preprocessing_file(place)
    for missing in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError):
            read_preprocessing_file(missing)
