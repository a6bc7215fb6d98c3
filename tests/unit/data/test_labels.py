"""Labels in the usual forms: files of many formats, class maps, offsets, number-named folders."""

import json
import string
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.data.label_files import LabelFile, read_class_map
from emca_deploy.data.labels import check_classes, class_warnings, label_images
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import Labelling

NAMES = ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000003.JPEG")
SYNSETS = ("n02105855", "n01440764", "n01440764")


def written(folder, content, name="labels.txt"):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def labels_of(path, names=NAMES, **options):
    return label_images(names, (), (), Labelling(labels=path, **options))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("val.txt", "{0}.JPEG 7\n{1}.JPEG 0\n{2}.JPEG 0\n"),
        ("val.txt", "\ufeff{0}.JPEG  7\r\n{1}.JPEG\t0\r\n\r\n{2}.JPEG 0"),
        ("val.txt", "./val/{0}.JPEG 7\nval/{1}.JPEG 0\nval/{2}.JPEG 0\n"),
        ("val.txt", "val\\{0}.JPEG 7\nval\\{1}.JPEG 0\nval\\{2}.JPEG 0\n"),
        ("val.txt", "{0}.JPEG\t7\n{1}.JPEG\t0\n{2}.JPEG\t0\n"),
        ("val.csv", "{0}.JPEG,7\n{1}.JPEG,0\n{2}.JPEG,0\n"),
        ("val.csv", "filename,label\n{0}.JPEG,7\n{1}.JPEG,0\n{2}.JPEG,0\n"),
        ("val.csv", '"","image_id","split","class"\n1,"{0}",a,7\n2,"{1}",a,0\n3,"{2}",a,0\n'),
        ("val.csv", "Bild,Klasse\n{0}.JPEG,7\n{1}.JPEG,0\n{2}.JPEG,0\n"),
        ("val.csv", "id,number\n{0},7\n{1},0\n{2},0\n"),
        ("val.csv", "number,label\n{0},7\n{1},0\n{2},0\n"),
        ("val.txt", "{0}.png 7\n{1}.png 0\n{2}.png 0\n"),
        ("val.txt", "{0} 7\n{1} 0\n{2} 0\nanother 3\n"),
    ],
)
def test_every_form_of_a_label_file(tmp_path, name, content):
    stems = [name_of.removesuffix(".JPEG") for name_of in NAMES]
    found = labels_of(written(tmp_path, content.format(*stems), name))
    assert found.labels.tolist() == [7, 0, 0]
    assert found.source == "file"
    assert found.said


def test_synsets_are_sorted_as_imagenets_classes_are(tmp_path):
    lines = [f"{name} {synset}" for name, synset in zip(NAMES, SYNSETS, strict=True)]
    found = labels_of(written(tmp_path, "\n".join(lines)))
    assert found.labels.tolist() == [1, 0, 0]
    assert found.classes == ("n01440764", "n02105855")
    assert not found.said
    boxes = "ImageId,PredictionString\n" + "".join(
        f"{name.removesuffix('.JPEG')},{synset} 1 2 3 4 {synset} 5 6 7 8 \n" for name, synset in zip(NAMES, SYNSETS, strict=True)
    )
    assert labels_of(written(tmp_path, boxes, "LOC_val_solution.csv")).labels.tolist() == [1, 0, 0]
    place = written(tmp_path, json.dumps({"0": ["n02105855", "sheepdog"], "5": ["n01440764", "tench"]}), "map.json")
    mapped = labels_of(written(tmp_path, "\n".join(lines)), class_map=place)
    assert mapped.labels.tolist() == [0, 5, 5]
    assert mapped.classes[5] == "n01440764"
    assert mapped.said


@pytest.mark.parametrize("heading", ["id,breed", "whatever,breed", "which what", "filename,label"])
def test_a_heading_is_no_class(tmp_path, heading):
    separator = "," if "," in heading else " "
    lines = [heading, *(f"{name.removesuffix('.JPEG')}{separator}{breed}" for name, breed in zip(NAMES, "zxx", strict=True))]
    found = labels_of(written(tmp_path, "\n".join([*lines, f"unseen{separator}y"]), "labels.csv"))
    assert (found.labels.tolist(), found.classes) == ([2, 0, 0], ("x", "y", "z"))


def test_the_whole_name_goes_before_a_shorter_one(tmp_path):
    path = written(tmp_path, "a/x.png 1\nx.png 2\nb/x.png 3\nb/y.png 4\n")
    assert labels_of(path, ("x.png", "a/x.png", "b/x.png", "y.jpg")).labels.tolist() == [2, 1, 3, 4]
    with pytest.raises(DataError):
        labels_of(written(tmp_path, "a/x.png 1\nb/x.png 3\n"), ("x.png",))


names = st.text(string.ascii_letters + string.digits + "_-. ", min_size=1, max_size=12).filter(lambda text: text.strip(". "))
tables = st.dictionaries(names.map(lambda text: text.strip() + ".png"), st.integers(0, 9999), min_size=1, max_size=20)


@given(tables, st.sampled_from((" ", "\t", ",")), st.integers(-3, 3))
def test_random_tables_come_back_whatever_the_separator(tmp_path_factory, table, separator, offset):
    path = tmp_path_factory.mktemp("t") / ("l.csv" if separator == "," else "l.txt")
    path.write_text("".join(f"{name}{separator}{label}\n" for name, label in table.items()))
    images = sorted(table)
    wanted = [table[name] + offset for name in images]
    if min(wanted) < 0:
        with pytest.raises(DataError):
            labels_of(path, images, offset=offset)
    else:
        assert labels_of(path, images, offset=offset).labels.tolist() == wanted


