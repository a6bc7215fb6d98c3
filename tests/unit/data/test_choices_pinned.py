"""Preprocessing, labels and layouts for all combinations of what is given, pinned.

Where a change of a choice is meant, regenerate the golden file with --regenerate-golden.
"""

import hashlib
import json
import re
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.artifacts import Preprocessing, TensorSpec
from emca_deploy.data.choosing import InputFacts, assumed_for, assumed_note, choose_preprocessing, network_preprocessing
from emca_deploy.data.label_files import LabelFile, read_class_map
from emca_deploy.data.labels import LabelsFound, check_classes, class_warnings, label_images
from emca_deploy.data.layout import find_images
from emca_deploy.data.preprocessing_files import read_preprocessing_file
from emca_deploy.errors import EmcaError
from emca_deploy.preprocessing import Labelling, PreprocessingOptions


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that messages do not name it


def outcome(make, *arguments):
    """Return what a function returns, or its error's class with the numbers, options and names in its sentences."""
    try:
        return make(*arguments)
    except EmcaError as exc:
        return f"{type(exc).__name__} {' '.join(facts_of(f'{exc.problem} {exc.remedy}'))}"


def facts_of(text):
    return re.findall(r"--[a-z-]+|'[^']*'|\d+(?:[.,x]\d+)*", text)


def plain(found):
    return found if isinstance(found, str) else {key: value for key, value in asdict(found).items() if value not in ((), None)}


def digest(document):
    return hashlib.sha256(json.dumps(document, default=str, sort_keys=True).encode()).hexdigest()[:12]


