import copy
import json

import numpy as np
import pytest
from coco_scenes import scene_document, write_document
from refusals import refusing

from emca_deploy.data.coco import read_coco
from emca_deploy.data.coco_entries import RunLengths
from emca_deploy.errors import DataError

DOCUMENT = {
    "images": [
        {"id": 7, "file_name": "b.png", "height": 40, "width": 50},
        {"id": 2, "file_name": "a.png", "height": 30, "width": 20},
        {"id": 9, "file_name": "empty.png", "height": 10, "width": 10},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 44, "name": "bottle"}],
    "annotations": [
        {"id": 5, "image_id": 7, "category_id": 44, "bbox": [1, 2, 30, 20], "area": 400.5, "iscrowd": 0},
        {"id": 6, "image_id": 2, "category_id": 90, "bbox": [0, 0, 20, 30], "area": 600, "iscrowd": 1,
         "segmentation": {"size": [30, 20], "counts": [0, 600]}},
    ],
}  # fmt: skip


def changed(path, *where, value):
    document = copy.deepcopy(DOCUMENT)
    place = document
    for step in where[:-1]:
        place = place[step]
    if value is KeyError:
        del place[where[-1]]
    else:
        place[where[-1]] = value
    return write_document(path, document)


def test_images_and_categories_are_in_the_order_of_their_ids(tmp_path):
    found = read_coco(write_document(tmp_path, DOCUMENT))
    assert found.files == ("a.png", "b.png", "empty.png")
    assert found.sizes.tolist() == [[30, 20], [40, 50], [10, 10]]
    assert [(one.id, one.name) for one in found.categories] == [(1, "person"), (44, "bottle"), (90, "toothbrush")]
    assert found.image.tolist() == [1, 0]
    assert found.category.tolist() == [1, 2]
    assert found.boxes.tolist() == [[1, 2, 30, 20], [0, 0, 20, 30]]
    assert found.areas.tolist() == [400.5, 600]
    assert found.crowd.tolist() == [False, True]
    assert found.warnings == ()
    assert len(found) == 3


def test_masks_of_all_kinds(tmp_path):
    from pycocotools import mask as masks

    found = read_coco(write_document(tmp_path, scene_document(20)))
    kinds = {type(mask) for mask in found.masks}
    assert kinds == {list, RunLengths}
    found.check_masks()
    index = next(index for index, mask in enumerate(found.masks) if isinstance(mask, RunLengths))
    size = found.sizes[found.image[index]].tolist()
    x, y, w, h = found.boxes[index]
    shown = masks.decode({"size": size, "counts": found.masks[index].text})
    assert shown.sum() == (round(x + w) - round(x)) * (round(y + h) - round(y))


