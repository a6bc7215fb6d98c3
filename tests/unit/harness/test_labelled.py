"""Labels compared with networks that are perfect in one order of classes, with a background class, or on a subset."""

import numpy as np
import pytest
from PIL import Image

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.image_checks import image_digests
from emca_deploy.data.sources import open_source
from emca_deploy.errors import DataError
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.labelled import LabelledImages
from emca_deploy.preprocessing import Labelling
from emca_deploy.tasks.flips import ImageNames

PLAIN = Preprocessing(4, 4)


def folders(path, names, each=3, seed=0):
    """Different pictures of each class."""
    random = np.random.default_rng(seed)
    for name in names:
        (path / name).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).save(path / name / f"{index}.png")
    return path


def result_of(labels, outputs, wrong=0, indices=None, seed=0):
    """Logits of a network that is right on all images except `wrong` of them."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((len(labels), outputs)).astype(np.float32)
    said = np.array(labels)
    said[:wrong] = (said[:wrong] + 1) % outputs
    logits[np.arange(len(labels)), said] += 20
    return LogitsResult(logits, None, None, PLAIN, ImageNames((), None if indices is None else tuple(indices)))


def top1(result):
    return 100 * float((result.logits.argmax(axis=1) == result.labels).mean())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("trained", ["number", "string"])
def test_number_named_folders_come_into_the_order_in_which_the_network_is_right(tmp_path, trained, seed):
    count = int(np.random.default_rng(seed).integers(11, 40))
    names = [str(number) for number in range(count)]
    source = open_source(folders(tmp_path, names), PLAIN)
    truth = source.labelled if trained == "number" else source.labelled.as_strings
    images = LabelledImages(source)
    images.check("m", count)
    settled = images.settle(result_of(truth.labels, count, wrong=3, seed=seed))
    assert images.class_order == trained
    assert top1(settled) == pytest.approx(100 * (1 - 3 / len(source)))
    assert [settled.names.classes[label] for label in settled.labels] == [
        source.item_name(index).split("/")[0] for index in range(len(source))
    ]
    assert len(images.warnings) == 1
    again = images.settle(result_of(np.zeros(len(source), int), count))
    np.testing.assert_array_equal(again.labels, settled.labels)  # decided once for all candidates
    assert len(images.warnings) == 1


def test_the_references_logits_decide_where_there_are_some(tmp_path):
    source = open_source(folders(tmp_path, [str(number) for number in range(12)]), PLAIN)
    images = LabelledImages(source)
    ruined = result_of(source.labels, 12)
    reference = result_of(source.labelled.as_strings.labels, 12)
    images.settle(ruined, reference.logits)
    assert images.class_order == "string"
    assert "(0, 1, 10, 11, ...)" in images.warnings[0]


def test_a_tie_goes_to_the_order_of_numbers_and_a_class_beside_the_images_is_not_named(tmp_path):
    source = open_source(folders(tmp_path, [str(number) for number in range(12)]), PLAIN, Labelling(offset=1))
    images = LabelledImages(source)
    images.settle(result_of(np.zeros(len(source), int), 13))
    assert images.class_order == "number"
    assert "(0, 1, 2, 3, ...)" in images.warnings[0]


@pytest.mark.parametrize("order", ["number", "string"])
def test_an_order_that_is_said_is_taken_whatever_the_logits(tmp_path, order):
    source = open_source(folders(tmp_path, [str(number) for number in range(12)]), PLAIN, Labelling(order=order))
    images = LabelledImages(source)
    other = "string" if order == "number" else "number"
    wrong = open_source(tmp_path, PLAIN, Labelling(order=other)).labels
    settled = images.settle(result_of(wrong, 12))
    np.testing.assert_array_equal(settled.labels, source.labels)
    assert (images.class_order, images.warnings) == (None, [])


def test_labels_of_a_part_of_the_images(tmp_path):
    source = open_source(folders(tmp_path, "abc"), PLAIN)
    settled = LabelledImages(source).settle(result_of([0, 1, 2], 3, indices=(0, 4, 8)))
    assert (settled.labels.tolist(), top1(settled)) == ([0, 1, 2], 100)


@pytest.mark.parametrize(("outputs", "warned", "refused"), [(4, 0, False), (5, 1, False), (9, 1, False), (3, 0, True)])
def test_numbers_of_classes_that_differ_are_said_or_refused(tmp_path, outputs, warned, refused):
    images = LabelledImages(open_source(folders(tmp_path, "abcd"), PLAIN))
    if refused:
        with pytest.raises(DataError):
            images.check("m", outputs)
        return
    images.check("m", outputs)
    images.check("m", outputs)
    assert len(images.warnings) == warned


def test_the_remedy_for_a_background_class_makes_it_right(tmp_path):
    path = folders(tmp_path, "abcd")
    labels = open_source(path, PLAIN).labels
    network = result_of(labels + 1, 5)
    assert top1(LabelledImages(open_source(path, PLAIN)).settle(network)) == 0
    shifted = LabelledImages(open_source(path, PLAIN, Labelling(offset=1)))
    shifted.check("m", 5)
    assert (top1(shifted.settle(network)), shifted.warnings) == (100, [])


def test_images_calibrated_with_are_counted_among_those_that_were_run(tmp_path):
    source = open_source(folders(tmp_path, "ab", each=5), PLAIN)
    digests = image_digests(source, range(4))
    for indices, expected in ((None, 1), ((0, 1, 9), 1), ((8, 9), 0)):
        images = LabelledImages(source)
        count = 10 if indices is None else len(indices)
        images.check_overlap(digests, result_of([0] * count, 2, indices=indices))
        assert len(images.warnings) == expected