ASKED = {
    "nothing": {},
    "size": {"image_size": 96},
    "pair": {"image_size": (96, 64), "crop_pct": 0.8},
    "resize": {"resize_size": 100},
    "both": {"resize_size": 100, "crop_pct": 0.8},
    "squash": {"resize": "squash"},
    "letterbox": {"resize": "letterbox", "pad": "end"},
    "letterbox and crop": {"resize": "letterbox", "crop_pct": 0.8},
    "none": {"resize": "none", "exif": "apply", "interpolation": "nearest"},
    "gray": {"channels": "gray"},
    "bgr": {"channels": "bgr"},
    "mean": {"mean": (0.5,)},
    "statistics": {"mean": (0.1, 0.2, 0.3), "std": (0.4,)},
    "large": {"mean": (127.5,), "std": (127.5,)},
    "large std": {"std": (58.0,)},
    "scale": {"scale": 1},
    "scaled": {"scale": 1, "mean": (127.5,), "std": (127.5,)},
    "half scaled": {"scale": 1, "std": (2.0,)},
    "zero": {"std": (0.0, 1.0, 1.0)},
    "two": {"mean": (0.1, 0.2)},
    "padded": {"pad_value": 3.0},
}
OWN = Preprocessing(64, 72, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
KNOWN = {
    "nothing": None,
    "own": OWN,
    "guessed": replace(OWN, assumed=("resize", "resize_size", "mean", "std", "pad_value", "scale")),
    "letterbox": replace(OWN, resize="letterbox", resize_size=64, pad_value=7.0, channels="bgr", assumed=("pad", "pad_value")),
    "gray": replace(OWN, image_size=(64, 48), resize_size=(80, 60), channels="gray", mean=(0.5,), std=(0.25,), scale=1),
}
FACTS = {
    "free": InputFacts(),
    "fixed": InputFacts(3, 96, 96),
    "gray": InputFacts(1, 64, 64),
    "own range": InputFacts(3, None, None, 255.0),
    "unit": InputFacts(3, 96, None, 1.0),
    "four": InputFacts(4, 64, 64),
}


@pytest.mark.parametrize("known", KNOWN)
def test_preprocessing_is_chosen_as_before(golden, known):
    found = {}
    for asked, facts in product(ASKED, FACTS):
        made = outcome(choose_preprocessing, "net", PreprocessingOptions(**ASKED[asked]), KNOWN[known], FACTS[facts])
        note = "" if isinstance(made, str) else " ".join(facts_of(assumed_note("net", made) or ""))
        if isinstance(made, str):
            found[f"{asked}, {facts}"] = made
        else:
            sides = f"{made.image_size} {made.resize} {made.resize_size} {made.channels} {made.scale}"
            found[f"{asked}, {facts}"] = f"{sides} {' '.join(made.assumed)} {digest([asdict(made), note])}"
    golden(f"data/choices-{known}", found)


def test_preprocessing_of_inputs_and_networks(golden):
    shapes = {"images": (1, 3, 32, 48), "gray": ("n", 1, 28, 28), "flat": (1, 10), "free": ("n", 3, "h", "w")}
    found = {name: plain(outcome(assumed_for, TensorSpec(name, "float32", shape), None)) for name, shape in shapes.items()}
    found["network"] = plain(network_preprocessing(PreprocessingOptions()))
    found["small network"] = plain(network_preprocessing(PreprocessingOptions(image_size=64)))
    golden("data/inputs", json.loads(json.dumps(found)))


TIMM = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 64, 48], "crop_pct": 0.9}
FACES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"height": 64, "width": 48}}
SHORT = {**FACES, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
DOCUMENTS = {
    "timm": TIMM,
    "timm inside": {"pretrained_cfg": {**TIMM, "crop_mode": "squash", "interpolation": "random"}, "architecture": "x"},
    "timm without size": {"mean": 0.5, "std": [0.5], "crop_pct": 1.0},
    "timm gray": {**TIMM, "input_size": [1, 28, 28], "interpolation": "bicubic"},
    "timm border": {**TIMM, "crop_mode": "border"},
    "timm wrong": {**TIMM, "crop_pct": 1.5},
    "timm two": {**TIMM, "mean": [0.1, 0.2]},
    "faces": FACES,
    "faces short": SHORT,
    "faces uncropped": {**SHORT, "do_center_crop": False},
    "faces not resized": {**SHORT, "do_resize": False},
    "faces not resized or cropped": {**SHORT, "do_resize": False, "do_center_crop": False},
    "faces as they are": {**FACES, "do_normalize": False, "do_rescale": False, "resample": 3},
    "faces factor": {**FACES, "rescale_factor": 1 / 127.5, "rescale_offset": True, "resample": "lanczos"},
    "faces without offset": {**FACES, "rescale_factor": 1 / 127.5, "do_flip_channel_order": True, "resample": 0},
    "faces top": {**FACES, "include_top": True, "size": 300, "resample": 1},
    "faces convnext": {**SHORT, "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
    "faces convnext crop": {**SHORT, "feature_extractor_type": "ConvNextX", "size": {"shortest_edge": 383}, "crop_pct": 0.95},
    "faces convnext large": {**SHORT, "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
    "faces no size": {**FACES, "size": None},
    "faces wide": {**FACES, "size": {"longest_edge": 64}},
    "faces zero": {**FACES, "size": 0},
    "faces bool": {**FACES, "size": True},
    "faces rescale": {**FACES, "rescale_factor": 0},
    "faces resample": {**FACES, "resample": 9},
    "manifest": {
        "manifest_version": 1,
        "preprocessing": {"image_size": 64, "resize_size": 72, "mean": [0.1] * 3, "std": [0.2] * 3},
    },
    "manifest without": {"manifest_version": 1, "preprocessing": None},
    "list": [],
    "other": {"mean": [0.1]},
}


def test_files_of_preprocessing_are_read_as_before(golden):
    found = {}
    for name, document in DOCUMENTS.items():
        path = Path("file.json")
        path.write_text(json.dumps(document))
        made = outcome(read_preprocessing_file, path)
        found[name] = (
            made if isinstance(made, str) else {k: v for k, v in asdict(made).items() if v is not None and k != "source"}
        )
    golden("data/files", json.loads(json.dumps(found)))


LABELS = {
    "lines": "a.jpg 1\nb/c.png 2\n\nd e.jpg 1\n",
    "csv": "file,label\na.jpg,cat\nb/c.png,dog\nd e.jpg,cat\n",
    "tabs": "a.jpg\tcat\nc\tdog\nd e\tcat\n",
    "kaggle": "ImageId,PredictionString\na,n01 1 2 3 4\nc,n02 5 6\nd e,n01 0\n",
    "heading last": "label,extra,name\ncat,1,a.jpg\ndog,2,c.png\ncat,3,d e.jpg\n",
    "heading of labels": "x,label\na.jpg,0\nc.png,1\nd e.jpg,0\n",
    "unknown heading": "first,second\na.jpg,u\nc.png,v\nd e.jpg,u\n",
    "windows": ".\\a.jpg 1\nb\\c.png 2\nd e.jpg 3\n",
    "twice": "a.jpg 1\na.jpg 2\n",
    "same twice": "a.jpg 1\na.jpg 1\nc.png 2\nd e.jpg 2\n",
    "missing": "a.jpg 1\n",
    "short": "a.jpg\n",
    "empty": "\n",
    "negative": "a.jpg -1\nc.png 0\nd e.jpg 1\n",
}


def test_files_of_labels_are_read_as_before(golden):
    names = ("a.jpg", "b/c.png", "d e.jpg")
    found = {}
    for (name, text), suffix in product(LABELS.items(), (".txt", ".csv")):
        path = Path(f"labels{suffix}")
        path.write_text(text)
        found[f"{name}{suffix}"] = outcome(lambda path=path: [LabelFile(path).of(names), LabelFile(path).classes(names)])
        for offset in (0, 1, -1):
            made = outcome(label_images, names, (), (), Labelling(labels=path, offset=offset))
            found[f"{name}{suffix} {offset}"] = made if isinstance(made, str) else described(made)
    golden("data/labels", json.loads(json.dumps(found)))


def described(found: LabelsFound | None):
    if found is None:
        return None
    strings = None if found.as_strings is None else described(found.as_strings)
    return [found.labels.tolist(), list(found.classes), found.count, found.source, found.said, strings]


MAPS = {
    "list": '["cat", "dog"]',
    "lists": '[["n1", "cat"], ["n2", "dog"]]',
    "outputs": '{"0": "cat", "1": ["n2", "dog"]}',
    "names": '{"cat": 1, "dog": 0}',
    "id2label": '{"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 5}}',
    "label2id": '{"label2id": {"cat": 5, "dog": 6}}',
    "names of digits": '{"3": 0, "7": 1}',
    "bool": '{"cat": true}',
    "mixed": '["cat", 3]',
    "nested": '{"0": ["cat", 3]}',
    "negative": '{"cat": -1}',
    "twice": '[["cat"], ["cat"]]',
    "empty": "{}",
    "number": "3",
    "lines": "cat 0\ndog 1\n",
    "heading": "name,output\ncat,4\ndog,2\n",
    "outputs first": "0 cat\n1 hot dog\n",
    "words": "n1 cat, house cat\nn2 dog\nbird\n",
    "long": "cat 1234567890\n",
}


def test_class_maps_are_read_as_before(golden):
    found = {}
    for name, text in MAPS.items():
        path = Path("map")
        path.write_text(text)
        found[name] = outcome(read_class_map, path)
        for folders in (("cat", "dog"), ("1", "2", "10")):
            for order in (None, "index", "string", "number"):
                made = outcome(
                    label_images, (), folders, [0, 1, 1], Labelling(class_map=path if order is None else None, order=order)
                )
                found[f"{name} {' '.join(folders)} {order}"] = made if isinstance(made, str) else described(made)
    found["own"] = described(label_images((), (), (), Labelling(offset=2), np.array([0, 4, 2])))
    found["own, negative"] = outcome(label_images, (), (), (), Labelling(offset=-1), np.array([0, 4, 2]))
    found["folders"] = described(label_images((), ("1", "2", "10"), [0, 1, 2], Labelling()))
    golden("data/maps", json.loads(json.dumps(found)))


def test_numbers_of_classes_are_compared_as_before(golden):
    found = {}
    sets = {"plain": [0, 1, 2], "from one": [1, 2, 3], "with a gap": [0, 1, 4], "negative": [-1, 0, 1]}
    for (name, labels), outputs in product(sets.items(), (2, 3, 4, 5, 9)):
        array = np.array(labels)
        found[f"{name} {outputs}"] = outcome(check_classes, "net", array, outputs)
        for source, said, classes in product(("folders", "file", "array"), (False, True), (("1", "2", "8"), ("a", "b", "c"))):
            made = LabelsFound(array, classes, 3, source, said)
            words = [facts_of(warning) for warning in class_warnings(made, outputs)]
            if words:
                found[f"{name} {outputs} {source} {said} {classes[0]}"] = words
    golden("data/classes", found)


class Store:
    def __init__(self, *names):
        self.names, self.path = names, Path("data")


LAYOUTS = {
    "flat": ("b.png", "a.JPG", ".hidden.png", "notes.txt"),
    "folders": ("b/", "b/1.png", "a/", "a/x/2.png", "__MACOSX/b/1.png", "b/.x.png"),
    "numbers": ("10/1.png", "9/1.png", "01/1.png"),
    "digits": ("1" * 20 + "/1.png", "2/1.png"),
    "wrapped": ("top/", "top/a/1.png", "top/b/2.png"),
    "wrapped twice": ("top/in/a/1.png", "top/in/b/2.png"),
    "wrapped flat": ("top/1.png", "top/2.png"),
    "one class": ("a/1.png", "a/2.png"),
    "stray": ("a/1.png", "z.png", "b.png"),
    "empty class": ("a/1.png", "b/", "c/"),
    "parts": ("train/a/1.png", "val/a/1.png"),
    "other parts": ("Train/1.png", "dev/1.png"),
    "one part": ("train/a/1.png",),
    "nothing": ("notes.txt",),
}


def test_layouts_are_found_as_before(golden):
    found = {
        f"{name} {wrapped}": plain(
            outcome(lambda names=names, wrapped=wrapped: find_images(Store(*names), may_be_wrapped=wrapped))
        )
        for (name, names), wrapped in product(LAYOUTS.items(), (False, True))
    }
    golden("data/layouts", json.loads(json.dumps(found)))