def test_objects_without_a_mask(tmp_path):
    found = read_coco(write_document(tmp_path, DOCUMENT))
    assert found.has_masks
    with refusing(DataError, "annotations.json", "annotations[0]"):
        found.check_masks()


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        (("images",), KeyError, "images"),
        (("images",), [], "images"),
        (("categories",), [], "categories"),
        (("categories",), KeyError, "categories"),
        (("annotations",), {}, "annotations"),
        (("images", 1), "a.png", "images[1]"),
        (("images", 1, "id"), 7, "images[1]"),
        (("images", 1, "id"), 7.5, "images[1]"),
        (("images", 1, "id"), True, "images[1]"),
        (("images", 1, "id"), 10**400, "images[1]"),
        (("images", 0, "file_name"), KeyError, "images[0]"),
        (("images", 0, "file_name"), "", "images[0]"),
        (("images", 0, "file_name"), "a.png", "images[1]"),
        (("images", 0, "height"), KeyError, "images[0]"),
        (("images", 0, "height"), 0, "images[0]"),
        (("images", 0, "width"), 10**9, "images[0]"),
        (("categories", 2, "id"), 1, "categories[2]"),
        (("categories", 2, "name"), 3, "categories[2]"),
        (("annotations", 1), None, "annotations[1]"),
        (("annotations", 0, "image_id"), KeyError, "annotations[0]"),
        (("annotations", 0, "category_id"), KeyError, "annotations[0]"),
        (("annotations", 0, "category_id"), "44", "annotations[0]"),
        (("annotations", 0, "bbox"), KeyError, "annotations[0]"),
        (("annotations", 0, "bbox"), [1, 2, 3], "annotations[0]"),
        (("annotations", 0, "bbox"), [1, 2, 3, float("nan")], "annotations[0]"),
        (("annotations", 0, "bbox"), [1, 2, 3, float("inf")], "annotations[0]"),
        (("annotations", 0, "area"), "400", "annotations[0]"),
        (("annotations", 0, "iscrowd"), 2, "annotations[0]"),
        (("annotations", 0, "iscrowd"), [], "annotations[0]"),
        (("annotations", 0, "segmentation"), [[1, 2, 3, 4]], "annotations[0]"),
        (("annotations", 0, "segmentation"), [[1, 2, 3, 4, 5, 6, 7]], "annotations[0]"),
        (("annotations", 0, "segmentation"), [[1, 2, 3, 4, 5, "6"]], "annotations[0]"),
        (("annotations", 0, "segmentation"), "mask", "annotations[0]"),
        (("annotations", 1, "segmentation", "size"), [20, 30], "annotations[1]"),
        (("annotations", 1, "segmentation", "counts"), [0, 599], "annotations[1]"),
        (("annotations", 1, "segmentation", "counts"), [-1, 601], "annotations[1]"),
        (("annotations", 1, "segmentation", "counts"), "\u00e9", "annotations[1]"),
        (("annotations", 1, "segmentation", "counts"), "PPPPPPPPPPPP", "annotations[1]"),
        (("annotations", 1, "segmentation", "counts"), "0", "annotations[1]"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, where, value, named):
    with refusing(DataError, "annotations.json", named):
        read_coco(changed(tmp_path, *where, value=value))


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\x00", "[" * 100_000, '{"images": 3}'])
def test_a_file_that_is_not_annotations(tmp_path, text):
    path = tmp_path / "annotations.json"
    path.write_text(text)
    with refusing(DataError, "annotations.json"):
        read_coco(path)


def test_a_file_that_is_missing_or_too_large(tmp_path):
    with refusing(DataError, "no.json"):
        read_coco(tmp_path / "no.json")
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(2 << 30)
    with refusing(DataError, "large.json"):
        read_coco(large)


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("image_id", 1, False),
        ("category_id", 2, False),
        ("bbox", [1, 2, 0, 5], True),
        ("bbox", [1, 2, -3, 5], True),
        ("bbox", [40, 2, 30, 20], True),
        ("bbox", [-5, 2, 30, 20], True),
        ("area", None, True),
        ("ignore", 1, True),
    ],
)
def test_faults_that_coco_tools_accept_are_counted(tmp_path, key, value, kept):
    found = read_coco(changed(tmp_path, "annotations", 0, key, value=value))
    assert len(found.image) == 1 + kept
    (warning,) = found.warnings
    assert "annotations[0]" in warning
    assert "1 object " in warning
    if key == "area":
        assert found.areas[0] == 600


def test_no_annotation_at_all_is_accepted(tmp_path):
    found = read_coco(changed(tmp_path, "annotations", value=[]))
    assert found.boxes.shape == (0, 4)
    assert not found.has_masks


def test_a_fault_of_many_objects_is_one_line(tmp_path):
    document = scene_document(40)
    for one in document["annotations"]:
        del one["area"]
    (warning,) = read_coco(write_document(tmp_path, document)).warnings
    assert f"{len(document['annotations']):,} objects" in warning


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text("\ufeff" + json.dumps(DOCUMENT), encoding="utf-8")
    assert np.array_equal(read_coco(path).image, [1, 0])