@pytest.mark.parametrize(
    "content",
    [
        "", "\n\n", "only_names.png\n", "{0} 1\n", "{0} 1\n{1} 2\n{2} 3\n{0} 4\n", "a/x.png 1\nb/x.png 2\nx 1\n",
        "{0} -1\n{1} 0\n{2} 0\n", "{0} 99999999\n{1} 0\n{2} 0\n", "490\n361\n171\n", "{0},1\n{1}\n{2},3\n",
    ],
)  # fmt: skip
def test_a_label_file_that_does_not_do_is_a_data_error(tmp_path, content):
    with pytest.raises(DataError):
        labels_of(written(tmp_path, content.format(*NAMES)))


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("f") / "x.csv"
    path.write_bytes(content)
    for read in (LabelFile, read_class_map):
        with suppress(DataError):
            read(path)


def test_what_is_not_there_or_too_large_is_a_data_error(tmp_path):
    with (tmp_path / "large.txt").open("wb") as stream:
        stream.truncate(1 << 40)
    for path in (tmp_path, tmp_path / "none.txt", tmp_path / "large.txt"):
        with pytest.raises(DataError):
            LabelFile(path)
        with pytest.raises(DataError):
            read_class_map(path)


MAP = {"tench": 2, "goldfish": 0, "shark": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.txt", "tench 2\ngoldfish 0\nshark 1\n"),
        ("m.txt", "2 tench\n0 goldfish\n1 shark\n"),
        ("m.txt", "goldfish\nshark\ntench\n"),
        ("m.csv", "tench,2\ngoldfish,0\nshark,1\n"),
        ("m.csv", "class,output\ntench,2\ngoldfish,0\nshark,1\n"),
        ("m.json", json.dumps(MAP)),
        ("m.json", json.dumps({str(output): name for name, output in MAP.items()})),
        ("m.json", json.dumps({str(output): [f"n{output}", name] for name, output in MAP.items()})),
        ("m.json", json.dumps(["goldfish", "shark", "tench"])),
        ("m.json", json.dumps({"id2label": {str(output): name for name, output in MAP.items()}, "model_type": "vit"})),
    ],
)
def test_every_form_of_a_class_map(tmp_path, name, content):
    found = read_class_map(written(tmp_path, content, name))
    assert {name_of: found[name_of] for name_of in MAP} == MAP


def test_synset_words_are_a_map_by_their_lines(tmp_path):
    found = read_class_map(written(tmp_path, "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"))
    assert (found["n01440764"], found["n01443537"]) == (0, 1)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[1]", '{"a": "b"}', '{"a": 1, "b": true}', "a 1\na 2\n", '{"a": -1}', "[[[[]]]]"]
)
def test_a_map_that_is_none_is_a_data_error(tmp_path, content):
    with pytest.raises(DataError):
        read_class_map(written(tmp_path, content))


NUMBERS = tuple(str(number) for number in range(12))


def folders(labelling, classes=NUMBERS):
    return label_images([f"{name}/x.png" for name in classes], classes, range(len(classes)), labelling)


def test_number_named_folders_leave_their_order_open_unless_it_is_said():
    found = folders(Labelling())
    assert found.labels.tolist() == list(range(12))
    assert found.as_strings.labels.tolist() == [sorted(NUMBERS).index(name) for name in NUMBERS]
    assert found.as_strings.classes == tuple(sorted(NUMBERS))
    for order, first in (("number", ("0", "1", "2")), ("string", ("0", "1", "10"))):
        said = folders(Labelling(order=order))
        assert (said.as_strings, said.classes[:3]) == (None, first)
    assert folders(Labelling(), NUMBERS[:10]).as_strings is None
    assert folders(Labelling(), tuple(f"{number:02}" for number in range(12))).as_strings is None


def test_folders_can_be_named_after_outputs():
    found = folders(Labelling(order="index"), ("3", "17", "950"))
    assert found.labels.tolist() == [3, 17, 950]
    assert found.classes[17] == "17"
    with pytest.raises(DataError):
        folders(Labelling(order="index"), ("3", "cat"))


def test_an_offset_moves_labels_and_names_in_every_order():
    found = folders(Labelling(offset=1))
    assert found.labels.tolist() == list(range(1, 13))
    assert found.classes[1:4] == ("0", "1", "2")
    assert found.as_strings.labels.min() == 1
    with pytest.raises(DataError):
        folders(Labelling(offset=-1))


def test_a_class_map_must_have_every_folder(tmp_path):
    place = written(tmp_path, "cat 5\ndog 2\n")
    found = folders(Labelling(class_map=place), ("cat", "dog"))
    assert found.labels.tolist() == [5, 2]
    assert found.classes == ("0", "1", "dog", "3", "4", "cat")
    with pytest.raises(DataError, match="emu"):
        folders(Labelling(class_map=place), ("cat", "dog", "emu"))


@pytest.mark.parametrize("outputs", [12, 13, 14, 1000])
def test_fewer_folders_than_outputs_are_said_with_both_numbers(outputs):
    warnings = class_warnings(folders(Labelling(), tuple("abcdefghijkl")), outputs)
    assert len(warnings) == (outputs != 12)
    for warning in warnings:
        assert "12 class folders" in warning
        assert f"{outputs} outputs" in warning
        assert ("--label-offset 1" in warning) == (outputs == 13)
        assert ("--class-map" in warning) == (outputs > 13)
    assert class_warnings(folders(Labelling(offset=1)), 13) == ()


def test_labels_that_are_no_outputs_are_refused_and_those_that_count_from_one_get_the_offset():
    with pytest.raises(DataError) as caught:
        check_classes("m", np.arange(1, 11), 10)
    assert "--label-offset -1" in caught.value.remedy
    with pytest.raises(DataError):
        check_classes("m", np.arange(12), 10)
    check_classes("m", np.arange(10), 10)
